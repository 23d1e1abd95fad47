//! A full spool becomes usable again by itself.

use async_trait::async_trait;

use super::tests::{PATIENCE, settings, spool, store};
use super::*;
use crate::sinks::{Delivered, SinkBatch};

/// Store that takes nothing until it is open, and everything after that.
struct Gate {
    name: &'static str,
    open: watch::Sender<bool>,
}

impl Gate {
    fn new(name: &'static str, open: bool) -> Arc<Self> {
        Arc::new(Self { name, open: watch::Sender::new(open) })
    }

    fn answer(&self) -> Result<(), SinkError> {
        if *self.open.borrow() { Ok(()) } else { Err(SinkError::retryable("down")) }
    }
}

#[async_trait]
impl Sink for Gate {
    fn name(&self) -> &str {
        self.name
    }

    async fn deliver(&self, _: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.answer().map(|()| Delivered::default())
    }

    async fn health(&self) -> Result<(), SinkError> {
        self.answer()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_full_spool_sheds_once_others_have_caught_up_although_nothing_new_comes() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let (down, late) = (Gate::new("down", false), Gate::new("late", false));
    let sinks: Vec<(Arc<dyn Sink>, DeliverySettings)> = vec![
        (down, DeliverySettings { drops_oldest: true, ..settings() }),
        (Arc::clone(&late) as Arc<dyn Sink>, settings()),
    ];
    let context = FanoutContext { spool_max_bytes: 20_000, ..FanoutContext::default() };
    let fanout = Fanout::start(&spool, sinks, context).await.unwrap();
    while spool.backlog_bytes() < 20_000 {
        store(&spool, 10).await;
    }
    // From here on clients are refused, so that the head moves no more.
    let head = spool.head();
    assert_eq!(spool.ledger().unwrap().sinks["down"].dropped_oldest, 0, "the other sink waits for everything");
    late.open.send_replace(true);
    assert!(fanout.progress()[1].wait_for(head, PATIENCE).await || fanout.progress()[1].is_down());
    eventually("nothing is shed", || spool.ledger().unwrap().sinks["down"].dropped_oldest > 0).await;
    eventually("there is no room again", || spool.backlog_bytes() < 18_000).await;
    assert_eq!(spool.head(), head);
    fanout.drain(Duration::from_millis(10)).await;
}

#[tokio::test]
async fn a_trim_that_failed_is_tried_again_although_nothing_new_is_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let fanout = Fanout::start(&spool, vec![(Gate::new("s", true), settings())], FanoutContext::default());
    let fanout = fanout.await.unwrap();
    let sql = rusqlite::Connection::open(dir.path().join(crate::spool::FILE)).unwrap();
    sql.busy_timeout(PATIENCE).unwrap();
    sql.execute_batch(
        "CREATE TRIGGER planned BEFORE DELETE ON record BEGIN SELECT raise(ABORT, 'no deleting now'); END",
    )
    .unwrap();
    store(&spool, 5).await;
    assert!(fanout.progress()[0].wait_for(5, PATIENCE).await);
    eventually("nothing is trimmed", || spool.health().is_err_and(|why| why.to_string().contains("no deleting now")))
        .await;
    sql.execute_batch("DROP TRIGGER planned").unwrap();
    eventually("what was delivered stays in the spool", || spool.backlog_bytes() == 0).await;
    fanout.drain(PATIENCE).await;
}
