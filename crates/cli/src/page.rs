//! The page for trying it.
//!
//! **Lives here:** the files in `page/`, in the binary. They are served as they are: plain HTML, CSS and JavaScript
//! modules, which need no build and load nothing from elsewhere.
//! **Called by:** `dev`.
//! **Must not know:** how they are served.

use carillon_gateway::Asset;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Every file, with the path that it is served at.
pub(crate) const PAGE: &[Asset] = &[
    Asset { path: "/", media: HTML, bytes: include_bytes!("page/index.html") },
    Asset { path: "/page/style.css", media: CSS, bytes: include_bytes!("page/style.css") },
    Asset { path: "/page/icon.svg", media: SVG, bytes: include_bytes!("page/icon.svg") },
    Asset { path: "/page/app.js", media: SCRIPT, bytes: include_bytes!("page/app.js") },
    Asset { path: "/page/commands.js", media: SCRIPT, bytes: include_bytes!("page/commands.js") },
    Asset { path: "/page/connection.js", media: SCRIPT, bytes: include_bytes!("page/connection.js") },
    Asset { path: "/page/feed.js", media: SCRIPT, bytes: include_bytes!("page/feed.js") },
    Asset { path: "/page/publish.js", media: SCRIPT, bytes: include_bytes!("page/publish.js") },
    Asset { path: "/page/words.js", media: SCRIPT, bytes: include_bytes!("page/words.js") },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What a newcomer waits for, and what every binary carries.
    const MAX_BYTES: usize = 150 << 10;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = PAGE.iter().map(|asset| asset.bytes.len()).sum();
        assert!(bytes < MAX_BYTES, "{bytes} bytes");
    }
}
