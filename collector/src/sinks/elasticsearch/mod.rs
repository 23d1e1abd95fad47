//! Elasticsearch and OpenSearch as a sink.
//!
//! Every event is a document in the index of its day (UTC), or of its year if the day is far from its arrival, created under its
//! own ID, so that a repetition is refused by the store and counts as delivered. `layout` sees to it that the index is the
//! same in every attempt.
//!
//! The ID of an event is unique within its app. Should two apps have one ID, the second document lives under `APP|ID`: a
//! conflict is followed by a look at whose document is there, which costs only batches that are repeated.

pub(crate) mod bulk;
mod counts;
pub(crate) mod document;
pub(crate) mod errors;
mod layout;
pub(crate) mod names;
mod pause;
mod retention;
mod schema;
pub(crate) mod server;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;

pub(crate) use self::schema::schema;

use self::bulk::{Encoder, Form, Forms, Part, verdicts};
use self::counts::{Collector, Counts};
use self::errors::Verdict;
use self::layout::{Layout, Layouts, Place, Wanted};
use self::pause::Pauses;
use self::retention::Retention;
use self::server::Server;
use super::days::{self, When};
use super::{Delivered, Refusal, Sink, SinkBatch, SinkError, Unreadable};
use crate::config::{Delivery, Elasticsearch as Settings};
use crate::record::{Event, Record};
use crate::telemetry::SinkMetrics;

/// Most indices that one delivery may make: each takes the cluster tens of milliseconds, a busy one a second.
const NEW_INDICES: usize = 20;
/// Indices that are remembered as made. An app alone reaches fewer than 500, however it spreads its events.
const KNOWN_INDICES: usize = 2000;
/// Identities looked up by one request.
const LOOKUPS: usize = 5000;

/// Opens the sink. Nothing is sent yet. `zones`: the apps' time zones, key and IANA name.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
pub(crate) fn open(
    name: &str,
    settings: &Settings,
    delivery: &Delivery,
    zones: &[(String, String)],
    metrics: SinkMetrics,
) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(Elasticsearch { metrics, ..Elasticsearch::new(name, settings, delivery, zones)? }))
}

/// Makes what is missing in the store; says what it did, a line for each step. Does so even if the settings say
/// `manage_schema = false`: a person asked for it.
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
    encoder: Arc<Encoder>,
    counts: Option<Counts>,
    retention: Arc<Retention>,
    layouts: Layouts,
    /// Indices that are surely there.
    made: Mutex<HashSet<Place>>,
    metrics: SinkMetrics,
}

/// What is known of a batch so far.
#[derive(Default)]
struct Progress {
    refused: Vec<Refusal>,
    /// Events to be sent again, and how.
    again: Forms,
    /// Events under whose ID there is a document.
    conflicts: BTreeSet<u64>,
    /// What the store said to those it had no time for.
    later: Option<String>,
    /// What the store said to those it will not take until it is changed.
    blocked: Option<String>,
    /// Events that went by years.
    far: u64,
}

impl Progress {
    fn note(&mut self, position: u64, form: Form, verdict: Verdict) {
        match verdict {
            Verdict::Taken => {}
            Verdict::Exists if form.foreign => {}
            Verdict::Exists => {
                self.conflicts.insert(position);
            }
            // What the store cannot make fields of it can keep as text.
            Verdict::Refused(_) if !form.as_text => {
                self.again.insert(position, Form { as_text: true, ..form });
            }
            Verdict::Refused(reason) => self.refused.push(Refusal { position, reason }),
            Verdict::Later(why) => {
                self.again.insert(position, form);
                self.later = Some(why);
            }
            Verdict::Blocked(why) => self.blocked = Some(why),
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
        Ok(Self {
            name: name.to_owned(),
            server: Server::new(settings, Duration::from_millis(delivery.request_timeout_ms))?,
            encoder: Arc::new(Encoder::new(settings)),
            counts: if settings.exact_counts { Some(Counts::new(settings, zones)?) } else { None },
            retention: Arc::new(Retention::new(settings.index_prefix(), settings.retention_days)),
            layouts: Layouts::new(settings),
            made: Mutex::default(),
            metrics: SinkMetrics::default(),
            settings: settings.clone(),
        })
    }

    /// Sends the batch, or those events of it that are `wanted`, and notes what becomes of each. The next part is made while
    /// the store works on the last.
    async fn send(
        &self,
        batch: &Arc<SinkBatch>,
        layout: &Arc<Layout>,
        wanted: Option<Forms>,
        collector: Option<Collector>,
        progress: &mut Progress,
    ) -> Result<Option<Collector>, SinkError> {
        let (parts, mut made) = mpsc::channel(1);
        let (encoder, batch, layout) = (Arc::clone(&self.encoder), Arc::clone(batch), Arc::clone(layout));
        let first_time = wanted.is_none();
        let making = tokio::task::spawn_blocking(move || {
            let mut collector = collector;
            let mut send = |part: Part| parts.blocking_send(part).is_ok();
            let see = |record: &Record<'_>, event: &Event<'_>, position: u64| {
                if let Some(collector) = &mut collector {
                    collector.see(record, event, position);
                }
            };
            encoder.encode(&batch, &layout, wanted.as_ref(), see, &mut send).map(|()| collector)
        });
        while let Some(part) = made.recv().await {
            progress.far += if first_time { part.far } else { 0 };
            self.send_part(part, progress).await?;
        }
        making.await.map_err(|error| SinkError::retryable(error.to_string()))?
    }

    async fn send_part(&self, part: Part, progress: &mut Progress) -> Result<(), SinkError> {
        let answer = self.server.send_lines(bulk::PATH, part.body, self.encoder.gzip).await?;
        match answer.status {
            200 => {}
            413 => return Err(SinkError::TooLarge { message: answer.message() }),
            _ => return Err(answer.retryable()),
        }
        let verdicts = verdicts(&answer.body, part.items.len())?;
        for ((position, form), verdict) in part.items.into_iter().zip(verdicts) {
            progress.note(position, form, verdict);
        }
        if progress.later.is_none() && progress.blocked.is_none() {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if made.len() >= KNOWN_INDICES {
                made.clear();
            }
            made.extend(part.places);
        }
        Ok(())
    }

    /// Where the events of the batch go, with everything decided.
    async fn layout(&self, batch: &SinkBatch) -> Result<Arc<Layout>, SinkError> {
        let known = self.layouts.known();
        let mut wanted = Wanted::default();
        if !days::surely_near(batch, usize::MAX) {
            days::each(batch, |when| {
                if known.decided(&when).is_none() {
                    wanted.days.push((when.app_key.to_owned(), days::day_of(when.event_time)));
                }
                true
            })?;
        }
        let layout = self.layouts.decide(&self.server, &wanted).await?;
        self.metrics.old_day_indices.set(layout.old_indices() as i64);
        Ok(layout)
    }

    /// Looks whose documents were in the way. An event's own is what was wanted; the others go under another identity.
    async fn settle(&self, batch: &SinkBatch, layout: &Layout, progress: &mut Progress) -> Result<(), SinkError> {
        let conflicts = std::mem::take(&mut progress.conflicts);
        let mut found: Vec<(u64, String, String, String)> = Vec::new();
        batch.for_each_record(|record: &Record<'_>, first, events: &[Event<'_>]| {
            for (event, position) in events.iter().zip(first..) {
                if conflicts.contains(&position) {
                    let (event_time, received_at) = (event.event_time, record.received_at);
                    let when = When { app_key: &record.app_key, position, event_time, received_at };
                    let index = layout.place(&when).index(self.settings.index_prefix());
                    found.push((position, index, names::id(&[&event.event_id]), record.app_key.to_string()));
                }
            }
            Ok::<(), SinkError>(())
        })?;
        for some in found.chunks(LOOKUPS) {
            let docs: Vec<_> = some
                .iter()
                .map(|(_, index, id, _)| json!({"_index": index, "_id": id, "_source": ["app_key"]}))
                .collect();
            let path = "/_mget?filter_path=docs.found,docs._source,docs.error.type";
            let answer = self.server.ask(Method::POST, path, Some(&json!({"docs": docs}))).await?;
            if !answer.is_ok() {
                return Err(answer.retryable());
            }
            let there: Lookup<'_> = serde_json::from_slice(&answer.body)
                .map_err(|error| SinkError::retryable(format!("the answer to a lookup cannot be read: {error}")))?;
            if there.docs.len() != some.len() {
                return Err(SinkError::retryable("the answer to a lookup has another number of documents"));
            }
            for ((position, _, _, app), document) in some.iter().zip(&there.docs) {
                match &document.source {
                    Some(source) if source.app_key == *app => {}
                    Some(_) => {
                        progress.again.insert(*position, Form { foreign: true, ..Form::default() });
                    }
                    // Deleted meanwhile, or its shard is away.
                    None => {
                        progress.again.insert(*position, Form::default());
                        progress.later = Some("a document that was in the way cannot be looked at".into());
                    }
                }
            }
        }
        Ok(())
    }

    /// What is to be counted of the events of `batch` that were not refused.
    fn collect_again(&self, batch: &SinkBatch, counts: &Counts, refused: &[Refusal]) -> Result<Collector, SinkError> {
        let refused: HashSet<u64> = refused.iter().map(|refusal| refusal.position).collect();
        let mut collector = counts.collector();
        batch.for_each_record(|record: &Record<'_>, first, events| {
            for (event, position) in events.iter().zip(first..) {
                if !refused.contains(&position) {
                    collector.see(record, event, position);
                }
            }
            Ok::<(), SinkError>(())
        })?;
        Ok(collector)
    }
}

#[derive(Deserialize)]
struct Lookup<'a> {
    #[serde(borrow)]
    docs: Vec<Found<'a>>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow, rename = "_source", default)]
    source: Option<FoundSource<'a>>,
}

#[derive(Deserialize)]
struct FoundSource<'a> {
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
        self.layouts.load(&self.server).await
    }

    fn cut(&self, batch: &SinkBatch) -> Result<u64, Unreadable> {
        if days::surely_near(batch, NEW_INDICES) {
            return Ok(batch.last);
        }
        let (layout, made) = (self.layouts.known(), self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut new, mut last) = (HashSet::new(), batch.last);
        days::each(batch, |when| {
            // What is not decided may get its day.
            let place = layout.decided(&when).unwrap_or(Place::Day(days::day_of(when.event_time)));
            let full = !made.contains(&place) && new.insert(place) && new.len() > NEW_INDICES;
            if full {
                last = when.position - 1;
            }
            !full
        })?;
        Ok(last)
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let mut progress = Progress::default();
        let layout = self.layout(&batch).await?;
        let collector = self.counts.as_ref().map(Counts::collector);
        let mut collector = self.send(&batch, &layout, None, collector, &mut progress).await?;
        let mut pauses = Pauses::default();
        loop {
            if !progress.conflicts.is_empty() {
                self.settle(&batch, &layout, &mut progress).await?;
            }
            if progress.again.is_empty() {
                break;
            }
            if let Some(why) = progress.later.take() {
                pauses.next(&why).await?;
            }
            let wanted = std::mem::take(&mut progress.again);
            self.send(&batch, &layout, Some(wanted), None, &mut progress).await?;
        }
        if let Some(message) = progress.blocked {
            // A cluster that has no room for another index gets it by this alone.
            self.retention.look(&self.server);
            return Err(SinkError::retryable(message));
        }
        let refused = progress.refused;
        if refused.len() as u64 > batch.last - batch.first {
            return Err(SinkError::refused(refused.into_iter().next().map(|one| one.reason).unwrap_or_default()));
        }
        if let Some(counts) = &self.counts {
            if !refused.is_empty() {
                collector = Some(self.collect_again(&batch, counts, &refused)?);
            }
            if let Some(collector) = collector {
                counts.write(&self.server, &self.layouts, collector).await?;
            }
        }
        self.retention.look(&self.server);
        self.metrics.far_events.inc_by(progress.far);
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
