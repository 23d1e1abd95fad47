//! Compares the client's drop reasons and delays with docs/protocol.md.

use subway_sdk_core::{DropReason, limits};

const TEXT: &str = include_str!("../../docs/protocol.md");

#[test]
fn every_drop_reason_has_its_row() {
    let section = TEXT.split_once("## 5. The client's ledger").map_or("", |(_, rest)| rest);
    let section = section.split_once("## 6.").map_or("", |(section, _)| section);
    for reason in DropReason::ALL {
        assert!(section.contains(&format!("| `{}` |", reason.as_str())), "{reason:?}");
    }
    assert_eq!(section.matches("| `").count(), DropReason::ALL.len(), "and no other");
}

#[test]
fn the_waits_are_those_of_the_code() {
    let minutes = |ms: u64| ms / 60_000;
    for wait in [
        format!("first window {} s, doubling to {} min", limits::RETRY_BASE_MS / 1000, minutes(limits::RETRY_CAP_MS)),
        format!(
            "{} min, doubling to {} h",
            minutes(limits::AUTH_RETRY_BASE_MS),
            minutes(limits::AUTH_RETRY_CAP_MS) / 60
        ),
        format!("obeyed up to {} h", minutes(limits::RETRY_AFTER_CAP_MS) / 60),
        format!("no answer within {} s", limits::UPLOAD_TIMEOUT_MS / 1000),
    ] {
        assert!(TEXT.contains(&wait), "{wait}");
    }
}
