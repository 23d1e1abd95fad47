//! Events that expire before a sink reaches them are counted exactly, also across crashes.

use super::poison_tests::Model;
use super::tests::{Fake, PATIENCE, settings, spool, store};
use super::*;
use crate::config::Embedded;

use crate::sinks::sqlite::{EmbeddedSink, StoreBackfill};

/// A day of arrival after everything that [`store`] stores, milliseconds since the epoch.
const LATER: i64 = 100 * 24 * 60 * 60 * 1000;

fn context(dir: &std::path::Path) -> FanoutContext {
    let history: Arc<dyn BackfillSource> = Arc::new(StoreBackfill::new(dir));
    FanoutContext { history: Some(history), ..FanoutContext::default() }
}

/// Creates an embedded store with the first `count` events of the spool, which has trimmed them.
async fn taken(dir: &std::path::Path, spool: &Spool, count: u64) -> Arc<EmbeddedSink> {
    let settings_of_store = Embedded { retention_days: 1, ..Embedded::default() };
    let embedded = Arc::new(EmbeddedSink::open_with(dir, &settings_of_store, Arc::default()).unwrap());
    let sinks = vec![(Arc::clone(&embedded) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(spool, sinks, FanoutContext::default()).await.unwrap();
    store(spool, count).await;
    assert!(fanout.progress()[0].wait_for(spool.head(), PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(spool.read_after(0, 9, 9).unwrap(), []);
    embedded
}

fn sums(spool: &Spool, name: &str) -> (u64, u64, u64, u64) {
    let ledger = spool.ledger().unwrap();
    let sink = &ledger.sinks[name];
    assert_eq!(ledger.stored, sink.delivered + sink.discarded + sink.pending + sink.expired, "{name}: {sink:?}");
    (sink.delivered, sink.discarded, sink.pending, sink.expired)
}

#[tokio::test]
async fn a_sink_added_after_retention_gets_what_is_left_and_the_rest_is_expired() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let embedded = taken(dir.path(), &spool, 30).await;
    while embedded.run_retention_step_at(LATER).await.unwrap() {}
    let late = Model::new([]);
    let sinks = vec![(embedded as Arc<dyn Sink>, settings()), (Arc::clone(&late) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, context(dir.path())).await.unwrap();
    assert_eq!(fanout.progress()[1].complete_from(), None, "not known before it has looked");
    store(&spool, 5).await;
    assert!(fanout.progress()[1].wait_for(35, PATIENCE).await);
    assert!(fanout.progress()[1].complete_from().is_some());
    assert_eq!(late.taken().len(), 5);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, late.name()), (5, 0, 0, 30));
    assert_eq!(sums(&spool, EMBEDDED), (35, 0, 0, 0), "what was ever taken stays delivered");
}

#[tokio::test]
async fn without_an_embedded_store_the_spool_is_all_that_a_new_sink_gets() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let first = Model::new([]);
    let fanout =
        Fanout::start(&spool, vec![(Arc::clone(&first) as Arc<dyn Sink>, settings())], FanoutContext::default());
    let fanout = fanout.await.unwrap();
    store(&spool, 20).await;
    assert!(fanout.progress()[0].wait_for(20, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    let late = Fake::new("late", vec![]);
    let sinks = vec![(first as Arc<dyn Sink>, settings()), (Arc::clone(&late) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, FanoutContext::default()).await.unwrap();
    store(&spool, 3).await;
    assert!(fanout.progress()[1].wait_for(23, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, "late"), (3, 0, 0, 20));
}

#[tokio::test]
async fn a_batch_out_of_the_store_is_sent_again_the_same_although_retention_has_deleted_it_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let embedded = taken(dir.path(), &spool, 30).await;
    spool.register(&[EMBEDDED, "model"]).unwrap();
    // As far as a worker gets before a crash: the batch is frozen, and nobody knows whether it was taken.
    let history = StoreBackfill::new(dir.path());
    let records = history.records(0, 10, 10, u64::MAX).unwrap();
    let stored = records.iter().map(|record| crate::spool::SpoolRecord {
        first: record.first,
        events: 1,
        json: record.json.clone(),
    });
    spool.freeze_with("model", (1, 10), stored.collect(), Vec::new()).unwrap();
    while embedded.run_retention_step_at(LATER).await.unwrap() {}
    spool.trim().unwrap();
    let model = Model::new([]);
    let sinks = vec![(embedded as Arc<dyn Sink>, settings()), (Arc::clone(&model) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, context(dir.path())).await.unwrap();
    store(&spool, 1).await;
    assert!(fanout.progress()[1].wait_for(31, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, "model"), (11, 0, 0, 20));
    assert_eq!(spool.backlog_bytes(), 0, "and the spool forgets it again");
}

#[tokio::test]
async fn a_store_that_was_off_for_a_while_goes_on_after_the_hole() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let embedded = taken(dir.path(), &spool, 10).await;
    let other = Model::new([]);
    let fanout = Fanout::start(&spool, vec![(Arc::clone(&other) as Arc<dyn Sink>, settings())], context(dir.path()));
    let fanout = fanout.await.unwrap();
    store(&spool, 20).await;
    assert!(fanout.progress()[0].wait_for(30, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    let sinks = vec![(Arc::clone(&embedded) as Arc<dyn Sink>, settings()), (other as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, context(dir.path())).await.unwrap();
    store(&spool, 5).await;
    assert!(fanout.embedded().unwrap().wait_for(35, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, EMBEDDED), (15, 0, 0, 20));
    assert_eq!(embedded.position().await, Ok(Some(35)));
    assert_eq!(sums(&spool, "model"), (35, 0, 0, 0));
}

#[tokio::test]
async fn a_store_that_was_lost_takes_what_the_spool_still_has_and_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    drop(taken(dir.path(), &spool, 10).await);
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    let embedded = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    let sinks = vec![(Arc::clone(&embedded) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, FanoutContext::default()).await.unwrap();
    store(&spool, 5).await;
    assert!(fanout.embedded().unwrap().wait_for(15, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, EMBEDDED), (15, 0, 0, 0), "delivered counts what was ever taken");
    assert_eq!(StoreBackfill::new(dir.path()).missing(0), Ok(Some(10)));
}

#[tokio::test]
async fn a_store_whose_disk_is_full_gives_up_its_oldest_when_told_to_and_goes_on_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let embedded = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    embedded.limit_pages(Some(1)).unwrap();
    let drops_oldest = DeliverySettings { drops_oldest: true, ..settings() };
    let context = FanoutContext { spool_max_bytes: 20_000, ..FanoutContext::default() };
    let sinks = vec![(Arc::clone(&embedded) as Arc<dyn Sink>, drops_oldest.clone())];
    let fanout = Fanout::start(&spool, sinks, context.clone()).await.unwrap();
    let mut stored = 0;
    while spool.ledger().unwrap().sinks[EMBEDDED].dropped_oldest == 0 {
        store(&spool, 10).await;
        stored += 10;
        assert!(stored < 1_000_000, "nothing is ever given up");
        tokio::task::yield_now().await;
    }
    let shed = sums(&spool, EMBEDDED).1;
    assert!(shed > 0 && shed < stored);
    // As after a crash: the store has not been told yet.
    fanout.drain(Duration::from_millis(10)).await;
    embedded.limit_pages(None).unwrap();
    let fanout =
        Fanout::start(&spool, vec![(Arc::clone(&embedded) as Arc<dyn Sink>, drops_oldest)], context).await.unwrap();
    store(&spool, 1).await;
    assert!(fanout.embedded().unwrap().wait_for(stored + 1, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    let (delivered, dead, pending, expired) = sums(&spool, EMBEDDED);
    assert_eq!((delivered + dead, pending, expired), (stored + 1, 0, 0));
    let missing = crate::sinks::sqlite::StoredRows::open(dir.path()).unwrap().missing(0, stored + 1).unwrap();
    assert_eq!(missing, dead, "what was given up is not there, and everything else is");
}
