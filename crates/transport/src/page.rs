//! The page for trying it, as a browser asks for it.
//!
//! **Lives here:** which file has which path, and the headers that keep everything else out of the page.
//! **Called by:** `door`, for every request that is no handshake; `gateway` makes one for development mode.
//! **Must not know:** what the files say and do.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Response,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
        X_CONTENT_TYPE_OPTIONS,
    },
};

/// Where the page finds what its files cannot know.
const HERE: &str = "/page/here.json";

/// One file of the page.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// Its path on the public listener.
    pub path: &'static str,
    /// Its media type.
    pub media: &'static str,
    /// What is in it.
    pub bytes: &'static [u8],
}

/// What the page is told about the process that serves it.
#[derive(Clone, Debug)]
pub struct Here {
    /// Where publishers connect.
    pub api: SocketAddr,
    /// The API key of development mode.
    pub key: &'static str,
    /// The program, as it was called.
    pub program: String,
    /// The version of the program.
    pub version: &'static str,
    /// The kind of broker, as the configuration spells it.
    pub broker: &'static str,
}

/// The files, and the rules that browsers hold them to.
#[derive(Clone, Debug)]
pub struct Page {
    assets: &'static [Asset],
    here: Bytes,
    policy: HeaderValue,
}

impl Page {
    /// Makes the page of one process.
    #[must_use]
    pub fn new(assets: &'static [Asset], here: Here) -> Self {
        let Here { api, key, program, version, broker } = here;
        let told = serde_json::json!({
            "api": format!("http://{api}"), "key": key, "program": program, "version": version, "broker": broker,
        });
        // A policy cannot name an address of IPv6 (CSP 3, `host-part`).
        let publishing =
            if api.is_ipv4() { format!("http://{api}") } else { format!("http://*:{}", api.port()) };
        let policy = format!(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {publishing}; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
        );
        // An address is plain ASCII; if it ever were not, a page that may nothing is the safe one.
        let policy = HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"));
        Self { assets, here: Bytes::from(told.to_string()), policy }
    }

    /// Returns the answer to a GET of `path`, when it is one of the page's.
    pub(crate) fn get(&self, path: &str) -> Option<Response<Full<Bytes>>> {
        let (media, body) = if path == HERE {
            ("application/json", self.here.clone())
        } else {
            let asset = self.assets.iter().find(|asset| asset.path == path)?;
            (asset.media, Bytes::from_static(asset.bytes))
        };
        let mut response = Response::new(Full::new(body));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        // The next process on this port may be another version.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(api: &str) -> String {
        let program = "carillon".to_owned();
        let here = Here { api: api.parse().unwrap(), key: "dev", program, version: "1", broker: "memory" };
        let response = Page::new(&[], here).get(HERE).unwrap();
        response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_page_may_speak_to_its_own_api_only() {
        assert!(policy("127.0.0.1:8001").contains("connect-src 'self' http://127.0.0.1:8001;"));
        assert!(policy("[::1]:8001").contains("connect-src 'self' http://*:8001;"));
    }
}
