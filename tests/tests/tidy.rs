//! The rules of the house that no compiler checks: names, layers, sizes, headers, words.
//!
//! **Lives here:** one test a rule. Each reports all its faults at once, and each fault says what to do.
//! **Called by:** `cargo test -p carillon-tests --test tidy`; needs `git` and no network.
//! **Must not know:** how anything works.

use std::{collections::BTreeSet, error::Error, fmt, fs, path::Path, process::Command};

use cargo_metadata::{MetadataCommand, Package};

/// The layer of each crate. An arrow points to a lower layer, or stands in [`ARROWS`].
const LAYERS: &[(&str, u8)] = &[
    ("model", 0),
    ("tasks", 0),
    ("telemetry", 0),
    ("session", 1),
    ("hub", 1),
    ("presence", 1),
    ("auth", 1),
    ("dialect-*", 2),
    ("broker", 3),
    ("broker-nats", 3),
    ("backend", 3),
    ("node", 4),
    ("transport", 5),
    ("api", 5),
    ("console", 5),
    ("config", 6),
    ("gateway", 6),
    ("cli", 7),
];

/// The arrows within one layer: from, to, why.
const ARROWS: &[(&str, &str, &str)] = &[
    ("backend", "broker", "what it tells waits in the broker's work queue"),
    ("broker-nats", "broker", "implements its trait and passes its conformance suite"),
    ("gateway", "config", "is assembled from the typed parts that config makes"),
    ("telemetry", "model", "labels are made from the model's names"),
    ("telemetry", "tasks", "its upkeep ends when the process does"),
];

/// Names that say nothing. Code without a name belongs to its caller.
const BANNED: &[&str] =
    &["core", "common", "util", "utils", "helper", "helpers", "misc", "manager", "service", "impl", "base"];

/// Most lines of code in a file. The aim is 400.
const CODE_LINES_MAX: usize = 600;

/// What every module says about itself, in this order.
const ANSWERS: [&str; 3] = ["**Lives here:**", "**Called by:**", "**Must not know:**"];

/// Endings of the files that people write code in.
const CODE: &[&str] = &["rs", "php", "proto", "sh", "py", "js", "mjs", "ts"];

/// What to put right. Shown as plain text, without a backtrace: the place is in the tree, not in this file.
struct Report(String);

type Result<T> = std::result::Result<T, Report>;

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: Error> From<E> for Report {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Fails with all faults at once.
fn report(faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Report(format!("{} to put right:\n  {}\n", faults.len(), faults.join("\n  "))))
}

/// A file that is tracked, or that would be tracked by `git add .`.
struct File {
    /// Its path from the root of the repository.
    path: String,
    text: String,
}

impl File {
    fn ending(&self) -> &str {
        Path::new(&self.path).extension().and_then(|ending| ending.to_str()).unwrap_or_default()
    }

    fn is_code(&self) -> bool {
        CODE.contains(&self.ending())
    }

    /// Lines with their numbers, as people count them.
    fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package tests is a folder of the workspace")
}

fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).current_dir(root()).output()?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Report(format!("`{program} {}` failed: {errors}", arguments.join(" "))));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns every text file of the repository.
fn tree() -> Result<Vec<File>> {
    let paths = run("git", &["ls-files", "-z", "--cached", "--others", "--exclude-standard"])?;
    let paths: BTreeSet<&str> = paths.split('\0').filter(|path| !path.is_empty()).collect();
    if !paths.contains("Cargo.toml") {
        return Err(Report("git does not list Cargo.toml: run the tests in a checkout".to_owned()));
    }
    // A path without a file was deleted and not yet committed; one that is not text holds no words.
    let read = |path: &str| {
        fs::read_to_string(root().join(path)).ok().map(|text| File { path: path.to_owned(), text })
    };
    Ok(paths.into_iter().filter_map(read).collect())
}

fn packages() -> Result<Vec<Package>> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml")).no_deps().other_options(["--offline".to_owned()]);
    Ok(command.exec()?.packages)
}

/// Returns the noun of a package that lives in `crates`.
fn noun(package: &Package) -> Option<&str> {
    let lives_in_crates = package.manifest_path.starts_with(root().join("crates"));
    lives_in_crates.then(|| package.name.trim_start_matches("carillon-"))
}

fn layer(noun: &str) -> Option<u8> {
    let covers = |name: &str| name.strip_suffix('*').map_or(name == noun, |prefix| noun.starts_with(prefix));
    LAYERS.iter().find(|(name, _)| covers(name)).map(|(_, layer)| *layer)
}

#[test]
fn arrows_between_crates_point_down() -> Result<()> {
    let packages = packages()?;
    let mut faults = Vec::new();
    for (package, from) in packages.iter().filter_map(|package| Some((package, noun(package)?))) {
        let Some(from_layer) = layer(from) else {
            faults.push(format!("crates/{from} has no layer: give it one in LAYERS of tests/tests/tidy.rs"));
            continue;
        };
        // Dependencies of tests and build scripts count: they, too, decide what can be built without what.
        for to in package.dependencies.iter().filter_map(|to| to.name.strip_prefix("carillon-")) {
            let listed = ARROWS.iter().any(|arrow| (arrow.0, arrow.1) == (from, to));
            if !listed && layer(to).is_none_or(|to_layer| to_layer >= from_layer) {
                faults.push(format!(
                    "crates/{from} (layer {from_layer}) depends on {to} (layer {}): move what it needs to a lower \
                     layer, or argue for the arrow in ARROWS of tests/tests/tidy.rs",
                    layer(to).map_or("none".to_owned(), |layer| layer.to_string()),
                ));
            }
        }
    }
    report(faults)
}

#[test]
fn no_crate_file_or_type_has_a_name_that_says_nothing() -> Result<()> {
    let advice = "name it after what it holds, or give the code to its caller";
    let mut faults = BTreeSet::new();
    for file in tree()?.iter().filter(|file| file.is_code() || file.path.ends_with("Cargo.toml")) {
        for part in file.path.split('/') {
            let stem = part.split('.').next().unwrap_or_default();
            if let Some(word) = stem.split(['-', '_']).find(|word| BANNED.contains(word)) {
                faults.insert(format!("{}: `{word}` in a name: {advice}", file.path));
            }
        }
        for (number, line) in file.lines().filter(|_| file.ending() == "rs") {
            if let Some(name) = declared_type(line).filter(|name| BANNED.contains(&last_word(name).as_str()))
            {
                faults.insert(format!("{}:{number}: the type `{name}`: {advice}", file.path));
            }
        }
    }
    report(faults.into_iter().collect())
}

/// Returns the name of the type that a line of Rust declares.
fn declared_type(line: &str) -> Option<&str> {
    let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty());
    let mut word = words.next()?;
    while matches!(word, "pub" | "crate" | "super" | "in" | "unsafe") {
        word = words.next()?;
    }
    matches!(word, "struct" | "enum" | "trait" | "type" | "union").then(|| words.next())?
}

/// Returns the last word of a CamelCase name, in small letters.
fn last_word(name: &str) -> String {
    name.rfind(char::is_uppercase).map_or(name, |start| &name[start..]).to_lowercase()
}

#[test]
fn no_file_is_too_long() -> Result<()> {
    let too_long = |file: &File| {
        let lines = code_lines(file);
        (lines > CODE_LINES_MAX).then(|| {
            let path = &file.path;
            format!("{path}: {lines} lines of code: split it by ideas to at most 400 ({CODE_LINES_MAX} is the limit)")
        })
    };
    report(tree()?.iter().filter(|file| file.is_code()).filter_map(too_long).collect())
}

/// Counts the lines that are neither blank nor a comment.
fn code_lines(file: &File) -> usize {
    let comments: &[&str] = match file.ending() {
        "sh" | "py" => &["#"],
        "php" | "js" | "mjs" | "ts" => &["//", "/*", "* ", "*/"],
        _ => &["//"],
    };
    let is_comment = |line: &str| line == "*" || comments.iter().any(|start| line.starts_with(start));
    file.lines().map(|(_, line)| line.trim()).filter(|line| !line.is_empty() && !is_comment(line)).count()
}

#[test]
fn every_module_opens_with_three_answers() -> Result<()> {
    let mut faults = Vec::new();
    for file in tree()?.iter().filter(|file| is_module(&file.path)) {
        let opening: String = file
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .flat_map(|line| [line.trim_start_matches("//!").trim(), "\n"])
            .collect();
        let places = ANSWERS.map(|answer| opening.find(&format!("\n{answer} ")));
        if opening.is_empty() || opening.starts_with('\n') {
            faults.push(format!("{}: open it with `//!` and one line that says what it is", file.path));
        } else if places.contains(&None) || !places.is_sorted() {
            faults.push(format!("{}: its `//!` lacks, in this order, {}", file.path, ANSWERS.join(" ")));
        }
    }
    report(faults)
}

/// Says whether `path` is a module of one of our crates and not a test.
fn is_module(path: &str) -> bool {
    let in_src = path.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/"));
    let is_test = path.ends_with("/tests.rs") || path.contains("/tests/");
    path.ends_with(".rs") && in_src.is_some_and(|(name, _)| !name.contains('/')) && !is_test
}

#[test]
fn every_crate_inherits_the_lints() -> Result<()> {
    let mut faults = Vec::new();
    for package in packages()? {
        let manifest: toml::Table = fs::read_to_string(&package.manifest_path)?.parse()?;
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")?.as_bool());
        if inherits != Some(true) {
            faults.push(format!("{}: add `[lints]` with `workspace = true`", package.manifest_path));
        }
    }
    report(faults)
}

#[test]
fn everything_in_a_proto_has_a_comment() -> Result<()> {
    let mut faults = Vec::new();
    for file in tree()?.iter().filter(|file| file.ending() == "proto") {
        let mut before = "";
        for (number, line) in file.lines().map(|(number, line)| (number, line.trim())) {
            let explained = before.starts_with("//") || before.ends_with("*/") || line.contains("//");
            if let Some(name) = declared_in_proto(line).filter(|_| !explained) {
                faults
                    .push(format!("{}:{number}: say above `{name}` what it means, with its unit", file.path));
            }
            before = line;
        }
    }
    report(faults)
}

/// Returns the name of the message, enum, service, rpc, oneof, field or value that a line declares.
fn declared_in_proto(line: &str) -> Option<&str> {
    let mut words = line.split([' ', '(', '{', ';']).filter(|word| !word.is_empty());
    match words.next()? {
        "message" | "enum" | "service" | "rpc" | "oneof" => words.next(),
        "option" | "syntax" | "edition" | "package" | "import" | "reserved" | "extensions" => None,
        _ => {
            // `optional string name = 3 [deprecated = true];` and `VALUE = 3;`
            let (declared, tag) = line.split_once(" = ")?;
            tag.starts_with(|c: char| c.is_ascii_digit()).then(|| declared.rsplit(' ').next())?
        }
    }
}

/// Finds `words` in the whole tree and asks for something else.
fn without(words: &[String], chosen: impl Fn(&File, &str) -> bool, advice: &str) -> Result<()> {
    let mut faults = Vec::new();
    for file in &tree()? {
        for (number, line) in file.lines() {
            if let Some(word) = words.iter().find(|word| line.contains(*word)).filter(|_| chosen(file, line))
            {
                faults.push(format!("{}:{number}: `{word}`: {advice}", file.path));
            }
        }
    }
    report(faults)
}

#[test]
fn what_is_left_to_do_has_an_issue() -> Result<()> {
    let has_issue =
        |line: &str| line.split('#').skip(1).any(|after| after.starts_with(|c: char| c.is_ascii_digit()));
    // The words are put together here, so that this file does not hold them.
    let words = [["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    without(&words, |_, line| !has_issue(line), "do it, or add the number of its issue (#12)")
}

#[test]
fn no_lint_is_allowed_silently() -> Result<()> {
    let words = ["#[", "#!["].map(|start| [start, "allow("].concat());
    without(
        &words,
        |file, _| file.ending() == "rs",
        "use `expect` with a reason, which ends when it is not needed",
    )
}

#[test]
fn no_test_is_ignored() -> Result<()> {
    let words = [["#[", "ignore"].concat()];
    without(&words, |file, _| file.ending() == "rs", "make it run, or delete it")
}

#[test]
fn no_text_names_the_place_where_it_was_written() -> Result<()> {
    let words = [
        ["/wo", "rk/"],
        ["index.", "crates.io"],
        ["static.", "crates.io"],
        ["files.", "pythonhosted.org"],
        ["registry.", "npmjs.org"],
        ["deb.", "debian.org"],
    ]
    .map(|halves| halves.concat());
    let advice =
        "say it without a path of one machine or the host of a registry; the tools' defaults know those";
    without(&words, |_, _| true, advice)
}

#[test]
fn the_list_of_crates_is_complete() -> Result<()> {
    let tree = tree()?;
    let name_of =
        |file: &File| Some(file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?.to_owned());
    let there: BTreeSet<String> = tree.iter().filter_map(name_of).collect();
    let readme = tree.iter().find(|file| file.path == "crates/README.md");
    let readme = readme.ok_or_else(|| Report("write crates/README.md".to_owned()))?;
    // An entry is a line that begins with - `name` or | `name`; the name may be a link.
    let entry = |line: &str| {
        let entry = line.trim().strip_prefix(['-', '|', '*'])?.trim_start().trim_start_matches('[');
        Some(entry.strip_prefix('`')?.split('`').next()?.to_owned())
    };
    let listed: BTreeSet<String> = readme.lines().filter_map(|(_, line)| entry(line)).collect();
    let missing =
        there.difference(&listed).map(|name| format!("crates/README.md: add a line: - `{name}`: …"));
    let stale =
        listed.difference(&there).map(|name| format!("crates/README.md: `{name}` is no crate: delete it"));
    report(missing.chain(stale).collect())
}

#[test]
fn there_is_one_tls_provider() -> Result<()> {
    let target = "x86_64-unknown-linux-gnu";
    let options = ["--workspace", "--offline", "-e", "normal", "--target", target, "--prefix", "none"];
    let listing = run(env!("CARGO"), &[&["tree"], &options[..]].concat())?;
    let used: BTreeSet<&str> = listing.lines().filter_map(|line| line.split(' ').next()).collect();
    let provider = "aws-lc-rs";
    let lost = (!used.contains(provider))
        .then(|| format!("{provider}, the TLS provider, is not used: which dependency lost the feature?"));
    let others = ["ring", "openssl", "openssl-sys", "native-tls"];
    let advice = "switch off the feature that brings it; `cargo tree -e normal -i` shows the way";
    let found = others.iter().filter(|name| used.contains(*name)).map(|name| format!("{name}: {advice}"));
    report(lost.into_iter().chain(found).collect())
}

/// The rules above look at text; these are the texts that they must tell apart.
#[test]
fn the_patterns_see_what_they_should() {
    assert_eq!(declared_type("    pub(crate) struct NodeManager<T> {"), Some("NodeManager"));
    assert_eq!(declared_type("impl Service for Node {"), None);
    assert_eq!(last_word("NodeManager"), "manager");
    assert_eq!(last_word("Database"), "database");
    assert_eq!(declared_in_proto("repeated string channels = 2 [deprecated = true];"), Some("channels"));
    assert_eq!(declared_in_proto("rpc Publish(PublishRequest) returns (PublishReply);"), Some("Publish"));
    assert_eq!(declared_in_proto("map<string, string> tags = 4;"), Some("tags"));
    assert_eq!(declared_in_proto("option go_package = \"x\";"), None);
    assert_eq!(declared_in_proto("reserved 4;"), None);
    assert!(is_module("crates/hub/src/outbox.rs") && !is_module("crates/hub/src/outbox/tests.rs"));
    assert_eq!((layer("dialect-pusher"), layer("cli"), layer("nothing")), (Some(2), Some(7), None));
}
