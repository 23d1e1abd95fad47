//! Forms that other senders use and the SDK does not, and that are accepted.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};
use subway_protocol::codec::server::{ProblemCode, WireEvent, decode};
use subway_protocol::json::{PropertyLimits, check_object};
use subway_protocol::{Actual, Limits, RejectReason};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

/// Returns a batch as text: `more` goes into the envelope, `event` into its only event, both as raw JSON members.
fn batch(more: &str, event: &str) -> String {
    let event = format!(r#"{{"id":"{ID}","seq":1,"theme":"view","code":"a","ts":1{event}}}"#);
    format!(r#"{{"v":1,"batch_id":"{ID}","install_id":"{ID}","sent_at":1,"events":[{event}]{more}}}"#)
}

/// Returns `text` with every unit of UTF-16 written as an escape.
fn escaped(text: &str) -> String {
    text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect()
}

proptest! {
    #[test]
    fn a_key_counts_the_same_raw_and_escaped(key in "[\\PC\u{7f}\u{800}\u{ffff}\u{10000}\n\"\\\\]{1,12}") {
        let exact = key.len() as u64;
        let raw = json!({ key.as_str(): 1 }).to_string();
        let escaped = format!(r#"{{"{}":1}}"#, escaped(&key));
        for text in [raw, escaped.clone(), escaped.to_uppercase().replace("\\U", "\\u")] {
            let limits = |key_bytes| PropertyLimits { properties: 9, depth: 9, key_bytes };
            prop_assert!(check_object(&text, "props", limits(exact)).is_ok(), "{}", text);
            let violation = check_object(&text, "props", limits(exact - 1)).unwrap_err();
            prop_assert_eq!(violation.reason, RejectReason::KeyTooLong);
            prop_assert_eq!(violation.got, Some(Actual::Number(exact as i64)));
        }
    }

    #[test]
    fn texts_mean_the_same_raw_and_escaped(text in any::<String>()) {
        for sent in [json!(text).to_string(), format!("\"{}\"", escaped(&text))] {
            let body = batch(&format!(r#","network":{sent}"#), &format!(r#","user_id":{sent}"#));
            let limits = Limits { text_bytes: u64::MAX, ..Limits::default() };
            let batch = decode(body.as_bytes(), &limits).unwrap();
            prop_assert_eq!(&batch.context.network, &text);
            prop_assert_eq!(&*WireEvent::decode(batch.events[0]).unwrap().user_id, &text);
        }
    }
}

#[test]
fn a_lone_surrogate_in_a_key_counts_as_its_replacement() {
    for (key, bytes) in [(r"\ud83d", 3), (r"\ud83dx", 4), (r"\ud83d\ud83d\ude00", 7), (r"\ude00\ud83d", 6)] {
        let limits = PropertyLimits { properties: 9, depth: 9, key_bytes: 1 };
        let violation = check_object(&format!(r#"{{"{key}":1}}"#), "props", limits).unwrap_err();
        assert_eq!(violation.got, Some(Actual::Number(bytes)), "{key}");
    }
}

#[test]
fn a_lone_surrogate_is_read_as_the_replacement_character() {
    for (sent, read) in [
        (r"a\ud83d", "a\u{fffd}"),
        (r"\ude00页", "\u{fffd}页"),
        (r"\ud83d\ud83d\ude00\n", "\u{fffd}\u{1f600}\n"),
        (r"\ud83dé\ud7ff", "\u{fffd}é\u{d7ff}"),
    ] {
        let page = format!(r#","page":{{"title":"{sent}"}},"props":{{"t":"{sent}"}}"#);
        let body = batch(&format!(r#","device":{{"model":"{sent}"}}"#), &page);
        let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(batch.context.model, read, "{sent}");
        let event = WireEvent::decode(batch.events[0]).unwrap();
        assert_eq!(event.page.unwrap().title.as_deref(), Some(read), "{sent}");
        assert_eq!(event.props.unwrap().get(), format!(r#"{{"t":"{sent}"}}"#), "properties pass as they are");
    }
}

#[test]
fn what_is_no_text_is_an_error_that_names_the_field() {
    for value in ["7", "[]", "{}", "true", "[\"x\"]"] {
        let body = batch(&format!(r#","device":{{"model":{value}}}"#), "");
        let problem = decode(body.as_bytes(), &Limits::default()).unwrap_err();
        assert_eq!(
            (problem.code, problem.field.as_deref()),
            (ProblemCode::InvalidField, Some("device.model")),
            "{value}"
        );
        let body = batch("", &format!(r#","page":{{"path":{value}}}"#));
        let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
        let violation = WireEvent::decode(batch.events[0]).unwrap_err().1;
        assert_eq!((violation.reason, violation.field.as_str()), (RejectReason::InvalidField, "page.path"), "{value}");
        let Some(Actual::Text(got)) = violation.got else { unreachable!("{value}") };
        assert!(got.starts_with("invalid type: ") && got.ends_with("expected a string"), "{got}");
    }
}

#[test]
fn what_is_no_json_is_refused_inside_of_texts_too() {
    for text in ["a\nb", r"\x", r"\u12", "a\u{0}\\n"] {
        let body = batch(&format!(r#","network":"{text}""#), "");
        assert_eq!(decode(body.as_bytes(), &Limits::default()).unwrap_err().code, ProblemCode::MalformedJson, "{text}");
    }
    let mut body = batch(r#","network":"x""#, "").into_bytes();
    let at = body.iter().position(|byte| *byte == b'x').unwrap();
    body[at] = 0xff;
    assert_eq!(decode(&body, &Limits::default()).unwrap_err().code, ProblemCode::MalformedJson);
}

#[test]
fn a_session_needs_no_identity() {
    for session in [r#"{"index":3}"#, r#"{"id":null,"index":3}"#] {
        let body = batch("", &format!(r#","session":{session}"#));
        let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
        let session = WireEvent::decode(batch.events[0]).unwrap().session.unwrap();
        assert_eq!((session.id, session.index), (None, Some(3)));
    }
}

#[test]
fn what_is_said_of_the_sender_is_cut_and_not_refused() {
    let names =
        ["version", "name", "platform", "app", "os", "os_version", "brand", "model", "screen", "language", "timezone"];
    let texts: Value = names
        .iter()
        .map(|name| ((*name).to_owned(), json!("页".repeat(800))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let more =
        format!(r#","app":{texts},"sdk":{texts},"host":{texts},"device":{texts},"network":"{}""#, "x".repeat(3000));
    let body = batch(&more, "");
    let context = decode(body.as_bytes(), &Limits::default()).unwrap().context;
    let cut = "页".repeat(85);
    for text in [&context.app_version, &context.sdk_name, &context.host_app, &context.model, &context.timezone] {
        assert_eq!(*text, cut);
    }
    assert_eq!(context.network, "x".repeat(256));
}
