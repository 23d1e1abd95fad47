//! Kafka as a sink: one message an event, its key the install, its value the event as one JSON object.
//!
//! Invariants:
//! - A batch is delivered when the brokers have acknowledged every one of its messages (`acks=all`); a failure of one is a
//!   failure of the batch, which is then sent again as a whole. Nothing of a batch is on its way any more when
//!   [`Sink::deliver`] returns.
//! - The producer is idempotent: what the library repeats within one producer's life neither doubles nor overtakes. A batch
//!   that is sent again after a failure or a crash does double in the log: Kafka has no key that it would recognise it by. What
//!   reads the log must drop what it has seen, by `(app_key, event_id)`; docs/scaling.md says how the stores do it.
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

/// How long the cluster may take to say which topics and brokers there are. It is near; one that takes longer is as good as
/// down.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the sink. Nothing is sent yet.
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
        let request_timeout = METADATA_TIMEOUT.min(Duration::from_millis(delivery.timeout_ms));
        let client_log = ClientLog::new(name);
        let topics = Arc::new(Topics::new(name, settings, (client.clone(), client_log.clone()), request_timeout));
        let producer_slot = Arc::new(ProducerSlot::new(name, client, client_log.clone()));
        // Made now so that settings which the library refuses are found before anything starts. It connects by itself.
        producer_slot.get()?;
        Ok(Self { name: name.to_owned(), topics, producer_slot, client_log })
    }
}

/// Runs `work`, which waits for the network, where it may.
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
