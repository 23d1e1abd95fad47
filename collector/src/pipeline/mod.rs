//! Judges events and prepares what is stored of them. PURE: no IO and no clock; time, limits and state are arguments.
//!
//! A batch goes through in two steps, because duplicates and the order of an install are only known inside the spool's
//! transaction: [`prepare`] does everything that needs the batch alone, on any thread; [`Prepared::order`] and
//! [`Prepared::records`] finish it with what the transaction knows, and only copy text.

mod build;
mod clock;
mod event;
mod validate;

use std::ops::Range;

use subway_protocol::codec::server::Rejection;
use subway_protocol::{Id, Limits, Violation};

pub(crate) use clock::{Bounds, ClockAnchor, TimeSource};
pub(crate) use event::{Decoded, Event, Incoming, Origin, Page, Sent};

/// A batch after validation: what could be stored of it, and what not.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    /// The batch.
    pub batch_id: Id,
    /// Who sent it; the first, if the events are of several installs.
    pub install_id: Id,
    /// The sender's clocks when it sent.
    pub sent: Sent,
    /// How many events it has.
    pub received: u64,
    /// The valid ones, in the order of sending.
    pub candidates: Vec<Candidate>,
    /// The others.
    pub rejected: Vec<Rejection>,
    /// The latest time that an honest clock can have given, milliseconds since the epoch.
    latest: i64,
    /// For each origin its record's JSON up to the events.
    heads: Vec<Vec<u8>>,
    /// The candidates' JSON without what is decided last, one after the other.
    text: Vec<u8>,
    /// Every boot identity of the batch, once.
    boots: Vec<String>,
}

/// A valid event.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Where in the batch it stands.
    pub index: u64,
    /// Its identity.
    pub id: Id,
    /// When it happened, corrected as far as the batch alone shows, milliseconds since the epoch.
    pub event_time: i64,
    /// Where [`Candidate::event_time`] is from.
    pub time_source: TimeSource,
    /// Whether it may be a repetition of an event that is no longer remembered. Set inside of the spool's transaction.
    pub unverified: bool,
    origin: usize,
    seq: u64,
    /// Run of the monotonic clock (index in `boots`) and its reading, if it is known and the time is the device's.
    reading: Option<(usize, u64)>,
    text: Range<usize>,
}

/// A record to be appended to the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// The JSON of a [`crate::record::Record`].
    pub json: String,
    /// How many events it holds; at least one.
    pub events: u64,
    /// Bytes of JSON once what the events share has been copied to each of them, as most stores do.
    pub expanded: u64,
}

/// Validates every event of a batch, places it in time, and writes down what is to be stored.
#[must_use]
pub(crate) fn prepare<'a>(
    incoming: &Incoming<'_>,
    events: impl ExactSizeIterator<Item = Decoded<'a>>,
    limits: &Limits,
    past_days: u64,
) -> Prepared {
    let received_at = incoming.received_at;
    let bounds = Bounds::new(received_at, past_days, limits.future_ms, limits.clock_tolerance_ms);
    let mut prepared = Prepared {
        batch_id: incoming.batch_id,
        install_id: incoming.origins.first().map_or(incoming.batch_id, |origin| origin.install_id),
        sent: incoming.sent,
        received: events.len() as u64,
        candidates: Vec::with_capacity(events.len()),
        rejected: Vec::new(),
        latest: received_at.saturating_add(limits.clock_tolerance_ms),
        heads: incoming.origins.iter().map(|origin| build::head(incoming, origin)).collect(),
        text: Vec::new(),
        boots: Vec::new(),
    };
    for (index, event) in (0..).zip(events) {
        let id = event.as_ref().map_or_else(|(id, _)| *id, |event| Some(event.id));
        if let Err(violation) =
            event.map_err(|(_, violation)| violation).and_then(|event| prepared.take(index, &event, &bounds, limits))
        {
            prepared.rejected.push(Rejection { index, id, violation });
        }
    }
    prepared
}

impl Prepared {
    fn take(&mut self, index: u64, event: &Event<'_>, bounds: &Bounds, limits: &Limits) -> Result<(), Violation> {
        validate::check(event, limits)?;
        let (event_time, time_source) = clock::place(event, &self.sent, bounds)?;
        let start = self.text.len();
        build::event(&mut self.text, event);
        // The clocks of several installs cannot be kept apart by one batch; foreign senders have no monotonic clock.
        let reading = event.mono.filter(|_| event.true_ts.is_none() && self.heads.len() == 1);
        // Without a name all readings count as one boot.
        let reading = reading.map(|mono| (self.boot(&event.boot), mono));
        self.candidates.push(Candidate {
            index,
            id: event.id,
            event_time,
            time_source,
            unverified: false,
            origin: event.origin.min(self.heads.len().saturating_sub(1)),
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

    /// About how much memory it takes until it is stored, its records included, bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        let heads: usize = self.heads.iter().map(Vec::len).sum();
        (2 * (heads + self.text.len()) + self.candidates.len() * size_of::<Candidate>()) as u64
    }

    /// Whether the order within the install can matter for any candidate.
    #[must_use]
    pub(crate) fn has_readings(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.reading.is_some())
    }

    /// The records with the candidates that `fresh` marks, one for each origin that has any; `fresh` is as long as
    /// `candidates`.
    pub(crate) fn records<'p>(&'p self, fresh: &'p [bool]) -> impl Iterator<Item = NewRecord> + 'p {
        self.heads.iter().enumerate().filter_map(|(origin, head)| self.record(origin, head, fresh))
    }

    fn record(&self, origin: usize, head: &[u8], fresh: &[bool]) -> Option<NewRecord> {
        let kept = || {
            let fresh = self.candidates.iter().zip(fresh).filter(|(_, fresh)| **fresh);
            fresh.map(|(candidate, _)| candidate).filter(|candidate| candidate.origin == origin)
        };
        let (events, text) = kept().fold((0, 0), |(events, text), candidate| (events + 1, text + candidate.text.len()));
        if events == 0 {
            return None;
        }
        let mut out = Vec::with_capacity(head.len() + text + DECIDED_BYTES * events + 32);
        out.extend_from_slice(build::SHARED.as_bytes());
        out.extend_from_slice(head.len().to_string().as_bytes());
        out.extend_from_slice(head);
        for (at, candidate) in kept().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            build::decided(&mut out, candidate);
            out.extend_from_slice(&self.text[candidate.text.clone()]);
        }
        out.extend_from_slice(build::TAIL.as_bytes());
        let expanded = (out.len() + head.len() * (events - 1)) as u64;
        // Everything in it was text before.
        let json = String::from_utf8(out).ok()?;
        Some(NewRecord { json, events: events as u64, expanded })
    }
}

/// Bytes of what is decided last, at most: `{"event_time":253402300799999,"time_source":"corrected","unverified":true`.
const DECIDED_BYTES: usize = 76;

#[cfg(test)]
mod tests;
