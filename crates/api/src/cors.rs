//! Pages that publish from a browser: the page for trying it, in development mode.
//!
//! **Lives here:** which page a request comes from, and the headers that let a browser go on (Fetch, CORS protocol).
//! **Called by:** `http`, around each request.
//! **Must not know:** routes, keys.

use hyper::{
    HeaderMap, Method, Request,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
    },
};

/// Where a request comes from.
#[derive(Clone, Debug)]
pub(crate) enum Page {
    /// No page may publish here, and none can tell where it comes from.
    Unasked,
    /// Not from a page: from a program.
    None,
    /// From a page of somebody else, such as a website whose name leads to this machine.
    Stranger,
    /// From one that may: its origin.
    Ours(HeaderValue),
    /// A browser asks on its behalf whether it may.
    Asks(HeaderValue),
}

impl Page {
    /// Finds out where `request` comes from.
    pub(crate) fn of<B>(request: &Request<B>, origins: &[String]) -> Self {
        if origins.is_empty() {
            return Self::Unasked;
        }
        let Some(origin) = request.headers().get(ORIGIN) else { return Self::None };
        if !origins.iter().any(|ours| origin == ours.as_str()) {
            return Self::Stranger;
        }
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if asks { Self::Asks(origin.clone()) } else { Self::Ours(origin.clone()) }
    }

    /// Tells the browser what it may do with the answer.
    pub(crate) fn permit(self, headers: &mut HeaderMap) {
        match self {
            Self::Unasked => return,
            Self::None | Self::Stranger => {}
            Self::Ours(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            }
            Self::Asks(origin) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
                headers.insert(
                    ACCESS_CONTROL_ALLOW_HEADERS,
                    HeaderValue::from_static("Authorization, Content-Type"),
                );
                headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
            }
        }
        headers.insert(VARY, HeaderValue::from_static("Origin"));
    }
}
