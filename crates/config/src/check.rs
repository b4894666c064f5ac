//! Values become sections, and sections are held against each other: what may not run together does not start.
//!
//! **Lives here:** the order of checks; one module for each group of sections.
//! **Called by:** `config`.
//! **Must not know:** how values were written.

mod apps;
mod broker;
mod channels;
mod credentials;
mod doors;
mod warnings;

use carillon_telemetry::LogFormat;

use crate::{
    config::{Config, Log},
    faults::Faults,
    reader::Reader,
};

/// Makes the configuration, or every fault of it.
///
/// # Errors
/// Every fault at once, those that were found before included.
pub(crate) fn config(mut reader: Reader) -> Result<Config, Faults> {
    let config = sections(&mut reader);
    match config {
        Some(config) if reader.faults.is_empty() => Ok(config),
        Some(_) | None => Err(reader.faults),
    }
}

/// Reads every section, also after a fault, so that all faults are found.
fn sections(reader: &mut Reader) -> Option<Config> {
    let public = doors::public(reader);
    let api = doors::api(reader);
    let admin = doors::admin(reader);
    let client = doors::client(reader);
    let node = doors::node(reader);
    let auth = credentials::auth(reader);
    let keys = credentials::keys(reader);
    let apps = apps::apps(reader);
    if let (Some(keys), Some(apps)) = (&keys, &apps) {
        apps::own(reader, keys, apps);
    }
    let webhooks = apps::webhooks(reader);
    let broker = broker::broker(reader);
    let history = channels::history(reader);
    let channels = channels::rules(reader);
    let log = log(reader);
    let doors = [
        ("public.listen", public.as_ref().map(|public| public.listen)),
        ("api.listen", api.as_ref().map(|api| api.listen)),
        ("admin.listen", admin.as_ref().map(|admin| admin.listen)),
    ];
    doors::apart(reader, doors);
    Some(Config {
        public: public?,
        api: api?,
        admin: admin?,
        client: client?,
        node: node?,
        auth: auth?,
        keys: keys?,
        webhooks: webhooks?,
        broker: broker?,
        history: history?,
        channels: channels::with_cache(channels?, apps.as_ref()?),
        apps: apps?,
        log: log?,
        dev: false,
    })
}

fn log(reader: &mut Reader) -> Option<Log> {
    let format = reader.choice("log.format");
    let directives = reader.text("log.level");
    if let Some(Err(error)) = directives.as_deref().map(carillon_telemetry::logs::check_directives) {
        reader.fault("log.level", error.to_string());
    }
    let format = if format? == "json" { LogFormat::Json } else { LogFormat::Text };
    Some(Log { format, directives: directives? })
}

#[cfg(test)]
mod tests;
