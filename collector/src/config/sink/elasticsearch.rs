//! `[[sink]] kind = "elasticsearch"`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, Settings, check_url};

/// The beginning of every index name.
const INDEX_PREFIX: &str = "subway";
/// Longest prefix, bytes: an index name may have 255, and the ends of ours need at most 40.
const PREFIX_BYTES: usize = 100;
/// Primary shards of a daily index. One shard serves some ten million events; more of them cost memory for ever.
const SHARDS: u64 = 1;
/// Most shards that Elasticsearch allows an index to have.
const MOST_SHARDS: u64 = 1024;
/// Most copies of a shard that make sense anywhere.
const MOST_REPLICAS: u64 = 100;
/// How soon what was written is seen by those who search without asking for a refresh. The reading API asks for one.
const REFRESH_INTERVAL: &str = "5s";
/// Bytes of one bulk request before compression. Elasticsearch takes some megabytes best, and refuses more than
/// `http.max_content_length` (100 MB if nobody changed it).
const BULK_BYTES: u64 = 8 * 1024 * 1024;
/// The largest bulk that can be asked for, bytes: below the server's own default limit.
const MOST_BULK_BYTES: u64 = 90 * 1024 * 1024;
/// The longest retention, days: a hundred years.
const MOST_DAYS: u64 = 36_525;
/// Code of the event that makes a follower.
const FOLLOW: &str = "follow";
/// Code of the event that ends it.
const UNFOLLOW: &str = "unfollow";

/// How a request's body travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Compressed: an eighth of the bytes, for some time of one core.
    Gzip,
    /// As it is, for a store on the same machine.
    None,
}

/// An Elasticsearch or OpenSearch server or cluster.
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
    #[serde(default)]
    tls_ca: Option<Text>,
    /// Whether the sink makes the templates it needs; if not it only checks that what it needs is there.
    #[serde(default = "yes")]
    pub manage_schema: bool,
    #[serde(default)]
    index_prefix: Option<Text>,
    /// Primary shards of a daily index.
    #[serde(default = "shards")]
    pub shards: u64,
    /// Copies of each shard; without it one copy if there is a second node to hold it.
    #[serde(default)]
    pub replicas: Option<u64>,
    #[serde(default)]
    refresh_interval: Option<Text>,
    /// Whether the indices are packed harder, at some cost of time.
    #[serde(default)]
    pub best_compression: bool,
    /// The lifecycle policy that daily indices are put under; the policy itself is the operator's.
    #[serde(default)]
    pub ilm_policy: Option<Text>,
    /// Daily indices of days longer ago are deleted, days; 0: never.
    #[serde(default)]
    pub retention_days: u64,
    /// How bulks travel.
    #[serde(default = "gzip")]
    pub compression: Compression,
    /// A bulk request is sent when it has so many bytes before compression; the last event may reach beyond.
    #[serde(default = "bulk_bytes")]
    pub bulk_bytes: u64,
    /// Whether the documents that count exactly are written: visitors of a day, new users, followers.
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
    /// Address of the REST interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// A PEM file with the authority that signed the store's certificate.
    #[must_use]
    pub fn tls_ca(&self) -> Option<PathBuf> {
        self.tls_ca.as_deref().map(|path| Path::new(path).to_owned())
    }

    /// The beginning of every index name, without the hyphen that follows it.
    #[must_use]
    pub fn index_prefix(&self) -> &str {
        self.index_prefix.as_deref().unwrap_or(INDEX_PREFIX)
    }

    /// How soon what was written is seen by those who search, as Elasticsearch writes durations.
    #[must_use]
    pub fn refresh_interval(&self) -> &str {
        self.refresh_interval.as_deref().unwrap_or(REFRESH_INTERVAL)
    }

    /// Code of the event that makes its user a follower.
    #[must_use]
    pub fn follow_code(&self) -> &str {
        self.follow_code.as_deref().unwrap_or(FOLLOW)
    }

    /// Code of the event after which its user is none any more.
    #[must_use]
    pub fn unfollow_code(&self) -> &str {
        self.unfollow_code.as_deref().unwrap_or(UNFOLLOW)
    }

    /// Elasticsearch takes bulks of some megabytes best.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(10_000, 4 * 1024 * 1024, 500)
    }
}

impl Settings for Elasticsearch {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)?;
        let prefix = self.index_prefix();
        let known = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-' | b'.');
        let starts = prefix.as_bytes().first().is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !starts || prefix.len() > PREFIX_BYTES || !prefix.bytes().all(known) {
            return Err(("index_prefix", format!("must be [a-z0-9][a-z0-9_.-]*, at most {PREFIX_BYTES} bytes")));
        }
        let numbers = [
            ("shards", self.shards, 1, MOST_SHARDS),
            ("replicas", self.replicas.unwrap_or(0), 0, MOST_REPLICAS),
            ("retention_days", self.retention_days, 0, MOST_DAYS),
            ("bulk_bytes", self.bulk_bytes, 1024, MOST_BULK_BYTES),
        ];
        for (key, number, least, most) in numbers {
            if !(least..=most).contains(&number) {
                return Err((key, format!("must be {least} to {most}, here {number}")));
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
    /// Settings as read from a table with `url`, `index_prefix` and what `more` says.
    pub(crate) fn of_test(url: &str, prefix: &str, more: &str) -> Self {
        let mut settings: Self =
            toml::from_str(&format!("url = \"{url}\"\nindex_prefix = \"{prefix}\"\n{more}")).unwrap();
        settings.check().unwrap();
        settings
    }

    /// How a sink of this kind is fed if nothing else is said.
    pub(crate) fn delivery_of_test() -> Delivery {
        Self::delivery()
    }
}
