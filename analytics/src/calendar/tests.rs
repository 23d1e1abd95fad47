//! Buckets against known dates, and against a clock that is read minute by minute.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::{Buckets, Interval, buckets, first_instant, utc};

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn ms(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

fn starts(zone_name: &str, interval: Interval, from: &str, to: &str) -> Vec<String> {
    let found = buckets(&zone(zone_name), interval, ms(from), ms(to), 100).unwrap();
    found.starts.iter().map(|start| utc(*start)).collect()
}

/// Hours of every bucket, without clipping at the ends of the range.
fn hours(zone_name: &str, interval: Interval, from: &str, to: &str) -> Vec<i64> {
    let found = buckets(&zone(zone_name), interval, ms(from), ms(to), 100).unwrap();
    found.bounds.windows(2).map(|pair| (pair[1] - pair[0]) / 3_600_000).collect()
}

#[test]
fn days_have_23_or_25_hours_where_clocks_change() {
    assert_eq!(hours("Europe/Berlin", Interval::Day, "2024-03-29T23:00:00Z", "2024-04-01T22:00:00Z"), [24, 23, 24]);
    assert_eq!(hours("Europe/Berlin", Interval::Day, "2024-10-25T22:00:00Z", "2024-10-28T23:00:00Z"), [24, 25, 24]);
    assert_eq!(hours("Asia/Shanghai", Interval::Day, "2015-05-16T16:00:00Z", "2015-05-19T16:00:00Z"), [24, 24, 24]);
}

#[test]
fn the_day_begins_with_its_first_instant_where_clocks_jump_over_midnight() {
    let sao_paulo = starts("America/Sao_Paulo", Interval::Day, "2018-11-03T12:00:00Z", "2018-11-05T12:00:00Z");
    assert_eq!(sao_paulo, ["2018-11-03T03:00:00Z", "2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z"]);
    let beirut = starts("Asia/Beirut", Interval::Day, "2022-03-26T12:00:00Z", "2022-03-28T12:00:00Z");
    assert_eq!(beirut, ["2022-03-25T22:00:00Z", "2022-03-26T22:00:00Z", "2022-03-27T21:00:00Z"]);
    // In Newfoundland they fell back over midnight: 30 October 1988 began at 00:00, and after a minute it was 29 again.
    let st_johns = starts("America/St_Johns", Interval::Day, "1988-10-30T02:00:00Z", "1988-10-31T03:31:00Z");
    assert_eq!(st_johns, ["1988-10-30T01:30:00Z", "1988-10-31T03:30:00Z"]);
    // In Toronto the clocks jumped from 23:30 over midnight: the day began at 00:30 local time.
    let toronto = first_instant(&zone("America/Toronto"), "1919-03-31".parse().unwrap()).unwrap();
    assert_eq!(utc(toronto * 1000), "1919-03-31T04:30:00Z");
}

#[test]
fn a_date_that_the_zone_skipped_has_no_bucket() {
    let apia = starts("Pacific/Apia", Interval::Day, "2011-12-29T10:00:00Z", "2012-01-01T10:00:00Z");
    assert_eq!(apia, ["2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"]);
    assert_eq!(hours("Pacific/Apia", Interval::Week, "2011-12-26T10:00:00Z", "2012-01-08T10:00:00Z"), [6 * 24, 7 * 24]);
}

#[test]
fn the_repeated_hour_is_two_buckets_and_the_missing_one_none() {
    let autumn = starts("Europe/Berlin", Interval::Hour, "2024-10-26T23:30:00Z", "2024-10-27T02:30:00Z");
    assert_eq!(
        autumn,
        ["2024-10-26T23:00:00Z", "2024-10-27T00:00:00Z", "2024-10-27T01:00:00Z", "2024-10-27T02:00:00Z"]
    );
    let spring = starts("Europe/Berlin", Interval::Hour, "2024-03-31T00:00:00Z", "2024-03-31T02:00:00Z");
    assert_eq!(spring, ["2024-03-31T00:00:00Z", "2024-03-31T01:00:00Z"]);
}

#[test]
fn hours_follow_the_local_clock_where_it_is_half_an_hour_off() {
    let kolkata = starts("Asia/Kolkata", Interval::Hour, "2024-05-01T00:00:00Z", "2024-05-01T01:45:00Z");
    assert_eq!(kolkata, ["2024-04-30T23:30:00Z", "2024-05-01T00:30:00Z", "2024-05-01T01:30:00Z"]);
    // Lord Howe turns back by half an hour: 01:30 to 02:00 comes twice, and its second time is a bucket of its own.
    let howe = buckets(
        &zone("Australia/Lord_Howe"),
        Interval::Hour,
        ms("2024-04-06T14:00:00Z"),
        ms("2024-04-06T16:30:00Z"),
        9,
    )
    .unwrap();
    let minutes: Vec<i64> = howe.bounds.windows(2).map(|pair| (pair[1] - pair[0]) / 60_000).collect();
    assert_eq!(minutes, [60, 30, 60]);
}

#[test]
fn weeks_begin_on_monday_months_and_years_on_the_first() {
    let weeks = starts("UTC", Interval::Week, "2024-12-31T00:00:00Z", "2025-01-07T00:00:00Z");
    assert_eq!(weeks, ["2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"]);
    let months = starts("UTC", Interval::Month, "2024-01-31T00:00:00Z", "2024-03-01T00:00:00Z");
    assert_eq!(months, ["2024-01-01T00:00:00Z", "2024-02-01T00:00:00Z"]);
    let years = starts("Asia/Shanghai", Interval::Year, "2023-12-31T15:59:59Z", "2024-01-01T00:00:00Z");
    assert_eq!(years, ["2022-12-31T16:00:00Z", "2023-12-31T16:00:00Z"]);
}

#[test]
fn counting_is_clipped_to_the_range_while_starts_are_aligned() {
    let (from, to) = (ms("2024-05-01T12:00:00Z"), ms("2024-05-02T00:00:00.001Z"));
    let found = buckets(&TimeZone::UTC, Interval::Day, from, to, 9).unwrap();
    assert_eq!(found.starts, [ms("2024-05-01T00:00:00Z"), ms("2024-05-02T00:00:00Z")]);
    assert_eq!(found.bounds, [from, ms("2024-05-02T00:00:00Z"), to]);
    let total = buckets(&TimeZone::UTC, Interval::Total, from, to, 9).unwrap();
    assert_eq!(total, Buckets { starts: vec![from], bounds: vec![from, to] });
}

#[test]
fn too_many_buckets_are_refused_before_they_are_made() {
    let (from, to) = (ms("0001-01-01T00:00:00Z"), ms("9999-12-30T00:00:00Z"));
    assert!(buckets(&zone("Europe/Berlin"), Interval::Hour, from, to, 10_000).unwrap_err() > 80_000_000);
    let (from, to) = (ms("2024-05-01T00:30:00Z"), ms("2024-05-01T02:30:00Z"));
    assert_eq!(buckets(&TimeZone::UTC, Interval::Hour, from, to, 2), Err(3));
}

#[test]
fn the_end_of_the_calendar_ends_the_last_bucket() {
    let (from, to) = (ms("9999-12-30T20:00:00Z"), ms("9999-12-30T21:00:00Z"));
    for interval in Interval::ALL {
        let found = buckets(&TimeZone::UTC, interval, from, to, 9).unwrap();
        assert_eq!(found.bounds, [from, to], "{interval:?}");
    }
}

/// What an instant's bucket is called, read off the local clock.
fn name(zone: &TimeZone, interval: Interval, minute: i64) -> (Date, i8, i32) {
    let local = Timestamp::from_second(minute * 60).unwrap().to_zoned(zone.clone());
    let date = local.date();
    match interval {
        Interval::Hour => (date, local.hour(), local.offset().seconds()),
        Interval::Day => (date, 0, 0),
        Interval::Week => {
            (date.checked_sub(jiff::Span::new().days(date.weekday().to_monday_zero_offset())).unwrap(), 0, 0)
        }
        Interval::Month => (date.first_of_month(), 0, 0),
        Interval::Year => (date.first_of_year(), 0, 0),
        Interval::Total => unreachable!(),
    }
}

/// Boundaries found by reading the clock at every minute, from some days before the range, because what has begun before
/// it matters: a date that comes back after the next one began (clocks that fall back over midnight) does not count again.
fn brute_force(zone: &TimeZone, interval: Interval, from: i64, to: i64) -> Vec<i64> {
    let begin = from - 3 * 24 * 60;
    let (mut bounds, mut current) = (vec![from * 60_000], name(zone, interval, begin));
    for minute in begin..to {
        let here = name(zone, interval, minute);
        let is_new = if interval == Interval::Hour { here != current } else { here.0 > current.0 };
        if is_new {
            current = here;
            if minute > from {
                bounds.push(minute * 60_000);
            }
        }
    }
    bounds.push(to * 60_000);
    bounds
}

/// Zones with every kind of oddity, and an hour near which something happens there.
const ODD: [(&str, &str); 12] = [
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ("America/Sao_Paulo", "2018-02-18T02:00:00Z"),
    ("Asia/Beirut", "2022-03-26T22:00:00Z"),
    ("America/Havana", "2023-11-05T05:00:00Z"),
    ("Australia/Lord_Howe", "2024-04-06T15:00:00Z"),
    ("Australia/Lord_Howe", "2024-10-05T15:30:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
    ("Asia/Kathmandu", "1985-12-31T18:30:00Z"),
    ("Europe/Berlin", "2024-10-27T01:00:00Z"),
    ("America/St_Johns", "1988-10-30T02:31:00Z"),
    ("America/Toronto", "1919-03-31T04:30:00Z"),
    ("Asia/Shanghai", "1991-09-14T15:00:00Z"),
];

proptest! {
    #[test]
    fn buckets_are_those_of_a_clock_read_every_minute(
        odd in 0..ODD.len(), before in 1i64..4000, after in 1i64..4000, interval in 0usize..5,
    ) {
        let (zone, middle) = (zone(ODD[odd].0), ms(ODD[odd].1) / 60_000);
        let (from, to, interval) = (middle - before, middle + after, Interval::ALL[interval]);
        let found = buckets(&zone, interval, from * 60_000, to * 60_000, 10_000).unwrap();
        prop_assert_eq!(&found.bounds, &brute_force(&zone, interval, from, to));
        prop_assert!(found.starts[0] <= found.bounds[0]);
        prop_assert_eq!(&found.starts[1..], &found.bounds[1..found.bounds.len() - 1]);
    }
}
