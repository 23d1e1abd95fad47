//! Compares every table of docs/protocol.md with the code, row by row.
#![cfg(feature = "server")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use subway_protocol::codec::server::ProblemCode;
use subway_protocol::{Limits, RejectReason, Theme};

const TEXT: &str = include_str!("../../docs/protocol.md");

/// Returns the rows of the table whose header begins with these columns: first cell without backticks, then the others.
fn table(header: &str) -> BTreeMap<String, Vec<String>> {
    let mut lines = TEXT.lines().skip_while(|line| !line.starts_with(header));
    assert!(lines.next().is_some(), "there is a table {header}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', ""));
            (cells.next().unwrap(), cells.collect())
        })
        .collect()
}

fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn themes() {
    let rows = table("| theme |");
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), names(Theme::ALL.map(Theme::as_str)));
}

#[test]
fn reject_reasons() {
    let rows = table("| reason | when |");
    assert_eq!(rows.into_keys().collect::<Vec<_>>(), names(RejectReason::ALL.map(RejectReason::as_str)));
}

#[test]
fn problem_codes_and_their_statuses() {
    let rows = table("| code | status |");
    let stated: BTreeMap<String, String> = rows.into_iter().map(|(code, cells)| (code, cells[0].clone())).collect();
    let real: BTreeMap<String, String> =
        ProblemCode::ALL.into_iter().map(|code| (code.as_str().to_owned(), code.status().to_string())).collect();
    assert_eq!(stated, real);
}

#[test]
fn limits_and_their_defaults() {
    let rows = table("| limit | default |");
    let stated: BTreeMap<String, String> = rows.into_iter().map(|(limit, cells)| (limit, cells[0].clone())).collect();
    let Limits {
        body_bytes,
        decompressed_bytes,
        events_per_batch,
        event_bytes,
        properties,
        depth,
        key_bytes,
        text_bytes,
        context_text_bytes,
        future_ms,
        clock_tolerance_ms,
        signature_age_ms,
    } = Limits::default();
    let real = [
        ("body_bytes", body_bytes),
        ("decompressed_bytes", decompressed_bytes),
        ("events_per_batch", events_per_batch),
        ("event_bytes", event_bytes),
        ("properties", properties),
        ("depth", depth),
        ("key_bytes", key_bytes),
        ("text_bytes", text_bytes),
        ("context_text_bytes", context_text_bytes),
        ("future_ms", future_ms as u64),
        ("clock_tolerance_ms", clock_tolerance_ms as u64),
        ("signature_age_ms", signature_age_ms as u64),
    ];
    assert_eq!(stated, real.map(|(name, value)| (name.to_owned(), value.to_string())).into());
}

#[test]
fn fields_are_those_of_the_golden_batch() {
    let golden: serde_json::Value = serde_json::from_str(include_str!("../fixtures/good/everything.json")).unwrap();
    let batch = table("| field | type | required | meaning |");
    for name in golden.as_object().unwrap().keys() {
        assert!(batch.contains_key(name), "{name} of the batch is specified");
    }
    let event_table = TEXT.split_once("### The event").unwrap().1;
    for event in golden["events"].as_array().unwrap() {
        for name in event.as_object().unwrap().keys() {
            assert!(event_table.contains(&format!("| `{name}` |")), "{name} of the event is specified");
        }
    }
}
