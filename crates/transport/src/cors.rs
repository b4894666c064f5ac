//! What a browser is told about the website whose page asks (Fetch standard §3.2).
//!
//! **Lives here:** which websites are answered, and the header lines that let their pages read the answer.
//! **Called by:** `door`, before anything is joined.
//! **Must not know:** what is asked for.

use carillon_auth::Origins;
use carillon_model::{ErrorCode, Refusal};
use hyper::{
    HeaderMap, Response,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HeaderName, HeaderValue, ORIGIN, VARY,
    },
};

use crate::{
    problem::Answer,
    request::{self, shown},
};

/// The header lines that the visitor's browser needs in every answer.
#[derive(Clone, Debug)]
pub(crate) struct Cors(HeaderMap);

impl Cors {
    /// Looks at where a request comes from. One without `Origin` is no page's of another website; who sends it is for
    /// its token to say. `development` is that mode: then only pages of this machine, under names of this machine.
    ///
    /// # Errors
    /// The refusal, for a website that is not allowed.
    pub(crate) fn check(headers: &HeaderMap, origins: &Origins, development: bool) -> Result<Self, Refusal> {
        let origin = headers.get(ORIGIN);
        if development && let Some(name) = request::foreign_visitor(headers) {
            tracing::warn!(name, "a website of another machine was refused: this is development mode");
            return Err(foreign(&name));
        }
        if let Some(origin) = origin
            && !origin.to_str().is_ok_and(|origin| origins.allows(origin))
        {
            let origin = shown(origin);
            let message = format!("`{origin}` is not in the operator's client.allowed_origins");
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        let allowed = match origins {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Listed(_) => origin.cloned(),
        };
        let fixed = [(VARY, "Origin"), (ACCESS_CONTROL_EXPOSE_HEADERS, "ETag, Retry-After")];
        let mut lines: HeaderMap =
            fixed.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        if let Some(allowed) = allowed {
            lines.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        }
        Ok(Self(lines))
    }

    /// Returns the header lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.0.iter()
    }

    /// Adds the header lines to an answer.
    pub(crate) fn apply(self, mut answer: Answer) -> Answer {
        answer.headers_mut().extend(self.0);
        answer
    }
}

/// Returns the answer to a browser that asks whether it may ask (§3.2.5).
pub(crate) fn preflight(methods: &'static str) -> Answer {
    let mut answer = Response::default();
    *answer.status_mut() = hyper::StatusCode::NO_CONTENT;
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, methods),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Cache-Control, Content-Type, If-None-Match, Last-Event-ID",
        ),
        // Two hours are the most that any browser keeps it for.
        (ACCESS_CONTROL_MAX_AGE, "7200"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// Whoever can reach the port may do everything in development mode: websites must not, in a browser on this machine.
pub(crate) fn foreign(name: &str) -> Refusal {
    let message = format!(
        "`{name}` is not of this machine: in development mode only pages of localhost and 127.0.0.1 are answered"
    );
    Refusal::new(ErrorCode::Forbidden, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(origin: &str, allowed: &str) -> Result<Vec<String>, ErrorCode> {
        let lines: Option<(_, HeaderValue)> =
            HeaderValue::from_str(origin).ok().filter(|_| !origin.is_empty()).map(|origin| (ORIGIN, origin));
        let allowed = [allowed.to_owned()];
        let origins = Origins::read(&allowed).unwrap_or(Origins::Listed(Box::default()));
        let cors =
            Cors::check(&lines.into_iter().collect(), &origins, false).map_err(|refusal| refusal.code)?;
        let values = cors.0.get_all(ACCESS_CONTROL_ALLOW_ORIGIN).iter();
        Ok(values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect())
    }

    #[test]
    fn a_page_is_told_that_it_may_read() {
        let shop = "https://shop.example";
        assert_eq!(check(shop, "*"), Ok(vec!["*".to_owned()]));
        assert_eq!(check("null", "*"), Ok(vec!["*".to_owned()]));
        assert_eq!(check(shop, shop), Ok(vec![shop.to_owned()]));
        assert_eq!(check("", shop), Ok(vec![]));
        assert_eq!(check("https://evil.example", shop), Err(ErrorCode::Forbidden));
        assert_eq!(check("null", shop), Err(ErrorCode::Forbidden));
    }
}
