//! Estimates when an event happened.

use subway_protocol::limits::MAX_TIME_MS;
use subway_protocol::{Actual, RejectReason, Violation};

use super::ValidatedBatch;
use super::event::{Event, SenderClocks};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Source of an event's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeSource {
    /// The sender knew the time (`true_ts`).
    True,
    /// The device's clock.
    Device,
    /// The device's clock, corrected.
    Corrected,
    /// The device's clock is out of bounds. The time is the arrival, less the time since the event if the monotonic
    /// clock shows it.
    Arrival,
}

impl TimeSource {
    /// Returns the stored name.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            TimeSource::True => "true",
            TimeSource::Device => "device",
            TimeSource::Corrected => "corrected",
            TimeSource::Arrival => "arrival",
        }
    }

    /// Returns whether the time differs from what the sender gave.
    #[must_use]
    pub(crate) fn is_corrected(self) -> bool {
        matches!(self, TimeSource::Corrected | TimeSource::Arrival)
    }
}

/// Bounds of the times that are accepted of events with one arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimeBounds {
    /// Arrival, milliseconds since the epoch.
    pub received_at: i64,
    /// Earliest time, milliseconds since the epoch.
    pub earliest: i64,
    /// Latest time, milliseconds since the epoch.
    pub latest: i64,
    /// Maximum difference between a device's clock and the collector's that is not corrected, milliseconds.
    pub tolerance_ms: i64,
}

impl TimeBounds {
    /// Creates the bounds of an arrival at `received_at`.
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

/// Returns the time of an event within `bounds`, in milliseconds since the epoch, and its source.
/// - `true_ts`, if there is one.
/// - Else the device's `ts`, shifted by the difference between the collector's clock and the device's at sending if
///   that exceeds the tolerance.
/// - Else, if that is out of bounds, what is known without the device's wall clock.
///
/// # Errors
/// `time_out_of_range` for a `true_ts` out of the bounds. A wrong device clock never rejects an event.
pub(super) fn resolve_time(
    event: &Event<'_>,
    sent: &SenderClocks,
    bounds: &TimeBounds,
) -> Result<(i64, TimeSource), Violation> {
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
    // A reading later than that of the sending is of another boot.
    let passed = sent.mono.zip(event.mono).and_then(|(sent, event)| sent.checked_sub(event)).unwrap_or(0);
    let before = bounds.received_at.saturating_sub(i64::try_from(passed).unwrap_or(i64::MAX));
    let time = if bounds.contains(before) { before } else { bounds.received_at.clamp(0, MAX_TIME_MS) };
    Ok((time, TimeSource::Arrival))
}

/// Clock anchor of an install: its newest event (by number) with a known monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClockAnchor {
    /// Number of the event.
    pub seq: u64,
    /// Boot ID of the monotonic clock.
    pub boot: String,
    /// Reading of the monotonic clock, milliseconds.
    pub mono: u64,
    /// Event time as stored, milliseconds since the epoch.
    pub event_time: i64,
}

impl ValidatedBatch {
    /// Keeps the order of the install across jumps of the device's clock, among the events that `is_new` marks.
    ///
    /// Events are visited by number. If the monotonic clock proves that an event happened after the one before it, but
    /// its time is earlier, its time becomes that of the one before plus the monotonic difference, at most the latest
    /// that an honest clock can have given. Without that proof (another boot, no reading, `true_ts`) nothing changes. A
    /// time in the collector's future proves nothing: it is wrong itself, and would shift everything after it.
    ///
    /// `last` is the anchor of the install's earlier batches. Returns the anchor of this one, if it is later.
    pub(crate) fn order(&mut self, is_new: &[bool], last: Option<ClockAnchor>) -> Option<ClockAnchor> {
        let mut visit: Vec<usize> =
            (0..self.events.len()).filter(|&at| is_new[at] && self.events[at].reading.is_some()).collect();
        visit.sort_by_key(|&at| self.events[at].seq);
        let mut newest = None;
        let latest = self.latest;
        let mut before = last.as_ref().filter(|last| last.event_time <= latest).map(|last| {
            let boot = self.boots.iter().position(|boot| *boot == last.boot);
            (boot, last.mono, last.event_time)
        });
        for at in visit {
            let event = &mut self.events[at];
            let Some((boot, mono)) = event.reading else { continue };
            if let Some((before_boot, before_mono, before_time)) = before
                && before_boot == Some(boot)
                && mono > before_mono
                && event.event_time < before_time
            {
                let passed = i64::try_from(mono - before_mono).unwrap_or(i64::MAX);
                event.event_time = before_time.saturating_add(passed).min(latest);
                event.time_source = TimeSource::Corrected;
            }
            if event.event_time <= latest {
                before = Some((Some(boot), mono, event.event_time));
                newest = Some(at);
            }
        }
        let event = &self.events[newest?];
        let (boot, mono) = event.reading?;
        if last.is_some_and(|last| last.seq >= event.seq && last.event_time <= latest) {
            return None;
        }
        Some(ClockAnchor { seq: event.seq, boot: self.boots[boot].clone(), mono, event_time: event.event_time })
    }
}
