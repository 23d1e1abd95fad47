//! When an event truly happened, as well as can be known.

use subway_protocol::limits::MAX_TIME_MS;

use super::Prepared;

/// The time of an event, milliseconds since the epoch, in `0..=MAX_TIME_MS`: `true_ts` if there is one; else the
/// device's `ts`, moved by the difference between the collector's clock and the device's (`received_at - sent_at`) if
/// that passes `tolerance` milliseconds.
#[must_use]
pub fn corrected(ts: i64, true_ts: Option<i64>, sent_at: i64, received_at: i64, tolerance: i64) -> i64 {
    let difference = received_at.saturating_sub(sent_at);
    let time = match true_ts {
        Some(true_ts) => true_ts,
        None if difference.saturating_abs() > tolerance => ts.saturating_add(difference),
        None => ts,
    };
    time.clamp(0, MAX_TIME_MS)
}

/// The newest event of an install (by its number) whose monotonic clock is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// Number of the event.
    pub seq: u64,
    /// Run of the monotonic clock.
    pub boot: String,
    /// Monotonic clock, milliseconds.
    pub mono: u64,
    /// The event's time as stored, milliseconds since the epoch.
    pub event_time: i64,
}

impl Prepared {
    /// Keeps the order of the install over jumps of the device's clock, among the candidates that `fresh` marks.
    ///
    /// They are visited by number. Where the monotonic clock proves that an event happened after the one before it, but
    /// its time is earlier, its time becomes that of the one before plus what the monotonic clock says lies between.
    /// Without that proof (another boot, no reading, `true_ts`) nothing is changed. A time that lies in the collector's
    /// future proves nothing: it is wrong itself, and would draw everything after it along. `last` is where the
    /// install's earlier batches ended; the answer is where this one does, if that is later.
    pub fn order(&mut self, fresh: &[bool], last: Option<Last>) -> Option<Last> {
        let mut visit: Vec<usize> =
            (0..self.candidates.len()).filter(|&at| fresh[at] && self.candidates[at].reading.is_some()).collect();
        visit.sort_by_key(|&at| self.candidates[at].seq);
        let mut newest = None;
        let latest = self.latest;
        let mut before = last.as_ref().filter(|last| last.event_time <= latest).map(|last| {
            let boot = self.boots.iter().position(|boot| *boot == last.boot);
            (boot, last.mono, last.event_time)
        });
        for at in visit {
            let candidate = &mut self.candidates[at];
            let Some((boot, mono)) = candidate.reading else { continue };
            if let Some((before_boot, before_mono, before_time)) = before
                && before_boot == Some(boot)
                && mono > before_mono
                && candidate.event_time < before_time
            {
                let passed = i64::try_from(mono - before_mono).unwrap_or(i64::MAX);
                candidate.event_time = before_time.saturating_add(passed).min(MAX_TIME_MS);
                candidate.corrected = true;
            }
            if candidate.event_time <= latest {
                before = Some((Some(boot), mono, candidate.event_time));
                newest = Some(at);
            }
        }
        let candidate = &self.candidates[newest?];
        let (boot, mono) = candidate.reading?;
        if last.is_some_and(|last| last.seq >= candidate.seq && last.event_time <= latest) {
            return None;
        }
        Some(Last { seq: candidate.seq, boot: self.boots[boot].clone(), mono, event_time: candidate.event_time })
    }
}
