//! The producer and what it reports of each message.

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

use super::client::Voice;
use super::errors::{Meaning, meaning, words};
use crate::sinks::SinkError;

/// How long to wait for room in the library's queue before looking again.
const ROOM: Duration = Duration::from_millis(2);

/// What became of the messages that share it. A message that was acknowledged leaves no trace.
#[derive(Default)]
pub(super) struct Reports {
    outstanding: AtomicU64,
    failed: Mutex<Vec<(u64, RDKafkaErrorCode)>>,
    settled: Notify,
    /// Some message failed for a reason that makes the whole batch fail.
    lost: AtomicBool,
    /// Nobody waits for them any more.
    pub(super) abandoned: AtomicBool,
}

impl Reports {
    /// One more message, or one more reason not to be done yet.
    fn expect(&self) {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
    }

    fn settle(&self) {
        if self.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.notify_one();
        }
    }

    /// Waits until every message was acknowledged or given up, and gives those given up: their positions with the reason, in
    /// the order of the reports. All messages must have been sent before.
    pub(super) async fn all(&self) -> Vec<(u64, RDKafkaErrorCode)> {
        while self.outstanding.load(Ordering::Acquire) > 0 {
            self.settled.notified().await;
        }
        std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Nothing more of the batch need be sent: it has failed already, or nobody waits for it.
    pub(super) fn is_over(&self) -> bool {
        self.lost.load(Ordering::Relaxed) || self.abandoned.load(Ordering::Relaxed)
    }
}

/// What a message carries through the library to its report.
pub(super) struct Sent {
    position: u64,
    reports: Arc<Reports>,
}

/// Takes the reports.
pub(super) struct Desk {
    voice: Voice,
    broken: AtomicBool,
}

impl ClientContext for Desk {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.voice.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.broken.store(true, Ordering::Relaxed);
        }
        self.voice.error(error, reason);
    }
}

impl ProducerContext for Desk {
    type DeliveryOpaque = Box<Sent>;

    fn delivery(&self, result: &DeliveryResult<'_>, sent: Box<Sent>) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code == RDKafkaErrorCode::Fatal {
                self.broken.store(true, Ordering::Relaxed);
            }
            if meaning(code) == Meaning::Retryable {
                sent.reports.lost.store(true, Ordering::Relaxed);
            }
            let mut failed = sent.reports.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.push((sent.position, code));
        }
        sent.reports.settle();
    }
}

/// One message.
pub(super) struct Message<'a> {
    pub(super) position: u64,
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
    pub(super) headers: OwnedHeaders,
}

/// An idempotent producer with a thread that takes its reports.
pub(super) struct Producer(ThreadedProducer<Desk>);

impl Producer {
    /// Hands a message to the library; waits while its queue is full. Blocks.
    ///
    /// # Errors
    /// Why the library does not take it; then nothing is reported for it.
    pub(super) fn send(&self, message: Message<'_>, reports: &Arc<Reports>) -> Result<(), RDKafkaErrorCode> {
        let sent = Box::new(Sent { position: message.position, reports: Arc::clone(reports) });
        let mut record = BaseRecord::with_opaque_to(message.topic, sent)
            .key(message.key)
            .payload(message.value)
            .headers(message.headers);
        reports.expect();
        loop {
            let (error, back) = match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            if code != RDKafkaErrorCode::QueueFull || reports.is_over() {
                reports.settle();
                return Err(code);
            }
            record = back;
            std::thread::sleep(ROOM);
        }
    }

    /// The library's own handle.
    #[cfg(test)]
    pub(super) fn native(&self) -> *mut rdkafka::bindings::rd_kafka_t {
        self.0.client().native_ptr()
    }

    /// What the library says.
    pub(super) fn voice(&self) -> &Voice {
        &self.0.client().context().voice
    }

    /// Whether the producer can never send again: its order or its numbering was lost.
    pub(super) fn is_broken(&self) -> bool {
        self.0.client().context().broken.load(Ordering::Relaxed) || self.0.client().fatal_error().is_some()
    }
}

/// The one producer of a sink. One that is broken is replaced.
pub(super) struct Producers {
    sink: String,
    config: ClientConfig,
    voice: Voice,
    current: Mutex<Option<Arc<Producer>>>,
}

impl Producers {
    pub(super) fn new(sink: &str, config: ClientConfig, voice: Voice) -> Self {
        Self { sink: sink.to_owned(), config, voice, current: Mutex::new(None) }
    }

    /// The producer, made if there is none.
    ///
    /// # Errors
    /// [`SinkError::Unfit`] if the library refuses the settings.
    pub(super) fn get(&self) -> Result<Arc<Producer>, SinkError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(producer) = &*current {
            return Ok(Arc::clone(producer));
        }
        let desk = Desk { voice: self.voice.clone(), broken: AtomicBool::new(false) };
        let made = ThreadedProducer::from_config_and_context(&self.config, desk)
            .map_err(|error| SinkError::unfit(format!("Kafka's client: {}", words(&error))))?;
        let producer = Arc::new(Producer(made));
        *current = Some(Arc::clone(&producer));
        Ok(producer)
    }

    /// Lets go of `broken`, so that the next delivery gets a new one. Blocks until it has ended.
    pub(super) fn replace(&self, broken: Arc<Producer>) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, &broken)) {
            tracing::warn!(sink = self.sink, "Kafka's producer cannot go on; a new one is made");
            *current = None;
        }
        drop(current);
        drop(broken);
    }
}
