//! The client's own records, as a damaged medium can return them.

use subway_sdk_core::{
    Client, Config, Consent, Input, Key, MemoryStore, Now, Store, StoreWrite, Task, Theme, UploadResult,
};

/// Opens a client on records given as lines `KIND NUMBER = VALUE` without the spaces. Uses it and sends everything. The
/// ledger must balance, and the queue must drain.
pub fn state(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut store = MemoryStore::default();
    for line in text.lines().take(RECORDS) {
        let Some((name, value)) = line.split_once('=') else { continue };
        let Some(kind) = name.chars().next() else { continue };
        let Some(key) = name[kind.len_utf8()..].parse().ok().and_then(|number| Key::from_parts(kind, number)) else {
            continue;
        };
        store.apply(&[StoreWrite { key, value: Some(value) }]).unwrap();
    }
    let mut now = Now { wall: 1_431_835_512_000, mono: 1000 };
    let mut client = Client::open(store, Config::default(), "", b"entropy", now).unwrap();
    assert!(client.ledger().balances(), "{:?}", client.ledger());
    let tracked = client.track(now, Input { theme: Theme::View, code: "a", props: "", page: None, true_ts: None });
    let mut arrived = tracked.is_err();
    client.flush(now);
    for _ in 0..ROUNDS {
        while let Some(Task::Upload(upload)) = client.poll_task(now) {
            let whole = serde_json::from_str::<serde::de::IgnoredAny>(&upload.body).is_ok();
            arrived |= whole && tracked.as_ref().is_ok_and(|id| upload.body.contains(&id.text()));
            let refused = UploadResult::Response { status: 400, retry_after_ms: None, body: PROBLEM };
            let receipt = format!(r#"{{"batch_id":"{}","server_time":1,"stored":{}}}"#, upload.batch_id, upload.events);
            let stored = UploadResult::Response { status: 200, retry_after_ms: None, body: &receipt };
            client.handle_upload_result(now, upload.batch_id, if whole { stored } else { refused });
            assert!(client.ledger().balances(), "{:?}", client.ledger());
        }
        let Some(wake) = client.poll_timeout() else { break };
        now.mono = wake.max(now.mono + 1);
        now.wall += 1000;
    }
    // Only without consent can events stay queued.
    let waits = client.consent() != Consent::Granted && client.poll_timeout().is_none();
    assert!(client.ledger().queued == 0 || waits, "{:?}", client.ledger());
    // Later events must not be lost, whatever the store contained.
    assert!(arrived || client.consent() != Consent::Granted, "{text}");
}

/// Body of a refusal by the collector.
const PROBLEM: &str =
    r#"{"type":"urn:subway:problem:malformed_json","title":"t","status":400,"detail":"d","code":"malformed_json"}"#;

/// Rounds until the queue is empty; each settles at least one event or batch.
const ROUNDS: u32 = 200;

/// Most events, so that they can be sent within the rounds.
const RECORDS: usize = 30;
