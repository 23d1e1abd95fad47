//! Judges events and prepares what is stored of them. PURE: no IO and no clock; time, limits and state are arguments.
//!
//! A batch goes through in two steps, because duplicates and the order of an install are only known inside the spool's
//! transaction: [`prepare`] does everything that needs the batch alone, on any thread; [`Prepared::order`] and
//! [`Prepared::record`] finish it with what the transaction knows, and only copy text.

mod build;
mod clock;
mod validate;

use std::ops::Range;

use subway_protocol::codec::server::{Batch, Rejection};
use subway_protocol::{Id, Limits};

pub use clock::{Last, corrected};

/// A batch after validation: what could be stored of it, and what not.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The batch.
    pub batch_id: Id,
    /// Who sent it.
    pub install_id: Id,
    /// How many events it has.
    pub received: u64,
    /// The valid ones, in the order of sending.
    pub candidates: Vec<Candidate>,
    /// The others.
    pub rejected: Vec<Rejection>,
    /// The latest time that an honest clock can have given, milliseconds since the epoch.
    latest: i64,
    /// The record's JSON up to the events.
    head: String,
    /// The candidates' JSON without their time, one after the other.
    text: String,
    /// Every boot identity of the batch, once.
    boots: Vec<String>,
}

/// A valid event.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Where in the batch it stands.
    pub index: u64,
    /// Its identity.
    pub id: Id,
    /// When it happened, corrected as far as the batch alone shows, milliseconds since the epoch.
    pub event_time: i64,
    /// Whether [`Candidate::event_time`] differs from what the device said.
    pub corrected: bool,
    seq: u64,
    /// Run of the monotonic clock (index in `boots`) and its reading, if it is known and the time is the device's.
    reading: Option<(usize, u64)>,
    text: Range<usize>,
}

/// Validates every event of a batch, corrects the device's clock, and writes down what is to be stored.
///
/// `received_at`: when the request arrived, milliseconds since the epoch.
#[must_use]
pub fn prepare(app_key: &str, batch: &Batch<'_>, received_at: i64, limits: &Limits) -> Prepared {
    let bytes: usize = batch.events.iter().map(|event| event.get().len()).sum();
    let mut prepared = Prepared {
        batch_id: batch.batch_id,
        install_id: batch.install_id,
        received: batch.events.len() as u64,
        candidates: Vec::with_capacity(batch.events.len()),
        rejected: Vec::new(),
        latest: received_at.saturating_add(limits.clock_tolerance_ms),
        head: build::head(app_key, batch, received_at),
        text: String::with_capacity(bytes + bytes / 4),
        boots: Vec::new(),
    };
    for (index, raw) in (0..).zip(&batch.events) {
        match validate::event(raw, limits) {
            Ok((event, theme)) => {
                let event_time =
                    corrected(event.ts, event.true_ts, batch.sent_at, received_at, limits.clock_tolerance_ms);
                let start = prepared.text.len();
                build::event(&mut prepared.text, &event, theme);
                let reading = match event.mono {
                    // Without a name all readings count as one boot.
                    Some(mono) if event.true_ts.is_none() => Some((prepared.boot(&event.boot), mono)),
                    _ => None,
                };
                prepared.candidates.push(Candidate {
                    index,
                    id: event.id,
                    event_time,
                    corrected: event.true_ts.is_none() && event_time != event.ts,
                    seq: event.seq,
                    reading,
                    text: start..prepared.text.len(),
                });
            }
            Err((id, violation)) => prepared.rejected.push(Rejection { index, id, violation }),
        }
    }
    prepared
}

impl Prepared {
    fn boot(&mut self, boot: &str) -> usize {
        if let Some(at) = self.boots.iter().position(|known| known == boot) {
            return at;
        }
        self.boots.push(boot.to_owned());
        self.boots.len() - 1
    }

    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.text.len() + self.candidates.len() * size_of::<Candidate>()) as u64
    }

    /// Whether the order within the install can matter for any candidate.
    #[must_use]
    pub fn has_readings(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.reading.is_some())
    }

    /// The record's JSON with the candidates that `fresh` marks; `fresh` is as long as `candidates`.
    #[must_use]
    pub fn record(&self, fresh: &[bool]) -> String {
        let mut out = String::with_capacity(self.head.len() + self.text.len() + 32 * self.candidates.len());
        out.push_str(&self.head);
        let kept = self.candidates.iter().zip(fresh).filter(|(_, fresh)| **fresh);
        for (at, (candidate, _)) in kept.enumerate() {
            out.push_str(if at == 0 { build::FIRST_TIME } else { build::NEXT_TIME });
            subway_protocol::json::write_integer(&mut out, candidate.event_time);
            out.push_str(&self.text[candidate.text.clone()]);
        }
        out.push_str(build::TAIL);
        out
    }
}

#[cfg(test)]
mod tests;
