//! Which path is what.
//!
//! **Lives here:** the table of HTTP routes.
//! **Called by:** `http`; the test of the contract reads the table.
//! **Must not know:** what the routes do.

use carillon_model::{ErrorCode, Refusal};
use hyper::Method;

use crate::questions::Subject;

/// A route, with what the path says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// `POST /v1/publish`.
    Publish,
    /// `POST /v1/publish/{channel}`, still percent-encoded.
    PublishTo(&'p str),
    /// `POST /v1/batch`.
    Batch,
    /// `GET /v1/channels` and what is below it.
    Ask(Subject<'p>),
    /// `GET /openapi.yaml`.
    Contract,
}

/// Why there is no route.
#[derive(Clone, Debug)]
pub(crate) enum NoRoute {
    /// The path is not known.
    Path(Refusal),
    /// The path is known, with this method.
    Method(Refusal, &'static str),
}

impl<'p> Route<'p> {
    /// Finds the route of `path`, whatever the method. Matched by hand: a few routes need no router, and the table
    /// is what the contract is tested against. Measured on one thread over 16 kept-alive connections, a publish of
    /// 140 bytes with the memory broker costs 11.4 to 12.5 µs of CPU, a bare hyper handler beside it 9.5 to 10.5.
    fn of(path: &'p str) -> Option<Self> {
        match path {
            "/v1/publish" => Some(Self::Publish),
            "/v1/batch" => Some(Self::Batch),
            "/v1/channels" => Some(Self::Ask(Subject::Channels)),
            "/openapi.yaml" => Some(Self::Contract),
            _ => match path.strip_prefix("/v1/publish/") {
                Some(channel) if !channel.is_empty() && !channel.contains('/') => {
                    Some(Self::PublishTo(channel))
                }
                Some(_) => None,
                None => Self::below_channels(path),
            },
        }
    }

    fn below_channels(path: &'p str) -> Option<Self> {
        let rest = path.strip_prefix("/v1/channels/")?;
        let subject = match rest.split_once('/') {
            None => Subject::Channel(rest),
            Some((channel, "presence")) => Subject::Presence(channel),
            Some(_) => return None,
        };
        (!rest.is_empty() && !rest.starts_with('/')).then_some(Self::Ask(subject))
    }

    /// Finds the route of a request.
    pub(crate) fn find(method: &Method, path: &'p str) -> Result<Self, NoRoute> {
        let Some(route) = Self::of(path) else {
            let detail = if path == "/v1/ws" || path.starts_with("/app/") {
                "this is the listener for publishers; clients connect to the public listener (port 8000 by default)"
            } else if path.starts_with("/v1/publish/") || path.starts_with("/v1/channels/") {
                "no such path; write `/` in a channel's name as %2F"
            } else {
                "no such path; GET /openapi.yaml describes this API"
            };
            return Err(NoRoute::Path(Refusal::new(ErrorCode::NotFound, detail)));
        };
        let allowed = route.method();
        if method.as_str() == allowed {
            return Ok(route);
        }
        let detail = format!("this path answers to {allowed} only");
        Err(NoRoute::Method(Refusal::new(ErrorCode::MethodNotAllowed, detail), allowed))
    }

    /// Returns the one method of the route.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Publish | Self::PublishTo(_) | Self::Batch => "POST",
            Self::Ask(_) | Self::Contract => "GET",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// How the contract writes the route's path. A new route must choose.
    fn template(route: Route<'_>) -> &'static str {
        match route {
            Route::Publish => "/v1/publish",
            Route::PublishTo(_) => "/v1/publish/{channel}",
            Route::Batch => "/v1/batch",
            Route::Ask(Subject::Channels) => "/v1/channels",
            Route::Ask(Subject::Channel(_)) => "/v1/channels/{channel}",
            Route::Ask(Subject::Presence(_)) => "/v1/channels/{channel}/presence",
            Route::Contract => "/openapi.yaml",
        }
    }

    #[test]
    fn the_contract_lists_these_routes_and_no_others() {
        let routes = [
            Route::Publish,
            Route::PublishTo("{channel}"),
            Route::Batch,
            Route::Ask(Subject::Channels),
            Route::Ask(Subject::Channel("{channel}")),
            Route::Ask(Subject::Presence("{channel}")),
            Route::Contract,
        ];
        let ours: BTreeSet<_> =
            routes.iter().map(|route| (template(*route).to_owned(), route.method().to_lowercase())).collect();
        let contract: serde_json::Value = serde_norway::from_str(crate::OPENAPI).unwrap();
        let paths = contract.get("paths").unwrap().as_object().unwrap();
        let theirs: BTreeSet<_> = paths
            .iter()
            .flat_map(|(path, item)| {
                item.as_object().unwrap().keys().map(|method| (path.clone(), method.clone()))
            })
            .collect();
        assert_eq!(ours, theirs);
        for (path, method) in ours {
            let method = method.to_uppercase().parse().unwrap();
            let found = Route::find(&method, &path).unwrap_or_else(|_| panic!("{method} {path}"));
            assert_eq!(template(found), path);
        }
    }

    #[test]
    fn what_is_near_a_route_is_not_one() {
        for path in [
            "",
            "/",
            "/v1",
            "/v1/publish/",
            "/v1/publish/a/b",
            "/v1/batch/",
            "//v1/publish",
            "/V1/publish",
            "/v1/channels/",
            "/v1/channels//presence",
            "/v1/channels/a/",
            "/v1/channels/a/history",
            "/v1/channels/a/presence/",
        ] {
            assert!(matches!(Route::find(&Method::POST, path), Err(NoRoute::Path(_))), "{path}");
        }
        for method in
            [Method::GET, Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS, Method::CONNECT]
        {
            assert!(
                matches!(Route::find(&method, "/v1/publish"), Err(NoRoute::Method(_, "POST"))),
                "{method}"
            );
        }
    }
}
