//! Records of the store that the medium has changed. The fuzz target `client_state` searches for more.
#![allow(clippy::unwrap_used)]

use subway_sdk_core::{Client, Config, Consent, Input, Key, MemoryStore, Now, Store, StoreWrite, Task, Theme};

const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };

fn track(client: &mut Client<MemoryStore>) {
    let input = Input { theme: Theme::Custom, code: "tap", props: "", page: None, true_ts: None };
    client.track(START, input).unwrap();
}

/// Opens a client on a store with this state.
fn client_on(state: &str) -> Client<MemoryStore> {
    let mut store = MemoryStore::default();
    store.apply(&[StoreWrite { key: Key::State, value: Some(state) }]).unwrap();
    Client::open(store, Config { flush_events: 1, ..Config::default() }, "", b"test", START).unwrap()
}

#[test]
fn a_damaged_record_costs_no_event_that_comes_after_it() {
    let (long, deep) = ("u".repeat(3000), "[".repeat(9) + &"]".repeat(9));
    for state in [
        r#"{"seq":-1}"#.to_owned(),
        r#"{"seq":9223372036854775807}"#.to_owned(),
        r#"{"session":{"index":-1,"events":-1}}"#.to_owned(),
        r#"{"ledger":{"generated":-1,"acked":-1,"dropped":{"queue_full":-1}}}"#.to_owned(),
        r#"{"common":{"a":x}}"#.to_owned(),
        format!(r#"{{"common":{{"a":{deep}}}}}"#),
        format!(r#"{{"user":"{long}"}}"#),
    ] {
        let mut client = client_on(&state);
        track(&mut client);
        assert!(client.ledger().balances(), "{state}");
        let Some(Task::Upload(upload)) = client.poll_task(START) else { unreachable!("{state}") };
        let batch: serde_json::Value = serde_json::from_str(&upload.body).unwrap();
        assert_eq!(batch["events"][0]["seq"], 1, "{state}");
        assert_eq!(batch["common"], serde_json::Value::Null, "{state}");
        assert_eq!(batch["events"][0]["user_id"], serde_json::Value::Null, "{state}");
    }
}

#[test]
fn records_with_numbers_that_nobody_counted_go() {
    let mut store = MemoryStore::default();
    for key in [Key::Event(u64::MAX), Key::Batch(u64::MAX), Key::Context(u64::MAX)] {
        let value = match key {
            Key::Batch(_) => r#"{"id":"0198c0de-0000-7000-8000-000000000006","events":[1]}"#,
            _ => "11:{}",
        };
        store.apply(&[StoreWrite { key, value: Some(value) }]).unwrap();
    }
    // The number of an event's context.
    for (seq, value) in [(3, "1-1:{}"), (4, "19007199254740991:{}")] {
        store.apply(&[StoreWrite { key: Key::Event(seq), value: Some(value) }]).unwrap();
    }
    let mut client = Client::open(store, Config::default(), "", b"test", START).unwrap();
    track(&mut client);
    assert!(client.commit(START));
    let mut keys = Vec::new();
    client.into_store().scan(&mut |key, _| keys.push(key)).unwrap();
    assert_eq!(keys, [Key::State, Key::Context(1), Key::Event(1)]);
}

#[test]
fn damage_does_not_undo_the_users_decision() {
    let client = client_on(r#"{"salt":"1","consent":"denied","ledger":{"generated":-1}}"#);
    assert_eq!(client.consent(), Consent::Denied);
}
