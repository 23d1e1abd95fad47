//! Scripted transports and clocks.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use subway_mobile::clock::{Clock, SystemClock};
use subway_mobile::core::{Now, UploadRequest};
use subway_mobile::transport::{Reply, Transport};

/// A gate that another thread opens and closes.
#[derive(Default)]
pub struct Gate {
    closed: Mutex<(bool, u64)>,
    changed: Condvar,
}

impl Gate {
    pub fn close(&self) {
        self.closed.lock().unwrap().0 = true;
    }

    pub fn open(&self) {
        self.closed.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    /// Waits while it is closed.
    pub fn pass(&self) {
        let mut state = self.closed.lock().unwrap();
        if state.0 {
            state.1 += 1;
            self.changed.notify_all();
            while state.0 {
                state = self.changed.wait(state).unwrap();
            }
            state.1 -= 1;
        }
    }

    /// Waits until a thread waits at the closed gate.
    pub fn wait_for_somebody(&self) {
        let mut state = self.closed.lock().unwrap();
        while state.1 == 0 {
            state = self.changed.wait(state).unwrap();
        }
    }
}

/// Returns a receipt that says all events of this batch were stored.
pub fn receipt(batch: &Value) -> String {
    let events = batch["events"].as_array().unwrap().len();
    json!({"batch_id": batch["batch_id"], "server_time": 0, "stored": events, "duplicate": [], "rejected": []})
        .to_string()
}

/// Answers as scripted, afterwards with receipts; keeps the requests.
#[derive(Default)]
pub struct FakeTransport {
    pub gate: Gate,
    script: Mutex<Vec<Reply>>,
    sent: Mutex<Vec<Value>>,
}

impl FakeTransport {
    /// Adds responses, in order.
    pub fn scripted(replies: impl IntoIterator<Item = Reply>) -> Arc<Self> {
        let mut script: Vec<Reply> = replies.into_iter().collect();
        script.reverse();
        Arc::new(Self { script: Mutex::new(script), ..Self::default() })
    }

    /// Returns every batch that was sent, repetitions included.
    pub fn sent(&self) -> Vec<Value> {
        self.sent.lock().unwrap().clone()
    }

    /// Returns every event that was sent, repetitions included.
    pub fn events(&self) -> Vec<Value> {
        self.sent().iter().flat_map(|batch| batch["events"].as_array().unwrap().clone()).collect()
    }
}

impl Transport for FakeTransport {
    fn send(&self, upload: &UploadRequest) -> Reply {
        let batch: Value = serde_json::from_str(&upload.body).unwrap();
        self.sent.lock().unwrap().push(batch.clone());
        self.gate.pass();
        let scripted = self.script.lock().unwrap().pop();
        scripted.unwrap_or_else(|| Reply::Answer { status: 200, retry_after_ms: None, body: receipt(&batch) })
    }
}

/// The system's clocks with an offset for the wall clock; reading them can block the driver.
#[derive(Default)]
pub struct TestClock {
    pub driver_gate: Gate,
    moved: AtomicI64,
}

impl TestClock {
    /// Moves the wall clock by this many milliseconds.
    pub fn jump(&self, millis: i64) {
        self.moved.fetch_add(millis, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Now {
        if std::thread::current().name() == Some("subway") {
            self.driver_gate.pass();
        }
        let now = SystemClock::new().now();
        Now { wall: now.wall + self.moved.load(Ordering::SeqCst), ..now }
    }
}
