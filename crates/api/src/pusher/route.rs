//! Which path of the REST API is what.
//!
//! **Lives here:** the table of its routes, and which part of a path is signed.
//! **Called by:** `pusher`.
//! **Must not know:** what the routes do.

use carillon_model::{ErrorCode, Refusal};
use hyper::Method;

use crate::route::NoRoute;

/// A route, with what the path says; that is still percent-encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    /// `POST /apps/{id}/events`.
    Events,
    /// `POST /apps/{id}/batch_events`.
    BatchEvents,
    /// `GET /apps/{id}/channels`.
    Channels,
    /// `GET /apps/{id}/channels/{channel}`.
    Channel(&'p str),
    /// `GET /apps/{id}/channels/{channel}/users`.
    Users(&'p str),
    /// `POST /apps/{id}/users/{user}/terminate_connections`.
    Terminate(&'p str),
    /// `GET /apps/{id}/connections`.
    Connections,
}

impl<'p> Route<'p> {
    /// Returns the part of a path that clients sign: from `/apps/` on, whatever a proxy put before it. `None` where the
    /// path is not one of this API.
    pub(super) fn signed_part(path: &'p str) -> Option<&'p str> {
        if path.starts_with("/v1/") {
            return None;
        }
        if terminated_without_app(path).is_some() {
            return Some(path);
        }
        path.find("/apps/").and_then(|at| path.get(at..))
    }

    /// Finds the application's id and the route of a request.
    pub(super) fn find(method: &Method, path: &'p str) -> Result<(Option<&'p str>, Self), NoRoute> {
        let Some((app, route)) = Self::of(path) else {
            let refusal = Refusal::new(ErrorCode::NotFound, "Not found: this API has no such path");
            return Err(NoRoute::Path(refusal));
        };
        let allowed = route.method();
        if method.as_str() == allowed {
            return Ok((app, route));
        }
        let text = format!("Method not allowed: this path answers to {allowed} only");
        Err(NoRoute::Method(Refusal::new(ErrorCode::MethodNotAllowed, text), allowed))
    }

    fn of(path: &'p str) -> Option<(Option<&'p str>, Self)> {
        if let Some(user) = terminated_without_app(path) {
            return Some((None, Self::Terminate(user)));
        }
        let (app, rest) = Self::signed_part(path)?.strip_prefix("/apps/")?.split_once('/')?;
        let mut parts = rest.split('/');
        let route = match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            ("events", None, ..) => Self::Events,
            ("batch_events", None, ..) => Self::BatchEvents,
            ("channels", None, ..) => Self::Channels,
            ("channels", Some(channel), None, _) => Self::Channel(channel),
            ("channels", Some(channel), Some("users"), None) => Self::Users(channel),
            ("users", Some(user), Some("terminate_connections"), None) => Self::Terminate(user),
            ("connections", None, ..) => Self::Connections,
            _ => return None,
        };
        Some((Some(app), route))
    }

    const fn method(self) -> &'static str {
        match self {
            Self::Events | Self::BatchEvents | Self::Terminate(_) => "POST",
            Self::Channels | Self::Channel(_) | Self::Users(_) | Self::Connections => "GET",
        }
    }
}

/// Returns the user of a path that a client of PyPI sends, which forgets the application.
fn terminated_without_app(path: &str) -> Option<&str> {
    let user = path.strip_prefix("/users/")?.strip_suffix("/terminate_connections")?;
    (!user.contains('/')).then_some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_its_path_and_its_method() {
        let (get, post) = (Method::GET, Method::POST);
        for (method, other, path, route) in [
            (&post, &get, "/apps/1/events", Route::Events),
            (&post, &get, "/apps/1/batch_events", Route::BatchEvents),
            (&get, &post, "/apps/1/channels", Route::Channels),
            (&get, &post, "/apps/1/channels/a%3D", Route::Channel("a%3D")),
            (&get, &post, "/apps/1/channels/presence-a/users", Route::Users("presence-a")),
            (&post, &get, "/apps/1/users/7/terminate_connections", Route::Terminate("7")),
            (&get, &post, "/apps/1/connections", Route::Connections),
        ] {
            for path in [path.to_owned(), format!("/proxy/path{path}")] {
                let found = Route::find(method, &path).unwrap_or_else(|_| panic!("{path}"));
                assert_eq!(found, (Some("1"), route));
                assert!(
                    matches!(Route::find(other, &path), Err(NoRoute::Method(_, allow)) if allow == method.as_str())
                );
            }
        }
        let without = Route::find(&post, "/users/7/terminate_connections");
        assert!(matches!(without, Ok((None, Route::Terminate("7")))));
    }

    #[test]
    fn what_is_signed_begins_with_the_applications() {
        for (path, signed) in [
            ("/apps/1/events", Some("/apps/1/events")),
            ("/some/where/apps/1/events", Some("/apps/1/events")),
            ("/users/7/terminate_connections", Some("/users/7/terminate_connections")),
            ("/users/7/8/terminate_connections", None),
            ("/v1/publish/apps/1", None),
            ("/app/key", None),
            ("/apps", None),
            ("/", None),
        ] {
            assert_eq!(Route::signed_part(path), signed, "{path}");
        }
    }

    #[test]
    fn what_is_near_a_route_is_not_one() {
        for path in [
            "/apps/1",
            "/apps/1/",
            "/apps/1/event",
            "/apps/1/events/",
            "/apps/1/events/a",
            "/apps/1/channels/a/events",
            "/apps/1/channels/a/users/",
            "/apps/1/channels/a/b/users",
            "/apps/1/users/7",
            "/apps/1/users/7/terminate_connections/",
            "/apps//",
            "//apps",
        ] {
            for method in [Method::GET, Method::POST] {
                assert!(matches!(Route::find(&method, path), Err(NoRoute::Path(_))), "{path}");
            }
        }
    }
}
