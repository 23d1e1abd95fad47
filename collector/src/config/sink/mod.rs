//! `[[sink]]`: the stores besides the embedded one. The keys that every kind has are here; each kind reads the rest itself.

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

/// The name of the sink that needs no `[[sink]]`: the store in the data directory.
pub const EMBEDDED: &str = "embedded";

/// Bytes of a sink's name: it is a label of every metric.
const NAME_BYTES: usize = 64;

/// One configured sink besides the embedded one.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Names it in the ledger, the metrics and the dead letters.
    pub name: String,
    /// How it is fed.
    pub delivery: Delivery,
    /// What it is and how to reach it.
    pub kind: Kind,
}

/// The kinds of sinks that can be configured, each with its settings.
#[derive(Clone, Debug)]
pub enum Kind {
    /// ClickHouse over its HTTP interface.
    ClickHouse(Box<ClickHouse>),
    /// Elasticsearch or OpenSearch.
    Elasticsearch(Box<Elasticsearch>),
    /// Kafka.
    Kafka(Box<Kafka>),
}

impl Kind {
    /// Whether questions can be answered from such a store.
    #[must_use]
    pub fn answers(&self) -> bool {
        !matches!(self, Kind::Kafka(_))
    }
}

/// What happens when the spool is full because this sink takes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenFull {
    /// Clients are told 503 and keep their events: nothing is lost, and nothing new is taken.
    #[default]
    Block,
    /// This sink gives up its oldest events, counted in the ledger; the others get everything.
    DropOldest,
}

/// How a sink is fed. Every `[[sink]]` has these keys; the defaults are the kind's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Most events in one batch.
    pub batch_events: u64,
    /// Most bytes of JSON in one batch, after what its events share was copied to each of them. Together with what the encoder makes of them it bounds the sink's memory.
    pub batch_bytes: u64,
    /// How long the first waiting event waits for company, milliseconds.
    pub linger_ms: u64,
    /// The first pause after a failure, milliseconds; it doubles with every failure in a row.
    pub retry_initial_backoff_ms: u64,
    /// The longest pause, milliseconds.
    pub retry_max_backoff_ms: u64,
    /// Failures in a row after which the store's health is asked before a batch is risked.
    pub breaker_threshold: u64,
    /// How long one request to the store may take, milliseconds.
    pub request_timeout_ms: u64,
    /// What happens when the spool is full.
    pub when_full: WhenFull,
}

impl Delivery {
    /// For a kind that is best served with batches of this size. The pauses: a store that restarts is found within
    /// seconds, one that is down for a day is not asked more than every 15 s.
    pub(super) fn of(batch_events: u64, batch_bytes: u64, linger_ms: u64) -> Self {
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

/// The table's common keys as written.
#[derive(Default)]
struct Common {
    numbers: Vec<(&'static str, u64)>,
    when_full: WhenFull,
}

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The common keys that are numbers, with what they may be.
const NUMBERS: [(&str, u64, u64); 7] = [
    ("batch_events", 1, 1_000_000),
    ("batch_bytes", 1024, 1024 * 1024 * 1024),
    ("linger_ms", 0, 60_000),
    ("retry_initial_backoff_ms", 1, DAY_MS),
    ("retry_max_backoff_ms", 1, DAY_MS),
    ("breaker_threshold", 1, 1_000_000),
    ("request_timeout_ms", 1, DAY_MS),
];

impl Common {
    /// Takes the common keys out of `settings`.
    fn take(settings: &mut toml::Table, wrong: &dyn Fn(&str, String) -> ConfigError) -> Result<Self, ConfigError> {
        let mut common = Self::default();
        for (key, least, most) in NUMBERS {
            let Some(value) = settings.remove(key) else { continue };
            let number = value.as_integer().and_then(|number| u64::try_from(number).ok());
            let number = number.filter(|number| (least..=most).contains(number));
            let number = number.ok_or_else(|| wrong(key, format!("must be {least} to {most}, here {value}")))?;
            common.numbers.push((key, number));
        }
        if let Some(value) = settings.remove("when_full") {
            let refuse = || wrong("when_full", format!("must be \"block\" or \"drop_oldest\", here {value}"));
            common.when_full = value.clone().try_into().map_err(|_| refuse())?;
        }
        Ok(common)
    }

    fn over(self, mut delivery: Delivery) -> Delivery {
        for (key, value) in self.numbers {
            let place = match key {
                "batch_events" => &mut delivery.batch_events,
                "batch_bytes" => &mut delivery.batch_bytes,
                "linger_ms" => &mut delivery.linger_ms,
                "retry_initial_backoff_ms" => &mut delivery.retry_initial_backoff_ms,
                "retry_max_backoff_ms" => &mut delivery.retry_max_backoff_ms,
                "breaker_threshold" => &mut delivery.breaker_threshold,
                _ => &mut delivery.request_timeout_ms,
            };
            *place = value;
        }
        delivery.when_full = self.when_full;
        delivery
    }
}

/// What the settings of one kind must be able to do.
trait Settings: DeserializeOwned {
    /// Checks what their types do not say; the error names the key and what is wrong with it.
    fn check(&mut self) -> Result<(), (&'static str, String)>;
}

pub(super) fn all(source: &Source<'_>, tables: Vec<Spanned<toml::Table>>) -> Result<Vec<Sink>, ConfigError> {
    let mut names = HashSet::new();
    let mut sinks = Vec::new();
    for table in tables {
        let at = table.span();
        let mut settings = table.into_inner();
        let mut text = |key: &str| {
            let wrong = |why: String| source.error(at.clone(), &format!("sink.{key}"), why);
            match settings.remove(key) {
                Some(toml::Value::String(text)) => expand(&text, &|name| std::env::var(name).ok()).map_err(wrong),
                Some(_) => Err(wrong("must be a string".into())),
                None => Err(wrong("is missing".into())),
            }
        };
        let (name, kind) = (text("name")?, text("kind")?);
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(known) {
            return Err(source.error(at, "sink.name", "must be [A-Za-z0-9_.-]{1,64}"));
        }
        if !names.insert(name.clone()) {
            return Err(source.error(at, "sink.name", format!("{name} is there twice")));
        }
        if let Some(sink) = one(source, at, name, &kind, settings)? {
            sinks.push(sink);
        }
    }
    Ok(sinks)
}

fn one(
    source: &Source<'_>,
    at: Range<usize>,
    name: String,
    kind: &str,
    mut settings: toml::Table,
) -> Result<Option<Sink>, ConfigError> {
    let wrong = |key: &str, why: String| source.error(at.clone(), &format!("sink.{key}"), why);
    if kind == "sqlite" {
        if name != EMBEDDED {
            return Err(wrong("kind", "the one sink of kind sqlite is the embedded store, named \"embedded\"".into()));
        }
        return match settings.keys().next() {
            Some(key) => Err(wrong(key, "is not a key of kind sqlite".into())),
            None => Ok(None),
        };
    }
    if name == EMBEDDED {
        return Err(wrong("name", "\"embedded\" is the name of the sink of kind sqlite".into()));
    }
    let common = Common::take(&mut settings, &wrong)?;
    let (kind, delivery) = match kind {
        "clickhouse" => (Kind::ClickHouse(Box::new(read(settings, &wrong)?)), ClickHouse::delivery()),
        "elasticsearch" => (Kind::Elasticsearch(Box::new(read(settings, &wrong)?)), Elasticsearch::delivery()),
        "kafka" => (Kind::Kafka(Box::new(read(settings, &wrong)?)), Kafka::delivery()),
        other => {
            let why = format!("{other} is no kind of sink; known are sqlite, clickhouse, elasticsearch, kafka");
            return Err(wrong("kind", why));
        }
    };
    Ok(Some(Sink { name, delivery: common.over(delivery), kind }))
}

/// The settings of one kind from what is left of its table.
fn read<S: Settings>(settings: toml::Table, wrong: &dyn Fn(&str, String) -> ConfigError) -> Result<S, ConfigError> {
    // The error of a table without its text names the key inside its message; it never shows a value.
    let mut read: S = toml::Value::Table(settings)
        .try_into()
        .map_err(|error: toml::de::Error| wrong("*", error.message().to_owned()))?;
    read.check().map_err(|(key, why)| wrong(key, why))?;
    Ok(read)
}

/// Whether this is the address of an HTTP server without anything that belongs elsewhere.
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
