//! Tests of requests and of the errors for invalid ones.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use subway_protocol::{Actual, Theme};

use crate::{Interval, InvalidParameter, Measure, Metric, MetricRequest, parse_time, utc};

fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn parse(metric: Metric, query: &[(&str, &str)]) -> Result<MetricRequest, InvalidParameter> {
    let shanghai = TimeZone::get("Asia/Shanghai").unwrap();
    let now = "2024-05-10T20:00:00Z".parse::<Timestamp>().unwrap();
    MetricRequest::parse(metric, "demo", &pairs(query), &shanghai, now)
}

fn refused(metric: Metric, query: &[(&str, &str)]) -> InvalidParameter {
    parse(metric, query).unwrap_err()
}

#[test]
fn by_default_the_last_seven_days_including_today_by_day() {
    let request = parse(Metric::Pv, &[]).unwrap();
    // In Shanghai it is already 11 May.
    assert_eq!(request.interval, Interval::Day);
    assert_eq!(request.starts.len(), 7);
    assert_eq!(utc(request.query.bounds[0]), "2024-05-04T16:00:00Z");
    assert_eq!(utc(request.query.bounds[7]), "2024-05-11T16:00:00Z");
}

#[test]
fn one_end_of_the_range_implies_the_other() {
    let request = parse(Metric::Pv, &[("to", "2015-05-20")]).unwrap();
    assert_eq!((utc(request.query.bounds[0]), request.starts.len()), ("2015-05-12T16:00:00Z".to_owned(), 7));
    let request = parse(Metric::Pv, &[("from", "2024-05-11")]).unwrap();
    assert_eq!(request.starts.len(), 1);
}

#[test]
fn dates_are_local_and_rfc_3339_is_absolute() {
    let bounds = |from: &str, to: &str| {
        parse(Metric::Pv, &[("from", from), ("to", to), ("interval", "total")]).unwrap().query.bounds
    };
    let expected = bounds("2015-05-17", "2015-05-20");
    assert_eq!(bounds("2015-05-16T16:00:00Z", "2015-05-20T00:00:00+08:00"), expected);
    // As it arrives when the plus sign of a query string was not escaped.
    assert_eq!(bounds("2015-05-16T16:00:00Z", "2015-05-20T00:00:00 08:00"), expected);
}

#[test]
fn a_time_between_two_milliseconds_is_rounded_up() {
    let zone = TimeZone::UTC;
    assert_eq!(parse_time("1970-01-01T00:00:00.0015Z", &zone), Ok(2));
    assert_eq!(parse_time("1970-01-01T00:00:00.001Z", &zone), Ok(1));
    assert_eq!(parse_time("1969-12-31T23:59:59.9995Z", &zone), Ok(0));
}

#[test]
fn what_is_not_a_time_is_refused_by_name() {
    for text in [
        "yesterday",
        "2015-13-01",
        "2015-02-30",
        "20150517",
        "2015-05-17T10:00:00",
        "2015-5-1",
        "1431835512000",
        "页页页页页页",
    ] {
        let problem = refused(Metric::Pv, &[("from", text)]);
        assert_eq!((problem.field.as_str(), problem.got), ("from", Some(Actual::text(text))), "{text}");
    }
}

#[test]
fn an_empty_or_reversed_range_is_refused() {
    assert_eq!(refused(Metric::Pv, &[("from", "2015-05-17"), ("to", "2015-05-17")]).field, "to");
    assert_eq!(refused(Metric::Pv, &[("from", "2015-05-18"), ("to", "2015-05-17")]).field, "to");
    assert_eq!(refused(Metric::Pv, &[("from", "2025-01-01")]).field, "from");
}

#[test]
fn misspelt_and_repeated_parameters_are_refused() {
    assert_eq!(refused(Metric::Pv, &[("form", "2015-05-17")]).field, "form");
    assert_eq!(refused(Metric::Pv, &[("from", "2015-05-17"), ("from", "2015-05-18")]).field, "from");
    assert_eq!(refused(Metric::Pv, &[("interval", "minute")]).field, "interval");
    assert_eq!(refused(Metric::Events, &[("theme", "View")]).field, "theme");
    assert_eq!(refused(Metric::Events, &[("code", "page\nview")]).field, "code");
}

#[test]
fn too_many_buckets_name_the_limit() {
    let problem = refused(Metric::Pv, &[("from", "2010-01-01"), ("to", "2020-01-01"), ("interval", "hour")]);
    assert_eq!((problem.limit, problem.got), (Some(10_000), Some(Actual::Number(87_648))));
}

#[test]
fn each_metric_asks_for_its_measure_and_takes_only_filters_that_mean_something() {
    for metric in Metric::ALL {
        assert_eq!(Metric::parse(metric.as_str()), Some(metric));
    }
    let asked = |metric, query: &[(&str, &str)]| {
        let query = parse(metric, query).unwrap().query;
        (query.measure, query.filter.theme, query.filter.code)
    };
    let a = || Some("a".to_owned());
    assert_eq!(asked(Metric::Pv, &[("code", "a")]), (Measure::Events, Some(Theme::View), a()));
    assert_eq!(asked(Metric::Uv, &[("theme", "view")]), (Measure::Installs, Some(Theme::View), None));
    assert_eq!(asked(Metric::Users, &[("theme", "click"), ("code", "a")]), (Measure::Users, Some(Theme::Click), a()));
    assert_eq!(asked(Metric::Sessions, &[]), (Measure::Sessions, None, None));
    assert_eq!(asked(Metric::Events, &[("theme", "order")]), (Measure::Events, Some(Theme::Order), None));
    assert_eq!(asked(Metric::NewUsers, &[]), (Measure::NewInstalls, None, None));
    assert_eq!(asked(Metric::CumulativeUsers, &[]), (Measure::InstallsSeen, None, None));
    assert_eq!(refused(Metric::Pv, &[("theme", "click")]).field, "theme");
    assert_eq!(refused(Metric::NewUsers, &[("code", "a")]).field, "code");
    assert_eq!(refused(Metric::CumulativeUsers, &[("theme", "view")]).field, "theme");
}

#[test]
fn the_document_names_every_metric_and_interval() {
    let document = include_str!("../../docs/metrics.md");
    for metric in Metric::ALL {
        assert!(document.contains(&format!("| `{}` |", metric.as_str())), "{} is missing", metric.as_str());
    }
    for interval in Interval::ALL {
        assert!(document.contains(&format!("| `{}` |", interval.as_str())), "{} is missing", interval.as_str());
    }
    assert!(document.contains("10,000"));
}

#[test]
fn the_calendar_holds_the_whole_year_9999() {
    let end = 253_402_300_799_999;
    for zone in [TimeZone::UTC, TimeZone::get("America/New_York").unwrap(), TimeZone::get("Asia/Shanghai").unwrap()] {
        let midnight = 253_402_214_400_000 - i64::from(zone.to_offset(Timestamp::MAX).seconds()) * 1000;
        assert_eq!(parse_time("9999-12-31", &zone), Ok(midnight));
        assert_eq!(parse_time("9999-12-31T23:59:59.999Z", &zone), Ok(end));
        assert_eq!(parse_time("9999-12-31 23:59:59.999 00:00", &zone), Ok(end));
        assert!(parse_time("9999-12-31T23:59:60.5X", &zone).is_err());
    }
    assert_eq!(utc(end), "9999-12-31T23:59:59.999Z");
    assert_eq!(utc(0), "1970-01-01T00:00:00Z");
    assert_eq!((utc(i64::MAX).is_empty(), utc(i64::MIN).is_empty()), (false, false));
    for interval in ["hour", "day", "week", "month", "year", "total"] {
        for query in [
            &[("from", "9999-12-20"), ("to", "9999-12-31"), ("interval", interval)][..],
            &[("to", "9999-12-31"), ("interval", interval)],
        ] {
            let request = parse(Metric::Pv, query).unwrap();
            let bounds = &request.query.bounds;
            assert!(
                bounds.is_sorted()
                    && bounds.last()
                        == parse_time("9999-12-31", &TimeZone::get("Asia/Shanghai").unwrap()).ok().as_ref(),
                "{query:?}"
            );
        }
    }
}
