//! The pages of all keys and of all metrics are those that the tables in the program give.

use std::fs;

use carillon_tests::document::root;

fn is_up_to_date(name: &str, page: &str, source: &str) {
    let path = root().join(name);
    if fs::read_to_string(&path).is_ok_and(|there| there == page) {
        return;
    }
    fs::write(&path, page).expect("the checkout is writable");
    panic!("{name} was not what {source} says; it is written anew: look at it and commit it");
}

#[test]
fn the_page_of_keys_is_up_to_date() {
    is_up_to_date("docs/configuration.md", &carillon_config::reference(), "crates/config");
}

#[test]
fn the_page_of_metrics_is_up_to_date() {
    is_up_to_date("docs/metrics.md", &carillon_telemetry::reference(), "crates/telemetry");
}
