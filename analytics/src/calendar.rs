//! Calendar buckets in a time zone.
//!
//! The buckets of a range touch and cover it. Days, weeks, months and years begin with the first instant of their first
//! date, which is not midnight where the clocks jump over midnight. A day of 23 or 25 hours is one bucket. An hour is
//! the time during which the local clock shows the same hour under the same offset, so an hour repeated in autumn gives
//! two buckets, and an hour skipped in spring gives none.

use jiff::civil::{Date, DateTime, time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

#[cfg(test)]
mod tests;

subway_protocol::named_enum! {
    /// Width of a bucket.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum Interval {
        /// An hour of the local clock.
        Hour = "hour",
        /// A calendar day.
        Day = "day",
        /// Monday to Sunday (ISO 8601).
        Week = "week",
        /// A calendar month.
        Month = "month",
        /// A calendar year.
        Year = "year",
        /// The whole range as one bucket.
        Total = "total",
    }
}

impl Interval {
    /// Returns the approximate width in seconds; 0 for the whole range.
    fn seconds(self) -> i64 {
        match self {
            Interval::Hour => HOUR,
            Interval::Day => 24 * HOUR,
            Interval::Week => 7 * 24 * HOUR,
            Interval::Month => 30 * 24 * HOUR,
            Interval::Year => 365 * 24 * HOUR,
            Interval::Total => 0,
        }
    }
}

/// The Unix epoch, in UTC.
pub(crate) const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Seconds of an hour.
const HOUR: i64 = 3600;

/// Formats `millis` since the epoch as `YYYY-MM-DDTHH:MM:SSZ`, with milliseconds only where there are any.
#[must_use]
pub fn utc(millis: i64) -> String {
    let nearest = if millis < 0 { DateTime::MIN } else { DateTime::MAX };
    format!("{}Z", EPOCH.checked_add(SignedDuration::from_millis(millis)).unwrap_or(nearest))
}

/// Buckets of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Start of each bucket on the calendar, milliseconds since the epoch; the first may lie before the range.
    pub starts: Vec<i64>,
    /// Boundaries for counting, clipped to the range; one more than there are buckets.
    pub bounds: Vec<i64>,
}

/// Returns the buckets of `interval` that touch `from <= t < to` (milliseconds since the epoch), at most `limit`.
///
/// # Errors
/// With a lower bound of the number of buckets, if there are more than `limit`.
pub fn buckets(zone: &TimeZone, interval: Interval, from: i64, to: i64, limit: usize) -> Result<Buckets, u64> {
    if interval == Interval::Total {
        return Ok(Buckets { starts: vec![from], bounds: vec![from, to] });
    }
    // Estimated first, because walking over the hours of ten thousand years would take too long.
    let about = (to.saturating_sub(from) / 1000 / interval.seconds()).unsigned_abs();
    if about > limit as u64 {
        return Err(about);
    }
    let mut iterator = BucketIterator::at(zone, interval, from.div_euclid(1000));
    let (mut starts, mut bounds) = (Vec::new(), vec![from]);
    loop {
        starts.push(iterator.start * 1000);
        let end = iterator.advance().map_or(to, |seconds| seconds * 1000);
        if end >= to {
            bounds.push(to);
            break;
        }
        bounds.push(end);
    }
    if starts.len() > limit { Err(starts.len() as u64) } else { Ok(Buckets { starts, bounds }) }
}

/// Iterates over bucket starts. All times are seconds since the epoch: no time zone is finer.
struct BucketIterator<'a> {
    zone: &'a TimeZone,
    interval: Interval,
    start: i64,
    /// First date of the bucket; not used for hours.
    date: Date,
}

impl<'a> BucketIterator<'a> {
    /// Creates an iterator at the bucket that contains the instant `at`.
    fn at(zone: &'a TimeZone, interval: Interval, at: i64) -> Self {
        let local = instant(at).to_zoned(zone.clone()).date();
        let date = match interval {
            Interval::Week => local.checked_sub(jiff::Span::new().days(local.weekday().to_monday_zero_offset())),
            Interval::Month => Ok(local.first_of_month()),
            Interval::Year => Ok(local.first_of_year()),
            _ => Ok(local),
        }
        .unwrap_or(local);
        let start = match interval {
            Interval::Hour => hour_start(zone, at),
            _ => first_instant(zone, date).unwrap_or(at),
        };
        let mut iterator = Self { zone, interval, start, date };
        // Where clocks fall back over midnight a date repeats; its second part belongs to the day that has begun.
        loop {
            let here = (iterator.start, iterator.date);
            match iterator.advance() {
                Some(next) if next <= at => {}
                _ => {
                    (iterator.start, iterator.date) = here;
                    return iterator;
                }
            }
        }
    }

    /// Advances to the next bucket and returns its start; `None` at the end of the calendar (year 9999).
    fn advance(&mut self) -> Option<i64> {
        let before = self.start;
        if self.interval == Interval::Hour {
            self.start = hour_end(self.zone, before)?;
            return Some(self.start);
        }
        // A date that the zone skipped (Apia had no 30 December 2011) has no bucket.
        while self.start <= before {
            self.date = match self.interval {
                Interval::Week => self.date.checked_add(jiff::Span::new().weeks(1)).ok()?,
                Interval::Month => self.date.checked_add(jiff::Span::new().months(1)).ok()?,
                Interval::Year => self.date.checked_add(jiff::Span::new().years(1)).ok()?,
                _ => self.date.tomorrow().ok()?,
            };
            self.start = first_instant(self.zone, self.date)?;
        }
        Some(self.start)
    }
}

/// Returns the instant `seconds` after the epoch, clamped to the years of the calendar.
pub(crate) fn instant(seconds: i64) -> Timestamp {
    let (min, max) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(seconds.clamp(min, max)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Returns the first instant at which the local clock shows midnight of `date` or later.
pub(crate) fn first_instant(zone: &TimeZone, date: Date) -> Option<i64> {
    use jiff::tz::AmbiguousOffset::{Fold, Gap, Unambiguous};
    let midnight = date.to_datetime(time(0, 0, 0, 0));
    // Computed here, because the library's instants end some hours before the year 9999 does.
    let at = |offset: jiff::tz::Offset| EPOCH.duration_until(midnight).as_secs() - i64::from(offset.seconds());
    match zone.to_ambiguous_timestamp(midnight).offset() {
        Unambiguous { offset } | Fold { before: offset, .. } => Some(at(offset)),
        // Midnight does not exist. By the clock before the jump, midnight comes at or after it.
        Gap { before, .. } => last_change(zone, at(before)).map(|(at, _)| at),
    }
}

/// Returns the last change of the offset at or before `at`: when, and the offset (seconds) before it.
fn last_change(zone: &TimeZone, at: i64) -> Option<(i64, i64)> {
    for change in zone.preceding(instant(at + 1)) {
        let second = change.timestamp().as_second();
        let before = offset(zone, second - 1);
        if before != i64::from(change.offset().seconds()) {
            return Some((second, before));
        }
    }
    None
}

/// Returns the offset from UTC in force at `at`, seconds.
fn offset(zone: &TimeZone, at: i64) -> i64 {
    i64::from(zone.to_offset(instant(at)).seconds())
}

/// Returns the start of the hour that contains `at`: the local clock at full hour, or the change of the offset that
/// came later.
fn hour_start(zone: &TimeZone, at: i64) -> i64 {
    let start = at - (at + offset(zone, at)).rem_euclid(HOUR);
    if offset(zone, start) == offset(zone, at) {
        return start;
    }
    last_change(zone, at).map_or(start, |(change, _)| change.max(start))
}

/// Returns the end of the hour that begins at `start`: the next full hour of the local clock, or an earlier change of
/// the offset.
fn hour_end(zone: &TimeZone, start: i64) -> Option<i64> {
    let here = offset(zone, start);
    let full = start - (start + here).rem_euclid(HOUR) + HOUR;
    if full > Timestamp::MAX.as_second() {
        return None;
    }
    if offset(zone, full - 1) == here {
        return Some(full);
    }
    zone.following(instant(start))
        .find(|change| i64::from(change.offset().seconds()) != here)
        .map(|change| change.timestamp().as_second())
}
