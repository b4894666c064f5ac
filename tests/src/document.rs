//! The pages that users read, and the snippets in them.
//!
//! **Lives here:** finding a page's blocks of code, and putting a test's own addresses into them.
//! **Called by:** tests that run what a page says.
//! **Must not know:** what a snippet should do.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::gateway::Gateway;

/// Returns the root of the checkout.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the root").to_owned()
}

/// One page.
#[derive(Debug)]
pub struct Document {
    /// Its name, from the root.
    name: String,
    /// All of it.
    pub text: String,
}

impl Document {
    /// Reads a page, by its name from the root.
    ///
    /// # Panics
    /// When there is no such page.
    #[must_use]
    pub fn read(name: &str) -> Self {
        let text = std::fs::read_to_string(root().join(name));
        Self { name: name.to_owned(), text: text.unwrap_or_else(|fault| panic!("{name}: {fault}")) }
    }

    /// Returns its blocks of one language, in order.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn blocks(&self, language: &str) -> Vec<String> {
        let fence = format!("```{language}\n");
        let blocks = self.text.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next());
        let blocks: Vec<_> = blocks.map(str::to_owned).collect();
        assert!(!blocks.is_empty(), "{} has no block of {language}", self.name);
        blocks
    }

    /// Returns what it links to in this repository, from its root.
    #[must_use]
    pub fn links(&self) -> Vec<PathBuf> {
        let folder = Path::new(&self.name).parent().unwrap_or(Path::new(""));
        let links = self.text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let files = links.filter(|link| !link.starts_with("http")).filter_map(|link| link.split('#').next());
        files.map(|file| folder.join(file)).collect()
    }

    /// Returns the only block of a language that has `part` in it.
    ///
    /// # Panics
    /// When there is none, or more.
    #[must_use]
    pub fn block(&self, language: &str, part: &str) -> String {
        let mut blocks = self.blocks(language);
        blocks.retain(|block| block.contains(part));
        assert_eq!(blocks.len(), 1, "{} has one block of {language} with `{part}`", self.name);
        blocks.remove(0)
    }
}

/// Puts the addresses of a running gateway in the place of the usual ones.
#[must_use]
pub fn localised(text: &str, gateway: &Gateway) -> String {
    text.replace("127.0.0.1:8000", &gateway.public.to_string())
        .replace("127.0.0.1:8001", &gateway.api.to_string())
}

/// Runs a command in the root of the checkout, and returns what it printed.
///
/// # Panics
/// When it fails.
pub fn output(command: &mut Command) -> String {
    let program = format!("{command:?}");
    let output = command.current_dir(root()).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|fault| panic!("{program}: {fault}; run `make tools`"));
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a script of Node.js that has a `WebSocket` as browsers have, and waits for it to say `ready` on its standard
/// error before it returns.
///
/// # Panics
/// When it does not.
#[must_use]
pub fn javascript(script: &str) -> std::process::Child {
    let undici = root().join("tests/js/node_modules/undici");
    assert!(undici.exists(), "{} is missing: run `make tools`", undici.display());
    let script = format!("globalThis.WebSocket = require({undici:?}).WebSocket;\n{script}");
    let mut node = Command::new("node")
        .args(["-e", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Node.js is installed by `make tools`");
    let mut ready = [0; 5];
    let read = std::io::Read::read_exact(node.stderr.as_mut().expect("it is piped"), &mut ready);
    assert!(
        read.is_ok() && &ready == b"ready",
        "the script is not ready: {}",
        String::from_utf8_lossy(&ready)
    );
    node
}
