//! The settings of the client library.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{Delivery, Kafka as Settings};
use crate::sinks::SinkError;

/// How long messages wait for company inside the library, milliseconds. A batch is sent whole, so there is company.
const LINGER_MS: u64 = 5;
/// Bytes in one request to a broker, before compression.
const REQUEST_BYTES: u32 = 1_000_000;
/// Messages that may wait for the brokers. Each costs some hundred bytes besides its own.
const QUEUE_MESSAGES: u64 = 50_000;
/// The longest pause before a lost broker is tried again, milliseconds: one that restarts is found at once.
const RECONNECT_MS: u64 = 1000;

/// The library's settings, for the producer and for questions about topics. Never to be shown: they hold the password.
pub(super) fn config(settings: &Settings, delivery: &Delivery) -> ClientConfig {
    let mut config = ClientConfig::new();
    let message_bytes = settings.message_bytes();
    let brokers = settings.url().replace(' ', "");
    let mut set = |key: &str, value: &str| {
        config.set(key, value);
    };
    set("bootstrap.servers", &brokers);
    set("client.id", "subway-collector");
    set("enable.idempotence", "true");
    set("acks", "all");
    set("compression.codec", settings.compression.name());
    // The partition of a key as the Java clients choose it, so that topics of both can be joined by partition.
    set("partitioner", "murmur2_random");
    set("message.max.bytes", &message_bytes.to_string());
    set("batch.size", &REQUEST_BYTES.min(message_bytes).to_string());
    set("linger.ms", &LINGER_MS.to_string());
    set("queue.buffering.max.kbytes", &(settings.queue_bytes() / 1024).max(1).to_string());
    set("queue.buffering.max.messages", &QUEUE_MESSAGES.to_string());
    // Every message is acknowledged or given up within this time, so a delivery always ends.
    set("message.timeout.ms", &delivery.request_timeout_ms.to_string());
    set("reconnect.backoff.max.ms", &RECONNECT_MS.to_string());
    set("socket.keepalive.enable", "true");
    let protocol = match (settings.user.is_some(), settings.tls()) {
        (false, false) => "plaintext",
        (true, false) => "sasl_plaintext",
        (false, true) => "ssl",
        (true, true) => "sasl_ssl",
    };
    set("security.protocol", protocol);
    if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
        set("sasl.mechanism", settings.sasl_mechanism.name());
        set("sasl.username", user);
        set("sasl.password", password.expose());
    }
    if let Some(path) = &settings.tls_ca {
        set("ssl.ca.location", &path.to_string_lossy());
    } else if settings.tls() {
        // Where systems keep their authorities: OpenSSL linked into the binary looks only where it was built for.
        set("ssl.ca.location", "probe");
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Brings what the library has to say into the collector's log, and keeps the last of it as the reason of failures that come
/// as mere timeouts. Clones share it.
#[derive(Clone)]
pub(super) struct Voice {
    sink: String,
    said: Arc<Mutex<Option<String>>>,
}

impl Voice {
    pub(super) fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned(), said: Arc::default() }
    }

    /// The failure with what the library last said about its connections.
    pub(super) fn explain(&self, failure: String) -> SinkError {
        match &*self.said.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(said) => SinkError::retryable(format!("{failure}; {said}")),
            None => SinkError::retryable(failure),
        }
    }

    /// All is well: what was said before explains nothing any more.
    pub(super) fn forget(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for Voice {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(sink = self.sink, ?level, facility, message, "Kafka's client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Connections come and go; what it costs is said by the deliveries.
        tracing::debug!(sink = self.sink, %error, reason, "Kafka's client");
        // "All brokers are down" follows upon what says why.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}
