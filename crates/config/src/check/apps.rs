//! Applications and their webhooks.
//!
//! **Lives here:** what makes applications differ, which secrets and addresses they may have.
//! **Called by:** `check`.
//! **Must not know:** what is signed with the secrets, how webhooks are sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use carillon_auth::KeyRecord;
use carillon_backend::Network;
use carillon_model::{App, AppKey, AppLimits, AppSpace, Apps, Webhook, WebhookEvent};

use super::{
    broker::host_and_port,
    credentials::{Least, SECRET_FILE_MAX_BYTES, each, weakness},
};
use crate::{
    config::{self, Webhooks},
    reader::Reader,
};

/// Pusher draws 20 hexadecimal digits: 80 bits, of which 12 digits differ on average, and fewer than 6 once in three
/// million times.
const LEAST: Least = Least { bytes: 16, characters: 6 };
const SECRET_MAX_BYTES: usize = 256;
const KEY_MAX_BYTES: usize = 64;
const URL_MAX_BYTES: usize = 2048;

pub(super) fn apps(reader: &mut Reader) -> Option<Apps> {
    let sections = reader.values.list("apps");
    let mut apps = Vec::new();
    let (mut ids, mut keys) = (BTreeMap::new(), BTreeMap::new());
    for at in &sections {
        let Some(app) = app(reader, at) else { continue };
        if let Some(first) = ids.insert(app.id.clone(), at) {
            reader.fault(&format!("{at}.id"), format!("{first} has this id; ids are unique"));
        }
        for key in &app.keys {
            if let Some(first) = keys.insert(key.key.clone(), at) {
                let text = format!("{first} has the key `{}`; a key is one application's", key.key);
                reader.fault(&format!("{at}.keys"), text);
            }
        }
        apps.push(app);
    }
    // Fewer means that one was at fault, and the fault was told.
    (apps.len() == sections.len()).then(|| first_without_space(apps))
}

/// The channels of the first carry no application, as without any.
fn first_without_space(mut apps: Vec<App>) -> Apps {
    if let Some(first) = apps.first_mut() {
        first.space = AppSpace::default();
    }
    Apps::new(apps)
}

/// Where applications are named, every API key belongs to one of them.
pub(super) fn own(reader: &mut Reader, keys: &[KeyRecord], apps: &Apps) {
    if reader.values.list("apps").is_empty() {
        return;
    }
    for (index, key) in keys.iter().enumerate() {
        if apps.by_id(key.id.app()).is_none() {
            let known: Vec<_> = apps.all().iter().map(|app| app.id.as_str()).collect();
            let text = format!(
                "there is no application `{}`; there are {}: write one of them in the key, too, `crl_<application>_…`",
                key.id.app(),
                known.join(", ")
            );
            reader.fault(&format!("keys[{index}].id"), text);
        }
    }
}

pub(super) fn webhooks(reader: &mut Reader) -> Option<Webhooks> {
    let path = "webhooks.egress";
    let egress = each(reader, path, network);
    if reader.is_given(path) {
        Some(Webhooks { egress: egress? })
    } else {
        Some(Webhooks { egress: Vec::new() })
    }
}

fn app(reader: &mut Reader, at: &str) -> Option<App> {
    let path = |key: &str| format!("{at}.{key}");
    let id = reader.text(&path("id")).and_then(|id| {
        let space = AppSpace::new(&id);
        space.map(|space| (id, space)).map_err(|error| reader.fault(&path("id"), error.to_string())).ok()
    });
    let keys = keys(reader, &path("keys"), &path("keys_file"));
    let enabled = reader.flag(&path("enabled"));
    let client_events = reader.flag(&path("client_events"));
    let subscription_count = reader.flag(&path("subscription_count"));
    let watchlist = reader.flag(&path("watchlist"));
    let subscription_errors = reader.flag(&path("subscription_errors"));
    let connections_max = reader.count::<std::num::NonZeroUsize>(&path("max_connections"));
    let authorize_within = reader.duration(&path("authorize_within"));
    let limits = limits(reader, at);
    let webhooks = told(reader, at);
    let (id, space) = id?;
    Some(App {
        id,
        space,
        keys: keys?,
        enabled: enabled?,
        client_events: client_events?,
        subscription_count: subscription_count?,
        watchlist: watchlist?,
        subscription_errors: subscription_errors?,
        connections_max: connections_max.map(Into::into),
        authorize_within,
        limits: limits?,
        webhooks: webhooks?,
    })
}

fn limits(reader: &mut Reader, at: &str) -> Option<AppLimits> {
    let path = |key: &str| format!("{at}.{key}");
    let mut count = |key: &str| reader.count::<std::num::NonZeroUsize>(&path(key)).map(usize::from);
    let channels_per_event = count("channels_per_event");
    let events_per_batch = count("events_per_batch");
    let channel_name_bytes = count("channel_name_max");
    let presence_members = count("presence_members_max");
    let watchlist = count("watchlist_max");
    let event_data_bytes = reader.size(&path("event_data_max"));
    let presence_member_bytes = reader.size(&path("presence_member_max"));
    let client_events_per_second = reader.count(&path("client_event_rate"));
    let clock_skew = reader.duration(&path("clock_skew"));
    Some(AppLimits {
        event_data_bytes: event_data_bytes?,
        channels_per_event: channels_per_event?,
        events_per_batch: events_per_batch?,
        channel_name_bytes: channel_name_bytes?,
        presence_members: presence_members?,
        presence_member_bytes: presence_member_bytes?,
        watchlist: watchlist?,
        client_events_per_second: client_events_per_second?,
        clock_skew: clock_skew?,
    })
}

/// Reads the keys from the list or from the file.
fn keys(reader: &mut Reader, at: &str, in_file: &str) -> Option<Vec<AppKey>> {
    let given = each(reader, at, key);
    let file = reader.file(in_file);
    match (reader.is_given(at), reader.is_given(in_file)) {
        (false, false) => Some(Vec::new()),
        (true, false) => given,
        (true, true) => {
            reader.fault(in_file, format!("{at} is there too; write one of the two"));
            None
        }
        (false, true) => {
            let text = config::read(&file?, SECRET_FILE_MAX_BYTES)
                .map_err(|error| format!("cannot be read: {error}"));
            let keys = text.and_then(|text| text.lines().filter(|line| !line.is_empty()).map(key).collect());
            let keys = keys.and_then(|keys: Vec<_>| {
                if keys.is_empty() { Err("holds no `key:secret`".to_owned()) } else { Ok(keys) }
            });
            keys.map_err(|expectation| reader.fault(in_file, expectation)).ok()
        }
    }
}

/// Reads `key:secret`. What is said of it shows nothing of the secret.
fn key(text: &str) -> Result<AppKey, String> {
    let (key, secret) = text.split_once(':').ok_or("each key is written `key:secret`")?;
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if !(1..=KEY_MAX_BYTES).contains(&key.len()) || !key.bytes().all(legal) {
        return Err(format!(
            "a key is 1 to {KEY_MAX_BYTES} letters, digits, `-` and `_`, and a `:` before its secret"
        ));
    }
    if secret.len() > SECRET_MAX_BYTES || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!(
            "the secret of `{key}` has at most {SECRET_MAX_BYTES} printable ASCII characters without spaces"
        ));
    }
    match weakness(secret, &LEAST) {
        Some(weakness) => Err(format!("the secret of `{key}`: {weakness}")),
        None => Ok(AppKey { key: key.to_owned(), secret: secret.to_owned() }),
    }
}

fn told(reader: &mut Reader, at: &str) -> Option<Vec<Webhook>> {
    let path = |key: &str| format!("{at}.{key}");
    let urls = each(reader, &path("webhooks"), |url| match url_fault(url) {
        Some(fault) => Err(fault.to_owned()),
        None => Ok(url.to_owned()),
    });
    let events = each(reader, &path("webhook_events"), |word| {
        let event = WebhookEvent::ALL.into_iter().find(|event| event.name() == word);
        let known = WebhookEvent::ALL.map(WebhookEvent::name).join(", ");
        event.ok_or_else(|| format!("`{word}` is nothing that is told; there are {known}"))
    });
    let batch = reader.flag(&path("webhook_batch"));
    let events: Vec<_> = if reader.is_given(&path("webhook_events")) {
        events?.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
    } else {
        // Whoever wants to be called at each change of a number asks for it.
        let wanted = |event: &WebhookEvent| *event != WebhookEvent::SubscriptionCount;
        WebhookEvent::ALL.into_iter().filter(wanted).collect()
    };
    let urls = if reader.is_given(&path("webhooks")) { urls? } else { Vec::new() };
    let batch = batch?;
    Some(urls.into_iter().map(|url| Webhook { url, events: events.clone(), batch }).collect())
}

/// Says what is wrong with an address. It is not repeated: it may hold a password.
fn url_fault(url: &str) -> Option<&'static str> {
    let shape = "each address is https://host/path or http://host/path, with a port if need be";
    let Some(rest) = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")) else {
        return Some(shape);
    };
    if url.len() > URL_MAX_BYTES {
        return Some("an address has at most 2048 bytes");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("an address holds no name and password: what is sent is signed");
    }
    let (host, port) = host_and_port(authority);
    let host_is_good =
        !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:".contains(&b));
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
    let rest_is_good = rest.bytes().all(|b| b.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&b));
    (!host_is_good || !port_is_good || !rest_is_good).then_some(shape)
}

/// Reads a network; what its address has beyond its bits must be zero.
fn network(text: &str) -> Result<Network, String> {
    let bad = || format!("`{text}` is no network; write an address and its bits, such as 10.1.0.0/16");
    let (address, bits) = text.split_once('/').ok_or_else(bad)?;
    let address: IpAddr = address.parse().map_err(|_error| bad())?;
    let bits: u8 = bits.parse().map_err(|_error| bad())?;
    // Moved to the left, so that one rule does for both.
    let (number, most) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)) << 96, 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    if bits > most {
        return Err(bad());
    }
    if number.checked_shl(bits.into()).unwrap_or(0) != 0 {
        return Err(format!("`{text}` is no network: its address goes beyond its {bits} bits"));
    }
    Ok(Network { address, bits })
}
