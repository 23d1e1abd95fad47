//! Who is asking: app key to app, bearer token to reader or admin. Nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use subway_protocol::codec::server::{Problem, ProblemCode};
use subway_protocol::limits::PAST_DAYS;

use crate::config::Secret;
use crate::limit::Quota;

/// An app that is being served.
#[derive(Debug)]
pub(crate) struct App {
    /// Its key.
    pub key: String,
    /// Its number in the spool.
    pub number: i64,
    /// Days and hours of its metrics.
    pub timezone: TimeZone,
    /// If given, its requests must be signed.
    pub secret: Option<Secret>,
    /// What it may send.
    pub quota: Quota,
    /// How long before its arrival an event of it may have happened, days.
    pub past_days: u64,
    read_token: Secret,
}

impl App {
    /// An app.
    #[must_use]
    pub(crate) fn new(
        key: String,
        number: i64,
        timezone: TimeZone,
        secret: Option<Secret>,
        read_token: Secret,
    ) -> Self {
        Self { key, number, timezone, secret, quota: Quota::default(), past_days: PAST_DAYS, read_token }
    }

    /// The same app with a quota.
    #[must_use]
    pub(crate) fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// The same app, with events that may have happened so long before.
    #[must_use]
    pub(crate) fn with_past(mut self, days: u64) -> Self {
        self.past_days = days;
        self
    }
}

/// All apps and the admin token.
#[derive(Debug)]
pub(crate) struct Keys {
    apps: HashMap<String, Arc<App>>,
    admin_token: Secret,
}

impl Keys {
    /// The apps by their keys.
    #[must_use]
    pub(crate) fn new(apps: impl IntoIterator<Item = App>, admin_token: Secret) -> Self {
        Self { apps: apps.into_iter().map(|app| (app.key.clone(), Arc::new(app))).collect(), admin_token }
    }

    /// The app with this key.
    #[must_use]
    pub(crate) fn app(&self, key: &str) -> Option<&Arc<App>> {
        self.apps.get(key)
    }

    /// Every app, by key.
    #[must_use]
    pub(crate) fn apps(&self) -> Vec<&Arc<App>> {
        let mut apps: Vec<&Arc<App>> = self.apps.values().collect();
        apps.sort_by(|a, b| a.key.cmp(&b.key));
        apps
    }

    /// The number of every app.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = i64> {
        self.apps.values().map(|app| app.number)
    }

    /// The app that may send with this key.
    ///
    /// # Errors
    /// `no_key` or `unknown_key`.
    pub(crate) fn sender(&self, key: Option<&str>) -> Result<&Arc<App>, Problem> {
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| {
            Problem::new(
                ProblemCode::NoKey,
                "send the app's key in the header x-subway-key or the parameter key".into(),
            )
        })?;
        self.apps.get(key).ok_or_else(|| Problem::new(ProblemCode::UnknownKey, "no app has this key".into()))
    }

    /// The app `key`, if `authorization` (the header's value) carries its read token or the admin token.
    ///
    /// # Errors
    /// `bad_token`, the same for an unknown app as for a wrong token.
    pub(crate) fn reader(&self, key: &str, authorization: Option<&str>) -> Result<&Arc<App>, Problem> {
        let app = self.apps.get(key).ok_or_else(bad_token)?;
        if bears(authorization, &app.read_token) | bears(authorization, &self.admin_token) {
            Ok(app)
        } else {
            Err(bad_token())
        }
    }

    /// Every app that `authorization` may read, by key: those with this read token, or all for the admin token.
    ///
    /// # Errors
    /// `bad_token` if there is none.
    pub(crate) fn readable(&self, authorization: Option<&str>) -> Result<Vec<&Arc<App>>, Problem> {
        let mut apps = self.apps();
        apps.retain(|app| self.reader(&app.key, authorization).is_ok());
        if apps.is_empty() { Err(bad_token()) } else { Ok(apps) }
    }

    /// Lets the admin in.
    ///
    /// # Errors
    /// `bad_token`.
    pub(crate) fn admin(&self, authorization: Option<&str>) -> Result<(), Problem> {
        if bears(authorization, &self.admin_token) { Ok(()) } else { Err(bad_token()) }
    }
}

fn bad_token() -> Problem {
    Problem::new(ProblemCode::BadToken, "send the right token as `Authorization: Bearer TOKEN`".into())
}

/// Compares digests, so that the time it takes says nothing about the token.
fn bears(authorization: Option<&str>, token: &Secret) -> bool {
    let Some((scheme, given)) = authorization.and_then(|value| value.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && Sha256::digest(given.trim()) == Sha256::digest(token.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Keys {
        let app = |key: &str, token: &str| App::new(key.into(), 1, TimeZone::UTC, None, Secret::new(token.into()));
        Keys::new([app("a", "token-a"), app("b", "token-b")], Secret::new("admin".into()))
    }

    #[test]
    fn a_key_finds_its_app_only() {
        let keys = keys();
        assert_eq!(keys.sender(Some("a")).unwrap().key, "a");
        assert_eq!(keys.sender(Some("c")).unwrap_err().code, ProblemCode::UnknownKey);
        assert_eq!(keys.sender(Some("")).unwrap_err().code, ProblemCode::NoKey);
        assert_eq!(keys.sender(None).unwrap_err().code, ProblemCode::NoKey);
    }

    #[test]
    fn a_token_opens_its_own_app_only() {
        let keys = keys();
        assert_eq!(keys.reader("a", Some("Bearer token-a")).unwrap().key, "a");
        assert_eq!(keys.reader("a", Some("bearer token-a")).unwrap().key, "a");
        for (key, header) in [
            ("b", Some("Bearer token-a")),
            ("a", Some("token-a")),
            ("a", Some("Basic token-a")),
            ("a", Some("Bearer ")),
            ("a", None),
            ("c", Some("Bearer token-a")),
            ("c", Some("Bearer admin")),
        ] {
            assert_eq!(keys.reader(key, header).unwrap_err().code, ProblemCode::BadToken);
        }
        assert_eq!(keys.reader("a", Some("Bearer admin")).unwrap().key, "a");
        assert!(keys.admin(Some("Bearer admin")).is_ok());
        assert!(keys.admin(Some("Bearer token-a")).is_err());
    }

    #[test]
    fn a_token_lists_what_it_opens() {
        let keys = keys();
        let listed =
            |header| keys.readable(Some(header)).map(|apps| apps.iter().map(|app| app.key.clone()).collect::<Vec<_>>());
        assert_eq!(listed("Bearer token-b").unwrap(), ["b"]);
        assert_eq!(listed("Bearer admin").unwrap(), ["a", "b"]);
        assert_eq!(listed("Bearer x").unwrap_err().code, ProblemCode::BadToken);
    }
}
