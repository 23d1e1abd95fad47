//! `[[sink]]`: stores besides the embedded one. The keys that all kinds have are here; each kind parses the others.

mod clickhouse;
mod elasticsearch;
mod kafka;

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

pub use clickhouse::{ClickHouse, Compression as BlockCompression};
pub use elasticsearch::{Compression as BulkCompression, Elasticsearch};
pub use kafka::Kafka;

use super::text::{Text, expand};
use super::{ConfigError, Source};

/// Name of the sink that needs no `[[sink]]`: the store in the data directory.
pub const EMBEDDED: &str = "embedded";

/// Longest name of a sink, bytes: it is a label of every metric.
const MAX_NAME_BYTES: usize = 64;

/// Settings of one sink besides the embedded one.
#[derive(Clone, Debug)]
pub struct SinkConfig {
    /// Name in the ledger, the metrics and the dead letters.
    pub name: String,
    /// Settings of its deliveries.
    pub delivery: Delivery,
    /// Kind of store, with its settings.
    pub kind: SinkKind,
}

/// Kinds of sinks that can be configured, each with its settings.
#[derive(Clone, Debug)]
pub enum SinkKind {
    /// ClickHouse over its HTTP interface.
    ClickHouse(Box<ClickHouse>),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Box<Elasticsearch>),
    /// Kafka.
    Kafka(Box<Kafka>),
}

impl SinkKind {
    /// Returns whether queries can be answered from such a store.
    #[must_use]
    pub fn answers(&self) -> bool {
        !matches!(self, SinkKind::Kafka(_))
    }
}

/// Policy for a spool that is full because this sink accepts nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Refuse requests with 503, so that clients keep their events. Nothing is lost, and nothing new is stored.
    #[default]
    Block,
    /// Drop the oldest events of this sink, counted in the ledger. The other sinks get everything.
    DropOldest,
}

/// Settings of deliveries, which every `[[sink]]` has. The defaults depend on the kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Most events in one delivery.
    pub batch_events: u64,
    /// Most bytes of JSON in one delivery, after common properties were copied to each event. Together with the encoded
    /// form it bounds the memory of the sink.
    pub batch_bytes: u64,
    /// Batching window in milliseconds: a partial batch is sent after this time. Like Kafka's `linger.ms`.
    pub linger_ms: u64,
    /// First pause after a failure, milliseconds. It doubles with every failure in a row.
    pub retry_initial_backoff_ms: u64,
    /// Longest pause, milliseconds.
    pub retry_max_backoff_ms: u64,
    /// Failures in a row after which the health of the store is checked before a delivery is tried.
    pub breaker_threshold: u64,
    /// Time for one request to the store, milliseconds.
    pub request_timeout_ms: u64,
    /// Policy for a full spool.
    pub when_full: WhenFull,
}

impl Delivery {
    /// Returns the defaults of a kind that works best with batches of this size.
    ///
    /// With these pauses a store that restarts is found within seconds, and one that is down is tried every 15 s.
    pub(super) fn with_batches(batch_events: u64, batch_bytes: u64, linger_ms: u64) -> Self {
        Self {
            batch_events,
            batch_bytes,
            linger_ms,
            retry_initial_backoff_ms: 200,
            retry_max_backoff_ms: 15_000,
            breaker_threshold: 5,
            request_timeout_ms: 60_000,
            when_full: WhenFull::Block,
        }
    }
}

/// Keys of all kinds, as written in the table.
#[derive(Default)]
struct CommonKeys {
    numbers: Vec<(&'static str, u64)>,
    when_full: WhenFull,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// Common keys that are numbers, with their ranges.
const NUMBER_KEYS: [(&str, u64, u64); 7] = [
    ("batch_events", 1, 1_000_000),
    ("batch_bytes", 1024, 1024 * 1024 * 1024),
    ("linger_ms", 0, 60_000),
    ("retry_initial_backoff_ms", 1, DAY_MS),
    ("retry_max_backoff_ms", 1, DAY_MS),
    ("breaker_threshold", 1, 1_000_000),
    ("request_timeout_ms", 1, DAY_MS),
];

impl CommonKeys {
    /// Removes the common keys from `settings`.
    fn take(settings: &mut toml::Table, invalid: &dyn Fn(&str, String) -> ConfigError) -> Result<Self, ConfigError> {
        let mut common = Self::default();
        for (key, min, max) in NUMBER_KEYS {
            let Some(value) = settings.remove(key) else { continue };
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            let number = number.filter(|number| (min..=max).contains(number));
            let number = number.ok_or_else(|| invalid(key, format!("must be {min} to {max}, here {value}")))?;
            common.numbers.push((key, number));
        }
        if let Some(value) = settings.remove("when_full") {
            let refuse = || invalid("when_full", format!("must be \"block\" or \"drop_oldest\", here {value}"));
            common.when_full = value.clone().try_into().map_err(|_| refuse())?;
        }
        Ok(common)
    }

    fn apply_to(self, mut delivery: Delivery) -> Delivery {
        for (key, value) in self.numbers {
            let target = match key {
                "batch_events" => &mut delivery.batch_events,
                "batch_bytes" => &mut delivery.batch_bytes,
                "linger_ms" => &mut delivery.linger_ms,
                "retry_initial_backoff_ms" => &mut delivery.retry_initial_backoff_ms,
                "retry_max_backoff_ms" => &mut delivery.retry_max_backoff_ms,
                "breaker_threshold" => &mut delivery.breaker_threshold,
                _ => &mut delivery.request_timeout_ms,
            };
            *target = value;
        }
        delivery.when_full = self.when_full;
        delivery
    }
}

/// Settings of one kind of sink.
trait SinkSettings: DeserializeOwned {
    /// Checks what the types do not express. The error names the key and what is wrong with it.
    fn check(&mut self) -> Result<(), (&'static str, String)>;
}

pub(super) fn parse_all(
    source: &Source<'_>,
    tables: Vec<Spanned<toml::Table>>,
) -> Result<Vec<SinkConfig>, ConfigError> {
    let mut names = HashSet::new();
    let mut sinks = Vec::new();
    for table in tables {
        let at = table.span();
        let mut settings = table.into_inner();
        let mut text = |key: &str| {
            let invalid = |why: String| source.error(at.clone(), &format!("sink.{key}"), why);
            match settings.remove(key) {
                Some(toml::Value::String(text)) => expand(&text, &|name| std::env::var(name).ok()).map_err(invalid),
                Some(_) => Err(invalid("must be a string".into())),
                None => Err(invalid("is missing".into())),
            }
        };
        let (name, kind) = (text("name")?, text("kind")?);
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(known) {
            return Err(source.error(at, "sink.name", "must be [A-Za-z0-9_.-]{1,64}"));
        }
        if !names.insert(name.clone()) {
            return Err(source.error(at, "sink.name", format!("{name} is there twice")));
        }
        if let Some(sink) = parse_one(source, at, name, &kind, settings)? {
            sinks.push(sink);
        }
    }
    Ok(sinks)
}

fn parse_one(
    source: &Source<'_>,
    at: Range<usize>,
    name: String,
    kind: &str,
    mut settings: toml::Table,
) -> Result<Option<SinkConfig>, ConfigError> {
    let invalid = |key: &str, why: String| source.error(at.clone(), &format!("sink.{key}"), why);
    if kind == "sqlite" {
        if name != EMBEDDED {
            return Err(invalid(
                "kind",
                "the one sink of kind sqlite is the embedded store, named \"embedded\"".into(),
            ));
        }
        return match settings.keys().next() {
            Some(key) => Err(invalid(key, "is not a key of kind sqlite".into())),
            None => Ok(None),
        };
    }
    if name == EMBEDDED {
        return Err(invalid("name", "\"embedded\" is the name of the sink of kind sqlite".into()));
    }
    let common = CommonKeys::take(&mut settings, &invalid)?;
    let (kind, delivery) = match kind {
        "clickhouse" => (SinkKind::ClickHouse(Box::new(read(settings, &invalid)?)), ClickHouse::delivery()),
        "elasticsearch" => (SinkKind::Elasticsearch(Box::new(read(settings, &invalid)?)), Elasticsearch::delivery()),
        "kafka" => (SinkKind::Kafka(Box::new(read(settings, &invalid)?)), Kafka::delivery()),
        other => {
            let why = format!("{other} is no kind of sink; known are sqlite, clickhouse, elasticsearch, kafka");
            return Err(invalid("kind", why));
        }
    };
    Ok(Some(SinkConfig { name, delivery: common.apply_to(delivery), kind }))
}

/// Parses the settings of one kind from the rest of its table.
fn read<S: SinkSettings>(
    settings: toml::Table,
    invalid: &dyn Fn(&str, String) -> ConfigError,
) -> Result<S, ConfigError> {
    // The error of a table without its text names the key inside its message; it never shows a value.
    let mut read: S = toml::Value::Table(settings)
        .try_into()
        .map_err(|error: toml::de::Error| invalid("*", error.message().to_owned()))?;
    read.check().map_err(|(key, why)| invalid(key, why))?;
    Ok(read)
}

/// Checks that `url` is the address of an HTTP server, without path, query, user or password.
fn check_url(url: &Text) -> Result<(), (&'static str, String)> {
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host.map(|host| host.trim_end_matches('/')) {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => Ok(()),
        _ => Err((
            "url",
            "must be http:// or https:// with a host and, if needed, a port; user and password have keys of their own"
                .into(),
        )),
    }
}
