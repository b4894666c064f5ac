//! File descriptors: how many this process may have, and how many clients that allows.
//!
//! **Lives here:** the limit of the system, and the reserve for everything that is not a client.
//! **Called by:** `wiring`, once.
//! **Must not know:** what descriptors are used for.

use carillon_config::DEFAULT_MAX_CONNECTIONS;
use carillon_node::POLITE_RESERVE;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors kept for the broker, probes, logs and the workers' own.
const RESERVE: u64 = 512;

/// A node that holds fewer clients than this was hardly meant to.
const FEW: usize = 1000;

/// Raises the limit as far as the system allows, and returns how many clients fit below it beside so many publishers,
/// at most `wanted`.
///
/// A node that accepted more would fail to accept probes and broker connections when it is needed most.
pub(crate) fn clients_that_fit(wanted: usize, publishers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_refused) => limit.current,
    };
    let Some(current) = current else { return wanted };
    let room = room(current, publishers);
    if room < wanted.min(FEW) {
        tracing::warn!(wanted, room, descriptors = current, "{FEWER_FIT}");
    } else if room < wanted && wanted != DEFAULT_MAX_CONNECTIONS {
        // The default is more than most need, and nobody asked for it.
        tracing::info!(wanted, room, descriptors = current, "{FEWER_FIT}");
    }
    room.min(wanted)
}

const FEWER_FIT: &str =
    "fewer clients fit than public.max_connections says; raise the limit of open files (nofile)";

/// Returns how many clients fit. Where the limit is very low, half of it is theirs.
fn room(descriptors: u64, publishers: usize) -> usize {
    let others = u64::try_from(publishers.saturating_add(POLITE_RESERVE)).unwrap_or(u64::MAX);
    let reserve = others.saturating_add(RESERVE);
    usize::try_from(descriptors.saturating_sub(reserve.min(descriptors / 2))).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_else_has_descriptors_too() {
        assert_eq!(room(1_048_576, 4096), 1_048_576 - 512 - 256 - 4096);
        assert_eq!(room(1024, 4096), 512);
        assert_eq!(room(u64::MAX, usize::MAX), usize::try_from(u64::MAX / 2 + 1).unwrap_or(usize::MAX));
        assert_eq!(clients_that_fit(1, 1), 1);
    }
}
