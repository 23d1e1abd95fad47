//! A client in memory, with helpers for its inputs and responses.
#![allow(dead_code, reason = "each test target uses some of them")]

use subway_sdk_core::{Client, Config, Id, Input, MemoryStore, Now, Theme, UploadRequest, UploadResult};

pub(crate) const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };

pub(crate) fn later(ms: u64) -> Now {
    Now { wall: START.wall + ms as i64, mono: START.mono + ms }
}

pub(crate) fn client_with(config: Config) -> Client<MemoryStore> {
    Client::open(MemoryStore::default(), config, "", b"test", START).unwrap()
}

pub(crate) fn client() -> Client<MemoryStore> {
    client_with(Config { flush_events: 1, ..Config::default() })
}

pub(crate) fn input(code: &str) -> Input<'_> {
    Input { theme: Theme::Custom, code, props: "", page: None, true_ts: None }
}

pub(crate) fn track(client: &mut Client<MemoryStore>, events: usize) {
    for _ in 0..events {
        client.track(START, input("tap")).unwrap();
    }
}

pub(crate) fn upload(client: &mut Client<MemoryStore>, now: Now) -> Option<UploadRequest> {
    client.poll_task(now).map(|subway_sdk_core::Task::Upload(request)| request)
}

pub(crate) fn ids(body: &str) -> Vec<String> {
    let batch: serde_json::Value = serde_json::from_str(body).unwrap();
    batch["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

pub(crate) fn answer(status: u16, body: &str) -> UploadResult<'_> {
    UploadResult::Response { status, retry_after_ms: None, body }
}

pub(crate) fn receipt(batch: Id, stored: usize) -> String {
    format!(r#"{{"batch_id":"{batch}","server_time":1,"stored":{stored},"duplicate":[],"rejected":[]}}"#)
}
