//! `[[sink]] kind = "clickhouse"`.

use std::path::Path;

use serde::Deserialize;

use super::super::text::{Secret, Text};
use super::{Delivery, Settings, check_url};

/// A database of its own, so that rights and backups can be given to it as a whole.
const DATABASE: &str = "subway";
/// The layer that holds events as they came.
const TABLE: &str = "ods_event";
/// The layer of the views, one per theme.
const DWD_PREFIX: &str = "dwd_";
/// One path per shard and table, by the macros that every replicated server has.
const ZOOKEEPER_PATH: &str = "/clickhouse/tables/{shard}/{database}/{table}";
/// The macro that every replicated server has.
const REPLICA_NAME: &str = "{replica}";

/// Bytes of a name in the database: file names are made of it, and 255 bytes are all they may have.
const NAME_BYTES: usize = 64;
/// Bytes of a path, a replica's or a cluster's name.
const PATH_BYTES: usize = 512;
/// The longest time to live, days. The end of it is kept as 32 bits of seconds, which reach to 2106; events later than
/// 2050 expire as if they had happened then.
const TTL_DAYS: u64 = 20_000;
/// Replicas that must have a batch before it counts as delivered: more than any cluster has.
const QUORUM: u64 = 64;

/// How the body of an insert is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// LZ4: a third of the bytes for a few per cent of the processor.
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
    /// Who writes and reads; the server's `default` if absent.
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
    /// Whether tables are made and migrated at the start. If not, `schema apply` does it, or a person.
    #[serde(default = "yes")]
    pub manage_schema: bool,
    /// After how many days, by event time, events are deleted. 0: never. Absent: as the table says.
    #[serde(default)]
    pub ttl_days: Option<u64>,
    /// Whether the properties are kept a second time, as a column of type JSON.
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
    /// On how many replicas a batch must be before it counts as delivered. 0: on the one that was asked.
    #[serde(default)]
    pub insert_quorum: u64,
    /// How the body of an insert is compressed.
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
    /// Address of the HTTP interface, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.trim_end_matches('/')
    }

    /// A PEM file with the authority that signed the server's certificate, if the system does not know it.
    #[must_use]
    pub fn tls_ca(&self) -> Option<&Path> {
        self.tls_ca.as_ref().map(|path| Path::new(&**path))
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        or(self.database.as_ref(), DATABASE)
    }

    /// The table that is written and read. With a cluster it is the distributed one.
    #[must_use]
    pub fn table(&self) -> &str {
        or(self.table.as_ref(), TABLE)
    }

    /// What the names of the views begin with; the theme follows.
    #[must_use]
    pub fn dwd_prefix(&self) -> &str {
        or(self.dwd_prefix.as_ref(), DWD_PREFIX)
    }

    /// The cluster on which the tables are made, if there is one.
    #[must_use]
    pub fn cluster(&self) -> Option<&str> {
        self.cluster.as_deref()
    }

    /// Where the replicas of a table meet, for replicated tables.
    #[must_use]
    pub fn zookeeper_path(&self) -> &str {
        or(self.zookeeper_path.as_ref(), ZOOKEEPER_PATH)
    }

    /// The name of one replica, for replicated tables.
    #[must_use]
    pub fn replica_name(&self) -> &str {
        or(self.replica_name.as_ref(), REPLICA_NAME)
    }

    /// ClickHouse wants few and large inserts: about one a second and table.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(100_000, 8 * 1024 * 1024, 1000)
    }

    /// Settings for a test, and the defaults of what a batch may be and take.
    #[cfg(test)]
    pub(crate) fn for_test(toml: &str) -> (Self, Delivery) {
        let mut settings: Self = toml::from_str(toml).unwrap();
        settings.check().unwrap();
        (settings, Self::delivery())
    }
}

/// Whether this can stand in a statement as a name, without quotes.
fn is_name(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|c| c.is_ascii_alphabetic() || c == b'_');
    first && text.len() <= NAME_BYTES && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// Whether this can stand in a statement between quotes, macros included.
fn is_path(text: &str) -> bool {
    let known = |c: u8| c.is_ascii_alphanumeric() || b"_-.:/{}".contains(&c);
    !text.is_empty() && text.len() <= PATH_BYTES && text.bytes().all(known)
}

impl Settings for ClickHouse {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        check_url(&self.url)?;
        let names = [("database", self.database()), ("table", self.table()), ("dwd_prefix", self.dwd_prefix())];
        for (key, name) in names {
            if !is_name(name) {
                return Err((key, format!("must be [A-Za-z_][A-Za-z0-9_]{{0,{}}}, here {name}", NAME_BYTES - 1)));
            }
        }
        let paths = [
            ("cluster", self.cluster().unwrap_or("c")),
            ("zookeeper_path", self.zookeeper_path()),
            ("replica_name", self.replica_name()),
        ];
        for (key, path) in paths {
            if !is_path(path) {
                return Err((key, format!("must be [A-Za-z0-9_.:/{{}}-]{{1,{PATH_BYTES}}}, here {path}")));
            }
        }
        let ttl_days = self.ttl_days.unwrap_or_default();
        for (key, value, most) in [("ttl_days", ttl_days, TTL_DAYS), ("insert_quorum", self.insert_quorum, QUORUM)] {
            if value > most {
                return Err((key, format!("must be 0 to {most}, here {value}")));
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
