//! Settings and log of the client library.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::config::{Delivery, Kafka as Settings};
use crate::sinks::SinkError;

/// Batching window of the library in milliseconds. A sink batch is sent at once, so it fills requests anyway.
const LINGER_MS: u64 = 5;
/// Maximum bytes in one request to a broker, before compression.
const MAX_REQUEST_BYTES: u32 = 1_000_000;
/// Maximum messages that wait for the brokers. Each costs some hundred bytes besides its own.
const MAX_QUEUED_MESSAGES: u64 = 50_000;
/// Maximum pause before a lost broker is tried again, in milliseconds, so that one that restarts is found at once.
const MAX_RECONNECT_BACKOFF_MS: u64 = 1000;

/// Returns the library's settings, for the producer and the admin client. They contain the password and must not be
/// logged.
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
    // Chooses the partition of a key as the Java clients do, so that topics of both can be joined by partition.
    set("partitioner", "murmur2_random");
    set("message.max.bytes", &message_bytes.to_string());
    set("batch.size", &MAX_REQUEST_BYTES.min(message_bytes).to_string());
    set("linger.ms", &LINGER_MS.to_string());
    set("queue.buffering.max.kbytes", &(settings.queue_bytes() / 1024).max(1).to_string());
    set("queue.buffering.max.messages", &MAX_QUEUED_MESSAGES.to_string());
    // Every message is acknowledged or fails within this time, so a delivery always ends.
    set("message.timeout.ms", &delivery.request_timeout_ms.to_string());
    set("reconnect.backoff.max.ms", &MAX_RECONNECT_BACKOFF_MS.to_string());
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
        // Searches the usual paths of systems for authorities: OpenSSL linked into the binary looks only where it was
        // built for.
        set("ssl.ca.location", "probe");
    }
    config.set_log_level(RDKafkaLogLevel::Warning);
    config
}

/// Forwards the library's log to the collector's, and keeps its last error as the reason of failures that are reported
/// as mere timeouts. Clones share it.
#[derive(Clone)]
pub(super) struct ClientLog {
    sink: String,
    last_error: Arc<Mutex<Option<String>>>,
}

impl ClientLog {
    pub(super) fn new(sink: &str) -> Self {
        Self { sink: sink.to_owned(), last_error: Arc::default() }
    }

    /// Returns the failure, with the last error of the library's connections.
    pub(super) fn with_last_error(&self, failure: String) -> SinkError {
        match &*self.last_error.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(last_error) => SinkError::retryable(format!("{failure}; {last_error}")),
            None => SinkError::retryable(failure),
        }
    }

    /// Clears the last error, which no longer explains anything after a success.
    pub(super) fn clear_last_error(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(sink = self.sink, ?level, facility, message, "Kafka's client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // Lost connections are normal; deliveries report what they cost.
        tracing::debug!(sink = self.sink, %error, reason, "Kafka's client");
        // "All brokers are down" follows the error that is the reason.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }
}
