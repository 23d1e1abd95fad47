use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};
use subway_protocol::codec::server::decode;
use subway_protocol::limits::MAX_TIME_MS;
use subway_protocol::{Limits, RejectReason};

use super::*;
use crate::record::Record;

const NOW: i64 = 1_431_835_512_345;

fn prepared(batch: &Value) -> Prepared {
    let text = batch.to_string();
    prepare("demo", &decode(text.as_bytes(), &Limits::default()).unwrap(), NOW, &Limits::default())
}

fn id(number: u64) -> String {
    format!("0198c0de-0000-7000-8000-{number:012x}")
}

fn batch(events: Vec<Value>) -> Value {
    json!({"v": 1, "batch_id": id(0xb), "install_id": id(0x1), "sent_at": NOW, "events": events})
}

fn event(number: u64) -> Value {
    json!({"id": id(number), "seq": number, "theme": "view", "code": "page_view", "ts": NOW - 1000})
}

#[test]
fn what_is_stored_is_what_was_sent_field_by_field() {
    let mut sent = batch(vec![json!({
        "id": id(3).to_uppercase(), "seq": 101, "theme": "view", "code": "page_view", "ts": NOW - 1000, "mono": 89100, "boot": "b\"7",
        "user_id": "u\u{1f600}\n", "session": {"id": "s", "index": 3, "event": 12},
        "page": {"path": "p", "title": "t", "referrer": "r", "enter_ts": NOW - 2000}, "props": {"k": [1, "x"]}, "unknown": 1
    })]);
    sent["app"] = json!({"version": "1.2.0"});
    sent["sdk"] = json!({"name": "sdk", "version": "0.1"});
    sent["host"] = json!({"platform": "jd", "app": "jdapp", "version": "13.0"});
    sent["device"] = json!({"os": "iOS", "os_version": "17.1", "brand": "Apple", "model": "15", "screen": "390x844",
        "language": "zh-CN", "timezone": "Asia/Shanghai"});
    sent["network"] = json!("wifi");
    sent["common"] = json!({"channel": "qr"});
    let text = prepared(&sent).record(&[true]);
    let expected = json!({
        "app_key": "demo", "batch_id": id(0xb), "install_id": id(0x1), "received_at": NOW,
        "context": {"app_version": "1.2.0", "sdk_name": "sdk", "sdk_version": "0.1", "platform": "jd", "host_app": "jdapp",
            "host_version": "13.0", "os": "iOS", "os_version": "17.1", "brand": "Apple", "model": "15", "screen": "390x844",
            "language": "zh-CN", "timezone": "Asia/Shanghai", "network": "wifi"},
        "common": {"channel": "qr"},
        "events": [{"event_id": id(3), "seq": 101, "theme": "view", "code": "page_view", "event_time": NOW - 1000, "ts": NOW - 1000,
            "mono": 89100, "boot": "b\"7", "user_id": "u\u{1f600}\n", "session_id": "s", "session_index": 3, "session_event": 12,
            "page_path": "p", "page_title": "t", "page_referrer": "r", "page_enter_ts": NOW - 2000, "props": {"k": [1, "x"]}}]
    });
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    let record: Record<'_> = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&record).unwrap(), expected, "the record knows every field that is written");
}

#[test]
fn a_record_stays_on_one_line_whatever_was_sent() {
    let text = format!(
        r#"{{"v":1,"batch_id":"{}","install_id":"{}","sent_at":1,"common":{{{}"a":1}},
            "events":[{{"id":"{}","seq":1,"theme":"view","code":"a","ts":1,"props":{{"x":[1,{}2],"y":"\n"}}}}]}}"#,
        id(1),
        id(2),
        "\r\n",
        id(3),
        "\n"
    );
    let prepared = prepare("demo", &decode(text.as_bytes(), &Limits::default()).unwrap(), NOW, &Limits::default());
    let record = prepared.record(&[true]);
    assert!(!record.contains(['\n', '\r']));
    assert_eq!(serde_json::from_str::<Value>(&record).unwrap()["events"][0]["props"], json!({"x": [1, 2], "y": "\n"}));
}

#[test]
fn a_bad_event_costs_no_neighbour() {
    let mut bad = event(2);
    bad["theme"] = json!("nope");
    let prepared = prepared(&batch(vec![event(1), bad, event(3), json!(7), event(5)]));
    assert_eq!(prepared.received, 5);
    assert_eq!(prepared.candidates.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 2, 4]);
    let rejected: Vec<_> =
        prepared.rejected.iter().map(|r| (r.index, r.id.map(|id| id.text()), r.violation.reason)).collect();
    assert_eq!(rejected, [(1, Some(id(2)), RejectReason::UnknownTheme), (3, None, RejectReason::Malformed)]);
    let record = prepared.record(&[false, true, false]);
    let record: Record<'_> = serde_json::from_str(&record).unwrap();
    assert_eq!(record.events.iter().map(|e| e.seq).collect::<Vec<_>>(), [3]);
}

#[test]
fn every_text_and_number_outside_the_properties_has_its_limit() {
    let long = "x".repeat(2049);
    let big = 1u64 << 53;
    for (field, value, reason) in [
        ("boot", json!(long), RejectReason::TextTooLong),
        ("user_id", json!(long), RejectReason::TextTooLong),
        ("session", json!({"id": long}), RejectReason::TextTooLong),
        ("page", json!({"path": long}), RejectReason::TextTooLong),
        ("page", json!({"title": long}), RejectReason::TextTooLong),
        ("page", json!({"referrer": long}), RejectReason::TextTooLong),
        ("page", json!({"enter_ts": -1}), RejectReason::TimeOutOfRange),
        ("ts", json!(MAX_TIME_MS + 1), RejectReason::TimeOutOfRange),
        ("true_ts", json!(-1), RejectReason::TimeOutOfRange),
        ("mono", json!(big), RejectReason::InvalidField),
        ("seq", json!(big), RejectReason::InvalidField),
        ("session", json!({"id": "s", "index": big}), RejectReason::InvalidField),
        ("session", json!({"id": "s", "event": big}), RejectReason::InvalidField),
        ("props", json!([1]), RejectReason::InvalidField),
    ] {
        let mut bad = event(1);
        bad[field] = value;
        let prepared = prepared(&batch(vec![bad, event(2)]));
        assert_eq!(prepared.rejected.len(), 1, "{field}");
        let violation = &prepared.rejected[0].violation;
        assert_eq!(violation.reason, reason, "{field}");
        assert!(violation.field.starts_with(field), "{field}: {violation:?}");
    }
}

/// What one event of an install says of its clocks.
#[derive(Clone, Debug)]
struct Reading {
    boot: Option<u8>,
    mono: Option<u64>,
    ts: i64,
    true_ts: Option<i64>,
}

fn readings() -> impl Strategy<Value = Vec<Reading>> {
    let reading = (
        prop::option::weighted(0.9, 0..3u8),
        prop::option::weighted(0.9, 0..1000u64),
        0..1000i64,
        prop::option::weighted(0.1, 0..1000i64),
    )
        .prop_map(|(boot, mono, ts, true_ts)| Reading { boot, mono, ts, true_ts });
    prop::collection::vec(reading, 1..40)
}

fn of(readings: &[Reading], first_seq: usize) -> Prepared {
    let mut events = Vec::new();
    for (at, reading) in readings.iter().enumerate() {
        let seq = (first_seq + at) as u64;
        let mut event = json!({"id": id(seq), "seq": seq, "theme": "view", "code": "a", "ts": NOW + reading.ts});
        if let Some(boot) = reading.boot {
            event["boot"] = json!(format!("b{boot}"));
        }
        if let Some(mono) = reading.mono {
            event["mono"] = json!(mono);
        }
        if let Some(true_ts) = reading.true_ts {
            event["true_ts"] = json!(true_ts);
        }
        events.push(event);
    }
    prepared(&batch(events))
}

fn times(prepared: &Prepared) -> Vec<i64> {
    prepared.candidates.iter().map(|candidate| candidate.event_time).collect()
}

proptest! {
    #[test]
    fn the_clock_is_moved_only_beyond_the_tolerance(ts in any::<i64>(), true_ts: Option<i64>, sent_at in any::<i64>(), received_at in any::<i64>(), tolerance in 0..1_000_000i64) {
        let time = corrected(ts, true_ts, sent_at, received_at, tolerance);
        prop_assert!((0..=MAX_TIME_MS).contains(&time));
        let difference = i128::from(received_at) - i128::from(sent_at);
        let expected = match true_ts {
            Some(true_ts) => i128::from(true_ts),
            None if difference.abs() > i128::from(tolerance) => i128::from(ts) + difference,
            None => i128::from(ts),
        };
        if difference.abs() < i128::from(i64::MAX) {
            prop_assert_eq!(i128::from(time), expected.clamp(0, i128::from(MAX_TIME_MS)));
        }
    }

    #[test]
    fn the_monotonic_clock_keeps_an_install_in_order(readings in readings()) {
        let mut prepared = of(&readings, 1);
        let before = times(&prepared);
        prepared.order(&vec![true; readings.len()], None);
        let after = times(&prepared);
        let mut previous: Option<(Option<u8>, u64, i64)> = None;
        for (at, reading) in readings.iter().enumerate() {
            prop_assert!(after[at] >= before[at], "an event is never moved back");
            let (boot, Some(mono), None) = (reading.boot, reading.mono, reading.true_ts) else {
                prop_assert_eq!(after[at], before[at], "without a reading nothing is changed");
                continue;
            };
            match previous {
                Some((b, m, time)) if b == boot && mono > m && before[at] < time => {
                    prop_assert_eq!(after[at], time + i64::try_from(mono - m).unwrap());
                }
                _ => prop_assert_eq!(after[at], before[at], "without proof nothing is changed"),
            }
            previous = Some((boot, mono, after[at]));
        }
    }

    #[test]
    fn batches_one_by_one_are_ordered_as_one_batch(readings in readings(), cut in 0..40usize) {
        let mut whole = of(&readings, 1);
        let end = whole.order(&vec![true; readings.len()], None);
        let cut = cut.min(readings.len());
        let (first, second) = readings.split_at(cut);
        let mut last = None;
        let mut joined = Vec::new();
        for (part, seq) in [(first, 1), (second, 1 + cut)] {
            if part.is_empty() {
                continue;
            }
            let mut prepared = of(part, seq);
            let newest = prepared.order(&vec![true; part.len()], last.clone());
            last = newest.or(last);
            joined.extend(times(&prepared));
        }
        prop_assert_eq!(joined, times(&whole));
        prop_assert_eq!(last, end);
    }

    #[test]
    fn events_that_are_not_fresh_take_no_part(readings in readings()) {
        let mut prepared = of(&readings, 1);
        let before = times(&prepared);
        prop_assert_eq!(prepared.order(&vec![false; readings.len()], None), None);
        prop_assert_eq!(times(&prepared), before);
        prop_assert_eq!(prepared.record(&vec![false; readings.len()]).ends_with("\"events\":[]}"), true);
    }

    #[test]
    fn whatever_texts_come_the_record_can_be_read(user in "\\PC*|[\\x00-\\x1f\"\\\\]*", path in any::<String>(), key in any::<String>()) {
        let mut sent = event(1);
        sent["user_id"] = json!(user);
        sent["page"] = json!({"path": path});
        sent["props"] = json!({"a": key});
        let mut text = String::new();
        write!(text, "{}", batch(vec![sent])).unwrap();
        let prepared = prepare("demo", &decode(text.as_bytes(), &Limits::default()).unwrap(), NOW, &Limits::default());
        prop_assume!(prepared.rejected.is_empty());
        let text = prepared.record(&[true]);
        let record: Record<'_> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&record.events[0].user_id, &user);
        prop_assert_eq!(&record.events[0].page_path, &path);
        let props: Value = serde_json::from_str(record.events[0].props.unwrap().get()).unwrap();
        prop_assert_eq!(props, json!({"a": key}));
    }
}

#[test]
fn a_late_batch_does_not_take_the_place_of_a_newer_one() {
    let reading = Reading { boot: Some(1), mono: Some(5), ts: 0, true_ts: None };
    let newer = Last { seq: 100, boot: "b1".into(), mono: 900, event_time: NOW + 500 };
    let mut late = of(std::slice::from_ref(&reading), 7);
    assert_eq!(late.order(&[true], Some(newer)), None);
    assert_eq!(times(&late), [NOW]);
}

#[test]
fn readings_without_a_boot_count_as_one_boot() {
    let reading = |mono, ts| Reading { boot: None, mono: Some(mono), ts, true_ts: None };
    let mut prepared = of(&[reading(100, 0), reading(150, -9_000)], 1);
    let last = prepared.order(&[true, true], None).unwrap();
    assert_eq!(times(&prepared), [NOW, NOW + 50]);
    assert_eq!((last.boot.as_str(), last.mono), ("", 150));
    let mut named = of(&[Reading { boot: Some(1), ..reading(200, -9_000) }], 3);
    named.order(&[true], Some(last));
    assert_eq!(times(&named), [NOW - 9_000], "a named boot is another");
}

#[test]
fn a_wrong_future_time_draws_nothing_along() {
    let tolerance = Limits::default().clock_tolerance_ms;
    let reading = |mono, ts| Reading { boot: Some(1), mono: Some(mono), ts, true_ts: None };
    let mut prepared = of(&[reading(10, 0), reading(20, tolerance + 1), reading(30, -1), reading(40, tolerance)], 1);
    let last = prepared.order(&[true; 4], None);
    assert_eq!(times(&prepared), [NOW, NOW + tolerance + 1, NOW + 20, NOW + tolerance], "only what precedes it counts");
    assert_eq!(last.map(|last| last.seq), Some(4));

    let mut future = of(&[reading(10, tolerance + 1)], 1);
    assert_eq!(future.order(&[true], None), None, "it is not remembered");

    // One that was remembered proves nothing, and gives way even to an event with a smaller number.
    let stuck = Last { seq: 9, boot: "b1".into(), mono: 5, event_time: NOW + tolerance + 1 };
    let mut next = of(&[reading(10, 0)], 5);
    assert_eq!(next.order(&[true], Some(stuck)).map(|last| last.seq), Some(5));
    assert_eq!(times(&next), [NOW]);
}
