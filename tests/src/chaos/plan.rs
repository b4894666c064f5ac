//! How large a run is, how long, and by which seed.
//!
//! **Lives here:** the arguments of a run, with their defaults.
//! **Called by:** the program `chaos` and tests.
//! **Must not know:** what is done with them.

use std::{path::PathBuf, time::Duration};

use crate::gateway;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// WebSocket.
    WebSocket,
    /// Server-sent events.
    Sse,
    /// Lines of JSON.
    Lines,
    /// Long poll.
    Poll,
}

impl Transport {
    /// All of them, with their names.
    pub const NAMES: [(&str, Self); 4] =
        [("ws", Self::WebSocket), ("sse", Self::Sse), ("stream", Self::Lines), ("poll", Self::Poll)];

    /// Returns its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, transport)| *transport == self).map_or("?", |(name, _)| name)
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What chance begins with.
    pub seed: u64,
    /// How long faults go on.
    pub time: Duration,
    /// Clients that check.
    pub clients: usize,
    /// What clients speak, in turns.
    pub transports: Vec<Transport>,
    /// Channels of which nothing is deleted, and channels of which something is.
    pub channels: (u16, u16),
    /// Channels of each kind that a client subscribes to.
    pub joins: (usize, usize),
    /// Whether every third client connects through a cable that can be spoilt.
    pub cables: bool,
    /// Publishers, every second one by gRPC.
    pub publishers: u16,
    /// Publications in a second, all together.
    pub rate: u32,
    /// The gateway.
    pub binary: PathBuf,
}

impl Plan {
    /// A run of the size that `make test` has.
    ///
    /// # Panics
    /// When the gateway is not built.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seed: 1,
            time: Duration::from_secs(90),
            clients: 500,
            transports: [
                [Transport::WebSocket; 5].as_slice(),
                &[Transport::Sse; 3],
                &[Transport::Lines],
                &[Transport::Poll],
            ]
            .concat(),
            channels: (12, 4),
            joins: (3, 1),
            cables: true,
            publishers: 16,
            rate: 160,
            binary: gateway::binary(),
        }
    }

    /// Changes one thing by its name, as `seed=7` is written.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn set(&mut self, argument: &str) -> Result<(), String> {
        let bad = || format!("`{argument}`: an argument is one of {}", Self::ARGUMENTS);
        let (name, value) = argument.split_once('=').ok_or_else(bad)?;
        let number = || value.parse::<u64>().map_err(|_not| bad());
        let small = || value.parse::<u16>().map_err(|_not| bad());
        match name {
            "seed" => self.seed = number()?,
            "seconds" => self.time = Duration::from_secs(number()?),
            "clients" => self.clients = small()?.into(),
            "publishers" => self.publishers = small()?,
            "rate" => self.rate = small()?.into(),
            "gateway" => self.binary = value.into(),
            "transports" => {
                let known = |name| {
                    let known = Transport::NAMES.iter().find(|(known, _)| *known == name);
                    known.map(|(_, transport)| *transport).ok_or_else(bad)
                };
                self.transports = value.split(',').map(known).collect::<Result<_, _>>()?;
            }
            _ => return Err(bad()),
        }
        Ok(())
    }

    /// The names of what can be set.
    pub const ARGUMENTS: &str =
        "seed=N seconds=N clients=N publishers=N rate=N gateway=PATH transports=ws,sse,stream,poll";
}

impl Default for Plan {
    fn default() -> Self {
        Self::new()
    }
}
