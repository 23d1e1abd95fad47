//! A batch as bulk requests, and what the store answers to one.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use bytes::Bytes;
use flate2::{Compression as Level, write::GzEncoder};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::days::EventTimes;
use super::super::{SinkBatch, SinkError};
use super::document::{self, Shared};
use super::errors::{ErrorClass, classify};
use super::layout::{Layout, Place};
use super::names;
use crate::config::{BulkCompression as Compression, Elasticsearch as Settings};
use crate::record::{Event, Record};

/// Where bulks go. What is not needed of the answer is not sent back; a refresh is left to the index or to who asks.
pub(super) const PATH: &str = "/_bulk?refresh=false&filter_path=errors,items.*.status,items.*.error";

/// How one event is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Its properties only as text, because the store did not take them as an object.
    pub(super) as_text: bool,
    /// Under an identity that holds the app too, because another app has an event of this ID.
    pub(super) foreign: bool,
}

/// Which events are wanted, and in which form.
pub(super) type Forms = BTreeMap<u64, Form>;

/// One bulk request: its body and the events in it, in order.
pub(super) struct Part {
    pub(super) body: Bytes,
    pub(super) items: Vec<(u64, Form)>,
    /// The indices that it writes to.
    pub(super) places: BTreeSet<Place>,
    /// How many of the events go by years.
    pub(super) far: u64,
}

/// Makes bulk requests out of batches.
pub(super) struct Encoder {
    prefix: String,
    bulk_bytes: usize,
    pub(super) gzip: bool,
}

impl Encoder {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            prefix: settings.index_prefix().to_owned(),
            bulk_bytes: usize::try_from(settings.bulk_bytes).unwrap_or(usize::MAX),
            gzip: settings.compression == Compression::Gzip,
        }
    }

    /// Gives the batch, or those of its events that are in `wanted`, to `send` in parts, until it says that no more are
    /// wanted. `see` is shown the same events. `layout` must have a place for each.
    ///
    /// # Errors
    /// If a record cannot be read.
    pub(super) fn encode(
        &self,
        batch: &SinkBatch,
        layout: &Layout,
        wanted: Option<&Forms>,
        mut see: impl FnMut(&Record<'_>, &Event<'_>, u64),
        send: &mut dyn FnMut(Part) -> bool,
    ) -> Result<(), SinkError> {
        let mut draft = Draft::new(self, layout);
        let mut more = true;
        batch.for_each_record(|record: &Record<'_>, first, events| {
            if !more {
                return Ok(());
            }
            let shared = Shared::new(record);
            for (event, position) in events.iter().zip(first..) {
                let form = match wanted {
                    None => Form::default(),
                    Some(forms) => match forms.get(&position) {
                        Some(form) => *form,
                        None => continue,
                    },
                };
                draft.push(record, &shared, event, position, form);
                see(record, event, position);
                if draft.body.len() >= self.bulk_bytes {
                    more = send(draft.take(self)?);
                }
                if !more {
                    return Ok(());
                }
            }
            Ok::<(), SinkError>(())
        })?;
        if more && !draft.items.is_empty() {
            send(draft.take(self)?);
        }
        Ok(())
    }
}

/// A part that is being written.
struct Draft<'a> {
    prefix: &'a str,
    layout: &'a Layout,
    body: Vec<u8>,
    items: Vec<(u64, Form)>,
    places: BTreeSet<Place>,
    far: u64,
    /// The place of the last event, and the beginning of an action for it.
    place: Option<Place>,
    action: Vec<u8>,
}

impl<'a> Draft<'a> {
    fn new(encoder: &'a Encoder, layout: &'a Layout) -> Self {
        Self {
            prefix: &encoder.prefix,
            layout,
            body: Vec::new(),
            items: Vec::new(),
            places: BTreeSet::new(),
            far: 0,
            place: None,
            action: Vec::new(),
        }
    }

    fn push(&mut self, record: &Record<'_>, shared: &Shared, event: &Event<'_>, position: u64, form: Form) {
        let (event_time, received_at) = (event.event_time, record.received_at);
        let place = self.layout.place(&EventTimes { app_key: &record.app_key, position, event_time, received_at });
        if self.place != Some(place) {
            self.place = Some(place);
            self.action.clear();
            document::string(&mut self.action, "{\"create\":{\"_index\":", &place.index(self.prefix));
            self.action.extend_from_slice(b",\"_id\":");
            self.places.insert(place);
        }
        self.far += u64::from(matches!(place, Place::Year(_)));
        self.body.extend_from_slice(&self.action);
        if form.foreign {
            document::string(&mut self.body, "", &names::id(&[&record.app_key, &event.event_id]));
        } else {
            document::string(&mut self.body, "", &names::id(&[&event.event_id]));
        }
        self.body.extend_from_slice(b"}}\n");
        document::write(&mut self.body, shared, event, position, form.as_text);
        self.items.push((position, form));
    }

    fn take(&mut self, encoder: &Encoder) -> Result<Part, SinkError> {
        let next = Vec::with_capacity(if encoder.gzip { self.body.capacity() } else { 0 });
        let plain = std::mem::replace(&mut self.body, next);
        self.place = None;
        Ok(Part {
            body: pack(plain, encoder.gzip)?,
            items: std::mem::take(&mut self.items),
            places: std::mem::take(&mut self.places),
            far: std::mem::take(&mut self.far),
        })
    }
}

/// The body as it travels. The fastest level: the next ones cost twice the time for a tenth less.
pub(super) fn pack(plain: Vec<u8>, gzip: bool) -> Result<Bytes, SinkError> {
    if !gzip {
        return Ok(Bytes::from(plain));
    }
    let mut packer = GzEncoder::new(Vec::with_capacity(plain.len() / 6), Level::fast());
    let packed = packer.write_all(&plain).and_then(|()| packer.finish());
    packed.map(Bytes::from).map_err(|error| SinkError::retryable(format!("gzip: {error}")))
}

#[derive(Deserialize)]
struct BulkAnswer<'a> {
    #[serde(borrow, default)]
    items: Vec<ItemAnswer<'a>>,
}

#[derive(Deserialize)]
struct ItemAnswer<'a> {
    #[serde(borrow, alias = "create", alias = "index")]
    done: Done<'a>,
}

#[derive(Deserialize)]
struct Done<'a> {
    status: u16,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

/// What the store says to each of `count` items.
///
/// # Errors
/// [`SinkError::Retryable`] if the answer is not one to so many items.
pub(crate) fn verdicts(body: &[u8], count: usize) -> Result<Vec<ErrorClass>, SinkError> {
    let answer: BulkAnswer<'_> = serde_json::from_slice(body)
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
