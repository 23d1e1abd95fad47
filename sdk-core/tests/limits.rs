//! Limits on what the client keeps and sends, at their edges.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use subway_sdk_core::protocol::limits::EVENT_BYTES;
use subway_sdk_core::{
    Client, Config, DropReason, Input, Key, MemoryStore, Now, Store, Task, Theme, UploadResult, limits,
};

const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };
/// Pages visited, each with page attributes of its own.
const PAGES: usize = 3_000;
/// Bytes of the attributes of one page.
const PAGE_BYTES: usize = 3_000;

fn client() -> Client<MemoryStore> {
    Client::open(MemoryStore::default(), Config::default(), "", b"limits", START).unwrap()
}

fn common(name: &str, bytes: usize) -> String {
    let frame = format!(r#"{{"{name}":""}}"#).len();
    format!(r#"{{"{name}":"{}"}}"#, "x".repeat(bytes - frame))
}

fn track(client: &mut Client<MemoryStore>) {
    let input = Input { theme: Theme::View, code: "page_view", props: "", page: None, true_ts: None };
    client.track(START, input).unwrap();
}

#[test]
fn common_properties_beyond_their_limit_are_refused_by_name() {
    let limit = EVENT_BYTES as usize;
    let mut client = client();
    let refused = client.register(START, &common("a", limit + 1)).unwrap_err();
    assert_eq!(refused.to_string(), "invalid_field at common, limit 32768, got 32769");
    client.register(START, &common("a", limit)).unwrap();
    client.register(START, &common("a", 20_000)).unwrap();
    let refused = client.register(START, &common("b", 20_000)).unwrap_err();
    assert_eq!(refused.to_string(), "invalid_field at common, limit 32768, got 39999", "all of them together");
    track(&mut client);
    client.flush(START);
    let Some(Task::Upload(upload)) = client.poll_task(START) else { unreachable!("a flush sends") };
    let batch: serde_json::Value = serde_json::from_str(&upload.body).unwrap();
    let names: Vec<&String> = batch["common"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["a"], "what was refused has changed nothing");
    assert_eq!(client.ledger().generated, 1, "and is no event");
}

/// Returns bytes and numbers of the contexts, and bytes of the events, in a store; and the contexts that the events
/// name.
fn contents(store: &mut MemoryStore) -> (usize, BTreeSet<u64>, BTreeSet<u64>) {
    let (mut bytes, mut there, mut named) = (0, BTreeSet::new(), BTreeSet::new());
    let scanned = store.scan(&mut |key, value| match key {
        Key::Context(number) => {
            bytes += value.len();
            there.insert(number);
        }
        Key::Event(_) => {
            bytes += value.len();
            named.insert(value.split_once(':').unwrap().0[1..].parse().unwrap());
        }
        _ => {}
    });
    assert_eq!(scanned, Ok(()));
    (bytes, there, named)
}

#[test]
fn contexts_of_thousands_of_pages_stay_within_the_cap_and_go() {
    let mut client = client();
    for page in 0..PAGES {
        client.register(START, &common("attributes", PAGE_BYTES - 4).replacen('x', &format!("{page:05}"), 1)).unwrap();
        track(&mut client);
        assert!(client.queued_bytes() <= limits::MAX_QUEUED_BYTES, "page {page}: {}", client.queued_bytes());
        if page % 100 == 0 {
            assert!(client.commit(START));
        }
    }
    assert!(client.commit(START));
    let ledger = client.ledger();
    assert!(ledger.balances() && ledger.dropped(DropReason::QueueFull) > 0, "the cap was reached: {ledger:?}");
    let waiting = ledger.queued as usize;
    assert!(
        waiting * PAGE_BYTES <= limits::MAX_QUEUED_BYTES && (waiting + 500) * PAGE_BYTES > limits::MAX_QUEUED_BYTES
    );

    // A restart restores the same, within the same limit.
    let mut store = client.into_store();
    let (bytes, there, named) = contents(&mut store);
    assert!(bytes <= limits::MAX_QUEUED_BYTES, "{bytes} bytes on the disk");
    assert_eq!((there.len(), &there), (waiting, &named), "no context without an event, and none is missing");
    let mut client = Client::open(store, Config::default(), "", b"limits", START).unwrap();
    assert!(client.queued_bytes() <= limits::MAX_QUEUED_BYTES);

    client.flush(START);
    let mut pages = BTreeSet::new();
    while let Some(Task::Upload(upload)) = client.poll_task(START) {
        let batch: serde_json::Value = serde_json::from_str(&upload.body).unwrap();
        pages.insert(batch["common"]["attributes"].as_str().unwrap()[..5].to_owned());
        let (id, events) = (upload.batch_id, upload.events);
        let body = format!(r#"{{"batch_id":"{id}","server_time":1,"stored":{events},"duplicate":[],"rejected":[]}}"#);
        client.handle_upload_result(
            START,
            id,
            UploadResult::Response { status: 200, retry_after_ms: None, body: &body },
        );
    }
    assert_eq!(
        (client.ledger().acked as usize, pages.len()),
        (waiting, waiting),
        "each with the attributes of its page"
    );
    assert_eq!(client.queued_bytes(), 0);
    assert!(client.commit(START));
    let (bytes, there, _) = contents(&mut client.into_store());
    assert_eq!((bytes, there.len()), (0, 0), "the contexts are gone with their events");
}
