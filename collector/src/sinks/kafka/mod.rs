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
mod errors;
mod messages;
mod producer;
#[cfg(test)]
mod tests;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use self::client::Voice;
use self::producer::Producers;
use self::topics::Topics;
use super::{Delivered, Sink, SinkBatch, SinkError};
use crate::config::{Delivery, Kafka as Settings};

/// How long the cluster may take to say which topics and brokers there are. It is near; one that takes longer is as good as
/// down.
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens the sink. Nothing is sent yet.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
pub(crate) fn open(name: &str, settings: &Settings, delivery: &Delivery) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(Kafka::open(name, settings, delivery)?))
}

struct Kafka {
    name: String,
    topics: Arc<Topics>,
    producers: Arc<Producers>,
    voice: Voice,
}

impl Kafka {
    fn open(name: &str, settings: &Settings, delivery: &Delivery) -> Result<Self, SinkError> {
        let client = client::config(settings, delivery);
        let patience = METADATA_TIMEOUT.min(Duration::from_millis(delivery.request_timeout_ms));
        let voice = Voice::new(name);
        let topics = Arc::new(Topics::new(name, settings, (client.clone(), voice.clone()), patience));
        let producers = Arc::new(Producers::new(name, client, voice.clone()));
        // Made now so that settings which the library refuses are found before anything starts. It connects by itself.
        producers.get()?;
        Ok(Self { name: name.to_owned(), topics, producers, voice })
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
        blocking(move || topics.prepare()).await.inspect(|()| self.voice.forget())
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let (producers, topics) = (Arc::clone(&self.producers), Arc::clone(&self.topics));
        let events = batch.last - batch.first + 1;
        let producer = blocking(move || producers.get()).await?;
        let reports = messages::deliver(&producer, &topics, &batch).await;
        if producer.is_broken() {
            let producers = Arc::clone(&self.producers);
            blocking(move || {
                producers.replace(producer);
                Ok(())
            })
            .await?;
        }
        let refused = reports?;
        if refused.len() as u64 == events {
            let message = refused.into_iter().next().map(|refusal| refusal.reason).unwrap_or_default();
            return Err(SinkError::Refused { message });
        }
        Ok(Delivered { refused })
    }

    async fn health(&self) -> Result<(), SinkError> {
        let topics = Arc::clone(&self.topics);
        blocking(move || topics.healthy()).await
    }
}
