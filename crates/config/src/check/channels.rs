//! Classes of history and the rules of channels.
//!
//! **Lives here:** which rules make no sense together.
//! **Called by:** `check`.
//! **Must not know:** how rules are applied.

use std::collections::BTreeMap;

use carillon_model::{
    Access, Apps, ChannelPattern, ChannelRule, ChannelRules, ClassName, Keeping, Overflow, RetentionClass,
};

use crate::{reader::Reader, table::CACHE};

pub(super) fn history(reader: &mut Reader) -> Option<Vec<RetentionClass>> {
    let names = reader.values.classes.clone();
    let count = names.len();
    let mut classes = Vec::with_capacity(count);
    for name in names {
        let path = |key: &str| format!("history.{name}.{key}");
        let max_age = reader.duration(&path("max_age"));
        let max_messages = reader.count(&path("max_messages"));
        let max_bytes = reader.size_of_storage(&path("max_bytes"));
        if let (Some(max_age), Some(max_messages), Some(max_bytes)) = (max_age, max_messages, max_bytes) {
            classes.push(RetentionClass { name, max_age, max_messages, max_bytes });
        }
    }
    // Fewer means that one was at fault, and the fault was told.
    (classes.len() == count).then_some(classes)
}

pub(super) fn rules(reader: &mut Reader) -> Option<Vec<ChannelRule>> {
    let sections = reader.values.list("channels");
    if sections.is_empty() {
        reader.fault(
            "channels",
            "no channel can be used without a rule; write [[channels]] with name and match, such as match = \"*\"",
        );
        return None;
    }
    let mut rules = Vec::with_capacity(sections.len());
    let mut names = BTreeMap::new();
    let mut patterns: Vec<(ChannelPattern, &String)> = Vec::new();
    for at in &sections {
        let Some(rule) = rule(reader, at) else { continue };
        if let Some(first) = names.insert(rule.name.clone(), at) {
            reader.fault(&format!("{at}.name"), format!("{first} has this name; names are unique"));
        }
        let covering =
            |(earlier, _): &&(ChannelPattern, _)| earlier.as_str() == "*" || *earlier == rule.pattern;
        if let Some((_, earlier)) = patterns.iter().find(covering) {
            let text = format!("never applies: {earlier} comes first and covers the same channels");
            reader.fault(&format!("{at}.match"), text);
        }
        patterns.push((rule.pattern.clone(), at));
        rules.push(rule);
    }
    tokens_are_possible(reader, &rules);
    (rules.len() == sections.len()).then_some(rules)
}

/// Gives cache channels their class where somebody can join one: only Pusher clients are sent what it keeps.
pub(super) fn with_cache(rules: Vec<ChannelRule>, apps: &Apps) -> ChannelRules {
    let rules = ChannelRules::new(rules);
    if apps.all().iter().all(|app| app.keys.is_empty()) {
        return rules;
    }
    rules.with_cache(ClassName::new(CACHE).expect("`cache` is a class's name"))
}

/// A rule that asks for tokens needs something to check them with.
fn tokens_are_possible(reader: &mut Reader, rules: &[ChannelRule]) {
    let secret_is_given =
        ["auth.token_secret", "auth.token_secret_file"].iter().any(|path| reader.is_given(path));
    let asking = rules.iter().find(|rule| rule.access == Access::Token);
    if let (Some(rule), false) = (asking, secret_is_given) {
        let text = format!(
            "required: the channel rule `{}` asks for tokens; draw a secret with `openssl rand -base64 48 > token.key` \
             and name the file in auth.token_secret_file, or give the rule auth = \"public\"",
            rule.name
        );
        reader.fault("auth.token_secret", text);
    }
}

fn rule(reader: &mut Reader, at: &str) -> Option<ChannelRule> {
    let path = |key: &str| format!("{at}.{key}");
    let name = reader.text(&path("name")).filter(|name| {
        let legal = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !legal {
            reader.fault(&path("name"), "a rule's name is made of letters, digits, `-`, `_` and `.`");
        }
        legal
    });
    let pattern = reader.text(&path("match")).and_then(|text| {
        let pattern = ChannelPattern::new(&text);
        pattern.map_err(|error| reader.fault(&path("match"), error.to_string())).ok()
    });
    let keeping = keeping(reader, &path("history"));
    let access = reader.choice(&path("auth"));
    let overflow = reader.choice(&path("overflow"));
    let message_max_bytes = reader.size(&path("message_max"));
    Some(ChannelRule {
        name: name?,
        pattern: pattern?,
        keeping: keeping?,
        access: if access? == "public" { Access::Public } else { Access::Token },
        overflow: match overflow? {
            "drop_oldest" => Overflow::DropOldest,
            "latest" => Overflow::Latest,
            _ => Overflow::Close,
        },
        message_max_bytes: message_max_bytes?,
    })
}

fn keeping(reader: &mut Reader, path: &str) -> Option<Keeping> {
    let text = reader.text(path);
    if !reader.is_given(path) {
        return Some(Keeping::Live);
    }
    let name = ClassName::new(&text?).ok().filter(|name| reader.values.classes.contains(name));
    if name.is_none() {
        let known: Vec<_> = reader.values.classes.iter().map(ClassName::as_str).collect();
        let text = format!("no such class of history; there are {}", known.join(", "));
        reader.fault(path, text);
    }
    name.map(Keeping::Durable)
}
