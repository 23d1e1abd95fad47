use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::sinks::sqlite::EmbeddedSink;
use crate::sinks::{Delivered, PermanentFailure, SinkBatch};

/// Longer than any step here takes; only a failing test waits so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn spool(dir: &Path) -> Spool {
    Spool::open(dir, &crate::spool::SpoolSettings::default(), Arc::new(Telemetry::default())).unwrap()
}

/// Stores a batch of `count` events, as if a client had sent it.
pub(super) async fn store(spool: &Spool, count: u64) {
    let spool = spool.clone();
    let append = move || {
        spool.call(move |tx| {
            let first = tx.counters.stored + 1;
            let events: Vec<_> = (first..first + count)
                .map(|n| json!({"event_id": format!("e{n}"), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": n}))
                .collect();
            let record = json!({"app_key": "demo", "batch_id": "b", "install_id": "i", "received_at": 1, "events": events});
            tx.counters.received += count;
            tx.append(1, &record.to_string(), count)
        })
    };
    tokio::task::spawn_blocking(append).await.unwrap().unwrap();
}

pub(super) fn settings() -> DeliverySettings {
    DeliverySettings {
        linger_ms: 0,
        retry_initial_backoff_ms: 1,
        retry_max_backoff_ms: 5,
        advance_ms: 1,
        ..DeliverySettings::embedded()
    }
}

/// Reaction of a fake sink to the next batches. Without one it takes everything.
pub(super) enum Act {
    Fail,
    Panic,
    Refuse(Vec<u64>),
}

/// Sink that records what it receives.
pub(super) struct Fake {
    name: &'static str,
    acts: Mutex<VecDeque<Act>>,
    always_fails: bool,
    sent: watch::Sender<Vec<(u64, u64, String)>>,
}

impl Fake {
    pub(super) fn new(name: &'static str, acts: Vec<Act>) -> Arc<Self> {
        Arc::new(Self { name, acts: Mutex::new(acts.into()), always_fails: false, sent: watch::Sender::default() })
    }

    fn dead(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, acts: Mutex::default(), always_fails: true, sent: watch::Sender::default() })
    }

    async fn attempts(&self, at_least: usize) -> Vec<(u64, u64, String)> {
        let mut sent = self.sent.subscribe();
        tokio::time::timeout(PATIENCE, sent.wait_for(|sent| sent.len() >= at_least)).await.unwrap().unwrap().clone()
    }
}

#[async_trait]
impl Sink for Fake {
    fn name(&self) -> &str {
        self.name
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.sent.send_modify(|sent| sent.push((batch.first, batch.last, batch.dedup_token.clone())));
        if self.always_fails {
            return Err(SinkError::retryable("down"));
        }
        let act = self.acts.lock().unwrap().pop_front();
        match act {
            Some(Act::Fail) => Err(SinkError::retryable("not now")),
            Some(Act::Panic) => panic!("a fault in the sink"),
            Some(Act::Refuse(positions)) => {
                let refused =
                    positions.into_iter().map(|position| PermanentFailure { position, reason: "no".into() }).collect();
                Ok(Delivered { refused })
            }
            None => Ok(Delivered::default()),
        }
    }

    async fn health(&self) -> Result<(), SinkError> {
        if self.always_fails { Err(SinkError::retryable("down")) } else { Ok(()) }
    }
}

async fn start(spool: &Spool, sinks: &[Arc<Fake>]) -> Fanout {
    let sinks = sinks.iter().map(|sink| (Arc::clone(sink) as Arc<dyn Sink>, settings())).collect();
    Fanout::start(spool, sinks, FanoutContext::default()).await.unwrap()
}

#[tokio::test]
async fn a_dead_sink_delays_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let (dead, well) = (Fake::dead("dead"), Fake::new("well", vec![]));
    let fanout = start(&spool, &[dead, well]).await;
    for _ in 0..5 {
        store(&spool, 3).await;
    }
    assert!(fanout.progress()[1].wait_for(15, PATIENCE).await);
    let mut down = fanout.progress()[0].down.clone();
    tokio::time::timeout(PATIENCE, down.wait_for(|down| *down)).await.unwrap().unwrap();
    assert_eq!(fanout.progress()[0].delivered_to(), 0);
    assert!(!fanout.progress()[0].wait_for(15, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    let ledger = spool.ledger().unwrap();
    assert_eq!((ledger.sinks["well"].delivered, ledger.sinks["dead"].pending), (15, 15));
}

#[tokio::test]
async fn a_frozen_batch_is_the_same_after_a_restart_whatever_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let first = {
        let spool = spool(dir.path());
        store(&spool, 2).await;
        let sink = Fake::dead("s");
        let fanout = start(&spool, &[Arc::clone(&sink)]).await;
        let attempts = sink.attempts(2).await;
        fanout.drain(PATIENCE).await;
        spool.close();
        assert_eq!(attempts[0], attempts[1]);
        attempts[0].clone()
    };
    let spool = spool(dir.path());
    store(&spool, 5).await;
    let sink = Fake::new("s", vec![Act::Fail]);
    let fanout = start(&spool, &[Arc::clone(&sink)]).await;
    assert!(fanout.progress()[0].wait_for(7, PATIENCE).await);
    let attempts = sink.attempts(3).await;
    assert_eq!((&attempts[0], &attempts[1]), (&first, &first));
    assert_eq!((attempts[2].0, attempts[2].1), (3, 7));
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn events_refused_one_by_one_become_dead_letters_and_the_ledger_adds_up() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 4).await;
    let sink = Fake::new("s", vec![Act::Refuse(vec![2, 4])]);
    let fanout = start(&spool, &[sink]).await;
    assert!(fanout.progress()[0].wait_for(4, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    let ledger = spool.ledger().unwrap();
    assert_eq!((ledger.sinks["s"].delivered, ledger.sinks["s"].discarded, ledger.sinks["s"].pending), (2, 2, 0));
    let dead_letters = spool.dead_letters(Some("s"), 0, 9).unwrap();
    assert_eq!(
        dead_letters.iter().map(|letter| (letter.position, letter.event_id.as_str())).collect::<Vec<_>>(),
        [(2, "e2"), (4, "e4")]
    );
    let record: serde_json::Value = serde_json::from_str(&dead_letters[0].record).unwrap();
    assert_eq!((record["events"].as_array().unwrap().len(), &record["events"][0]["event_time"]), (1, &json!(2)));
}

#[tokio::test]
async fn a_sink_that_panics_is_a_sink_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 1).await;
    let sink = Fake::new("s", vec![Act::Panic, Act::Panic]);
    let fanout = start(&spool, &[Arc::clone(&sink)]).await;
    assert!(fanout.progress()[0].wait_for(1, PATIENCE).await);
    assert_eq!(sink.attempts(3).await.len(), 3);
}

#[tokio::test]
async fn whoever_waits_for_an_event_does_not_wait_for_company() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink: Arc<dyn Sink> = Fake::new("s", vec![]);
    let blocking_sinks = DeliverySettings { linger_ms: 3_600_000, ..settings() };
    let fanout = Fanout::start(&spool, vec![(sink, blocking_sinks)], FanoutContext::default()).await.unwrap();
    for head in 1..4 {
        store(&spool, 1).await;
        assert!(fanout.progress()[0].wait_for(head, PATIENCE).await);
    }
    assert!(!fanout.progress()[0].wait_for(4, Duration::from_millis(1)).await);
}

#[tokio::test]
async fn the_embedded_store_takes_everything_over_and_the_spool_forgets_it() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=2 {
        let spool = spool(dir.path());
        let sink: Arc<dyn Sink> = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
        let fanout = Fanout::start(&spool, vec![(sink, settings())], FanoutContext::default()).await.unwrap();
        for _ in 0..20 {
            store(&spool, 5).await;
        }
        fanout.drain(PATIENCE).await;
        assert_eq!(spool.ledger().unwrap().sinks[EMBEDDED].delivered, 100 * round);
        assert_eq!(spool.read_after(0, 9, 9).unwrap(), []);
        spool.close();
    }
}

#[tokio::test]
async fn a_store_that_has_everything_is_told_to_the_spool_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink: Arc<dyn Sink> = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    let lazy = DeliverySettings { advance_ms: 3_600_000, ..settings() };
    let _fanout = Fanout::start(&spool, vec![(sink, lazy)], FanoutContext::default()).await.unwrap();
    for stored in [5, 10] {
        store(&spool, 5).await;
        let told = async {
            while spool.cursor(EMBEDDED).unwrap().delivered_to < stored {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, told).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_that_lags_behind_the_cursor_of_the_spool_or_leads_it_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 3).await;
    // The crash after the store's commit: the spool's cursor is still at 0.
    let batch = |last| SinkBatch {
        first: 1,
        last,
        dedup_token: String::new(),
        records: spool
            .read_after(0, 9, 9999)
            .unwrap()
            .into_iter()
            .map(|r| crate::sinks::StoredRecord { first: r.first, json: r.json })
            .collect(),
    };
    let sink = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    sink.deliver(Arc::new(batch(2))).await.unwrap();
    spool.register(&[EMBEDDED]).unwrap();
    spool.advance(EMBEDDED, 1, Vec::new(), false).unwrap();
    let fanout =
        Fanout::start(&spool, vec![(Arc::clone(&sink) as Arc<dyn Sink>, settings())], FanoutContext::default())
            .await
            .unwrap();
    assert_eq!(fanout.embedded().unwrap().delivered_to(), 2);
    fanout.drain(PATIENCE).await;
    assert_eq!(sink.position().await, Ok(Some(3)));
    assert_eq!(spool.ledger().unwrap().sinks[EMBEDDED].pending, 0);
}

#[tokio::test]
async fn a_store_of_another_spool_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let spool_of_store = spool(dir.path());
    store(&spool_of_store, 3).await;
    let sink: Arc<dyn Sink> = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    Fanout::start(&spool_of_store, vec![(Arc::clone(&sink), settings())], FanoutContext::default())
        .await
        .unwrap()
        .drain(PATIENCE)
        .await;
    let result = Fanout::start(&spool(other.path()), vec![(sink, settings())], FanoutContext::default()).await;
    assert!(matches!(result.err(), Some(FanoutError::PositionAhead { store: 3, head: 0, .. })));
}
