//! Unreadable records of the spool cost their own events and no others.

use async_trait::async_trait;

use super::poison_tests::Model;
use super::tests::{PATIENCE, settings, spool, store};
use super::*;
use crate::sinks::sqlite::{EmbeddedSink, StoredRows};
use crate::sinks::{CorruptRecord, Delivered, SinkBatch};
use crate::spool::DeadLetter;

/// Stores a record of `count` events that is not JSON.
fn damage(spool: &Spool, count: u64) {
    spool
        .call(move |tx| {
            tx.counters.received += count;
            tx.append(1, "{\"app_key\":", count)
        })
        .unwrap();
}

/// Store that reads records to bound a delivery, as ClickHouse and Elasticsearch do.
struct Cutting(Arc<Model>);

#[async_trait]
impl Sink for Cutting {
    fn name(&self) -> &str {
        "cutting"
    }

    fn batch_end(&self, batch: &SinkBatch) -> Result<u64, CorruptRecord> {
        batch.for_each_record(|_, _, _| Ok::<(), CorruptRecord>(()))?;
        Ok(batch.last)
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.0.deliver(batch).await
    }

    async fn health(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn sums(spool: &Spool, name: &str) -> (u64, u64, u64) {
    let ledger = spool.ledger().unwrap();
    let sink = &ledger.sinks[name];
    assert_eq!(ledger.stored, sink.delivered + sink.discarded + sink.pending, "{name}: {sink:?}");
    (sink.delivered, sink.discarded, sink.pending)
}

#[tokio::test]
async fn a_record_that_cannot_be_read_costs_its_own_events_in_every_store_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    damage(&spool, 2);
    store(&spool, 3).await;
    damage(&spool, 2);
    damage(&spool, 1);
    store(&spool, 2).await;
    let mut exported = Vec::new();
    let said = crate::export::run(dir.path(), None, None, None, &mut exported).unwrap_err();
    assert!(said.starts_with("5 stored events are in records of the spool that cannot be read"), "{said}");
    assert_eq!(exported.iter().filter(|byte| **byte == b'\n').count(), 5, "everything else is written");
    let embedded = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    let (plain, cutting) = (Model::new([]), Model::new([]));
    let sinks: Vec<(Arc<dyn Sink>, DeliverySettings)> = vec![
        (embedded, settings()),
        (Arc::clone(&plain) as Arc<dyn Sink>, settings()),
        (Arc::new(Cutting(Arc::clone(&cutting))), settings()),
    ];
    let fanout = Fanout::start(&spool, sinks, FanoutContext::default()).await.unwrap();
    let names = [EMBEDDED, "model", "cutting"];
    for (at, name) in names.iter().enumerate() {
        let mut delivered = fanout.progress()[at].delivered.clone();
        let through = tokio::time::timeout(PATIENCE, delivered.wait_for(|at| *at >= 10)).await;
        assert!(through.is_ok(), "{name} is stuck");
    }
    fanout.drain(PATIENCE).await;
    for name in names {
        assert_eq!(sums(&spool, name), (5, 5, 0), "{name}");
        let dead_letters = spool.dead_letters(Some(name), 0, 99).unwrap();
        assert_eq!(dead_letters.iter().map(|letter| letter.position).collect::<Vec<_>>(), [1, 2, 6, 7, 8]);
        let texts: Vec<bool> = dead_letters.iter().map(|letter| !letter.record.is_empty()).collect();
        assert_eq!(texts, [true, false, true, false, true], "the text of a record is kept once");
        assert!(dead_letters[0].reason.contains("the spool's record at position 1 cannot be read"));
    }
    assert_eq!((plain.taken(), cutting.taken()), (vec![3, 4, 5, 9, 10], vec![3, 4, 5, 9, 10]));
    assert_eq!(StoredRows::open(dir.path()).unwrap().missing(0, 10).unwrap(), 5);
}

#[tokio::test]
async fn a_crash_before_the_embedded_store_was_told_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    damage(&spool, 2);
    store(&spool, 3).await;
    let letter = |position| DeadLetter {
        sink: EMBEDDED.into(),
        position,
        app_key: String::new(),
        event_id: String::new(),
        reason: "damaged".into(),
        dead_at: 1,
        record: String::new(),
    };
    spool.register(&[EMBEDDED]).unwrap();
    spool.discard_to(EMBEDDED, 2, vec![letter(1), letter(2)]).unwrap();
    assert_eq!(sums(&spool, EMBEDDED), (0, 2, 3));
    let embedded = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    let sinks = vec![(Arc::clone(&embedded) as Arc<dyn Sink>, settings())];
    let fanout = Fanout::start(&spool, sinks, FanoutContext::default()).await.unwrap();
    assert!(fanout.progress()[0].wait_for(5, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(sums(&spool, EMBEDDED), (3, 2, 0));
    assert_eq!(spool.dead_letters(None, 0, 9).unwrap().len(), 2);
    assert_eq!(embedded.position().await, Ok(Some(5)));
}
