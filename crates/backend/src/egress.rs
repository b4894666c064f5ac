//! Which addresses may be called.
//!
//! Who may set a webhook's host, or its name's addresses, must not reach what is inside the operator's network. So
//! addresses are judged, not names, and the address that was judged is the one that is connected to.
//!
//! **Lives here:** the addresses of special purpose (IANA's registries, RFC 6890), the operator's exceptions.
//! **Called by:** `dial`, for each address before it is connected to; `config`, for those that a URL has.
//! **Must not know:** names, sockets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A network as `10.1.0.0/16` writes it: those addresses whose first bits are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// One of its addresses.
    pub address: IpAddr,
    /// How many bits are the same; at most 32 or 128.
    pub bits: u8,
}

impl Network {
    const fn v4(a: u8, b: u8, c: u8, bits: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, 0)), bits }
    }

    const fn v6(a: u16, b: u16, c: u16, bits: u8) -> Self {
        Self { address: IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)), bits }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let differ = network.to_bits() ^ address.to_bits();
                differ.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Addresses of IPv4 that are not a host somewhere in the Internet.
const SPECIAL_V4: [Network; 15] = [
    Network::v4(0, 0, 0, 8),       // this network, and the unspecified address
    Network::v4(10, 0, 0, 8),      // private
    Network::v4(100, 64, 0, 10),   // between providers and customers (CGNAT)
    Network::v4(127, 0, 0, 8),     // loopback
    Network::v4(169, 254, 0, 16),  // link-local, and the metadata of clouds
    Network::v4(172, 16, 0, 12),   // private
    Network::v4(192, 0, 0, 24),    // protocol assignments
    Network::v4(192, 0, 2, 24),    // documentation
    Network::v4(192, 88, 99, 24),  // relays of 6to4
    Network::v4(192, 168, 0, 16),  // private
    Network::v4(198, 18, 0, 15),   // benchmarks
    Network::v4(198, 51, 100, 24), // documentation
    Network::v4(203, 0, 113, 24),  // documentation
    Network::v4(224, 0, 0, 4),     // multicast
    Network::v4(240, 0, 0, 4),     // reserved, and broadcast
];
/// All of IPv6 that is given to hosts.
const UNICAST_V6: Network = Network::v6(0x2000, 0, 0, 3);
/// What in it is not a host somewhere in the Internet.
const SPECIAL_V6: [Network; 3] = [
    Network::v6(0x2001, 0, 0, 23), // protocol assignments, Teredo and benchmarks among them
    Network::v6(0x2001, 0xdb8, 0, 32), // documentation
    Network::v6(0x3fff, 0, 0, 20), // documentation
];
/// An address of IPv4 in the last bits: unspecified and loopback, too, are such, in 0.0.0.0/8.
const COMPATIBLE: Network = Network::v6(0, 0, 0, 96);
const TRANSLATED: Network = Network::v6(0x64, 0xff9b, 0, 96);
/// An address of IPv4 in the bits 16 to 47.
const SIX_TO_FOUR: Network = Network::v6(0x2002, 0, 0, 16);

/// Which addresses may be called: those of the Internet, and what the operator allows.
#[derive(Clone, Debug, Default)]
pub struct Egress(Vec<Network>);

impl Egress {
    /// Takes the networks that may be called although they are not in the Internet.
    #[must_use]
    pub const fn new(allowed: Vec<Network>) -> Self {
        Self(allowed)
    }

    /// Says whether `address` may be called.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // ::ffff:10.0.0.1 is 10.0.0.1: the socket speaks IPv4.
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address)) || is_public(address)
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => !SPECIAL_V4.iter().any(|network| network.contains(address)),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(v4.into()),
            None => {
                UNICAST_V6.contains(address) && !SPECIAL_V6.iter().any(|network| network.contains(address))
            }
        },
    }
}

/// Returns the address of IPv4 that a packet to this address ends up at.
#[expect(clippy::cast_possible_truncation, reason = "32 of the bits are meant")]
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    if COMPATIBLE.contains(address.into()) || TRANSLATED.contains(address.into()) {
        Some(Ipv4Addr::from_bits(bits as u32))
    } else if SIX_TO_FOUR.contains(address.into()) {
        Some(Ipv4Addr::from_bits((bits >> 80) as u32))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
