//! Encodes a batch as messages, sends them, and maps their delivery reports to the result of the batch.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};

use super::blocking;
use super::errors::{ErrorClass, classify};
use super::producer::{DeliveryTracker, Message, Producer};
use super::schema::Topics;
use crate::record::{Event, Record};
use crate::row;
use crate::sinks::{CorruptRecord, PermanentFailure, SinkBatch, SinkError, events_in_range};

/// Drop guard: marks the batch as abandoned when its delivery is cancelled, so that unsent messages stay unsent.
struct AbandonGuard(Arc<DeliveryTracker>);

impl Drop for AbandonGuard {
    fn drop(&mut self) {
        self.0.abandoned.store(true, Ordering::Relaxed);
    }
}

/// Sends every event of `batch`, waits for all reports, and returns the events that the brokers refuse for good.
///
/// # Errors
/// [`SinkError::CorruptRecord`] if a record cannot be read; then nothing was sent. [`SinkError::Retryable`] if some
/// message was not acknowledged.
pub(super) async fn deliver(
    producer: &Arc<Producer>,
    topics: &Arc<Topics>,
    batch: &Arc<SinkBatch>,
) -> Result<Vec<PermanentFailure>, SinkError> {
    let failed = send(producer, topics, batch, None).await?;
    let (suspects, others): (Vec<_>, Vec<_>) =
        failed.into_iter().partition(|(_, code)| classify(*code) == ErrorClass::Suspect);
    if let Some((position, code)) = others.first() {
        let message = format!("{} messages were not acknowledged; at position {position}: {code}", others.len());
        return Err(producer.client_log().with_last_error(message));
    }
    producer.client_log().clear_last_error();
    // A broker refuses a whole request because of one message, so each suspect is sent again in a request of its own.
    let mut refused = Vec::new();
    for (position, _) in suspects {
        match send(producer, topics, batch, Some(position)).await?.first() {
            None => {}
            Some((_, code)) if classify(*code) == ErrorClass::Suspect => {
                refused.push(PermanentFailure { position, reason: code.to_string() });
            }
            Some((_, code)) => {
                return Err(producer.client_log().with_last_error(format!("at position {position}: {code}")));
            }
        }
    }
    refused.sort_by_key(|refusal| refusal.position);
    Ok(refused)
}

/// Sends the events of `batch`, or only the one at a position, waits for all reports, and returns what was not
/// acknowledged.
async fn send(
    producer: &Arc<Producer>,
    topics: &Arc<Topics>,
    batch: &Arc<SinkBatch>,
    only: Option<u64>,
) -> Result<Vec<(u64, RDKafkaErrorCode)>, SinkError> {
    let guard = AbandonGuard(Arc::new(DeliveryTracker::default()));
    let (producer, topics, batch) = (Arc::clone(producer), Arc::clone(topics), Arc::clone(batch));
    let tracker = Arc::clone(&guard.0);
    let unsent = blocking(move || {
        let records = read(&batch)?;
        let encoder = Encoder { producer: &producer, topics: &topics, batch: &batch, tracker: &tracker };
        encoder.send_all(&records, only)
    })
    .await?;
    let mut failed = guard.0.wait_all().await;
    failed.extend(unsent);
    Ok(failed)
}

/// Reads all records of a batch, before anything is sent.
fn read(batch: &SinkBatch) -> Result<Vec<(u64, Record<'_>)>, CorruptRecord> {
    let mut records = Vec::with_capacity(batch.records.len());
    for stored in &batch.records {
        let record = serde_json::from_str(&stored.json)
            .map_err(|error| CorruptRecord { first: stored.first, reason: error.to_string() })?;
        records.push((stored.first, record));
    }
    Ok(records)
}

struct Encoder<'a> {
    producer: &'a Producer,
    topics: &'a Topics,
    batch: &'a SinkBatch,
    tracker: &'a Arc<DeliveryTracker>,
}

impl Encoder<'_> {
    /// Enqueues the messages in the library as fast as it accepts them, and returns those that it refuses.
    fn send_all(
        &self,
        records: &[(u64, Record<'_>)],
        only: Option<u64>,
    ) -> Result<Vec<(u64, RDKafkaErrorCode)>, SinkError> {
        let (mut value, mut failed) = (Vec::new(), Vec::new());
        let (first, last) = only.map_or((self.batch.first, self.batch.last), |position| (position, position));
        for (start, record) in records {
            let (at, events) = events_in_range(*start, &record.events, first, last);
            let shared = if events.is_empty() { Vec::new() } else { row::shared_suffix(record) };
            for (position, event) in (at..).zip(events) {
                if self.tracker.is_aborted() {
                    // The next attempt sends the rest with all the others.
                    return Ok(failed);
                }
                if let Err(code) = self.send(position, (record, &shared), event, &mut value) {
                    failed.push((position, code));
                    if classify(code) == ErrorClass::Retryable {
                        return Ok(failed);
                    }
                }
            }
        }
        Ok(failed)
    }

    fn send(
        &self,
        position: u64,
        (record, shared): (&Record<'_>, &[u8]),
        event: &Event<'_>,
        value: &mut Vec<u8>,
    ) -> Result<(), RDKafkaErrorCode> {
        value.clear();
        row::write(value, event, shared);
        let number = position.to_string();
        let headers = OwnedHeaders::new_with_capacity(2)
            .insert(Header { key: "subway-batch", value: Some(&self.batch.dedup_token) })
            .insert(Header { key: "subway-position", value: Some(&number) });
        let topic = self.topics.topic_for(&event.theme);
        let message = Message { position, topic: &topic, key: &record.install_id, value, headers };
        self.producer.send(message, self.tracker)
    }
}
