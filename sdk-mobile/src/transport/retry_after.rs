//! Parser of the header `Retry-After` (RFC 9110 section 10.2.3).

use std::time::SystemTime;

/// Returns the milliseconds to wait from `now`. The value is a number of seconds or a date; `None` if it is neither.
pub fn parse(value: &str, now: SystemTime) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        // Digits that do not fit are a very long time, which the core limits.
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).map_or(0, |wait| wait.as_millis() as u64))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn seconds_and_dates_are_read() {
        // The date is the example of RFC 9110: 784,111,777 seconds after the epoch.
        let now = UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(parse("120", now), Some(120_000));
        assert_eq!(parse(" 0 ", now), Some(0));
        assert_eq!(parse("99999999999999999999999", now), Some(u64::MAX));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(7_000));
        assert_eq!(parse("Sun, 06 Nov 1994 08:49:00 GMT", now), Some(0), "a date that has passed");
        for other in ["", "soon", "-1", "1.5"] {
            assert_eq!(parse(other, now), None, "{other}");
        }
    }
}
