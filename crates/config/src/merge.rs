//! File and environment become one map from path to value; what no key is known for is a fault.
//!
//! **Lives here:** the walk over the file, what the environment may override, suggestions.
//! **Called by:** `config`.
//! **Must not know:** what values mean.

use std::collections::{BTreeMap, BTreeSet};

use carillon_model::ClassName;
use toml::{Table, Value};

use crate::{
    environment,
    faults::{Fault, Faults},
    table::{self, CLASSES, SECTIONS, Section, Shape},
};

/// A value as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) value: Written,
    /// The environment variable that it came from.
    pub(crate) variable: Option<String>,
}

/// Where a value was written decides how it is spelt.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// In the file, with its type.
    Typed(Value),
    /// In the environment or the table of keys, as text.
    Plain(String),
}

/// Every value that was written, by path.
#[derive(Debug, Default)]
pub(crate) struct Values {
    given: BTreeMap<String, Given>,
    /// How many of `[[keys]]`, `[[apps]]` and `[[channels]]` there are.
    lengths: BTreeMap<&'static str, usize>,
    /// Classes of history, built in or written.
    pub(crate) classes: BTreeSet<ClassName>,
}

impl Values {
    /// Reads the text of a file, then the environment over it. Goes on after faults.
    ///
    /// # Errors
    /// Where the text is no TOML: nothing else can be said of it then.
    pub(crate) fn merge(
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
        faults: &mut Faults,
    ) -> Result<Self, Fault> {
        let mut values = Self::default();
        for (name, _) in CLASSES {
            values.classes.extend(ClassName::new(name));
        }
        let file = text.parse::<Table>().map_err(|error| syntax(text, &error))?;
        values.walk(None, file, faults);
        let variables = env.into_iter().filter(|(name, _)| name.starts_with(environment::PREFIX));
        for (variable, value) in variables.collect::<BTreeMap<_, _>>() {
            values.overrule(variable, value, faults);
        }
        Ok(values)
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Given> {
        self.given.get(path)
    }

    /// Returns the paths of a list's sections.
    pub(crate) fn list(&self, section: &str) -> Vec<String> {
        let length = self.lengths.get(section).copied().unwrap_or_default();
        (0..length).map(|index| format!("{section}[{index}]")).collect()
    }

    /// Takes the tables of the file; `within` is the section whose table this is, `None` for the whole file.
    fn walk(&mut self, within: Option<&str>, table: Table, faults: &mut Faults) {
        for (name, value) in table {
            let path = within.map_or_else(|| name.clone(), |within| format!("{within}.{name}"));
            // A name in quotes could otherwise spell a whole path.
            let plain = !name.contains(['.', '[']);
            let section = SECTIONS.iter().find(|section| section.path == path);
            match (plain, table::key_at(&path), section) {
                (true, Some(_), _) => {
                    self.given.insert(path, Given { value: Written::Typed(value), variable: None });
                }
                (true, None, Some(section)) => self.enter(section, value, faults),
                _ => faults.add(Fault::new(&path, unknown(&path, "key"))),
            }
        }
    }

    /// Takes one section of the file.
    fn enter(&mut self, section: &'static Section, value: Value, faults: &mut Faults) {
        let path = section.path;
        match (section.shape, value) {
            (Shape::Once, Value::Table(table)) => self.walk(Some(path), table, faults),
            (Shape::Named, Value::Table(table)) => {
                for (name, value) in table {
                    let path = format!("{path}.{name}");
                    match (self.add_class(&name), value) {
                        (Ok(()), Value::Table(table)) => self.walk(Some(&path), table, faults),
                        (Ok(()), _) => {
                            faults.add(Fault::new(&path, format!("a section is expected: [{path}]")))
                        }
                        (Err(rule), _) => faults.add(Fault::new(&path, rule)),
                    }
                }
            }
            (Shape::List, Value::Array(list)) if list.iter().all(Value::is_table) => {
                self.lengths.insert(path, list.len());
                for (index, value) in list.into_iter().enumerate() {
                    if let Value::Table(table) = value {
                        self.walk(Some(&format!("{path}[{index}]")), table, faults);
                    }
                }
            }
            (Shape::List, _) => {
                faults.add(Fault::new(path, format!("a list of sections is expected: [[{path}]]")))
            }
            (Shape::Once | Shape::Named, _) => {
                faults.add(Fault::new(path, format!("a section is expected: [{path}]")));
            }
        }
    }

    /// Takes one variable of the environment.
    fn overrule(&mut self, variable: String, value: String, faults: &mut Faults) {
        let path = environment::path(&variable);
        let lists = SECTIONS.iter().filter(|section| section.shape == Shape::List);
        if let Some(list) = lists.into_iter().find(|list| path.split('.').next() == Some(list.path)) {
            let text = format!("the environment cannot set [[{}]]: write the list in the file", list.path);
            faults.add(Fault::new(variable, text));
            return;
        }
        if let Some(key) = table::section(&path).and_then(|section| section.keys.first()) {
            let example = environment::variable(&format!("{path}.{}", key.name));
            faults.add(Fault::new(variable, format!("a section without a key; one is {example}")));
            return;
        }
        // Spelt in another case, two variables could stand for one key.
        if table::key_at(&path).is_none() || environment::variable(&path) != variable {
            faults.add(Fault::new(&variable, unknown(&path, "variable")));
            return;
        }
        let class = path.strip_prefix("history.").and_then(|rest| rest.split('.').next());
        if let Some(Err(rule)) = class.map(|class| self.add_class(class)) {
            faults.add(Fault::new(variable, rule));
            return;
        }
        self.given.insert(path, Given { value: Written::Plain(value), variable: Some(variable) });
    }

    fn add_class(&mut self, name: &str) -> Result<(), String> {
        let class = ClassName::new(name).map_err(|error| error.to_string())?;
        self.classes.insert(class);
        Ok(())
    }
}

/// Says where the file is no TOML. The line itself is not shown: it may hold a secret.
fn syntax(text: &str, error: &toml::de::Error) -> Fault {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Fault::new(format!("line {line}, column {column}"), error.message().replace('\n', " "))
}

/// Says that nothing is known at `path`, and what may have been meant.
fn unknown(path: &str, what: &str) -> String {
    let Some(meant) = nearest(path) else { return format!("unknown {what}") };
    let meant = if what == "variable" { environment::variable(&meant) } else { meant };
    format!("unknown {what}; did you mean {meant}?")
}

/// How alike two names must be before one is suggested for the other; 1 is the same.
const ALIKE: f64 = 0.8;

/// Returns the known path that is most like `path`.
fn nearest(path: &str) -> Option<String> {
    let (within, name) = path.rsplit_once('.').unwrap_or(("", path));
    // In its own section first, then the same name in another.
    let siblings = table::section(within).map_or_else(Vec::new, |section| section.keys.iter().collect());
    let sibling = best(name, siblings.iter().map(|key| key.name));
    if let Some(sibling) = sibling {
        return Some(format!("{within}.{sibling}"));
    }
    let elsewhere = SECTIONS.iter().filter(|section| section.shape == Shape::Once).flat_map(|section| {
        section.keys.iter().map(move |key| (key.name, format!("{}.{}", section.path, key.name)))
    });
    let elsewhere: Vec<_> = elsewhere.collect();
    let sections = SECTIONS.iter().map(|section| section.path);
    let same: Vec<_> = elsewhere.iter().filter(|(known, _)| *known == name).collect();
    match same.as_slice() {
        [(_, only)] => Some(only.clone()),
        _ => best(path, elsewhere.iter().map(|(_, known)| known.as_str()).chain(sections)).map(str::to_owned),
    }
}

fn best<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let (score, known) = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (score >= ALIKE).then_some(known)
}
