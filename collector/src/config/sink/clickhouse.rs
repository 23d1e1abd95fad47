//! `[[sink]] kind = "clickhouse"`.

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, Settings, check_url};

/// A ClickHouse server or cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    url: Text,
    /// Who writes and reads; the server's `default` if absent.
    #[serde(default)]
    pub user: Option<Text>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
}

impl ClickHouse {
    /// Address of the HTTP interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// ClickHouse wants few and large inserts: about one a second and table.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(100_000, 64 * 1024 * 1024, 1000)
    }
}

impl Settings for ClickHouse {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)
    }
}
