//! Encodes batches as bulk requests and reads the responses.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::days::EventTimes;
use super::super::{SinkBatch, SinkError};
use super::document::{self, SharedFields};
use super::errors::{ErrorClass, classify};
use super::layout::{EventIndex, Layout};
use super::names;
use crate::config::{BulkCompression as Compression, Elasticsearch as Settings};
use crate::record::{Event, Record};

/// Path of bulk requests. The response is reduced to what is read, and the refresh is left to the index or to
/// queries.
pub(super) const PATH: &str = "/_bulk?refresh=false&filter_path=errors,items.*.status,items.*.error";

/// Form in which an event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DocumentForm {
    /// Properties are stored only as text, because the store refused them as an object.
    pub(super) as_text: bool,
    /// The document's ID contains the app, because another app has an event with this ID.
    pub(super) app_scoped_id: bool,
}

/// Positions of the events to send, with their forms.
pub(super) type DocumentForms = BTreeMap<u64, DocumentForm>;

/// Bulk request: its body and its events, in order.
pub(super) struct BulkRequest {
    pub(super) body: Bytes,
    pub(super) items: Vec<(u64, DocumentForm)>,
    /// Indices that it writes to.
    pub(super) indices: BTreeSet<EventIndex>,
    /// Number of its events that go to indices of years.
    pub(super) far_events: u64,
}

/// Encoder of batches as bulk requests.
pub(super) struct BulkEncoder {
    prefix: String,
    bulk_bytes: usize,
    pub(super) gzip: bool,
}

impl BulkEncoder {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            prefix: settings.index_prefix().to_owned(),
            bulk_bytes: usize::try_from(settings.bulk_bytes).unwrap_or(usize::MAX),
            gzip: settings.compression == Compression::Gzip,
        }
    }

    /// Encodes the batch, or the `selected` events of it, and passes the requests to `send` until it returns `false`.
    /// Calls `observe` for each event.
    ///
    /// `layout` must have decided the index of each event.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub(super) fn encode(
        &self,
        batch: &SinkBatch,
        layout: &Layout,
        selected: Option<&DocumentForms>,
        mut observe: impl FnMut(&Record<'_>, &Event<'_>, u64),
        send: &mut dyn FnMut(BulkRequest) -> bool,
    ) -> Result<(), SinkError> {
        let mut builder = BulkBuilder::new(self, layout);
        let mut more = true;
        batch.for_each_record(|record: &Record<'_>, first, events| {
            if !more {
                return Ok(());
            }
            let shared = SharedFields::new(record);
            for (event, position) in events.iter().zip(first..) {
                let form = match selected {
                    None => DocumentForm::default(),
                    Some(forms) => match forms.get(&position) {
                        Some(form) => *form,
                        None => continue,
                    },
                };
                builder.push(record, &shared, event, position, form);
                observe(record, event, position);
                if builder.body.len() >= self.bulk_bytes {
                    more = send(builder.take(self)?);
                }
                if !more {
                    return Ok(());
                }
            }
            Ok::<(), SinkError>(())
        })?;
        if more && !builder.items.is_empty() {
            send(builder.take(self)?);
        }
        Ok(())
    }
}

/// Builder of one bulk request.
struct BulkBuilder<'a> {
    prefix: &'a str,
    layout: &'a Layout,
    body: Vec<u8>,
    items: Vec<(u64, DocumentForm)>,
    indices: BTreeSet<EventIndex>,
    far_events: u64,
    /// Index of the last event, and the beginning of an action for it.
    index: Option<EventIndex>,
    action: Vec<u8>,
}

impl<'a> BulkBuilder<'a> {
    fn new(encoder: &'a BulkEncoder, layout: &'a Layout) -> Self {
        Self {
            prefix: &encoder.prefix,
            layout,
            body: Vec::new(),
            items: Vec::new(),
            indices: BTreeSet::new(),
            far_events: 0,
            index: None,
            action: Vec::new(),
        }
    }

    fn push(
        &mut self,
        record: &Record<'_>,
        shared: &SharedFields,
        event: &Event<'_>,
        position: u64,
        form: DocumentForm,
    ) {
        let (event_time, received_at) = (event.event_time, record.received_at);
        let index =
            self.layout.event_index(&EventTimes { app_key: &record.app_key, position, event_time, received_at });
        if self.index != Some(index) {
            self.index = Some(index);
            self.action.clear();
            document::string(&mut self.action, "{\"create\":{\"_index\":", &index.name(self.prefix));
            self.action.extend_from_slice(b",\"_id\":");
            self.indices.insert(index);
        }
        self.far_events += u64::from(matches!(index, EventIndex::Year(_)));
        self.body.extend_from_slice(&self.action);
        if form.app_scoped_id {
            document::string(&mut self.body, "", &names::id(&[&record.app_key, &event.event_id]));
        } else {
            document::string(&mut self.body, "", &names::id(&[&event.event_id]));
        }
        self.body.extend_from_slice(b"}}\n");
        document::write(&mut self.body, shared, event, position, form.as_text);
        self.items.push((position, form));
    }

    fn take(&mut self, encoder: &BulkEncoder) -> Result<BulkRequest, SinkError> {
        let next = Vec::with_capacity(if encoder.gzip { self.body.capacity() } else { 0 });
        let plain = std::mem::replace(&mut self.body, next);
        self.index = None;
        Ok(BulkRequest {
            body: pack(plain, encoder.gzip)?,
            items: std::mem::take(&mut self.items),
            indices: std::mem::take(&mut self.indices),
            far_events: std::mem::take(&mut self.far_events),
        })
    }
}

/// Compresses a body if `gzip`, with the fastest level: the next ones take twice the time for a tenth less.
pub(super) fn pack(plain: Vec<u8>, gzip: bool) -> Result<Bytes, SinkError> {
    if !gzip {
        return Ok(Bytes::from(plain));
    }
    let mut packer = GzEncoder::new(Vec::with_capacity(plain.len() / 6), Level::fast());
    let packed = packer.write_all(&plain).and_then(|()| packer.finish());
    packed.map(Bytes::from).map_err(|error| SinkError::retryable(format!("gzip: {error}")))
}

#[derive(Deserialize)]
struct BulkResponse<'a> {
    #[serde(borrow, default)]
    items: Vec<BulkItem<'a>>,
}

#[derive(Deserialize)]
struct BulkItem<'a> {
    #[serde(borrow, alias = "create", alias = "index")]
    done: ItemStatus<'a>,
}

#[derive(Deserialize)]
struct ItemStatus<'a> {
    status: u16,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// Classifies the response to each of `count` items.
///
/// # Errors
/// [`SinkError::Retryable`] if the response is invalid or has another number of items.
pub(crate) fn verdicts(body: &[u8], count: usize) -> Result<Vec<ErrorClass>, SinkError> {
    let answer: BulkResponse<'_> = serde_json::from_slice(body)
        .map_err(|error| SinkError::retryable(format!("the answer to a bulk cannot be read: {error}")))?;
    if answer.items.len() != count {
        let message = format!("the answer to a bulk of {count} speaks of {}", answer.items.len());
        return Err(SinkError::retryable(message));
    }
    Ok(answer.items.iter().map(|item| classify(item.done.status, item.done.error)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_item_by_item() {
        let body = br#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"version_conflict_engine_exception"}}},
            {"index":{"status":400,"error":{"type":"mapper_parsing_exception","reason":"no"}}}]}"#;
        let found = verdicts(body, 3).unwrap();
        assert_eq!(found[..2], [ErrorClass::Taken, ErrorClass::Exists]);
        assert!(matches!(&found[2], ErrorClass::Refused(why) if why.contains("no")));
        assert!(matches!(verdicts(body, 2), Err(SinkError::Retryable { .. })));
        assert!(matches!(verdicts(b"<html>", 2), Err(SinkError::Retryable { .. })));
    }
}
