//! docs/guarantees.md: every test that it names exists, and every promise names one.

use std::{collections::BTreeSet, fs};

use carillon_tests::document::{Document, root};

/// Returns what stands in backticks as `file::test`.
fn named(line: &str) -> Vec<(&str, &str)> {
    line.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::")).collect()
}

#[test]
fn every_promise_names_a_test_that_there_is() {
    let page = Document::read("docs/guarantees.md");
    let mut tests = BTreeSet::new();
    let mut promises = 0;
    let mut in_promises = false;
    for line in page.text.lines() {
        in_promises = line.starts_with("| promise |") || in_promises && line.starts_with('|');
        if in_promises && !line.starts_with("| promise |") && !line.starts_with("|---") {
            promises += 1;
            assert!(!named(line).is_empty(), "no test: {line}");
        }
        tests.extend(named(line));
    }
    assert!(promises >= 15 && tests.len() >= 20, "{promises} promises, {} tests", tests.len());
    for (file, test) in tests {
        let path = root().join("tests/tests").join(file).with_extension("rs");
        let text = fs::read_to_string(&path).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
        let is_there = text.contains(&format!("fn {test}("));
        assert!(is_there, "{file} has no test `{test}`");
    }
}
