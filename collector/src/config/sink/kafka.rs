//! `[[sink]] kind = "kafka"`.

use std::path::PathBuf;

use std::borrow::Cow;

use serde::Deserialize;
use subway_protocol::Theme;

use super::super::text::{Secret, Text};
use super::{Delivery, SinkSettings};

/// Default of `topic`.
const TOPIC: &str = "subway-events";
/// Partitions of a new topic, which is the number of consumers that can share it. Partitions that are added later move
/// installs to other partitions, so there are some to spare.
const PARTITIONS: u16 = 12;
/// Largest number of partitions: far more than a cluster supports.
const MAX_PARTITIONS: u16 = 10_000;
/// Default of `message_bytes`: Kafka's own default, and many times the largest event with its context (about 100 KB).
const MESSAGE_BYTES: u32 = 1_048_588;
/// Smallest `message_bytes`: the largest event within the collector's default limits, with its context.
const MIN_MESSAGE_BYTES: u32 = 128 * 1024;
/// Largest `message_bytes`: what the client library can send.
const MAX_MESSAGE_BYTES: u32 = 1_000_000_000;
/// Default of `queue_bytes`, which bounds the memory: two batches of the default size, so that encoding and sending
/// overlap.
const QUEUE_BYTES: u64 = 32 * 1024 * 1024;
/// Largest `queue_bytes`: what the client library can count.
const MAX_QUEUE_BYTES: u64 = 2_147_483_647 * 1024;
/// Longest `topic`, characters: Kafka allows 249, and the longest theme takes 12 with its hyphen.
const MAX_TOPIC_BYTES: usize = 200;

/// Compression of messages. Kafka's other codecs need libraries of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// No compression.
    None,
    /// LZ4: the fastest.
    #[default]
    Lz4,
    /// Snappy.
    Snappy,
}

impl Compression {
    /// Returns Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Snappy => "snappy",
        }
    }
}

/// SASL mechanism by which `user` and `password` are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// Sends both in clear text.
    #[default]
    #[serde(rename = "PLAIN")]
    Plain,
    /// A challenge over SHA-256. Needs the cargo feature `kafka-ssl`.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// A challenge over SHA-512. Needs the cargo feature `kafka-ssl`.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    /// Returns Kafka's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::ScramSha256 => "SCRAM-SHA-256",
            Mechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// A Kafka cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    url: Text,
    topic: Option<Text>,
    /// Whether each theme has its own topic, `TOPIC-THEME`.
    #[serde(default)]
    pub topic_per_theme: bool,
    partitions: Option<u16>,
    /// Copies of each partition of a new topic; the brokers' `default.replication.factor` if absent.
    pub replication_factor: Option<u16>,
    manage_schema: Option<bool>,
    /// Compression of messages.
    #[serde(default)]
    pub compression: Compression,
    message_bytes: Option<u32>,
    queue_bytes: Option<u64>,
    /// User that writes; anonymous if absent.
    pub user: Option<Text>,
    /// The user's password.
    pub password: Option<Secret>,
    /// SASL mechanism.
    #[serde(default)]
    pub sasl_mechanism: Mechanism,
    #[serde(default)]
    tls: bool,
    /// A PEM file with the authority that signed the brokers' certificates, if the system does not know it. Turns TLS
    /// on.
    pub tls_ca: Option<PathBuf>,
}

impl Kafka {
    /// Returns the bootstrap brokers, `HOST:PORT`, separated by commas.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the topic; with [`Kafka::topic_per_theme`] it is the prefix of the topics' names.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or(TOPIC)
    }

    /// Returns the topic of the events of a theme.
    #[must_use]
    pub fn topic_of(&self, theme: &str) -> Cow<'_, str> {
        if self.topic_per_theme { Cow::Owned(format!("{}-{theme}", self.topic())) } else { Cow::Borrowed(self.topic()) }
    }

    /// Returns every topic that is written.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        if self.topic_per_theme {
            Theme::ALL.iter().map(|theme| self.topic_of(theme.as_str()).into_owned()).collect()
        } else {
            vec![self.topic().to_owned()]
        }
    }

    /// Returns the partitions of a new topic.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions.unwrap_or(PARTITIONS)
    }

    /// Returns whether missing topics are created.
    #[must_use]
    pub fn manage_schema(&self) -> bool {
        self.manage_schema.unwrap_or(true)
    }

    /// Returns the size of the largest message, bytes. New topics accept the same.
    #[must_use]
    pub fn message_bytes(&self) -> u32 {
        self.message_bytes.unwrap_or(MESSAGE_BYTES)
    }

    /// Returns the bytes of messages that can wait for the brokers.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.unwrap_or(QUEUE_BYTES)
    }

    /// Returns whether connections use TLS.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls || self.tls_ca.is_some()
    }

    /// Returns the defaults of deliveries. Kafka batches by itself, so the batching window is short.
    pub(super) fn delivery() -> Delivery {
        Delivery::with_batches(10_000, 4 * 1024 * 1024, 100)
    }

    fn check_numbers(&self) -> Result<(), (&'static str, String)> {
        let within = |key: &'static str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err((key, format!("must be {min} to {max}, here {value}")))
            }
        };
        within("partitions", self.partitions().into(), 1, MAX_PARTITIONS.into())?;
        within("replication_factor", self.replication_factor.unwrap_or(1).into(), 1, 1000)?;
        within("message_bytes", self.message_bytes().into(), MIN_MESSAGE_BYTES.into(), MAX_MESSAGE_BYTES.into())?;
        within("queue_bytes", self.queue_bytes(), self.message_bytes().into(), MAX_QUEUE_BYTES)
    }

    fn check_access(&self) -> Result<(), (&'static str, String)> {
        if self.user.is_some() != self.password.is_some() {
            return Err(("user", "and password belong together; one is missing".into()));
        }
        let feature =
            |key| Err((key, "needs a collector built with the cargo feature kafka-ssl; this one is not".into()));
        if cfg!(feature = "kafka-ssl") {
            Ok(())
        } else if self.tls() {
            feature(if self.tls { "tls" } else { "tls_ca" })
        } else if self.sasl_mechanism != Mechanism::Plain {
            feature("sasl_mechanism")
        } else {
            Ok(())
        }
    }
}

impl SinkSettings for Kafka {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        let broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.url.split(',').all(|text| broker(text.trim())) {
            return Err(("url", "must be brokers as HOST:PORT, separated by commas".into()));
        }
        let topic = self.topic();
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if topic.is_empty() || topic.len() > MAX_TOPIC_BYTES || !topic.bytes().all(known) || topic.starts_with('.') {
            return Err((
                "topic",
                format!("must be [A-Za-z0-9_-][A-Za-z0-9_.-]* with at most {MAX_TOPIC_BYTES} characters"),
            ));
        }
        self.check_numbers()?;
        self.check_access()
    }
}
