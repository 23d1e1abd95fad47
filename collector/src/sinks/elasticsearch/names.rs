//! Names of indices and IDs of documents. PURE.

use jiff::Span;
use jiff::civil::{self, Date};
use sha2::{Digest, Sha256};

use super::super::days::day_of;

/// Longest `_id` that the store accepts, bytes.
const MAX_ID_BYTES: usize = 512;
/// Names in one path. With a hundred bytes each the path stays below the 4 KB that the store accepts.
const MAX_NAMES_IN_PATH: i64 = 31;
/// Consecutive days that are named one by one. Two names of years are added.
const MAX_DAYS_IN_PATH: i64 = MAX_NAMES_IN_PATH - 2;
/// Consecutive months that are named one by one. Three names of years are added.
const MAX_MONTHS_IN_PATH: i64 = MAX_NAMES_IN_PATH - 3;

const EPOCH: Date = civil::date(1970, 1, 1);

/// Returns the date that is `days` after 1 January 1970, in the proleptic Gregorian calendar. Days beyond the
/// calendar's 9,999 years become its first or last day; no event is near them.
fn date_of(days: i64) -> Date {
    let date = Span::new().try_days(days).and_then(|span| EPOCH.checked_add(span));
    date.unwrap_or(if days < 0 { Date::MIN } else { Date::MAX })
}

fn days_since_epoch(date: Date) -> Option<i64> {
    Some(i64::from(EPOCH.until(date).ok()?.get_days()))
}

/// Returns the year of a day since the epoch.
pub(super) fn year_of(day: i64) -> i64 {
    i64::from(date_of(day).year())
}

/// Formats a day since the epoch as `YYYY.MM`.
pub(super) fn month_of(day: i64) -> String {
    date_of(day).strftime("%Y.%m").to_string()
}

/// Formats a day since the epoch as `YYYY-MM-DD`.
pub(super) fn date(day: i64) -> String {
    date_of(day).strftime("%Y-%m-%d").to_string()
}

/// Returns the index of the events of one day (UTC) since the epoch.
pub(crate) fn ods(prefix: &str, day: i64) -> String {
    format!("{prefix}-ods-{}", date_of(day).strftime("%Y.%m.%d"))
}

/// Returns the index of the events of a year (UTC) whose days have no index.
pub(super) fn ods_of_year(prefix: &str, year: i64) -> String {
    format!("{prefix}-ods-{year:04}")
}

/// Returns the index of the visitors of the month that contains the local day `day`.
pub(super) fn uv(prefix: &str, day: i64) -> String {
    format!("{prefix}-uv-{}", month_of(day))
}

/// Returns the index of the visitors of a year whose months have no index.
pub(super) fn uv_of_year(prefix: &str, year: i64) -> String {
    format!("{prefix}-uv-{year:04}")
}

/// Returns the index that stores the layout of the others.
pub(super) fn layout(prefix: &str) -> String {
    format!("{prefix}-layout")
}

/// Returns the index of the installs with the time of their first event.
pub(crate) fn users(prefix: &str) -> String {
    format!("{prefix}-users")
}

/// Returns the index of current and former followers.
pub(super) fn followers(prefix: &str) -> String {
    format!("{prefix}-followers")
}

/// Returns the last day of which an index can have events or visitors, if `name` is exactly a name that the functions
/// above return.
pub(super) fn last_day(prefix: &str, name: &str) -> Option<i64> {
    let rest = name.strip_prefix(prefix)?;
    let (is_ods, date) = match rest.strip_prefix("-ods-") {
        Some(date) => (true, date),
        None => (false, rest.strip_prefix("-uv-")?),
    };
    let parts: Vec<i16> = date.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (last, made) = match (is_ods, &parts[..]) {
        (_, [year]) => {
            let last = days_since_epoch(Date::new(*year, 12, 31).ok()?)?;
            let year = i64::from(*year);
            (last, if is_ods { ods_of_year(prefix, year) } else { uv_of_year(prefix, year) })
        }
        (true, [year, month, day]) => {
            let date = Date::new(*year, i8::try_from(*month).ok()?, i8::try_from(*day).ok()?).ok()?;
            let day = days_since_epoch(date)?;
            (day, ods(prefix, day))
        }
        (false, [year, month]) => {
            let first = Date::new(*year, i8::try_from(*month).ok()?, 1).ok()?;
            let last = days_since_epoch(first.last_of_month())?;
            (last, uv(prefix, last))
        }
        _ => return None,
    };
    (made == name).then_some(last)
}

/// Returns the indices that can have events with `from <= event_time < to`, as a list of patterns for a path.
///
/// Every name has a wildcard, because a pattern may match nothing while a plain name must exist. `p-ods-*2015`
/// matches the index of the year and none of its days.
pub(crate) fn covering(prefix: &str, from: Option<i64>, to: Option<i64>) -> String {
    let all = format!("{prefix}-ods-*");
    let (Some(from), Some(to)) = (from, to) else { return all };
    let (first, last) = (day_of(from), day_of(to.saturating_sub(1)).max(day_of(from)));
    let year_and_month = |day| (year_of(day), i64::from(date_of(day).month()));
    let (from, to) = (year_and_month(first), year_and_month(last));
    let months = (to.0 - from.0) * 12 + to.1 - from.1 + 1;
    let mut list: Vec<String> = if last - first < MAX_DAYS_IN_PATH {
        (first..=last).map(|day| format!("{}*", ods(prefix, day))).collect()
    } else if months <= MAX_MONTHS_IN_PATH {
        let month = |n: i64| (from.0 + (from.1 - 1 + n).div_euclid(12), (from.1 - 1 + n).rem_euclid(12) + 1);
        (0..months).map(month).map(|(year, month)| format!("{prefix}-ods-{year:04}.{month:02}.*")).collect()
    } else if to.0 - from.0 < MAX_NAMES_IN_PATH {
        return (from.0..=to.0).map(|year| format!("{prefix}-ods-{year:04}*")).collect::<Vec<_>>().join(",");
    } else {
        return all;
    };
    list.extend((from.0..=to.0).map(|year| format!("{prefix}-ods-*{year:04}")));
    list.join(",")
}

/// Returns the document ID of `parts`: joined by `|`, or the hash of that if the store would refuse its length.
pub(super) fn id(parts: &[&str]) -> String {
    let joined = parts.join("|");
    if joined.len() <= MAX_ID_BYTES {
        return joined;
    }
    format!("sha256-{}", hex::encode(Sha256::digest(joined.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::super::super::days::DAY_MS;
    use super::*;

    #[test]
    fn days_have_the_names_of_their_dates_however_far_away() {
        assert_eq!(ods("subway", day_of(1_431_835_512_345)), "subway-ods-2015.05.17");
        assert_eq!(ods("p", day_of(0)), "p-ods-1970.01.01");
        assert_eq!(ods("p", day_of(-1)), "p-ods-1969.12.31");
        assert_eq!(ods("p", day_of(951_782_400_000)), "p-ods-2000.02.29");
        assert_eq!(ods("p", day_of(253_402_300_799_999)), "p-ods-9999.12.31");
        assert_eq!(ods("p", day_of(i64::MAX)), "p-ods-9999.12.31", "no later day has a name");
        assert_eq!(date(-719_529), "-001-12-31");
        assert_eq!(ods("p", day_of(i64::MIN)), "p-ods--9999.01.01");
        assert_eq!(uv("p", 16_572), "p-uv-2015.05");
    }

    #[test]
    fn a_name_gives_its_last_day_back_and_no_other_name_does() {
        for day in (-719_000..2_900_000).step_by(97) {
            assert_eq!(last_day("a-b", &ods("a-b", day)), Some(day));
        }
        for name in [
            "p-ods-2015.5.17",
            "p-ods-2015.02.30",
            "p-ods-2015.05.17.1",
            "p-ods-x",
            "q-ods-2015.05.17",
            "p-ods-2015.05",
            "p-ods-15",
            "p-ods-9223372036854775807",
            "p-uv-2015.05.17",
            "p-uv-2015.13",
            "p-uv-2015.9223372036854775807",
            "p-layout",
        ] {
            assert_eq!(last_day("p", name), None, "{name}");
        }
        for (name, last) in [
            ("p-uv-2015.05", "2015-05-31"),
            ("p-uv-2015.12", "2015-12-31"),
            ("p-uv-2016.02", "2016-02-29"),
            ("p-uv-2015", "2015-12-31"),
            ("p-ods-2015", "2015-12-31"),
        ] {
            assert_eq!(last_day("p", name).map(date).as_deref(), Some(last), "{name}");
        }
    }

    #[test]
    fn a_range_names_days_then_months_then_years_then_everything() {
        let day = |n: i64| Some((16_572 + n) * DAY_MS);
        assert_eq!(covering("p", day(0), day(1)), "p-ods-2015.05.17*,p-ods-*2015");
        assert_eq!(covering("p", day(0), day(2)), "p-ods-2015.05.17*,p-ods-2015.05.18*,p-ods-*2015");
        assert_eq!(covering("p", day(0), day(40)), "p-ods-2015.05.*,p-ods-2015.06.*,p-ods-*2015");
        assert_eq!(covering("p", day(0), day(3 * 365)), "p-ods-2015*,p-ods-2016*,p-ods-2017*,p-ods-2018*");
        assert_eq!(covering("p", Some(0), Some(253_402_300_800_000)), "p-ods-*");
        assert_eq!(covering("p", None, day(1)), "p-ods-*");
        for days in 1..12_000 {
            // Beside the path stand the verb and the parameters of a search.
            assert!(covering(&"x".repeat(100), day(-150), day(days)).len() < 3800, "{days}");
        }
        assert_eq!(covering("p", Some(5), Some(5)), "p-ods-1970.01.01*,p-ods-*1970");
    }

    #[test]
    fn an_identity_that_is_too_long_becomes_its_hash() {
        assert_eq!(id(&["a", "b"]), "a|b");
        let (one, other) = (id(&["a", &"x".repeat(600)]), id(&["a", &"x".repeat(601)]));
        assert_ne!(one, other);
        assert!(one.len() < MAX_ID_BYTES && one.starts_with("sha256-"));
    }
}
