//! Which websites a browser may come from.
//!
//! **Lives here:** the operator's list, and how an `Origin` is held against it (RFC 6454 §7).
//! **Called by:** `config` reads the list, `transport` asks before anything is joined.
//! **Must not know:** HTTP, what a page of the website may do: that is the token's part.

use std::fmt;

/// The websites that are allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All.
    Any,
    /// These.
    Listed(Box<[Allowed]>),
}

/// One website of the list, or all below a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    website: Website,
    /// `*.` stood before the host: one label more or several, never none.
    below: bool,
}

/// Scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Website {
    scheme: String,
    host: String,
    /// `None` where it is the scheme's own: browsers leave that out.
    port: Option<u16>,
}

/// An item of a list that names no website.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadOrigin;

impl fmt::Display for BadOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "is not an origin: `https://example.com`, `https://*.example.com` or `http://localhost:8080`, without a \
             path; or `*` alone for every website",
        )
    }
}

impl Origins {
    /// Reads a list: `*` alone, or origins.
    ///
    /// # Errors
    /// The first item that is none.
    pub fn read(texts: &[String]) -> Result<Self, (&str, BadOrigin)> {
        if let [any] = texts
            && any == "*"
        {
            return Ok(Self::Any);
        }
        let allowed = |text| Allowed::read(text).ok_or((text, BadOrigin));
        texts.iter().map(|text| allowed(text)).collect::<Result<_, _>>().map(Self::Listed)
    }

    /// Says whether a page of this origin, as its browser wrote it, may come in. `null` is on no list.
    #[must_use]
    pub fn allows(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(list) => {
                Website::read(origin).is_some_and(|website| list.iter().any(|one| one.covers(&website)))
            }
        }
    }
}

impl Allowed {
    fn read(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let below = host.strip_prefix("*.");
        let website = Website::read(&format!("{scheme}://{}", below.unwrap_or(host)))?;
        Some(Self { website, below: below.is_some() })
    }

    fn covers(&self, website: &Website) -> bool {
        let host = if self.below {
            let above = website.host.strip_suffix(&self.website.host);
            above.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
        } else {
            website.host == self.website.host
        };
        host && website.scheme == self.website.scheme && website.port == self.website.port
    }
}

impl Website {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let (scheme, authority) = text.split_once("://")?;
        // The last colon, unless it is one of an IPv6 address.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port.parse().ok()?)),
            Some(_) | None => (authority, None),
        };
        let in_name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match address {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.starts_with('.') && host.bytes().all(in_name),
        };
        let is_scheme = !scheme.is_empty() && scheme.bytes().all(in_name);
        let own = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = port.filter(|_| port != own);
        (is_host && is_scheme).then(|| Self { scheme: scheme.to_owned(), host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str]) -> Origins {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        Origins::read(&texts).unwrap_or_else(|(text, fault)| panic!("{text} {fault}"))
    }

    #[test]
    fn an_origin_is_compared_part_by_part() {
        let origins = read(&[
            "https://example.com",
            "http://localhost:8080",
            "http://[::1]:80",
            "https://A.example:443",
        ]);
        for good in [
            "https://example.com",
            "HTTPS://Example.com:443",
            "http://localhost:8080",
            "http://[::1]",
            "https://a.example",
        ] {
            assert!(origins.allows(good), "{good}");
        }
        for bad in [
            "http://example.com",
            "https://example.com:8443",
            "https://example.com.evil.example",
            "https://evilexample.com",
            "https://sub.example.com",
            "http://localhost",
            "http://localhost:80800",
            "null",
            "",
            "https://",
            "https://example.com/",
            "https://user@example.com",
            "*",
        ] {
            assert!(!origins.allows(bad), "{bad}");
        }
    }

    #[test]
    fn a_star_stands_for_whole_labels() {
        let origins = read(&["https://*.example.com"]);
        for good in ["https://a.example.com", "https://a.b.example.com", "https://a.example.com:443"] {
            assert!(origins.allows(good), "{good}");
        }
        for bad in [
            "https://example.com",
            "https://.example.com",
            "https://evilexample.com",
            "http://a.example.com",
            "https://a.example.com:444",
        ] {
            assert!(!origins.allows(bad), "{bad}");
        }
        assert!(read(&["*"]).allows("null"));
    }

    #[test]
    fn what_is_no_origin_is_named() {
        for bad in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://*",
            "https://a.*.com",
            "https://*example.com",
            "*",
            "https://a:99999",
            "https://a b",
        ] {
            let texts = ["https://good.example".to_owned(), bad.to_owned()];
            assert_eq!(Origins::read(&texts), Err((bad, BadOrigin)), "{bad}");
        }
    }
}
