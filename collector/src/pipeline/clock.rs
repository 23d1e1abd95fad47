//! When an event truly happened, as well as can be known.

use subway_protocol::limits::MAX_TIME_MS;
use subway_protocol::{Actual, RejectReason, Violation};

use super::Prepared;
use super::event::{Event, Sent};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Where the time of an event is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeSource {
    /// The sender knew it.
    True,
    /// The device's clock.
    Device,
    /// The device's clock, corrected.
    Corrected,
    /// The device's clock is absurd: the arrival, less the time since the event where the monotonic clock tells it.
    Arrival,
}

impl TimeSource {
    /// As it is stored.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TimeSource::True => "true",
            TimeSource::Device => "device",
            TimeSource::Corrected => "corrected",
            TimeSource::Arrival => "arrival",
        }
    }

    /// Whether it is another than the sender gave.
    #[must_use]
    pub(crate) fn is_corrected(self) -> bool {
        matches!(self, TimeSource::Corrected | TimeSource::Arrival)
    }
}

/// Which times are believed of events that arrive at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// The arrival, milliseconds since the epoch.
    pub received_at: i64,
    /// The earliest time, milliseconds since the epoch.
    pub earliest: i64,
    /// The latest time, milliseconds since the epoch.
    pub latest: i64,
    /// A device's clock that differs from the collector's by more is corrected, milliseconds.
    pub tolerance_ms: i64,
}

impl Bounds {
    /// For an arrival at `received_at`.
    #[must_use]
    pub(crate) fn new(received_at: i64, past_days: u64, future_ms: i64, tolerance_ms: i64) -> Self {
        let past_ms = i64::try_from(past_days).unwrap_or(i64::MAX).saturating_mul(DAY_MS);
        Self {
            received_at,
            earliest: received_at.saturating_sub(past_ms).clamp(0, MAX_TIME_MS),
            latest: received_at.saturating_add(future_ms).clamp(0, MAX_TIME_MS),
            tolerance_ms,
        }
    }

    fn contains(&self, time: i64) -> bool {
        (self.earliest..=self.latest).contains(&time)
    }
}

/// The time of an event, milliseconds since the epoch, within `bounds`: `true_ts` if there is one; else the device's `ts`,
/// moved by the difference between the collector's clock and the device's at sending if that passes the tolerance; else, if
/// that is absurd, what is known without the device's wall clock.
///
/// # Errors
/// `time_out_of_range` for a `true_ts` out of the bounds. No clock of a device costs its event.
pub(super) fn place(event: &Event<'_>, sent: &Sent, bounds: &Bounds) -> Result<(i64, TimeSource), Violation> {
    if let Some(true_ts) = event.true_ts {
        if bounds.contains(true_ts) {
            return Ok((true_ts, TimeSource::True));
        }
        let limit = if true_ts < bounds.earliest { bounds.earliest } else { bounds.latest };
        return Err(Violation {
            reason: RejectReason::TimeOutOfRange,
            field: "true_ts".to_owned(),
            limit: Some(limit.unsigned_abs()),
            got: Some(Actual::Number(true_ts)),
        });
    }
    let difference = sent.at.map_or(0, |at| i128::from(bounds.received_at) - i128::from(at));
    let (moved, source) = if difference.abs() > i128::from(bounds.tolerance_ms) {
        (difference, TimeSource::Corrected)
    } else {
        (0, TimeSource::Device)
    };
    if let Ok(time) = i64::try_from(i128::from(event.ts) + moved)
        && bounds.contains(time)
    {
        return Ok((time, source));
    }
    // A reading later than that of the sending is of another run of the clock.
    let passed = sent.mono.zip(event.mono).and_then(|(sent, event)| sent.checked_sub(event)).unwrap_or(0);
    let before = bounds.received_at.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX));
    let time = if bounds.contains(before) { before } else { bounds.received_at.clamp(0, MAX_TIME_MS) };
    Ok((time, TimeSource::Arrival))
}

/// The newest event of an install (by its number) whose monotonic clock is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClockAnchor {
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
    /// its time is earlier, its time becomes that of the one before plus what the monotonic clock says lies between, at most
    /// the latest that an honest clock can have given. Without that proof (another boot, no reading, `true_ts`) nothing is
    /// changed. A time that lies in the collector's future proves nothing: it is wrong itself, and would draw everything
    /// after it along. `last` is where the install's earlier batches ended; the answer is where this one does, if that is
    /// later.
    pub(crate) fn order(&mut self, fresh: &[bool], last: Option<ClockAnchor>) -> Option<ClockAnchor> {
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
                candidate.event_time = before_time.saturating_add(passed).min(latest);
                candidate.time_source = TimeSource::Corrected;
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
        Some(ClockAnchor { seq: candidate.seq, boot: self.boots[boot].clone(), mono, event_time: candidate.event_time })
    }
}
