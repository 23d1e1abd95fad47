//! Kafka sink: one message per event, with the install as its key and the event as one JSON object as its value.
//!
//! Invariants:
//! - A batch is delivered when the brokers have acknowledged every message of it (`acks=all`). A failure of one message
//!   fails the batch, which is then sent again as a whole. No message of a batch is in flight after [`Sink::deliver`]
//!   returns.
//! - The producer is idempotent: retries of the library within one producer neither duplicate nor reorder messages. A
//!   batch that is sent again after a failure or a crash is duplicated in the log, because Kafka has no key by which it
//!   could recognise it. Consumers must drop duplicates by `(app_key, event_id)`; docs/scaling.md says how the stores
//!   do it.
//! - Events of one install keep their order: same key, same partition, one producer, one batch after the other.

mod client;
mod encode;
mod errors;
mod producer;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::client::ClientLog;
use self::producer::ProducerSlot;
use self::schema::Topics;
use super::{Delivered, Sink, SinkBatch, SinkError};
use crate::config::{Delivery, Kafka as Settings};

/// Limit for a metadata request. The cluster is near; one that takes longer is as good as down.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the sink without sending anything.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings cannot be used.
pub(crate) fn open(name: &str, settings: &Settings, delivery: &Delivery) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(Kafka::open(name, settings, delivery)?))
}

struct Kafka {
    name: String,
    topics: Arc<Topics>,
    producer_slot: Arc<ProducerSlot>,
    client_log: ClientLog,
}

impl Kafka {
    fn open(name: &str, settings: &Settings, delivery: &Delivery) -> Result<Self, SinkError> {
        let client = client::config(settings, delivery);
        let request_timeout = METADATA_TIMEOUT.min(Duration::from_millis(delivery.request_timeout_ms));
        let client_log = ClientLog::new(name);
        let topics = Arc::new(Topics::new(name, settings, (client.clone(), client_log.clone()), request_timeout));
        let producer_slot = Arc::new(ProducerSlot::new(name, client, client_log.clone()));
        // Created at once, so that settings which the library refuses are found before anything starts. It connects in
        // the background.
        producer_slot.get()?;
        Ok(Self { name: name.to_owned(), topics, producer_slot, client_log })
    }
}

/// Runs `work`, which waits for the network, on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SinkError> + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SinkError::retryable(error.to_string()))?
}

#[async_trait]
impl Sink for Kafka {
    fn name(&self) -> &str {
        &self.name
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        let topics = Arc::clone(&self.topics);
        blocking(move || topics.prepare()).await.inspect(|()| self.client_log.clear_last_error())
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let (producer_slot, topics) = (Arc::clone(&self.producer_slot), Arc::clone(&self.topics));
        let events = batch.last - batch.first + 1;
        let producer = blocking(move || producer_slot.get()).await?;
        let tracker = encode::deliver(&producer, &topics, &batch).await;
        if producer.has_fatal_error() {
            let producer_slot = Arc::clone(&self.producer_slot);
            blocking(move || {
                producer_slot.replace(producer);
                Ok(())
            })
            .await?;
        }
        let refused = tracker?;
        if refused.len() as u64 == events {
            let message = refused.into_iter().next().map(|refusal| refusal.reason).unwrap_or_default();
            return Err(SinkError::Permanent { message });
        }
        Ok(Delivered { refused })
    }

    async fn health(&self) -> Result<(), SinkError> {
        let topics = Arc::clone(&self.topics);
        blocking(move || topics.check_health()).await
    }
}
