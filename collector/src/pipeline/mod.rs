//! Validates events and builds their stored form. PURE: no IO and no clock; time, limits and state are arguments.
//!
//! A batch passes in two steps, because duplicates and the order of an install are only known inside the spool's
//! transaction. [`prepare`] does everything that needs the batch alone, on any thread. [`ValidatedBatch::order`] and
//! [`ValidatedBatch::records`] finish it with what the transaction knows, and only copy text.

mod build;
mod clock;
mod event;
mod validate;

use std::ops::Range;

use subway_protocol::codec::server::Rejection;
use subway_protocol::{Id, Limits, Violation};

pub(crate) use clock::{ClockAnchor, TimeBounds, TimeSource};
pub(crate) use event::{DecodedEvent, Event, IncomingBatch, Page, Sender, SenderClocks};

/// Batch after validation: its valid and its rejected events.
#[derive(Clone, Debug)]
pub(crate) struct ValidatedBatch {
    /// ID of the batch.
    pub batch_id: Id,
    /// Install that sent it; the first, if the events are of several installs.
    pub install_id: Id,
    /// Clocks of the sender when it sent the batch.
    pub sent: SenderClocks,
    /// Number of events, valid and rejected.
    pub received: u64,
    /// Valid events, in the order of sending.
    pub events: Vec<ValidEvent>,
    /// Rejected events.
    pub rejected: Vec<Rejection>,
    /// Latest time that an honest clock can have given, in milliseconds since the epoch.
    latest: i64,
    /// For each sender the JSON of its record up to the events.
    heads: Vec<Vec<u8>>,
    /// JSON of the valid events without the columns that are decided last, concatenated.
    text: Vec<u8>,
    /// Distinct boot IDs of the batch.
    boots: Vec<String>,
}

/// Valid event.
#[derive(Clone, Debug)]
pub(crate) struct ValidEvent {
    /// Index in the batch.
    pub index: u64,
    /// ID of the event.
    pub id: Id,
    /// Event time, corrected as far as the batch alone shows, in milliseconds since the epoch.
    pub event_time: i64,
    /// Source of [`ValidEvent::event_time`].
    pub time_source: TimeSource,
    /// Whether it may be a repetition beyond the dedup horizon. The spool's transaction sets it.
    pub unverified: bool,
    sender: usize,
    seq: u64,
    /// Boot (index in `boots`) and reading of the monotonic clock, if known and if the event time is the device's.
    reading: Option<(usize, u64)>,
    text: Range<usize>,
}

/// Record to append to the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// JSON of a [`crate::record::Record`].
    pub json: String,
    /// Number of its events; at least one.
    pub events: u64,
    /// Bytes of JSON once what the events share is copied to each of them, as most stores do.
    pub expanded: u64,
}

/// Validates every event of a batch, resolves its time, and encodes what is stored.
#[must_use]
pub(crate) fn prepare<'a>(
    incoming: &IncomingBatch<'_>,
    events: impl ExactSizeIterator<Item = DecodedEvent<'a>>,
    limits: &Limits,
    past_days: u64,
) -> ValidatedBatch {
    let received_at = incoming.received_at;
    let bounds = TimeBounds::new(received_at, past_days, limits.future_ms, limits.clock_tolerance_ms);
    let mut batch = ValidatedBatch {
        batch_id: incoming.batch_id,
        install_id: incoming.senders.first().map_or(incoming.batch_id, |sender| sender.install_id),
        sent: incoming.sent,
        received: events.len() as u64,
        events: Vec::with_capacity(events.len()),
        rejected: Vec::new(),
        latest: received_at.saturating_add(limits.clock_tolerance_ms),
        heads: incoming.senders.iter().map(|sender| build::record_head(incoming, sender)).collect(),
        text: Vec::new(),
        boots: Vec::new(),
    };
    for (index, event) in (0..).zip(events) {
        let id = event.as_ref().map_or_else(|(id, _)| *id, |event| Some(event.id));
        if let Err(violation) =
            event.map_err(|(_, violation)| violation).and_then(|event| batch.add_event(index, &event, &bounds, limits))
        {
            batch.rejected.push(Rejection { index, id, violation });
        }
    }
    batch
}

impl ValidatedBatch {
    fn add_event(
        &mut self,
        index: u64,
        event: &Event<'_>,
        bounds: &TimeBounds,
        limits: &Limits,
    ) -> Result<(), Violation> {
        validate::check(event, limits)?;
        let (event_time, time_source) = clock::resolve_time(event, &self.sent, bounds)?;
        let start = self.text.len();
        build::write_event(&mut self.text, event);
        // The clocks of several installs in one batch cannot be told apart; foreign senders have no monotonic clock.
        let reading = event.mono.filter(|_| event.true_ts.is_none() && self.heads.len() == 1);
        // Without a boot ID all readings count as one boot.
        let reading = reading.map(|mono| (self.boot(&event.boot), mono));
        self.events.push(ValidEvent {
            index,
            id: event.id,
            event_time,
            time_source,
            unverified: false,
            sender: event.sender.min(self.heads.len().saturating_sub(1)),
            seq: event.seq,
            reading,
            text: start..self.text.len(),
        });
        Ok(())
    }

    fn boot(&mut self, boot: &str) -> usize {
        if let Some(at) = self.boots.iter().position(|known| known == boot) {
            return at;
        }
        self.boots.push(boot.to_owned());
        self.boots.len() - 1
    }

    /// Returns the approximate memory in bytes until the batch is stored, its records included.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        let heads: usize = self.heads.iter().map(Vec::len).sum();
        (2 * (heads + self.text.len()) + self.events.len() * size_of::<ValidEvent>()) as u64
    }

    /// Returns whether the order within the install can change any event.
    #[must_use]
    pub(crate) fn has_readings(&self) -> bool {
        self.events.iter().any(|event| event.reading.is_some())
    }

    /// Returns the records with the events that `is_new` marks, one for each sender that has any. `is_new` is as long
    /// as `events`.
    pub(crate) fn records<'p>(&'p self, is_new: &'p [bool]) -> impl Iterator<Item = NewRecord> + 'p {
        self.heads.iter().enumerate().filter_map(|(sender, head)| self.record(sender, head, is_new))
    }

    fn record(&self, sender: usize, head: &[u8], is_new: &[bool]) -> Option<NewRecord> {
        let kept = || {
            let is_new = self.events.iter().zip(is_new).filter(|(_, is_new)| **is_new);
            is_new.map(|(event, _)| event).filter(|event| event.sender == sender)
        };
        let (events, text) = kept().fold((0, 0), |(events, text), event| (events + 1, text + event.text.len()));
        if events == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(head.len() + text + DECIDED_BYTES * events + 32);
        out.extend_from_slice(build::SHARED.as_bytes());
        out.extend_from_slice(head.len().to_string().as_bytes());
        out.extend_from_slice(head);
        for (at, event) in kept().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            build::write_decided(&mut out, event);
            out.extend_from_slice(&self.text[event.text.clone()]);
        }
        out.extend_from_slice(build::TAIL.as_bytes());
        let expanded = (out.len() + head.len() * (events - 1)) as u64;
        // Cannot fail, because every part was UTF-8.
        let json = String::from_utf8(out).ok()?;
        Some(NewRecord { json, events: events as u64, expanded })
    }
}

/// Maximum bytes of the columns that are decided last:
/// `{"event_time":253402300799999,"time_source":"corrected","unverified":true`.
const DECIDED_BYTES: usize = 76;

#[cfg(test)]
mod tests;
