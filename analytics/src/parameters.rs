//! Parameters of a reading request, and the errors for invalid ones.

use std::borrow::Cow;

use jiff::civil::Date;
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use subway_protocol::theme::is_code;
use subway_protocol::{Theme, outcome};

use crate::calendar::{EPOCH, first_instant, instant};

/// Invalid parameter: its name, the reason, and what came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidParameter {
    /// Name of the parameter.
    pub field: String,
    /// What is expected: a sentence in lower case without a full stop.
    pub detail: String,
    /// The limit, if one was exceeded.
    pub limit: Option<u64>,
    /// What came: a number where the rule is a limit, else the beginning of the text.
    pub got: Option<outcome::Actual>,
}

impl InvalidParameter {
    /// Creates an error for `field`, with what is expected and what came.
    #[must_use]
    pub fn new(field: &str, detail: impl Into<String>, got: &str) -> Self {
        let got = if got.is_empty() { None } else { Some(outcome::Actual::text(got)) };
        Self {
            field: outcome::truncate(field, outcome::Actual::TEXT_BYTES).to_owned(),
            detail: detail.into(),
            limit: None,
            got,
        }
    }

    /// Creates an error for more than the `limit` of `field`.
    #[must_use]
    pub fn limit_exceeded(field: &str, detail: impl Into<String>, limit: u64, got: u64) -> Self {
        let got = Some(outcome::Actual::Number(i64::try_from(got).unwrap_or(i64::MAX)));
        Self { field: field.to_owned(), detail: detail.into(), limit: Some(limit), got }
    }
}

/// Decoded pairs of a query string. Each name may appear once and must be known, because a misspelt parameter must not
/// silently return the numbers of another query.
pub struct Parameters<'a> {
    pairs: &'a [(String, String)],
}

impl<'a> Parameters<'a> {
    /// Checks the names.
    ///
    /// # Errors
    /// If a name is not in `known`, or comes twice.
    pub fn new(pairs: &'a [(String, String)], known: &[&str]) -> Result<Self, InvalidParameter> {
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(InvalidParameter::new(
                    name,
                    format!("unknown parameter; known are {}", known.join(", ")),
                    "",
                ));
            }
            if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(InvalidParameter::new(name, "the parameter is given twice; give it once", ""));
            }
        }
        Ok(Self { pairs })
    }

    /// Returns the value of a parameter; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.pairs
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Returns a time; see [`parse_time`].
    ///
    /// # Errors
    /// If the value is not a time.
    pub fn time(&self, name: &str, zone: &TimeZone) -> Result<Option<i64>, InvalidParameter> {
        self.get(name)
            .map(|text| parse_time(text, zone).map_err(|detail| InvalidParameter::new(name, detail, text)))
            .transpose()
    }

    /// Returns a theme.
    ///
    /// # Errors
    /// If the value is not a theme.
    pub fn theme(&self) -> Result<Option<Theme>, InvalidParameter> {
        let Some(text) = self.get("theme") else { return Ok(None) };
        let known = || Theme::ALL.map(Theme::as_str).join(", ");
        Theme::parse(text)
            .map(Some)
            .ok_or_else(|| InvalidParameter::new("theme", format!("themes are {}", known()), text))
    }

    /// Returns an event code.
    ///
    /// # Errors
    /// If the value is not a code.
    pub fn code(&self) -> Result<Option<String>, InvalidParameter> {
        let Some(text) = self.get("code") else { return Ok(None) };
        if is_code(text) {
            return Ok(Some(text.to_owned()));
        }
        Err(InvalidParameter::new("code", "a code is a text of 1 to 128 bytes without control characters", text))
    }
}

/// Parses a time: a date (its first instant in `zone`) or RFC 3339. Returns milliseconds since the epoch, rounded up,
/// so that `from <= t` and `t < to` mean the same for a whole millisecond `t` as for the time in the text.
///
/// # Errors
/// What is expected, if the text is neither.
pub fn parse_time(text: &str, zone: &TimeZone) -> Result<i64, String> {
    if let Some(date) = parse_date(text) {
        return first_instant(zone, date)
            .map(|seconds| seconds * 1000)
            .ok_or_else(|| "the date is outside of the calendar".to_owned());
    }
    // In a query string a bare + means a space, so an unescaped offset arrives as one.
    let text = match text.rfind(' ') {
        Some(at) if at > 10 => Cow::Owned(format!("{}+{}", &text[..at], &text[at + 1..])),
        _ => Cow::Borrowed(text),
    };
    if let Some(millis) = last_day(&text) {
        return Ok(millis);
    }
    let instant: Timestamp = text.parse().map_err(|_| {
        "a time is a date (2015-05-17, midnight in the app's time zone) or RFC 3339 (2015-05-17T10:00:00Z, 2015-05-17T18:00:00+08:00)".to_owned()
    })?;
    let nanos = instant.as_nanosecond();
    Ok(i64::try_from(nanos.div_euclid(1_000_000) + i128::from(nanos.rem_euclid(1_000_000) != 0)).unwrap_or(i64::MAX))
}

/// Parses a time of the last day of the year 9999, where the library's instants end before the wire's do.
fn last_day(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let local = pieces.date().to_datetime(pieces.time()?);
    let millis = i64::try_from(EPOCH.duration_until(local).as_millis()).ok()?;
    let instant = millis - i64::from(pieces.to_numeric_offset()?.seconds()) * 1000;
    (instant > Timestamp::MAX.as_millisecond()).then_some(instant)
}

/// Parses `YYYY-MM-DD` and nothing else, because the library reads times as dates too, and would silently drop the
/// hour.
fn parse_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let is_date = bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, c)| if at == 4 || at == 7 { *c == b'-' } else { c.is_ascii_digit() });
    if is_date { text.parse().ok() } else { None }
}

/// Days of a metric's range when the request has none: the last seven days including today.
const DEFAULT_DAYS: i32 = 7;

/// Returns `from` and `to` in milliseconds since the epoch; by default the last seven days up to the end of today. With
/// only one given, the other is seven days away or the end of today.
///
/// # Errors
/// If a value is not a time, or the range is empty.
pub(crate) fn range(
    parameters: &Parameters<'_>,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<(i64, i64), InvalidParameter> {
    let from = parameters.time("from", zone)?;
    let to = parameters.time("to", zone)?;
    let days_later = |instant: Timestamp, days: i32| {
        let date = instant.to_zoned(zone.clone()).date().checked_add(days.days()).ok()?;
        first_instant(zone, date).map(|seconds| seconds * 1000)
    };
    let out_of_calendar = |field: &str| InvalidParameter::new(field, "the date is outside of the calendar", "");
    let end = match to {
        Some(to) => to,
        None => days_later(now, 1).ok_or_else(|| out_of_calendar("to"))?,
    };
    let start = match from {
        Some(from) => from,
        None => {
            days_later(instant((end - 1).div_euclid(1000)), 1 - DEFAULT_DAYS).ok_or_else(|| out_of_calendar("from"))?
        }
    };
    if start >= end {
        let field = if to.is_some() { "to" } else { "from" };
        let detail = "the range is empty; to must be later than from (to itself is not part of the range)";
        return Err(InvalidParameter::new(field, detail, parameters.get(field).unwrap_or_default()));
    }
    Ok((start, end))
}
