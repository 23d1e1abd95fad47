//! Producer and delivery reports.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::Notify;

use super::client::ClientLog;
use super::errors::{ErrorClass, classify, error_text};
use crate::sinks::SinkError;

/// Pause while the library's queue is full.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(2);

/// Delivery reports of the messages of one batch. Keeps failures only.
#[derive(Default)]
pub(super) struct DeliveryTracker {
    in_flight: AtomicU64,
    failed: Mutex<Vec<(u64, RDKafkaErrorCode)>>,
    all_done: Notify,
    /// Set when some message failed for a reason that fails the whole batch.
    batch_failed: AtomicBool,
    /// Set when the delivery was cancelled.
    pub(super) abandoned: AtomicBool,
}

impl DeliveryTracker {
    /// Counts one more message in flight.
    fn begin_one(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    fn complete_one(&self) {
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_done.notify_one();
        }
    }

    /// Waits until no message is in flight, and returns the failed ones: their positions with the reason, in the order
    /// of the reports. Call it after the last message was sent.
    pub(super) async fn wait_all(&self) -> Vec<(u64, RDKafkaErrorCode)> {
        while self.in_flight.load(Ordering::Acquire) > 0 {
            self.all_done.notified().await;
        }
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns whether the rest of the batch need not be sent, because the batch has failed or was cancelled.
    pub(super) fn is_aborted(&self) -> bool {
        self.batch_failed.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed)
    }
}

/// Context that a message carries through the library to its report.
pub(super) struct DeliveryOpaque {
    position: u64,
    tracker: Arc<DeliveryTracker>,
}

/// Receives delivery reports and errors of the library.
pub(super) struct DeliveryContext {
    client_log: ClientLog,
    fatal: AtomicBool,
}

impl ClientContext for DeliveryContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.client_log.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.fatal.store(true, Ordering::Relaxed);
        }
        self.client_log.error(error, reason);
    }
}

impl ProducerContext for DeliveryContext {
    type DeliveryOpaque = Box<DeliveryOpaque>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Box<DeliveryOpaque>) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code == RDKafkaErrorCode::Fatal {
                self.fatal.store(true, Ordering::Relaxed);
            }
            if classify(code) == ErrorClass::Retryable {
                opaque.tracker.batch_failed.store(true, Ordering::Relaxed);
            }
            let mut failed = opaque.tracker.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push((opaque.position, code));
        }
        opaque.tracker.complete_one();
    }
}

/// Message to send.
pub(super) struct Message<'a> {
    pub(super) position: u64,
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
    pub(super) headers: OwnedHeaders,
}

/// Idempotent producer with a thread that polls for its reports.
pub(super) struct Producer(ThreadedProducer<DeliveryContext>);

impl Producer {
    /// Enqueues a message in the library and waits while its queue is full. Blocks.
    ///
    /// # Errors
    /// The library's reason for refusing the message, which then has no report.
    pub(super) fn send(&self, message: Message<'_>, tracker: &Arc<DeliveryTracker>) -> Result<(), RDKafkaErrorCode> {
        let opaque = Box::new(DeliveryOpaque { position: message.position, tracker: Arc::clone(tracker) });
        let mut record = BaseRecord::with_opaque_to(message.topic, opaque)
            .key(message.key)
            .payload(message.value)
            .headers(message.headers);
        tracker.begin_one();
        loop {
            let (error, back) = match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code != RDKafkaErrorCode::QueueFull || tracker.is_aborted() {
                tracker.complete_one();
                return Err(code);
            }
            record = back;
            std::thread::sleep(QUEUE_FULL_PAUSE);
        }
    }

    /// Returns the library's own handle.
    #[cfg(test)]
    pub(super) fn native_ptr(&self) -> *mut rdkafka::bindings::rd_kafka_t {
        self.0.client().native_ptr()
    }

    /// Returns the log of the library.
    pub(super) fn client_log(&self) -> &ClientLog {
        &self.0.client().context().client_log
    }

    /// Returns whether the producer can never send again, because its order or its numbering was lost.
    pub(super) fn has_fatal_error(&self) -> bool {
        self.0.client().context().fatal.load(Ordering::Relaxed) || self.0.client().fatal_error().is_some()
    }
}

/// Slot of the one producer of a sink. After a fatal error it is replaced.
pub(super) struct ProducerSlot {
    sink: String,
    config: ClientConfig,
    client_log: ClientLog,
    current: Mutex<Option<Arc<Producer>>>,
}

impl ProducerSlot {
    pub(super) fn new(sink: &str, config: ClientConfig, client_log: ClientLog) -> Self {
        Self { sink: sink.to_owned(), config, client_log, current: Mutex::new(None) }
    }

    /// Returns the producer and creates it if there is none.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if the library refuses the settings.
    pub(super) fn get(&self) -> Result<Arc<Producer>, SinkError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let context = DeliveryContext { client_log: self.client_log.clone(), fatal: AtomicBool::new(false) };
        let threaded = ThreadedProducer::from_config_and_context(&self.config, context)
            .map_err(|error| SinkError::misconfigured(format!("Kafka's client: {}", error_text(&error))))?;
        let producer = Arc::new(Producer(threaded));
        *current = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Removes the producer `stopped`, so that the next delivery creates one. Blocks until it has ended.
    pub(super) fn replace(&self, stopped: Arc<Producer>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &stopped)) {
            tracing::warn!(sink = self.sink, "Kafka's producer had a fatal error and is replaced");
            *current = None;
        }
        drop(current);
        drop(stopped);
    }
}
