//! Sink for Elasticsearch and OpenSearch.
//!
//! Every event is a document in the index of its day (UTC), or of its year if the day is far from its arrival. The
//! document is created under the event's ID, so that the store refuses a repetition, which then counts as delivered.
//! `layout` ensures that the index is the same in every attempt.
//!
//! The ID of an event is unique within its app. If two apps use one ID, the second document gets the ID `APP|ID`.
//! After a conflict the sink looks up which app's document exists, which costs only batches that are repeated.

pub(crate) mod bulk;
mod counts;
pub(crate) mod document;
pub(crate) mod errors;
mod index_budget;
mod known_indices;
mod layout;
pub(crate) mod names;
mod retention;
mod retry;
mod schema;
pub(crate) mod server;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

pub(crate) use self::schema::schema;

use self::bulk::{BulkEncoder, BulkRequest, DocumentForm, DocumentForms, verdicts};
use self::counts::{CountAccumulator, Counts};
use self::errors::ErrorClass;
use self::known_indices::KnownIndices;
use self::layout::{Layout, LayoutStore};
use self::retention::Retention;
use self::retry::RetryDelays;
use self::server::Server;
use super::days::EventTimes;
use super::{CorruptRecord, Delivered, PermanentFailure, ResourceNeed, Sink, SinkBatch, SinkError};
use crate::config::{Delivery, Elasticsearch as Settings};
use crate::record::{Event, Record};
use crate::telemetry::SinkMetrics;

/// Documents in one lookup.
const LOOKUP_DOCUMENTS: usize = 5000;

/// Opens the sink without sending anything. `zones` are the apps' time zones, key and IANA name.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings are unusable.
pub(crate) fn open(
    name: &str,
    settings: &Settings,
    delivery: &Delivery,
    zones: &[(String, String)],
    metrics: SinkMetrics,
) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(Elasticsearch { metrics, ..Elasticsearch::new(name, settings, delivery, zones)? }))
}

/// Creates what is missing in the store, even with `manage_schema = false`, because an operator asked for it. Returns
/// a line for each step.
///
/// # Errors
/// As [`Sink::prepare`].
pub(crate) async fn apply(settings: &Settings, delivery: &Delivery) -> Result<Vec<String>, SinkError> {
    schema::apply(&Server::new(settings, Duration::from_millis(delivery.request_timeout_ms))?, settings).await
}

struct Elasticsearch {
    name: String,
    settings: Settings,
    server: Server,
    encoder: Arc<BulkEncoder>,
    counts: Option<Counts>,
    retention: Arc<Retention>,
    layout_store: LayoutStore,
    known_indices: Arc<KnownIndices>,
    metrics: SinkMetrics,
}

/// State of one delivery.
#[derive(Default)]
struct DeliveryState {
    refused: Vec<PermanentFailure>,
    /// Events to be sent again, with their forms.
    retry: DocumentForms,
    /// Events whose ID exists in the store.
    conflicts: BTreeSet<u64>,
    /// Error of the events for which the store had no capacity.
    retry_reason: Option<String>,
    /// Error of the events that the store refuses until an operator changes it.
    blocked_reason: Option<String>,
    /// Number of events that went to indices of years.
    far_events: u64,
}

impl DeliveryState {
    fn record_result(&mut self, position: u64, form: DocumentForm, verdict: ErrorClass) {
        match verdict {
            ErrorClass::Taken => {}
            ErrorClass::Exists if form.app_scoped_id => {}
            ErrorClass::Exists => {
                self.conflicts.insert(position);
            }
            // What the store cannot make fields of it can keep as text.
            ErrorClass::Refused(_) if !form.as_text => {
                self.retry.insert(position, DocumentForm { as_text: true, ..form });
            }
            ErrorClass::Refused(reason) => self.refused.push(PermanentFailure { position, reason }),
            ErrorClass::Later(why) => {
                self.retry.insert(position, form);
                self.retry_reason = Some(why);
            }
            ErrorClass::Blocked(why) => self.blocked_reason = Some(why),
        }
    }
}

impl Elasticsearch {
    fn new(
        name: &str,
        settings: &Settings,
        delivery: &Delivery,
        zones: &[(String, String)],
    ) -> Result<Self, SinkError> {
        let known_indices = Arc::new(KnownIndices::new(settings.index_prefix()));
        Ok(Self {
            name: name.to_owned(),
            server: Server::new(settings, Duration::from_millis(delivery.request_timeout_ms))?,
            encoder: Arc::new(BulkEncoder::new(settings)),
            counts: if settings.exact_counts { Some(Counts::new(settings, zones)?) } else { None },
            retention: Arc::new(Retention::new(
                settings.index_prefix(),
                settings.retention_days,
                Arc::clone(&known_indices),
            )),
            layout_store: LayoutStore::new(settings),
            known_indices,
            metrics: SinkMetrics::default(),
            settings: settings.clone(),
        })
    }

    /// Sends the batch, or its `selected` events, and records the result of each. The next request is encoded while
    /// the store processes the last.
    async fn send(
        &self,
        batch: &Arc<SinkBatch>,
        layout: &Arc<Layout>,
        selected: Option<DocumentForms>,
        accumulator: Option<CountAccumulator>,
        state: &mut DeliveryState,
    ) -> Result<Option<CountAccumulator>, SinkError> {
        let (sender, mut requests) = mpsc::channel(1);
        let (encoder, batch, layout) = (Arc::clone(&self.encoder), Arc::clone(batch), Arc::clone(layout));
        let first_attempt = selected.is_none();
        let making = tokio::task::spawn_blocking(move || {
            let mut accumulator = accumulator;
            let mut send = |request: BulkRequest| sender.blocking_send(request).is_ok();
            let observe = |record: &Record<'_>, event: &Event<'_>, position: u64| {
                if let Some(accumulator) = &mut accumulator {
                    accumulator.observe(record, event, position);
                }
            };
            encoder.encode(&batch, &layout, selected.as_ref(), observe, &mut send).map(|()| accumulator)
        });
        while let Some(request) = requests.recv().await {
            state.far_events += if first_attempt { request.far_events } else { 0 };
            self.send_request(request, state).await?;
        }
        making.await.map_err(|error| SinkError::retryable(error.to_string()))?
    }

    async fn send_request(&self, request: BulkRequest, state: &mut DeliveryState) -> Result<(), SinkError> {
        let answer = self.server.send_lines(bulk::PATH, request.body, self.encoder.gzip).await?;
        match answer.status {
            200 => {}
            413 => return Err(SinkError::TooLarge { message: answer.message() }),
            _ => return Err(answer.retryable()),
        }
        let verdicts = verdicts(&answer.body, request.items.len())?;
        for ((position, form), verdict) in request.items.into_iter().zip(verdicts) {
            state.record_result(position, form, verdict);
        }
        if state.retry_reason.is_none() && state.blocked_reason.is_none() {
            self.known_indices.insert(request.indices);
        }
        Ok(())
    }

    /// Decides the indices of the batch's events.
    async fn layout(&self, batch: &SinkBatch) -> Result<Arc<Layout>, SinkError> {
        let selected = index_budget::undecided(batch, &self.layout_store.known())?;
        let layout = self.layout_store.decide(&self.server, &selected).await?;
        self.metrics.old_day_indices.set(layout.old_index_count() as i64);
        Ok(layout)
    }

    /// Resolves conflicts by looking up the existing documents. The event's own document means that it is delivered;
    /// an event with another app's document is sent again under another ID.
    async fn resolve_conflicts(
        &self,
        batch: &SinkBatch,
        layout: &Layout,
        state: &mut DeliveryState,
    ) -> Result<(), SinkError> {
        let conflicts = std::mem::take(&mut state.conflicts);
        let mut found: Vec<(u64, String, String, String)> = Vec::new();
        batch.for_each_record(|record: &Record<'_>, first, events: &[Event<'_>]| {
            for (event, position) in events.iter().zip(first..) {
                if conflicts.contains(&position) {
                    let (event_time, received_at) = (event.event_time, record.received_at);
                    let when = EventTimes { app_key: &record.app_key, position, event_time, received_at };
                    let index = layout.event_index(&when).name(self.settings.index_prefix());
                    found.push((position, index, names::id(&[&event.event_id]), record.app_key.to_string()));
                }
            }
            Ok::<(), SinkError>(())
        })?;
        for chunk in found.chunks(LOOKUP_DOCUMENTS) {
            let docs: Vec<_> = chunk
                .iter()
                .map(|(_, index, id, _)| json!({"_index": index, "_id": id, "_source": ["app_key"]}))
                .collect();
            let path = "/_mget?filter_path=docs.found,docs._source,docs.error.type";
            let answer = self.server.ask(Method::POST, path, Some(&json!({"docs": docs}))).await?;
            if !answer.is_ok() {
                return Err(answer.retryable());
            }
            let response: LookupResponse<'_> = serde_json::from_slice(&answer.body)
                .map_err(|error| SinkError::retryable(format!("the answer to a lookup cannot be read: {error}")))?;
            if response.docs.len() != chunk.len() {
                return Err(SinkError::retryable("the answer to a lookup has another number of documents"));
            }
            for ((position, _, _, app), document) in chunk.iter().zip(&response.docs) {
                match &document.source {
                    Some(source) if source.app_key == *app => {}
                    Some(_) => {
                        state.retry.insert(*position, DocumentForm { app_scoped_id: true, ..DocumentForm::default() });
                    }
                    // Deleted meanwhile, or its shard is away.
                    None => {
                        state.retry.insert(*position, DocumentForm::default());
                        state.retry_reason = Some("an existing document with the same ID cannot be read".into());
                    }
                }
            }
        }
        Ok(())
    }

    /// Accumulates the counts of `batch` again, without the events that were refused.
    fn recount(
        &self,
        batch: &SinkBatch,
        counts: &Counts,
        refused: &[PermanentFailure],
    ) -> Result<CountAccumulator, SinkError> {
        let refused: HashSet<u64> = refused.iter().map(|refusal| refusal.position).collect();
        let mut accumulator = counts.accumulator();
        batch.for_each_record(|record: &Record<'_>, first, events| {
            for (event, position) in events.iter().zip(first..) {
                if !refused.contains(&position) {
                    accumulator.observe(record, event, position);
                }
            }
            Ok::<(), SinkError>(())
        })?;
        Ok(accumulator)
    }
}

#[derive(Deserialize)]
struct LookupResponse<'a> {
    #[serde(borrow)]
    docs: Vec<LookupDocument<'a>>,
}

#[derive(Deserialize)]
struct LookupDocument<'a> {
    #[serde(borrow, rename = "_source", default)]
    source: Option<LookupSource<'a>>,
}

#[derive(Deserialize)]
struct LookupSource<'a> {
    #[serde(borrow)]
    app_key: std::borrow::Cow<'a, str>,
}

#[async_trait]
impl Sink for Elasticsearch {
    fn name(&self) -> &str {
        &self.name
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        schema::prepare(&self.server, &self.settings).await?;
        self.known_indices.refresh(&self.server).await;
        self.layout_store.load(&self.server).await
    }

    fn batch_end(&self, batch: &SinkBatch) -> Result<u64, CorruptRecord> {
        index_budget::delivery_end(batch, &self.layout_store.known(), &self.known_indices.known())
    }

    fn needs(&self, batch: &SinkBatch, max_resources: usize) -> Result<Vec<ResourceNeed>, CorruptRecord> {
        index_budget::needs(
            batch,
            &self.layout_store.known(),
            &self.known_indices.known(),
            (max_resources, self.settings.index_prefix()),
        )
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let mut state = DeliveryState::default();
        let layout = self.layout(&batch).await?;
        let accumulator = self.counts.as_ref().map(Counts::accumulator);
        let mut accumulator = self.send(&batch, &layout, None, accumulator, &mut state).await?;
        let mut retry_delays = RetryDelays::default();
        loop {
            if !state.conflicts.is_empty() {
                self.resolve_conflicts(&batch, &layout, &mut state).await?;
            }
            if state.retry.is_empty() {
                break;
            }
            if let Some(why) = state.retry_reason.take() {
                retry_delays.next(&why).await?;
            }
            let selected = std::mem::take(&mut state.retry);
            self.send(&batch, &layout, Some(selected), None, &mut state).await?;
        }
        if let Some(message) = state.blocked_reason {
            // A cluster that has no room for another index gets it by this alone.
            self.retention.refresh(&self.server);
            return Err(SinkError::retryable(message));
        }
        let refused = state.refused;
        if refused.len() as u64 > batch.last - batch.first {
            return Err(SinkError::permanent(refused.into_iter().next().map(|one| one.reason).unwrap_or_default()));
        }
        if let Some(counts) = &self.counts {
            if !refused.is_empty() {
                accumulator = Some(self.recount(&batch, counts, &refused)?);
            }
            if let Some(accumulator) = accumulator {
                counts.write(&self.server, &self.layout_store, accumulator).await?;
            }
        }
        self.retention.refresh(&self.server);
        self.metrics.far_events.inc_by(state.far_events);
        Ok(Delivered { refused })
    }

    async fn health(&self) -> Result<(), SinkError> {
        // Only this sink's indices: others on the same cluster are not its concern.
        let path = format!("/_cluster/health/{}-*?filter_path=status", self.settings.index_prefix());
        let value = self.server.value(Method::GET, &path, None).await?;
        match value["status"].as_str() {
            Some("green" | "yellow") => Ok(()),
            status => {
                Err(SinkError::retryable(format!("the health of its indices is {}", status.unwrap_or("unknown"))))
            }
        }
    }
}

#[cfg(test)]
mod counts_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod layout_tests;
#[cfg(test)]
mod tests;
