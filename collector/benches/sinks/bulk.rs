//! A plain bulk loader: bodies that were made before the clock starts, one after the other on one connection. And the
//! sums that it is compared by.

use std::time::Instant;

use serde_json::{Value, json};

use crate::load::cpu_seconds;

/// What was brought into a store, in how many seconds, and how many CPU seconds the store took for it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sum {
    events: f64,
    seconds: f64,
    store_cpu: f64,
}

impl Sum {
    /// `events` in the time since `began`.
    pub(crate) fn add(&mut self, events: u64, began: Instant, store_cpu: f64) {
        self.events += events as f64;
        self.seconds += began.elapsed().as_secs_f64();
        self.store_cpu += store_cpu;
    }

    pub(crate) fn report(&self) -> Value {
        json!({"per_second": self.events / self.seconds, "per_store_cpu_second": self.events / self.store_cpu})
    }
}

/// CPU seconds that a process has used so far.
pub(crate) fn cpu_of(pid: Option<u32>) -> f64 {
    cpu_seconds(&std::fs::read_to_string(format!("/proc/{}/stat", pid.unwrap())).unwrap())
}

/// Posts every body with `post`, which panics if it is not taken. The first one is not counted, as of the sink's
/// deliveries.
pub(crate) fn load<T>(bodies: &[(T, u64)], pid: Option<u32>, sum: &mut Sum, mut post: impl FnMut(&T)) {
    post(&bodies[0].0);
    let (began, cpu) = (Instant::now(), cpu_of(pid));
    for (body, _) in &bodies[1..] {
        post(body);
    }
    sum.add(bodies[1..].iter().map(|(_, events)| events).sum(), began, cpu_of(pid) - cpu);
}
