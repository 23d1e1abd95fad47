//! `[[sink]] kind = "elasticsearch"`.

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, Settings, check_url};

/// A Elasticsearch or OpenSearch server or cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    url: Text,
    /// Who writes and reads.
    #[serde(default)]
    pub user: Option<Text>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
}

impl Elasticsearch {
    /// Address of the REST interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// Elasticsearch takes bulks of some megabytes best.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(10_000, 8 * 1024 * 1024, 500)
    }
}

impl Settings for Elasticsearch {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)
    }
}
