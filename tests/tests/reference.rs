//! The page of all keys is the one that the table of keys gives.

use std::{fs, path::Path};

#[test]
fn the_page_of_keys_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = carillon_config::reference();
    if fs::read_to_string(&path).is_ok_and(|there| there == page) {
        return;
    }
    fs::create_dir_all(path.parent().expect("docs")).expect("the checkout is writable");
    fs::write(&path, page).expect("the checkout is writable");
    panic!(
        "docs/configuration.md was not what crates/config says; it is written anew: look at it and commit it"
    );
}
