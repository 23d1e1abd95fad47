//! Behaviour of the client, one rule per test. The simulation covers their combinations.
#![allow(clippy::unwrap_used)]

mod common;

use common::{START, answer, client, client_with, ids, input, later, receipt, track, upload};
use subway_sdk_core::protocol::RejectReason;
use subway_sdk_core::{
    Client, Config, Consent, DropReason, Id, Input, MemoryStore, Now, Page, Theme, TrackError, UploadResult,
};

#[test]
fn a_receipt_ends_each_event_as_it_says() {
    let mut client = client();
    track(&mut client, 4);
    let request = upload(&mut client, START).unwrap();
    assert_eq!(request.events, 4);
    let body = format!(
        r#"{{"batch_id":"{}","server_time":1,"stored":2,"duplicate":[3],"rejected":[{{"index":0,"reason":"key_too_long","field":"props.k"}}]}}"#,
        request.batch_id
    );
    client.handle_upload_result(START, request.batch_id, answer(200, &body));
    let ledger = client.ledger();
    assert_eq!((ledger.acked, ledger.queued, ledger.dropped(DropReason::Rejected)), (3, 0, 1));
    assert!(client.take_diagnostics()[0].contains("props.k"), "the developer learns which field");
    assert!(upload(&mut client, START).is_none());
    assert_eq!(
        client.poll_timeout().map(|at| at > START.mono),
        None,
        "everything is stored and sent: no alarm is left"
    );
}

#[test]
fn an_answer_without_the_right_receipt_deletes_nothing() {
    let other = Id::v7(0, [0; 10]);
    for body in ["", "<html>login</html>", "{}", &receipt(other, 2)] {
        let mut client = client();
        track(&mut client, 2);
        let request = upload(&mut client, START).unwrap();
        client.handle_upload_result(START, request.batch_id, answer(200, body));
        assert_eq!(client.ledger().queued, 2, "{body}");
        let again = upload(&mut client, later(60_000)).unwrap();
        assert_eq!((again.batch_id, ids(&again.body)), (request.batch_id, ids(&request.body)), "the batch is frozen");
    }
}

#[test]
fn a_receipt_that_does_not_add_up_is_no_receipt() {
    let mut client = client();
    track(&mut client, 3);
    let request = upload(&mut client, START).unwrap();
    client.handle_upload_result(START, request.batch_id, answer(200, &receipt(request.batch_id, 2)));
    assert_eq!(client.ledger().queued, 3);
}

#[test]
fn failures_that_time_mends_keep_everything_and_wait() {
    for status in [204, 301, 404, 405, 408, 415, 429, 500, 502, 503, 504] {
        let mut client = client();
        track(&mut client, 2);
        let request = upload(&mut client, START).unwrap();
        let result = UploadResult::Response { status, retry_after_ms: Some(30_000), body: "" };
        client.handle_upload_result(START, request.batch_id, result);
        assert!(upload(&mut client, later(29_999)).is_none(), "{status} waits for Retry-After");
        assert_eq!(upload(&mut client, later(40_000)).unwrap().batch_id, request.batch_id, "{status}");
        assert_eq!(client.ledger().queued, 2);
    }
}

#[test]
fn a_wrong_key_keeps_everything_and_slows_down() {
    for status in [401, 403] {
        let mut client = client();
        track(&mut client, 2);
        let request = upload(&mut client, START).unwrap();
        client.handle_upload_result(START, request.batch_id, answer(status, r#"{"code":"unknown_key"}"#));
        assert!(upload(&mut client, later(29_000)).is_none());
        assert!(upload(&mut client, later(61_000)).is_some());
        assert!(client.take_diagnostics()[0].contains("unknown_key"), "the developer learns why");
    }
}

#[test]
fn a_batch_survives_a_restart_unchanged() {
    let mut client = client();
    track(&mut client, 3);
    let request = upload(&mut client, START).unwrap();
    let store = client.into_store();
    let mut client = Client::open(store, Config::default(), "", b"other", later(1000)).unwrap();
    let again = upload(&mut client, later(1000)).unwrap();
    assert_eq!((again.batch_id, ids(&again.body)), (request.batch_id, ids(&request.body)));
    assert_eq!(client.ledger().queued, 3);
}

#[test]
fn sequence_numbers_go_on_after_a_restart() {
    let mut client = client();
    track(&mut client, 3);
    assert!(client.commit(START));
    let mut client = Client::open(client.into_store(), Config::default(), "", b"2", START).unwrap();
    track(&mut client, 1);
    client.flush(START);
    let body = upload(&mut client, START).unwrap().body;
    let batch: serde_json::Value = serde_json::from_str(&body).unwrap();
    let seqs: Vec<u64> = batch["events"].as_array().unwrap().iter().map(|e| e["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
}

#[test]
fn an_unanswered_upload_fails_after_its_timeout() {
    let mut client = client();
    track(&mut client, 1);
    let request = upload(&mut client, START).unwrap();
    assert!(upload(&mut client, later(59_000)).is_none());
    assert_eq!(client.poll_timeout(), Some(START.mono + 60_000));
    assert!(upload(&mut client, later(60_000)).is_none(), "it waits as after any failure");
    assert_eq!(upload(&mut client, later(62_000)).unwrap().batch_id, request.batch_id);
}

#[test]
fn events_wait_for_the_interval_or_the_number_or_a_flush() {
    let config = Config { flush_events: 3, flush_interval_ms: 10_000, ..Config::default() };
    let mut client = client_with(config.clone());
    track(&mut client, 2);
    assert!(upload(&mut client, START).is_none());
    assert_eq!(client.poll_timeout(), Some(START.mono + 10_000));
    assert!(upload(&mut client, later(10_000)).is_some(), "the interval");
    let mut client = client_with(config.clone());
    track(&mut client, 3);
    assert!(upload(&mut client, START).is_some(), "the number");
    let mut client = client_with(config.clone());
    track(&mut client, 1);
    client.flush(START);
    assert!(upload(&mut client, START).is_some(), "a flush");
    let mut client = client_with(config);
    track(&mut client, 1);
    client.background(START);
    assert!(upload(&mut client, START).is_some(), "leaving the screen");
}

#[test]
fn nothing_is_stored_or_sent_before_consent() {
    let mut client = client_with(Config { consent_required: true, flush_events: 1, ..Config::default() });
    track(&mut client, 2);
    assert!(upload(&mut client, START).is_none() && client.commit(START));
    let mut store = client.into_store();
    let mut records = 0;
    subway_sdk_core::Store::scan(&mut store, &mut |_, _| records += 1).unwrap();
    assert_eq!(records, 0);
}

#[test]
fn events_before_a_grant_are_sent_with_their_own_time() {
    let mut client = client_with(Config { consent_required: true, flush_events: 1, ..Config::default() });
    track(&mut client, 1);
    client.set_consent(later(9_000), Consent::Granted);
    let body = upload(&mut client, later(9_000)).unwrap().body;
    let batch: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((batch["events"][0]["ts"].as_i64(), batch["events"][0]["seq"].as_u64()), (Some(START.wall), Some(1)));
}

#[test]
fn a_withdrawal_wipes_and_a_new_grant_is_a_new_install() {
    let mut client = client();
    client.identify(START, "alice").unwrap();
    client.register(START, r#"{"channel":"qr"}"#).unwrap();
    track(&mut client, 3);
    assert!(client.commit(START));
    let install = client.install_id();
    client.set_consent(START, Consent::Denied);
    assert_eq!(client.track(START, input("tap")), Err(TrackError::ConsentDenied));
    let ledger = client.ledger();
    assert_eq!((ledger.dropped(DropReason::ConsentWithdrawn), ledger.dropped(DropReason::ConsentDenied)), (3, 1));
    assert!(client.commit(START));
    let mut store = client.into_store();
    let mut left = String::new();
    subway_sdk_core::Store::scan(&mut store, &mut |key, value| left += &format!("{key:?} {value}\n")).unwrap();
    assert!(!left.contains("alice") && !left.contains("qr") && !left.contains(&install.text()), "{left}");
    assert_eq!(left.lines().count(), 1, "only the decision itself is kept: {left}");
    let mut client = Client::open(store, Config::default(), "", b"3", START).unwrap();
    assert_eq!(client.consent(), Consent::Denied, "the decision survives");
    client.set_consent(START, Consent::Granted);
    assert_ne!(client.install_id(), install);
    assert_eq!(client.ledger().generated, 0);
}

#[test]
fn refused_input_names_field_limit_and_what_came() {
    let mut client = client();
    let deep = "{\"a\":".repeat(12) + "1" + &"}".repeat(12);
    let error = client.track(START, Input { props: &deep, ..input("tap") }).unwrap_err();
    assert_eq!(error.to_string(), "property_too_deep at props.a.a.a.a.a.a.a.a, limit 8, got 12");
    for (bad, reason) in [
        (input("no\ncode"), RejectReason::InvalidCode),
        (Input { true_ts: Some(-1), ..input("tap") }, RejectReason::TimeOutOfRange),
        (Input { props: "[1]", ..input("tap") }, RejectReason::InvalidField),
        (Input { props: "{\"a\":01}", ..input("tap") }, RejectReason::InvalidField),
        (
            Input { props: &format!("{{\"a\":\"{}\"}}", "x".repeat(33_000)), ..input("tap") },
            RejectReason::EventTooLarge,
        ),
    ] {
        let Err(TrackError::Invalid(violation)) = client.track(START, bad) else { panic!("{bad:?} was accepted") };
        assert_eq!(violation.reason, reason);
    }
    let ledger = client.ledger();
    assert_eq!((ledger.generated, ledger.dropped(DropReason::Invalid)), (6, 6));
    track(&mut client, 1);
    let body = upload(&mut client, START).unwrap().body;
    assert!(body.contains("\"seq\":1,"), "refused events take no place in the sequence");
}

#[test]
fn texts_collected_by_the_sdk_are_cut_rather_than_refused() {
    let mut client = client();
    let page = Page { path: "页".repeat(1000), ..Page::default() };
    client.track(START, Input { page: Some(&page), ..input("tap") }).unwrap();
    let body = upload(&mut client, START).unwrap().body;
    let batch: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(batch["events"][0]["page"]["path"].as_str().map(str::len), Some(2046));
}

#[test]
fn a_full_queue_evicts_the_oldest_of_the_lowest_priority() {
    let mut client = client_with(Config { max_queued_events: 3, ..Config::default() });
    for theme in [Theme::Order, Theme::Network, Theme::View, Theme::Click] {
        client.track(START, Input { theme, ..input("tap") }).unwrap();
    }
    let refused = client.track(START, Input { theme: Theme::Exposure, ..input("tap") });
    assert_eq!(refused, Err(TrackError::QueueFull));
    client.flush(START);
    let body = upload(&mut client, START).unwrap().body;
    assert!(body.contains("order") && body.contains("view") && body.contains("click") && !body.contains("network\""));
    let ledger = client.ledger();
    assert_eq!((ledger.generated, ledger.queued, ledger.dropped(DropReason::QueueFull)), (5, 3, 2));
}

#[test]
fn an_event_keeps_the_context_it_was_recorded_in() {
    let mut client = client_with(Config::default());
    client.register(START, r#"{"channel":"qr","n":1}"#).unwrap();
    track(&mut client, 1);
    client.register(START, r#"{"channel":"ad"}"#).unwrap();
    track(&mut client, 1);
    client.flush(START);
    let first = upload(&mut client, START).unwrap();
    assert!(first.body.contains(r#""common":{"channel":"qr","n":1}"#) && first.events == 1);
    let body = receipt(first.batch_id, 1);
    client.handle_upload_result(START, first.batch_id, answer(200, &body));
    let second = upload(&mut client, START).unwrap();
    assert!(second.body.contains(r#""common":{"channel":"ad","n":1}"#) && second.events == 1);
}

fn props(body: &str) -> Vec<serde_json::Value> {
    let batch: serde_json::Value = serde_json::from_str(body).unwrap();
    batch["events"].as_array().unwrap().iter().map(|event| event["props"].clone()).collect()
}

#[test]
fn timers_measure_by_the_monotonic_clock() {
    let mut client = client();
    client.timer_start(START, "load");
    let now = Now { wall: 0, mono: START.mono + 1_234 };
    client.timer_end(now, "load", Input { props: r#"{"kind":"cold","duration_ms":9}"#, ..input("loaded") }).unwrap();
    let body = upload(&mut client, now).unwrap().body;
    assert_eq!(props(&body), [serde_json::json!({"kind": "cold", "duration_ms": 1_234})]);
}

#[test]
fn a_timer_never_started_gives_no_duration_and_one_diagnostic() {
    let mut client = client();
    for _ in 0..3 {
        client.timer_end(START, "load", Input { props: r#"{"a":1}"#, ..input("loaded") }).unwrap();
    }
    for name in 0..1000 {
        client.timer_end(START, &name.to_string(), input("loaded")).unwrap();
    }
    let diagnostics = client.take_diagnostics();
    assert!(diagnostics.len() <= 16, "what is never ended does not flood the developer: {}", diagnostics.len());
    let body = upload(&mut client, START).unwrap().body;
    assert!(props(&body)[..3].iter().all(|props| *props == serde_json::json!({"a": 1})));
    let mut client = client_with(Config::default());
    client.timer_end(START, "load", input("a")).unwrap();
    client.timer_end(START, "load", input("a")).unwrap();
    assert_eq!(
        client.take_diagnostics(),
        ["no timer named load was running: its event is recorded without duration_ms"]
    );
    assert_eq!(client.ledger().generated, 2);
}

#[test]
fn what_no_check_lets_through_is_refused_at_a_timers_end_too() {
    let mut client = client();
    client.timer_start(START, "load");
    for props in ["[1]", "{} x", "\"no object\""] {
        let refused = client.timer_end(START, "load", Input { props, ..input("loaded") });
        assert!(matches!(refused, Err(TrackError::Invalid(_))), "{props}");
    }
    assert_eq!(client.ledger().dropped(DropReason::Invalid), 3);
}

#[test]
fn an_unusual_name_is_recorded_and_reported_once() {
    let mut client = client();
    for _ in 0..3 {
        client.track(START, input("Order Completed")).unwrap();
        client.track(START, input("下单")).unwrap();
    }
    let diagnostics = client.take_diagnostics();
    assert!(
        diagnostics.len() == 2 && diagnostics[0].contains("Order Completed") && diagnostics[1].contains("下单"),
        "{diagnostics:?}"
    );
    for number in 0..1000 {
        client.track(START, input(&format!("name {number}"))).unwrap();
        assert!(client.take_diagnostics().len() <= 1);
    }
    assert!(client.take_diagnostics().is_empty());
    assert_eq!(client.ledger().generated, 1_006);
}

#[test]
fn ids_are_unique_without_any_entropy() {
    let mut seen = std::collections::BTreeSet::new();
    let mut store = MemoryStore::default();
    for boot in 0..50 {
        let now = Now { wall: START.wall + boot, mono: 0 };
        let mut client = Client::open(store.clone(), Config::default(), "", b"", now).unwrap();
        for _ in 0..100 {
            assert!(seen.insert(client.track(now, input("tap")).unwrap()));
        }
        assert!(client.commit(now));
        store = client.into_store();
    }
}
