//! What backends ask about channels and their members, in our own words.
//!
//! **Lives here:** what each question reads and answers.
//! **Called by:** `http`.
//! **Must not know:** how nodes ask each other.

use std::time::Instant;

use carillon_auth::{Key, Scope};
use carillon_model::{ChannelName, Findings, Member, Question, Refusal};
use carillon_tasks::clock;
use hyper::{
    header::{self, HeaderValue},
    http::request::Parts,
};
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    form,
    intake::{Intake, forbidden},
    request::{bad, channel_name},
};

/// What is asked about, with what the path says; that is still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject<'p> {
    /// All channels.
    Channels,
    /// One channel.
    Channel(&'p str),
    /// The members of one channel.
    Presence(&'p str),
}

/// How many nodes have answered of how many.
#[derive(Serialize)]
struct Nodes {
    answered: usize,
    of: usize,
}

#[derive(Serialize)]
struct List<'a> {
    channels: Vec<Counted<'a>>,
    nodes: Nodes,
}

#[derive(Serialize)]
struct Counted<'a> {
    channel: &'a str,
    subscriptions: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<Nodes>,
}

#[derive(Serialize)]
struct Presence<'a> {
    channel: &'a str,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<Shown<'a>>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<&'a RawValue>,
}

/// Answers a question with one JSON text.
pub(crate) async fn answer(
    intake: &Intake,
    subject: Subject<'_>,
    request: &Parts,
) -> Result<String, Refusal> {
    let authorization = request.headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let key = intake.key(authorization, Scope::Read)?;
    let deadline = clock::now() + intake.config.deadline;
    let query = request.uri.query().unwrap_or_default();
    match subject {
        Subject::Channels => list(intake, key, &parameter(query, "prefix")?, deadline).await,
        Subject::Channel(name) => {
            parameter(query, "")?;
            one(intake, &readable(intake, key, name)?, deadline).await
        }
        Subject::Presence(name) => {
            let count = parameter(query, "count")?;
            presence(intake, &readable(intake, key, name)?, &count)
        }
    }
}

async fn list(intake: &Intake, key: &Key, prefix: &str, deadline: Instant) -> Result<String, Refusal> {
    if !prefix.is_empty() {
        channel_name(prefix)?;
    }
    let question = Question::Counts { app: intake.space(key).clone(), prefix: prefix.to_owned() };
    let findings = intake.channels.ask(question, deadline).await;
    let nodes = Nodes::of(&findings);
    let may_read = |name: &String| {
        // Not one of ours, such as that of a user.
        ChannelName::new(name).is_ok_and(|channel| key.allows(Scope::Read, &channel).is_ok())
    };
    let counted = findings.channels.iter().filter(|(name, _)| may_read(name));
    let counted = counted.map(|(name, count)| Counted { channel: name, subscriptions: *count, nodes: None });
    Ok(json(&List { channels: counted.collect(), nodes }))
}

async fn one(intake: &Intake, channel: &ChannelName, deadline: Instant) -> Result<String, Refusal> {
    let findings = intake.channels.ask(Question::Count(channel.clone()), deadline).await;
    let nodes = Some(Nodes::of(&findings));
    Ok(json(&Counted { channel: channel.as_str(), subscriptions: findings.total, nodes }))
}

fn presence(intake: &Intake, channel: &ChannelName, count: &str) -> Result<String, Refusal> {
    let members = intake.channels.members(channel);
    let shown = match count {
        "1" => None,
        "" | "0" => Some(members.iter().map(Shown::of).collect()),
        _ => return Err(bad("`count` is 1 or 0: whether only the number of members is wanted")),
    };
    Ok(json(&Presence { channel: channel.as_str(), count: members.len(), members: shown }))
}

/// Reads the name of a channel that the key may read.
fn readable(intake: &Intake, key: &Key, name: &str) -> Result<ChannelName, Refusal> {
    let name = percent_decode_str(name).decode_utf8();
    let name = name.map_err(|_e| bad("the channel's name in the path is not UTF-8"))?;
    let channel = channel_name(&name)?;
    key.allows(Scope::Read, &channel).map_err(forbidden)?;
    Ok(channel.within(intake.space(key)))
}

/// Reads the one parameter of a query; empty when it is not there.
fn parameter(query: &str, known: &str) -> Result<String, Refusal> {
    let mut found = String::new();
    for pair in form::pairs(query) {
        let (name, value) = pair?;
        if name != known {
            return Err(match known {
                "" => bad("this path has no query parameters"),
                known => bad(format!("the one query parameter is `{known}`")),
            });
        }
        found = value.into_owned();
    }
    Ok(found)
}

fn json(of: &impl Serialize) -> String {
    serde_json::to_string(of).expect("texts and numbers are always JSON")
}

impl Nodes {
    const fn of(findings: &Findings) -> Self {
        Self { answered: findings.answered, of: findings.of }
    }
}

impl<'a> Shown<'a> {
    fn of(member: &'a Member) -> Self {
        let info = member.info.as_ref().and_then(|info| serde_json::from_slice(info).ok());
        Self { user: member.user.as_str(), info }
    }
}
