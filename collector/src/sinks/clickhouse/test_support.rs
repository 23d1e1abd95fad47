//! Database of its own for each test, on the server that all tests of the process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use subway_servers::ClickHouse as Server;

use super::open;
use crate::config::{ClickHouse as Settings, Delivery};
use crate::sinks::{Sink, SinkBatch, StoredRecord};
use crate::telemetry::SinkMetrics;

/// Database with a name that no other test of this process has.
pub(crate) struct Database {
    server: &'static Server,
    name: String,
}

impl Database {
    pub(crate) fn new(server: &'static Server) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { server, name: format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the settings with further keys, as TOML.
    pub(crate) fn settings(&self, keys: &str) -> Settings {
        self.configured(keys).0
    }

    pub(crate) fn configured(&self, keys: &str) -> (Settings, Delivery) {
        Settings::for_test(&format!("url = '{}'\ndatabase = '{}'\n{keys}", self.server.url(), self.name))
    }

    pub(crate) fn open(&self, keys: &str) -> Arc<dyn Sink> {
        let (settings, delivery) = self.configured(keys);
        open("ch", &settings, &delivery, SinkMetrics::default()).unwrap()
    }

    pub(crate) async fn prepared(&self, keys: &str) -> Arc<dyn Sink> {
        let sink = self.open(keys);
        assert_eq!(sink.prepare().await, Ok(()));
        sink
    }

    /// Runs a statement, in which `{db}` is the database, and returns its result.
    pub(crate) fn run(&self, statement: &str) -> String {
        self.server.query(&statement.replace("{db}", &self.name)).unwrap()
    }

    pub(crate) fn delivered(&self) -> u64 {
        self.run("SELECT count() FROM {db}.ods_event FINAL").trim().parse().unwrap()
    }
}

/// Returns the event number `n`, at `time`.
pub(crate) fn event(n: u64, time: i64) -> Value {
    json!({"event_id": format!("00000000-0000-7000-8000-{n:012x}"), "seq": n, "theme": "view", "code": "c", "event_time": time, "ts": time,
        "user_id": "u", "session_id": "s", "props": {"n": n}})
}

/// Returns a batch of one record with these events.
pub(crate) fn batch(first: u64, events: &[Value]) -> Arc<SinkBatch> {
    let last = first + events.len() as u64 - 1;
    let json =
        json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 9, "events": events}).to_string();
    let records = vec![StoredRecord { first, json }];
    Arc::new(SinkBatch { first, last, dedup_token: format!("id-{first}-{last}"), records })
}
