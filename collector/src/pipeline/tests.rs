use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};
use subway_protocol::codec::server::decode;
use subway_protocol::limits::{MAX_TIME_MS, PAST_DAYS};
use subway_protocol::{Actual, Id, Limits, RejectReason, Theme};

use super::*;
use crate::accept::wire;
use crate::record::Record;

mod order;

const NOW: i64 = 1_431_835_512_345;

fn prepared(batch: &Value) -> ValidatedBatch {
    prepared_text(&batch.to_string())
}

fn prepared_text(text: &str) -> ValidatedBatch {
    let limits = Limits::default();
    let batch = decode(text.as_bytes(), &limits).unwrap();
    let events = batch.events.iter().map(|raw| wire::event(raw, &limits));
    prepare(&wire::incoming("demo", &batch, NOW), events, &limits, PAST_DAYS)
}

/// Returns the JSON of the one record, or an empty text.
fn record(prepared: &ValidatedBatch, fresh: &[bool]) -> String {
    let mut records: Vec<_> = prepared.records(fresh).collect();
    assert!(records.len() <= 1);
    records.pop().map(|record| record.json).unwrap_or_default()
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
    let text = record(&prepared(&sent), &[true]);
    let expected = json!({
        "app_key": "demo", "batch_id": id(0xb), "install_id": id(0x1), "received_at": NOW,
        "context": {"app_version": "1.2.0", "sdk_name": "sdk", "sdk_version": "0.1", "platform": "jd", "host_app": "jdapp",
            "host_version": "13.0", "os": "iOS", "os_version": "17.1", "brand": "Apple", "model": "15", "screen": "390x844",
            "language": "zh-CN", "timezone": "Asia/Shanghai", "network": "wifi"},
        "common": {"channel": "qr"},
        "events": [{"event_id": id(3), "seq": 101, "theme": "view", "code": "page_view", "event_time": NOW - 1000, "ts": NOW - 1000,
            "time_source": "device", "mono": 89100, "boot": "b\"7", "user_id": "u\u{1f600}\n", "session_id": "s", "session_index": 3, "session_event": 12,
            "page_path": "p", "page_title": "t", "page_referrer": "r", "page_enter_ts": NOW - 2000, "props": {"k": [1, "x"]}}]
    });
    let mut written: Value = serde_json::from_str(&text).unwrap();
    written.as_object_mut().unwrap().remove("shared_bytes");
    assert_eq!(written, expected);
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
    let record = record(&prepared_text(&text), &[true]);
    assert!(!record.contains(['\n', '\r']));
    assert_eq!(serde_json::from_str::<Value>(&record).unwrap()["events"][0]["props"], json!({"x": [1, 2], "y": "\n"}));
}

#[test]
fn a_bad_event_costs_no_neighbour() {
    let mut bad = event(2);
    bad["theme"] = json!("nope");
    let prepared = prepared(&batch(vec![event(1), bad, event(3), json!(7), event(5)]));
    assert_eq!(prepared.received, 5);
    assert_eq!(prepared.events.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 2, 4]);
    let rejected: Vec<_> =
        prepared.rejected.iter().map(|r| (r.index, r.id.map(|id| id.text()), r.violation.reason)).collect();
    assert_eq!(rejected, [(1, Some(id(2)), RejectReason::UnknownTheme), (3, None, RejectReason::Malformed)]);
    let record = record(&prepared, &[false, true, false]);
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
        ("true_ts", json!(-1), RejectReason::TimeOutOfRange),
        ("code", json!("a\n"), RejectReason::InvalidCode),
        ("seq", json!(0), RejectReason::InvalidField),
        ("session", json!({"id": "s", "index": 0}), RejectReason::InvalidField),
        ("session", json!({"id": "s", "event": 0}), RejectReason::InvalidField),
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

/// Clock readings of one event of an install.

#[test]
fn no_clock_of_a_device_costs_an_event_and_each_says_where_its_time_is_from() {
    let absurd = [json!(-1), json!(1e15), json!(0), json!(1e300), json!(i64::MAX), json!(MAX_TIME_MS + 1)];
    for (ts, sent_at) in absurd.iter().flat_map(|ts| absurd.iter().map(move |sent| (ts, sent))) {
        let mut sent = batch(vec![event(1), event(2)]);
        (sent["sent_at"], sent["sent_mono"], sent["first_sent_at"]) = (sent_at.clone(), json!(90_000), sent_at.clone());
        (sent["events"][0]["ts"], sent["events"][0]["mono"]) = (ts.clone(), json!(89_000));
        sent["events"][0]["page"] = json!({"path": "p", "enter_ts": ts});
        let prepared = prepared(&sent);
        assert!(prepared.rejected.is_empty(), "{sent}");
        let text = record(&prepared, &[true, true]);
        let record: Record<'_> = serde_json::from_str(&text).unwrap();
        for event in &record.events {
            assert!((0..=MAX_TIME_MS).contains(&event.ts), "{sent}");
            assert!((NOW - 20 * 366 * 86_400_000..=NOW + 86_400_000).contains(&event.event_time), "{sent}");
        }
        if record.events[0].time_source == "arrival" {
            assert_eq!(record.events[0].event_time, NOW - 1000, "the monotonic clock says how long ago it was: {sent}");
        }
    }
    let mut bad = event(1);
    bad["ts"] = json!("1431835511000");
    assert_eq!(prepared(&batch(vec![bad])).rejected[0].violation.field, "ts", "what is no number is no clock");
}

#[test]
fn a_true_time_far_from_its_arrival_is_rejected_with_the_nearest_that_is_not() {
    let limits = Limits::default();
    let (earliest, latest) = (NOW - PAST_DAYS as i64 * 86_400_000, NOW + limits.future_ms);
    for (true_ts, limit) in
        [(earliest - 1, Some(earliest)), (earliest, None), (latest, None), (latest + 1, Some(latest))]
    {
        let mut sent = event(1);
        sent["true_ts"] = json!(true_ts);
        let prepared = prepared(&batch(vec![sent]));
        match limit {
            Some(limit) => {
                let violation = &prepared.rejected[0].violation;
                assert_eq!((violation.field.as_str(), violation.limit), ("true_ts", Some(limit as u64)));
                assert_eq!(violation.got, Some(Actual::Number(true_ts)));
            }
            None => assert_eq!(prepared.events[0].time_source, TimeSource::True, "{true_ts}"),
        }
    }
}

#[test]
fn a_record_says_how_large_it_becomes_and_a_sender_for_many_gets_a_record_for_each() {
    let origin = |number| Sender {
        install_id: Id::parse(&id(number)).unwrap(),
        context: crate::record::Context { platform: "web".into(), ..Default::default() },
        common: Default::default(),
    };
    let incoming = IncomingBatch {
        app_key: "demo",
        batch_id: Id::parse(&id(9)).unwrap(),
        received_at: NOW,
        sent: SenderClocks::default(),
        senders: vec![origin(1), origin(2)],
    };
    let events = (0..5).map(|n| {
        Ok(Event { sender: n % 2, ..Event::new(Id::parse(&id(n as u64)).unwrap(), Theme::Click, "下单", NOW) })
    });
    let events: Vec<DecodedEvent<'_>> = events.collect();
    let mut prepared = prepare(&incoming, events.into_iter(), &Limits::default(), PAST_DAYS);
    prepared.events[1].unverified = true;
    let records: Vec<NewRecord> = prepared.records(&[true, true, false, true, true]).collect();
    assert_eq!(records.iter().map(|record| record.events).collect::<Vec<_>>(), [2, 2]);
    for new in &records {
        let record: Record<'_> = serde_json::from_str(&new.json).unwrap();
        let shared: u64 = serde_json::from_str::<Value>(&new.json).unwrap()["shared_bytes"].as_u64().unwrap();
        assert_eq!(new.expanded, new.json.len() as u64 + shared);
        let head = new.json.split_once("\"events\":[").unwrap().0;
        assert!(head.len() as u64 - shared < 30, "{shared} of {}", head.len());
        assert_eq!(
            record.events.iter().map(|event| event.unverified).collect::<Vec<_>>(),
            [record.install_id == id(2), false]
        );
    }
}
