//! `[[sink]] kind = "clickhouse"`.

use std::path::Path;

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, SinkSettings, check_url};

/// Default of `database`: its own, so that rights and backups can cover it as a whole.
const DATABASE: &str = "subway";
/// Default of `table`: the layer of events as received.
const TABLE: &str = "ods_event";
/// Default of `dwd_prefix`: the layer of the views, one for each theme.
const DWD_PREFIX: &str = "dwd_";
/// Default of `zookeeper_path`: one path for each shard and table, by the macros that every replicated server has.
const ZOOKEEPER_PATH: &str = "/clickhouse/tables/{shard}/{database}/{table}";
/// Default of `replica_name`: a macro that every replicated server has.
const REPLICA_NAME: &str = "{replica}";

/// Longest name in the database, bytes: file names contain it, and can have 255.
const MAX_NAME_BYTES: usize = 64;
/// Longest path, replica name or cluster name, bytes.
const MAX_PATH_BYTES: usize = 512;
/// Longest time to live, days. ClickHouse stores its end in 32 bits of seconds, which reach to 2106, so events later
/// than 2050 expire as if they had happened in 2050.
const MAX_TTL_DAYS: u64 = 20_000;
/// Largest `insert_quorum`: more replicas than any cluster has.
const MAX_QUORUM: u64 = 64;

/// Compression of the body of an insert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// LZ4: a third of the bytes, for a few per cent of CPU time.
    #[default]
    Lz4,
    /// None: for a server on the same machine.
    None,
}

/// A ClickHouse server or cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouse {
    url: Text,
    /// User that writes and reads; the server's `default` if absent.
    #[serde(default)]
    pub user: Option<Text>,
    /// The user's password.
    #[serde(default)]
    pub password: Option<Secret>,
    #[serde(default)]
    tls_ca: Option<Text>,
    #[serde(default)]
    database: Option<Text>,
    #[serde(default)]
    table: Option<Text>,
    #[serde(default)]
    dwd_prefix: Option<Text>,
    /// Whether tables are created and migrated at the start. If not, `schema apply` or an operator does it.
    #[serde(default = "yes")]
    pub manage_schema: bool,
    /// Days after which events are deleted, by event time; 0 is never. If absent, the table is not changed.
    #[serde(default)]
    pub ttl_days: Option<u64>,
    /// Whether the properties are also stored as a column of type JSON.
    #[serde(default)]
    pub props_json: bool,
    #[serde(default)]
    cluster: Option<Text>,
    /// Whether the table is replicated.
    #[serde(default)]
    pub replicated: bool,
    #[serde(default)]
    zookeeper_path: Option<Text>,
    #[serde(default)]
    replica_name: Option<Text>,
    /// Replicas that must have a batch before it counts as delivered; 0 is the one that received it.
    #[serde(default)]
    pub insert_quorum: u64,
    /// Compression of inserts.
    #[serde(default)]
    pub compression: Compression,
}

fn yes() -> bool {
    true
}

fn or<'a>(text: Option<&'a Text>, default: &'a str) -> &'a str {
    text.map_or(default, |text| text)
}

impl ClickHouse {
    /// Returns the address of the HTTP interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// Returns the PEM file with the authority that signed the server's certificate, if the system does not know it.
    #[must_use]
    pub fn tls_ca(&self) -> Option<&Path> {
        self.tls_ca.as_ref().map(|path| Path::new(&**path))
    }

    /// Returns the database.
    #[must_use]
    pub fn database(&self) -> &str {
        or(self.database.as_ref(), DATABASE)
    }

    /// Returns the table that is written and read; in a cluster, the distributed table.
    #[must_use]
    pub fn table(&self) -> &str {
        or(self.table.as_ref(), TABLE)
    }

    /// Returns the prefix of the names of the views; the theme follows it.
    #[must_use]
    pub fn dwd_prefix(&self) -> &str {
        or(self.dwd_prefix.as_ref(), DWD_PREFIX)
    }

    /// Returns the cluster on which the tables are created, if any.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Returns the path in the Keeper of a replicated table.
    #[must_use]
    pub fn zookeeper_path(&self) -> &str {
        or(self.zookeeper_path.as_ref(), ZOOKEEPER_PATH)
    }

    /// Returns the name of a replica of a replicated table.
    #[must_use]
    pub fn replica_name(&self) -> &str {
        or(self.replica_name.as_ref(), REPLICA_NAME)
    }

    /// Returns the defaults of deliveries. ClickHouse works best with few and large inserts: about one a second for
    /// each table.
    pub(super) fn delivery() -> Delivery {
        Delivery::with_batches(100_000, 8 * 1024 * 1024, 1000)
    }

    /// Settings for a test, and the defaults of what a batch may be and take.
    #[cfg(test)]
    pub(crate) fn for_test(toml: &str) -> (Self, Delivery) {
        let mut settings: Self = toml::from_str(toml).unwrap();
        settings.check().unwrap();
        (settings, Self::delivery())
    }
}

/// Returns whether `text` can be a name in a statement without quotes.
fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    first && text.len() <= MAX_NAME_BYTES && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Returns whether `text` can be quoted in a statement; macros are allowed.
fn is_path(text: &str) -> bool {
    let known = |c: u8| c.is_ascii_alphanumeric() || b"_-.:/{}".contains(&c);
    !text.is_empty() && text.len() <= MAX_PATH_BYTES && text.bytes().all(known)
}

impl SinkSettings for ClickHouse {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)?;
        let names = [("database", self.database()), ("table", self.table()), ("dwd_prefix", self.dwd_prefix())];
        for (key, name) in names {
            if !is_name(name) {
                return Err((key, format!("must be [A-Za-z_][A-Za-z0-9_]{{0,{}}}, here {name}", MAX_NAME_BYTES - 1)));
            }
        }
        let paths = [
            ("cluster", self.cluster().unwrap_or("c")),
            ("zookeeper_path", self.zookeeper_path()),
            ("replica_name", self.replica_name()),
        ];
        for (key, path) in paths {
            if !is_path(path) {
                return Err((key, format!("must be [A-Za-z0-9_.:/{{}}-]{{1,{MAX_PATH_BYTES}}}, here {path}")));
            }
        }
        let ttl_days = self.ttl_days.unwrap_or_default();
        for (key, value, max) in
            [("ttl_days", ttl_days, MAX_TTL_DAYS), ("insert_quorum", self.insert_quorum, MAX_QUORUM)]
        {
            if value > max {
                return Err((key, format!("must be 0 to {max}, here {value}")));
            }
        }
        if !["{table}", "{uuid}"].iter().any(|own| self.zookeeper_path().contains(own)) {
            return Err((
                "zookeeper_path",
                "must contain {table} or {uuid}: every table needs a path of its own".into(),
            ));
        }
        if !self.replicated {
            let needs = [
                ("zookeeper_path", self.zookeeper_path.is_some()),
                ("replica_name", self.replica_name.is_some()),
                ("insert_quorum", self.insert_quorum > 0),
            ];
            if let Some((key, _)) = needs.into_iter().find(|(_, given)| *given) {
                return Err((key, "is only for replicated = true".into()));
            }
        }
        if self.tls_ca.is_some() && !self.url.starts_with("https://") {
            return Err(("tls_ca", "is only for https:// addresses".into()));
        }
        Ok(())
    }
}
