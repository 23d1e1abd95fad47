//! An array in the place of an object is an error that names the object, everywhere on the wire.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use serde_json::Value;
use subway_protocol::codec::server::{ProblemCode, WireEvent, decode};
use subway_protocol::json::check_object;
use subway_protocol::{Limits, RejectReason};

/// Returns the batch that has every field (another test compares it with the specification).
fn golden() -> Value {
    serde_json::from_str(include_str!("../fixtures/good/everything.json")).unwrap()
}

/// Returns the paths of all objects of `value`, except those inside of properties, which can be anything.
fn objects(value: &Value, path: &str, out: &mut Vec<String>) {
    let child = |name: &str| format!("{path}/{name}");
    match value {
        Value::Object(members) => {
            out.push(path.to_owned());
            if !path.ends_with("/props") && path != "/common" {
                members.iter().for_each(|(name, member)| objects(member, &child(name), out));
            }
        }
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, element)| objects(element, &child(&at.to_string()), out));
        }
        _ => {}
    }
}

/// Returns the path of the first error; `None` if there is none.
fn wrong(batch: &Value) -> Option<(bool, String)> {
    let limits = Limits::default();
    let text = batch.to_string();
    let batch = match decode(text.as_bytes(), &limits) {
        Ok(batch) => batch,
        Err(problem) => {
            let named = problem.code == ProblemCode::InvalidField;
            return Some((named, problem.field.unwrap_or_default()));
        }
    };
    batch.events.iter().find_map(|raw| {
        let violation = match WireEvent::decode(raw) {
            Ok(event) => {
                check_object(event.props.map_or("{}", |props| props.get()), "props", (&limits).into()).err()?
            }
            Err((_, violation)) => violation,
        };
        Some((violation.reason == RejectReason::InvalidField, violation.field))
    })
}

#[test]
fn an_array_in_the_place_of_any_object_is_named() {
    let golden = golden();
    assert_eq!(wrong(&golden), None);
    let mut paths = Vec::new();
    objects(&golden, "", &mut paths);
    for needed in [
        "",
        "/app",
        "/sdk",
        "/host",
        "/device",
        "/common",
        "/ledger",
        "/ledger/dropped",
        "/events/0",
        "/events/0/session",
        "/events/0/page",
        "/events/0/props",
    ] {
        assert!(paths.iter().any(|path| path == needed), "the example has no {needed}");
    }
    for path in paths {
        for array in [Value::Array(Vec::new()), values(golden.pointer(&path).unwrap())] {
            let mut batch = golden.clone();
            *batch.pointer_mut(&path).unwrap() = array;
            let (named, field) = wrong(&batch).unwrap_or_else(|| unreachable!("{path} is taken as an array"));
            let event = path.strip_prefix("/events/").map(|rest| rest.split_once('/').map_or("", |(_, field)| field));
            let expected = event.unwrap_or(path.trim_start_matches('/')).replace('/', ".");
            // The batch and an event have no field; they are malformed.
            assert_eq!(named, !expected.is_empty(), "{path}");
            if named {
                assert_eq!(field, expected, "{path}");
            }
        }
    }
}

/// Returns the values of an object in their order, as a derived implementation would accept them.
fn values(object: &Value) -> Value {
    object.as_object().unwrap().values().cloned().collect()
}

#[test]
fn the_message_never_carries_the_body() {
    let mut batch = golden();
    batch["v"] = Value::String("x".repeat(1 << 20));
    let problem = decode(batch.to_string().as_bytes(), &Limits::default()).unwrap_err();
    assert_eq!((problem.code, problem.field.as_deref()), (ProblemCode::InvalidField, Some("v")));
    assert!(problem.detail.len() < 1000, "{}", problem.detail.len());
}
