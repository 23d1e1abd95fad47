//! Authentication: maps an app key to its app, and a bearer token to reader or admin. Nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use subway_protocol::codec::server::{Problem, ProblemCode};
use subway_protocol::limits::PAST_DAYS;

use crate::config::Secret;
use crate::limit::AppQuota;

/// One app that the collector serves.
#[derive(Debug)]
pub(crate) struct RegisteredApp {
    /// Key of the app.
    pub key: String,
    /// Number of the app in the spool.
    pub number: i64,
    /// Time zone of its days and hours in metrics.
    pub timezone: TimeZone,
    /// Secret of signed requests. If given, every request must be signed.
    pub secret: Option<Secret>,
    /// Rate limits of the app.
    pub quota: AppQuota,
    /// Largest age of an event at its arrival, days.
    pub past_days: u64,
    read_token: Secret,
}

impl RegisteredApp {
    /// Creates an app without rate limits.
    #[must_use]
    pub(crate) fn new(
        key: String,
        number: i64,
        timezone: TimeZone,
        secret: Option<Secret>,
        read_token: Secret,
    ) -> Self {
        Self { key, number, timezone, secret, quota: AppQuota::default(), past_days: PAST_DAYS, read_token }
    }

    /// Sets the rate limits.
    #[must_use]
    pub(crate) fn with_quota(mut self, quota: AppQuota) -> Self {
        self.quota = quota;
        self
    }

    /// Sets the largest age of an event.
    #[must_use]
    pub(crate) fn with_past_days(mut self, days: u64) -> Self {
        self.past_days = days;
        self
    }
}

/// All apps, and the admin token.
#[derive(Debug)]
pub(crate) struct AppRegistry {
    apps: HashMap<String, Arc<RegisteredApp>>,
    admin_token: Secret,
}

impl AppRegistry {
    /// Creates a registry of `apps`.
    #[must_use]
    pub(crate) fn new(apps: impl IntoIterator<Item = RegisteredApp>, admin_token: Secret) -> Self {
        Self { apps: apps.into_iter().map(|app| (app.key.clone(), Arc::new(app))).collect(), admin_token }
    }

    /// Returns the app with this key.
    #[must_use]
    pub(crate) fn app(&self, key: &str) -> Option<&Arc<RegisteredApp>> {
        self.apps.get(key)
    }

    /// Returns all apps in the order of their keys.
    #[must_use]
    pub(crate) fn apps(&self) -> Vec<&Arc<RegisteredApp>> {
        let mut apps: Vec<&Arc<RegisteredApp>> = self.apps.values().collect();
        apps.sort_by(|a, b| a.key.cmp(&b.key));
        apps
    }

    /// Returns the numbers of all apps.
    pub(crate) fn app_numbers(&self) -> impl Iterator<Item = i64> {
        self.apps.values().map(|app| app.number)
    }

    /// Returns the app that sends with this key.
    ///
    /// # Errors
    /// `no_key` or `unknown_key`.
    pub(crate) fn authenticate_sender(&self, key: Option<&str>) -> Result<&Arc<RegisteredApp>, Problem> {
        let key = key.filter(|key| !key.is_empty()).ok_or_else(|| {
            Problem::new(
                ProblemCode::NoKey,
                "send the app's key in the header x-subway-key or the parameter key".into(),
            )
        })?;
        self.apps.get(key).ok_or_else(|| Problem::new(ProblemCode::UnknownKey, "no app has this key".into()))
    }

    /// Returns the app `key`, if `authorization` (the header's value) has its read token or the admin token.
    ///
    /// # Errors
    /// `bad_token`, the same for an unknown app as for a wrong token.
    pub(crate) fn authorize_reader(
        &self,
        key: &str,
        authorization: Option<&str>,
    ) -> Result<&Arc<RegisteredApp>, Problem> {
        let app = self.apps.get(key).ok_or_else(bad_token)?;
        if has_bearer_token(authorization, &app.read_token) | has_bearer_token(authorization, &self.admin_token) {
            Ok(app)
        } else {
            Err(bad_token())
        }
    }

    /// Returns the apps that `authorization` may read, in the order of their keys: those with this read token, or all
    /// for the admin token.
    ///
    /// # Errors
    /// `bad_token` if there is none.
    pub(crate) fn readable_apps(&self, authorization: Option<&str>) -> Result<Vec<&Arc<RegisteredApp>>, Problem> {
        let mut apps = self.apps();
        apps.retain(|app| self.authorize_reader(&app.key, authorization).is_ok());
        if apps.is_empty() { Err(bad_token()) } else { Ok(apps) }
    }

    /// Checks that `authorization` has the admin token.
    ///
    /// # Errors
    /// `bad_token`.
    pub(crate) fn authorize_admin(&self, authorization: Option<&str>) -> Result<(), Problem> {
        if has_bearer_token(authorization, &self.admin_token) { Ok(()) } else { Err(bad_token()) }
    }
}

fn bad_token() -> Problem {
    Problem::new(ProblemCode::BadToken, "send the right token as `Authorization: Bearer TOKEN`".into())
}

/// Compares digests, so that the time of the comparison tells nothing about the token.
fn has_bearer_token(authorization: Option<&str>, token: &Secret) -> bool {
    let Some((scheme, given)) = authorization.and_then(|value| value.split_once(' ')) else { return false };
    scheme.eq_ignore_ascii_case("bearer") && Sha256::digest(given.trim()) == Sha256::digest(token.expose())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry() -> AppRegistry {
        let app =
            |key: &str, token: &str| RegisteredApp::new(key.into(), 1, TimeZone::UTC, None, Secret::new(token.into()));
        AppRegistry::new([app("a", "token-a"), app("b", "token-b")], Secret::new("admin".into()))
    }

    #[test]
    fn a_key_finds_its_app_only() {
        let registry = registry();
        assert_eq!(registry.authenticate_sender(Some("a")).unwrap().key, "a");
        assert_eq!(registry.authenticate_sender(Some("c")).unwrap_err().code, ProblemCode::UnknownKey);
        assert_eq!(registry.authenticate_sender(Some("")).unwrap_err().code, ProblemCode::NoKey);
        assert_eq!(registry.authenticate_sender(None).unwrap_err().code, ProblemCode::NoKey);
    }

    #[test]
    fn a_token_opens_its_own_app_only() {
        let registry = registry();
        assert_eq!(registry.authorize_reader("a", Some("Bearer token-a")).unwrap().key, "a");
        assert_eq!(registry.authorize_reader("a", Some("bearer token-a")).unwrap().key, "a");
        for (key, header) in [
            ("b", Some("Bearer token-a")),
            ("a", Some("token-a")),
            ("a", Some("Basic token-a")),
            ("a", Some("Bearer ")),
            ("a", None),
            ("c", Some("Bearer token-a")),
            ("c", Some("Bearer admin")),
        ] {
            assert_eq!(registry.authorize_reader(key, header).unwrap_err().code, ProblemCode::BadToken);
        }
        assert_eq!(registry.authorize_reader("a", Some("Bearer admin")).unwrap().key, "a");
        assert!(registry.authorize_admin(Some("Bearer admin")).is_ok());
        assert!(registry.authorize_admin(Some("Bearer token-a")).is_err());
    }

    #[test]
    fn a_token_lists_what_it_opens() {
        let registry = registry();
        let listed = |header| {
            registry.readable_apps(Some(header)).map(|apps| apps.iter().map(|app| app.key.clone()).collect::<Vec<_>>())
        };
        assert_eq!(listed("Bearer token-b").unwrap(), ["b"]);
        assert_eq!(listed("Bearer admin").unwrap(), ["a", "b"]);
        assert_eq!(listed("Bearer x").unwrap_err().code, ProblemCode::BadToken);
    }
}
