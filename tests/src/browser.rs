//! A real browser: Chromium, driven through playwright-core.
//!
//! **Lives here:** starting `tests/js/browser.js`, opening pages, doing and asking things on them.
//! **Called by:** tests of what the gateway shows to people.
//! **Must not know:** what the pages are.

use std::{
    collections::BTreeMap,
    env,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
};

use serde_json::{Value, json};

use crate::gateway::{Log, PATIENCE};

/// What Chromium is called.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// One browser for all tests of a file. It ends when this process does, however that is: its input ends then.
#[derive(Debug)]
struct Browser {
    _child: Child,
    input: Mutex<ChildStdin>,
    waiting: Arc<Mutex<Waiting>>,
    complaints: Arc<Log>,
    next: AtomicU64,
}

/// Who waits for the outcome of what; nobody any more when the browser is gone.
type Waiting = Option<BTreeMap<u64, Sender<Value>>>;

fn browser() -> &'static Browser {
    static BROWSER: OnceLock<Browser> = OnceLock::new();
    BROWSER.get_or_init(Browser::start)
}

fn chromium() -> PathBuf {
    let places = env::var_os("PATH").unwrap_or_default();
    let places: Vec<_> = env::split_paths(&places).collect();
    let all = NAMES.iter().flat_map(|name| places.iter().map(move |place| place.join(name)));
    let found = all.into_iter().find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("Chromium is not installed: run `make tools`"))
}

impl Browser {
    fn start() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("js");
        let playwright = folder.join("node_modules/playwright-core");
        assert!(playwright.exists(), "{} is missing: run `make tools`", playwright.display());
        let mut child = Command::new("node")
            .arg(folder.join("browser.js"))
            .arg(chromium())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("Node.js is installed by `make tools`");
        let input = Mutex::new(child.stdin.take().expect("stdin is piped"));
        let output = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let (waiting, complaints) = (Arc::new(Mutex::new(Some(BTreeMap::new()))), Arc::<Log>::default());
        let (answered, complained) = (Arc::clone(&waiting), Arc::clone(&complaints));
        std::thread::spawn(move || complained.follow(stderr));
        std::thread::spawn(move || answer(output, &answered));
        Self { _child: child, input, waiting, complaints, next: AtomicU64::new(0) }
    }

    /// Does one thing and returns its outcome, or what went wrong.
    fn ask(&self, mut action: Value) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        action["id"] = id.into();
        let (sender, outcome) = channel();
        let gone = || format!("the browser is gone: {}", self.complaints.text());
        self.waiting.lock().ok().as_mut().and_then(|all| all.as_mut()).ok_or_else(gone)?.insert(id, sender);
        let mut input = self.input.lock().map_err(|_poisoned| gone())?;
        writeln!(input, "{action}").map_err(|_broken| gone())?;
        drop(input);
        // The browser's own patience ends first, and says more.
        let outcome = outcome.recv_timeout(PATIENCE * 2).map_err(|_e| gone())?;
        match outcome["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(outcome["value"].clone()),
        }
    }
}

fn answer(output: impl std::io::BufRead, waiting: &Mutex<Waiting>) {
    for line in output.lines().map_while(Result::ok) {
        let outcome: Value = serde_json::from_str(&line).expect("the browser speaks JSON");
        let asked = outcome["id"].as_u64().and_then(|id| waiting.lock().ok()?.as_mut()?.remove(&id));
        if let Some(sender) = asked {
            let _gave_up = sender.send(outcome).is_err();
        }
    }
    *waiting.lock().expect("nobody panics with the lock") = None;
}

/// One page in a profile of its own, closed when it is dropped. Everything panics with what the page shows when it
/// cannot be done in [`PATIENCE`].
#[derive(Debug)]
pub struct Page {
    number: Value,
}

impl Page {
    /// Opens a page.
    #[must_use]
    pub fn open(url: &str) -> Self {
        Self::open_with(url, &json!({}))
    }

    /// Opens a page with options of Playwright's `newContext`.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[must_use]
    pub fn open_with(url: &str, options: &Value) -> Self {
        let opened = browser().ask(json!({"action": "open", "url": url, "options": options}));
        Self { number: opened.unwrap_or_else(|fault| panic!("{url}: {fault}")) }
    }

    fn ask(&self, mut action: Value) -> Value {
        action["page"] = self.number.clone();
        browser().ask(action.clone()).unwrap_or_else(|fault| {
            let code = "document.body.innerText";
            let shown = browser().ask(json!({"action": "evaluate", "page": self.number, "code": code}));
            let complaints = browser().ask(json!({"action": "complaints", "page": self.number}));
            panic!("{action}: {fault}\n{shown:?}\n{complaints:?}")
        })
    }

    fn element(&self, selector: &str, method: &str, arguments: &[&str]) -> Value {
        self.ask(json!({"action": "element", "selector": selector, "method": method, "args": arguments}))
    }

    /// Clicks.
    pub fn click(&self, selector: &str) {
        let _null = self.element(selector, "click", &[]);
    }

    /// Writes into a field.
    pub fn fill(&self, selector: &str, text: &str) {
        let _null = self.element(selector, "fill", &[text]);
    }

    /// Returns the text of an element as it is in the document.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[must_use]
    pub fn text(&self, selector: &str) -> String {
        self.element(selector, "textContent", &[]).as_str().expect("an element has text").to_owned()
    }

    /// Waits until an element shows a text; breaks of lines and runs of spaces count as one space.
    pub fn until(&self, selector: &str, text: &str) {
        let _null = self.ask(json!({"action": "until", "selector": selector, "text": text}));
    }

    /// Presses a key, such as `Tab` or `Enter`.
    pub fn press(&self, key: &str) {
        let _null = self.ask(json!({"action": "press", "key": key}));
    }

    /// Returns the value of an expression of JavaScript.
    #[must_use]
    pub fn evaluate(&self, code: &str) -> Value {
        self.ask(json!({"action": "evaluate", "code": code}))
    }

    /// Returns the warnings and errors of the console, faults of scripts, and dialogs.
    ///
    /// # Panics
    /// When the browser does not say.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let complaints = self.ask(json!({"action": "complaints"}));
        serde_json::from_value(complaints).expect("complaints are texts")
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _browser_is_gone = browser().ask(json!({"action": "close", "page": self.number})).is_err();
    }
}
