//! The reference of all keys, written from the table.
//!
//! **Lives here:** its layout.
//! **Called by:** `cli`, to print or to publish it.
//! **Must not know:** any key in particular.

use std::fmt::Write;

use crate::{
    environment,
    reader::{bounds, written},
    table::{Key, Kind, Preset, SECTIONS, Section, Shape},
};

const INTRODUCTION: &str = "\
# Configuration

One TOML file, and variables of the environment over it. Every fault is reported at once, and Carillon does not start \
with one; a key that is not on this page is a fault.

- A duration is a whole number and `ms`, `s`, `m`, `h` or `d`, such as `\"25s\"`. A size is a whole number and `B`, \
`KiB`, `MiB` or `GiB`, such as `\"64KiB\"`.
- A variable is the section and the key in capitals with two underscores between them: `CARILLON__CLIENT__HEARTBEAT=20s` \
is `heartbeat = \"20s\"` in `[client]`. The environment wins over the file. A list is written with commas.
- The environment cannot set `[[keys]]`, `[[apps]]` and `[[channels]]`: those lists are written in the file.
";

/// Returns the reference of all keys as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    for section in SECTIONS {
        let heading = heading(section);
        let doc = section.doc;
        page.push_str(&format!("\n## `{heading}`\n\n{doc}\n\n"));
        page.push_str("| Key | Value | Default | Meaning |\n|---|---|---|---|\n");
        for key in section.keys {
            row(&mut page, key);
        }
        if let (Shape::Once, Some(key)) = (section.shape, section.keys.first()) {
            let variable = environment::variable(&format!("{}.{}", section.path, key.name));
            page.push_str(&format!("\nIn the environment: `{variable}` and so on.\n"));
        }
    }
    page
}

fn heading(section: &Section) -> String {
    match section.shape {
        Shape::Once => format!("[{}]", section.path),
        Shape::Named => format!("[{}.<name>]", section.path),
        Shape::List => format!("[[{}]]", section.path),
    }
}

fn row(page: &mut String, key: &Key) {
    let value = match key.kind {
        Kind::Duration { .. } => format!("duration, {}", bounds(&key.kind)),
        Kind::Size { .. } => format!("size, {}", bounds(&key.kind)),
        Kind::Secret { .. } | Kind::Secrets { .. } => format!("secret: {}", bounds(&key.kind)),
        Kind::Address
        | Kind::Count { .. }
        | Kind::Flag
        | Kind::Choice(_)
        | Kind::Text { .. }
        | Kind::Texts { .. } => bounds(&key.kind),
    };
    let default = match key.preset {
        Preset::Required => "required".to_owned(),
        Preset::Absent => "absent".to_owned(),
        Preset::Is(preset) => format!("`{}`", written(&key.kind, preset)),
    };
    let (name, doc) = (key.name, key.doc);
    writeln!(page, "| `{name}` | {value} | {default} | {doc} |").expect("a string takes everything");
}
