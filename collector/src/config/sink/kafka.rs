//! `[[sink]] kind = "kafka"`.

use std::path::PathBuf;

use std::borrow::Cow;

use serde::Deserialize;
use subway_protocol::Theme;

use super::super::text::{Secret, Text};
use super::{Delivery, Settings};

/// The topic, or the beginning of the topics' names, if the configuration does not say.
const TOPIC: &str = "subway-events";
/// Partitions of a topic that is made: as many readers can share it. More can be added later, but then the installs move to
/// other partitions, so there are some to spare.
const PARTITIONS: u16 = 12;
/// The most partitions; what a cluster bears is far below.
const PARTITIONS_MOST: u16 = 10_000;
/// The largest message, bytes: Kafka's own default, and many times the largest event with its context (about 100 KB).
const MESSAGE_BYTES: u32 = 1_048_588;
/// The least that `message_bytes` may be: the largest event that the collector's default limits let in, with its context.
const MESSAGE_BYTES_LEAST: u32 = 128 * 1024;
/// The most that `message_bytes` may be: what the client library can send.
const MESSAGE_BYTES_MOST: u32 = 1_000_000_000;
/// Bytes that may wait for the brokers: bounds the memory. Two batches of the default size, so that encoding and sending
/// overlap.
const QUEUE_BYTES: u64 = 32 * 1024 * 1024;
/// The most that `queue_bytes` may be: what the client library can count.
const QUEUE_BYTES_MOST: u64 = 2_147_483_647 * 1024;
/// Characters of a topic's name that are left for `topic`: Kafka allows 249, the longest theme takes 12 with its hyphen.
const TOPIC_BYTES: usize = 200;

/// What messages are compressed with on their way and in the log. The other kinds of Kafka need libraries of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    None,
    /// LZ4: the fastest.
    #[default]
    Lz4,
    /// Snappy.
    Snappy,
}

impl Compression {
    /// The name that Kafka knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Lz4 => "lz4",
            Compression::Snappy => "snappy",
        }
    }
}

/// How `user` and `password` are proven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// Both are sent as they are.
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
    /// The name that Kafka knows it by.
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
    /// One topic for each theme, `TOPIC-THEME`, instead of one for all.
    #[serde(default)]
    pub topic_per_theme: bool,
    partitions: Option<u16>,
    /// Copies of each partition in a topic that is made; the brokers' `default.replication.factor` if absent.
    pub replication_factor: Option<u16>,
    manage_schema: Option<bool>,
    /// What messages are compressed with.
    #[serde(default)]
    pub compression: Compression,
    message_bytes: Option<u32>,
    queue_bytes: Option<u64>,
    /// Who writes; nobody in particular if absent.
    pub user: Option<Text>,
    /// The user's password.
    pub password: Option<Secret>,
    /// How user and password are proven.
    #[serde(default)]
    pub sasl_mechanism: Mechanism,
    #[serde(default)]
    tls: bool,
    /// A PEM file with the authority that signed the brokers' certificates, if the system does not know it. Turns TLS on.
    pub tls_ca: Option<PathBuf>,
}

impl Kafka {
    /// The brokers to begin with, `HOST:PORT`, separated by commas.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The topic; with [`Kafka::topic_per_theme`] the beginning of the topics' names.
    #[must_use]
    pub fn topic(&self) -> &str {
        self.topic.as_deref().unwrap_or(TOPIC)
    }

    /// The topic of events of a theme.
    #[must_use]
    pub fn topic_of(&self, theme: &str) -> Cow<'_, str> {
        if self.topic_per_theme { Cow::Owned(format!("{}-{theme}", self.topic())) } else { Cow::Borrowed(self.topic()) }
    }

    /// Every topic that is written.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        if self.topic_per_theme {
            Theme::ALL.iter().map(|theme| self.topic_of(theme.as_str()).into_owned()).collect()
        } else {
            vec![self.topic().to_owned()]
        }
    }

    /// Partitions of a topic that is made.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions.unwrap_or(PARTITIONS)
    }

    /// Whether topics that are missing are made.
    #[must_use]
    pub fn manage_schema(&self) -> bool {
        self.manage_schema.unwrap_or(true)
    }

    /// The largest message, bytes; also what a topic that is made takes.
    #[must_use]
    pub fn message_bytes(&self) -> u32 {
        self.message_bytes.unwrap_or(MESSAGE_BYTES)
    }

    /// Bytes of messages that may wait for the brokers.
    #[must_use]
    pub fn queue_bytes(&self) -> u64 {
        self.queue_bytes.unwrap_or(QUEUE_BYTES)
    }

    /// Whether connections are encrypted.
    #[must_use]
    pub fn tls(&self) -> bool {
        self.tls || self.tls_ca.is_some()
    }

    /// Kafka batches by itself; the wait is short because others wait behind it.
    pub(super) fn delivery() -> Delivery {
        Delivery::of(10_000, 4 * 1024 * 1024, 100)
    }

    fn check_numbers(&self) -> Result<(), (&'static str, String)> {
        let within = |key: &'static str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err((key, format!("must be {least} to {most}, here {value}")))
            }
        };
        within("partitions", self.partitions().into(), 1, PARTITIONS_MOST.into())?;
        within("replication_factor", self.replication_factor.unwrap_or(1).into(), 1, 1000)?;
        within("message_bytes", self.message_bytes().into(), MESSAGE_BYTES_LEAST.into(), MESSAGE_BYTES_MOST.into())?;
        within("queue_bytes", self.queue_bytes(), self.message_bytes().into(), QUEUE_BYTES_MOST)
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

impl Settings for Kafka {
    fn check(&mut self) -> Result<(), (&'static str, String)> {
        let broker = |broker: &str| {
            broker.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !self.url.split(',').all(|text| broker(text.trim())) {
            return Err(("url", "must be brokers as HOST:PORT, separated by commas".into()));
        }
        let topic = self.topic();
        let known = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'-' | b'.');
        if topic.is_empty() || topic.len() > TOPIC_BYTES || !topic.bytes().all(known) || topic.starts_with('.') {
            return Err((
                "topic",
                format!("must be [A-Za-z0-9_-][A-Za-z0-9_.-]* with at most {TOPIC_BYTES} characters"),
            ));
        }
        self.check_numbers()?;
        self.check_access()
    }
}
