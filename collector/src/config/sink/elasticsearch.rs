//! `[[sink]] kind = "elasticsearch"`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, SinkSettings, check_url};

/// Default of `index_prefix`.
const INDEX_PREFIX: &str = "subway";
/// Longest prefix, bytes: an index name may have 255, and the ends of ours need at most 40.
const MAX_PREFIX_BYTES: usize = 100;
/// Primary shards of a daily index. One shard serves some ten million events; more of them cost memory for ever.
const SHARDS: u64 = 1;
/// Largest number of shards that Elasticsearch allows for an index.
const MAX_SHARDS: u64 = 1024;
/// Largest number of copies of a shard: more than any cluster has nodes.
const MAX_REPLICAS: u64 = 100;
/// Time after which written events are visible to searches without a refresh. The reading API requests one.
const REFRESH_INTERVAL: &str = "5s";
/// Bytes of one bulk request before compression. Elasticsearch takes some megabytes best, and refuses more than
/// `http.max_content_length` (100 MB by default).
const BULK_BYTES: u64 = 8 * 1024 * 1024;
/// Largest `bulk_bytes`: below the server's default limit.
const MAX_BULK_BYTES: u64 = 90 * 1024 * 1024;
/// Longest retention, days: a century.
const MAX_RETENTION_DAYS: u64 = 36_525;
/// Default of `follow_code`.
const FOLLOW: &str = "follow";
/// Default of `unfollow_code`.
const UNFOLLOW: &str = "unfollow";

/// Compression of request bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Gzip: about a twelfth of the bytes, at the cost of some CPU time.
    Gzip,
    /// None: for a store on the same machine.
    None,
}

/// An Elasticsearch or OpenSearch server or cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elasticsearch {
    url: Text,
    /// User that writes and reads.
    #[serde(default)]
    pub user: Option<Text>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    tls_ca: Option<Text>,
    /// Whether the sink creates the templates that it needs. If not, it only checks that they exist.
    #[serde(default = "yes")]
    pub manage_schema: bool,
    #[serde(default)]
    index_prefix: Option<Text>,
    /// Primary shards of a daily index.
    #[serde(default = "shards")]
    pub shards: u64,
    /// Copies of each shard; if absent, one if the cluster has a second node.
    #[serde(default)]
    pub replicas: Option<u64>,
    #[serde(default)]
    refresh_interval: Option<Text>,
    /// Whether indices are compressed more, at the cost of some time.
    #[serde(default)]
    pub best_compression: bool,
    /// Lifecycle policy of daily indices. The operator creates the policy.
    #[serde(default)]
    pub ilm_policy: Option<Text>,
    /// Age at which daily indices are deleted, days; 0 is never.
    #[serde(default)]
    pub retention_days: u64,
    /// Compression of bulk requests.
    #[serde(default = "gzip")]
    pub compression: Compression,
    /// Bytes before compression at which a bulk request is sent. The last event can exceed it.
    #[serde(default = "bulk_bytes")]
    pub bulk_bytes: u64,
    /// Whether to write the documents for exact counts: visitors of a day, new users, followers.
    #[serde(default = "yes")]
    pub exact_counts: bool,
    #[serde(default)]
    follow_code: Option<Text>,
    #[serde(default)]
    unfollow_code: Option<Text>,
}

fn yes() -> bool {
    true
}

fn shards() -> u64 {
    SHARDS
}

fn gzip() -> Compression {
    Compression::Gzip
}

fn bulk_bytes() -> u64 {
    BULK_BYTES
}

impl Elasticsearch {
    /// Returns the address of the REST interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// Returns the PEM file with the authority that signed the store's certificate.
    #[must_use]
    pub fn tls_ca(&self) -> Option<PathBuf> {
        self.tls_ca.as_deref().map(|path| Path::new(path).to_owned())
    }

    /// Returns the prefix of every index name, without the hyphen that follows it.
    #[must_use]
    pub fn index_prefix(&self) -> &str {
        self.index_prefix.as_deref().unwrap_or(INDEX_PREFIX)
    }

    /// Returns the refresh interval, as Elasticsearch writes durations.
    #[must_use]
    pub fn refresh_interval(&self) -> &str {
        self.refresh_interval.as_deref().unwrap_or(REFRESH_INTERVAL)
    }

    /// Returns the code of the event by which its user becomes a follower.
    #[must_use]
    pub fn follow_code(&self) -> &str {
        self.follow_code.as_deref().unwrap_or(FOLLOW)
    }

    /// Returns the code of the event by which its user stops being a follower.
    #[must_use]
    pub fn unfollow_code(&self) -> &str {
        self.unfollow_code.as_deref().unwrap_or(UNFOLLOW)
    }

    /// Returns the defaults of deliveries: Elasticsearch works best with bulk requests of some megabytes.
    pub(super) fn delivery() -> Delivery {
        Delivery::with_batches(10_000, 4 * 1024 * 1024, 500)
    }
}

impl SinkSettings for Elasticsearch {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)?;
        let prefix = self.index_prefix();
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-' | b'.');
        let starts = prefix.as_bytes().first().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !starts || prefix.len() > MAX_PREFIX_BYTES || !prefix.bytes().all(known) {
            return Err(("index_prefix", format!("must be [a-z0-9][a-z0-9_.-]*, at most {MAX_PREFIX_BYTES} bytes")));
        }
        let numbers = [
            ("shards", self.shards, 1, MAX_SHARDS),
            ("replicas", self.replicas.unwrap_or(0), 0, MAX_REPLICAS),
            ("retention_days", self.retention_days, 0, MAX_RETENTION_DAYS),
            ("bulk_bytes", self.bulk_bytes, 1024, MAX_BULK_BYTES),
        ];
        for (key, number, min, max) in numbers {
            if !(min..=max).contains(&number) {
                return Err((key, format!("must be {min} to {max}, here {number}")));
            }
        }
        let interval = self.refresh_interval();
        let digits = interval.trim_start_matches(|c: char| c.is_ascii_digit());
        if interval != "-1" && (digits.len() == interval.len() || !["ms", "s", "m"].contains(&digits)) {
            return Err(("refresh_interval", format!("must be -1 or a number with ms, s or m, here {interval}")));
        }
        if self.follow_code() == self.unfollow_code() {
            return Err(("unfollow_code", "must differ from follow_code".into()));
        }
        match (&self.user, &self.password) {
            (None, Some(_)) => Err(("user", "is missing, but there is a password".into())),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
impl Elasticsearch {
    /// Parses settings from a table with `url`, `index_prefix` and what `more` says.
    pub(crate) fn of_test(url: &str, prefix: &str, more: &str) -> Self {
        let mut settings: Self =
            toml::from_str(&format!("url = \"{url}\"\nindex_prefix = \"{prefix}\"\n{more}")).unwrap();
        settings.check().unwrap();
        settings
    }

    /// Returns the defaults of deliveries.
    pub(crate) fn delivery_of_test() -> Delivery {
        Self::delivery()
    }
}
