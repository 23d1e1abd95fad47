//! `fixtures/rejected` and `fixtures/refused`: one example for every reason and for every problem that a body or a key
//! can have, each with the expected response. The collector's tests send the same files to the running binary; here the
//! codec reads them.
//!
//! The part of a file name after a dot tells several examples of one reason apart. A `limit` that is a text depends on
//! the time of arrival. A file has `about`, `headers` if they matter, `limits` (those that differ from the defaults),
//! the body as `request` (JSON, sent without white space), `body` (text) or `body_hex`, the `key` if it is not the
//! valid one, and the expected `answer` or `problem`.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;
use subway_protocol::codec::server::{Problem, ProblemCode, Rejection, WireEvent, decode};
use subway_protocol::json::check_object;
use subway_protocol::{Limits, RejectReason};

fn fixtures(folder: &str) -> BTreeMap<String, Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder);
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    files
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap())
        })
        .collect()
}

/// Returns the reason or the code that a file is an example of.
fn kind(name: &str) -> String {
    name.split('.').next().unwrap().to_owned()
}

fn limits(fixture: &Value) -> Limits {
    let mut limits = Limits::default();
    for (name, value) in fixture["limits"].as_object().into_iter().flatten() {
        let place = match name.as_str() {
            "body_bytes" => &mut limits.body_bytes,
            "decompressed_bytes" => &mut limits.decompressed_bytes,
            "events_per_batch" => &mut limits.events_per_batch,
            "event_bytes" => &mut limits.event_bytes,
            "properties" => &mut limits.properties,
            "depth" => &mut limits.depth,
            "key_bytes" => &mut limits.key_bytes,
            "text_bytes" => &mut limits.text_bytes,
            other => panic!("unknown limit {other}"),
        };
        *place = value.as_u64().unwrap();
    }
    limits
}

#[test]
fn every_reason_has_its_example() {
    let names: BTreeSet<String> = fixtures("rejected").keys().map(|name| kind(name)).collect();
    assert_eq!(names, RejectReason::ALL.iter().map(|reason| reason.as_str().to_owned()).collect());
}

#[test]
fn every_problem_of_a_body_or_a_key_has_its_example() {
    use ProblemCode as P;
    let codes = [
        P::MalformedJson,
        P::MalformedGzip,
        P::MissingField,
        P::InvalidField,
        P::UnsupportedVersion,
        P::NoEvents,
        P::NoKey,
        P::UnknownKey,
        P::BadSignature,
        P::UnsupportedEncoding,
        P::BodyTooLarge,
        P::DecompressedTooLarge,
        P::TooManyEvents,
    ];
    let fixtures = fixtures("refused");
    assert_eq!(
        fixtures.keys().map(|name| kind(name)).collect::<BTreeSet<_>>(),
        codes.iter().map(|code| code.as_str().to_owned()).collect()
    );
    for code in codes {
        let problem = &fixtures[code.as_str()]["problem"];
        let real = serde_json::to_value(Problem::new(code, String::new())).unwrap();
        for field in ["type", "title", "status", "code"] {
            assert_eq!(problem[field], real[field], "{code:?}");
        }
    }
}

#[test]
fn the_codec_gives_the_rejections_that_are_its_to_give() {
    for (reason, fixture) in fixtures("rejected") {
        let limits = limits(&fixture);
        let body = fixture["request"].to_string();
        let batch = decode(body.as_bytes(), &limits).unwrap();
        let decoded: Vec<_> = batch.events.iter().map(|raw| WireEvent::decode(raw)).collect();
        assert!(decoded[0].is_ok() && decoded[2].is_ok(), "{reason}");
        let found = match &decoded[1] {
            Err((id, violation)) => Some((*id, violation.clone())),
            Ok(event) => event
                .props
                .and_then(|props| Some((Some(event.id), check_object(props.get(), "props", (&limits).into()).err()?))),
        };
        if let Some((id, violation)) = found {
            let rejection = serde_json::to_value(Rejection { index: 1, id, violation }).unwrap();
            assert_eq!(rejection, fixture["answer"]["rejected"][0], "{reason}");
        } else {
            assert!(
                [
                    "invalid_code",
                    "time_out_of_range",
                    "event_too_large",
                    "text_too_long",
                    "invalid_field.session_index_zero",
                    "invalid_field.session_event_zero",
                ]
                .contains(&reason.as_str()),
                "{reason}"
            );
        }
    }
}

#[test]
fn the_codec_gives_the_problems_that_are_its_to_give() {
    let mut given = 0;
    for (code, fixture) in fixtures("refused") {
        let body = match fixture["body"].as_str() {
            Some(text) => text.to_owned(),
            None if fixture["request"].is_object() => fixture["request"].to_string(),
            None => continue,
        };
        let Err(problem) = decode(body.as_bytes(), &limits(&fixture)) else { continue };
        let mut problem = serde_json::to_value(problem).unwrap();
        assert_ne!(problem.as_object_mut().unwrap().remove("detail").unwrap(), "", "{code}");
        assert_eq!(problem, fixture["problem"], "{code}");
        given += 1;
    }
    assert_eq!(given, 14);
}

#[test]
fn an_array_is_neither_a_batch_nor_an_event() {
    let event = r#"["0198c0de-0000-7000-8000-000000000001",1,"view","a",1,null,null,null,null,null,null,null]"#;
    let body = format!(
        r#"{{"v":1,"batch_id":"0198c0de-0000-7000-8000-000000000001","install_id":"0198c0de-0000-7000-8000-000000000001","sent_at":1,"events":[ {event} ]}}"#
    );
    let batch = decode(body.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(WireEvent::decode(batch.events[0]).unwrap_err().1.reason, RejectReason::Malformed);
    let array = format!(
        " [1,\"{0}\",\"{0}\",1,null,null,null,null,null,null,null,null,[{event}]]",
        "0198c0de-0000-7000-8000-000000000001"
    );
    assert_eq!(decode(array.as_bytes(), &Limits::default()).unwrap_err().code, ProblemCode::MalformedJson);
}
