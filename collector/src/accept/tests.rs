//! The ingestor against a writer that the test holds up, so that nothing depends on time.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use jiff::tz::TimeZone;

use super::*;
use crate::config::Secret;
use crate::spool::{SpoolSettings, SpoolTask, Tx};

const NOW: i64 = 1_431_835_512_345;

/// Blocks the writer inside a transaction until a message arrives.
struct Barrier {
    reached: SyncSender<()>,
    go_on: Receiver<()>,
    fail: bool,
}

impl SpoolTask for Barrier {
    fn apply(&mut self, _: &mut Tx<'_>) -> Result<(), SpoolError> {
        self.reached.send(()).unwrap();
        let _ = self.go_on.recv();
        if self.fail { Err(SpoolError::Other("no room".into())) } else { Ok(()) }
    }
    fn done(self: Box<Self>, _: Result<(), &SpoolError>) {}
    fn bytes(&self) -> u64 {
        0
    }
}

struct Bench {
    ingestor: Arc<Ingestor>,
    spool: Spool,
    telemetry: Arc<Telemetry>,
    budget: Arc<SharedBudget>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new(queue: usize) -> Self {
        Self::with(queue, Limits::default())
    }

    fn with(queue: usize, limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let telemetry = Arc::<Telemetry>::default();
        let spool =
            Spool::open(dir.path(), &SpoolSettings { queue, ..SpoolSettings::default() }, Arc::clone(&telemetry))
                .unwrap();
        let ingestor = Ingestor::new(spool.clone(), limits, Arc::clone(&telemetry));
        Self { ingestor, spool, telemetry, budget: SharedBudget::new("bytes", 4 << 20), _dir: dir }
    }

    /// Holds the writer up inside a transaction; dropping the answer lets it go on.
    fn block_writer(&self, fail: bool) -> SyncSender<()> {
        let (reached, is_reached) = sync_channel(0);
        let (release, go_on) = sync_channel(0);
        self.spool.submit(Box::new(Barrier { reached, go_on, fail })).map_err(|_| ()).unwrap();
        is_reached.recv().unwrap();
        release
    }

    fn request(&self, number: u64) -> IngestRequest {
        let id = |kind: u64| format!("0198c0de-{kind:04x}-7000-8000-{number:012x}");
        let body = format!(
            r#"{{"v":1,"batch_id":"{}","install_id":"{}","sent_at":{NOW},"events":[{{"id":"{}","seq":1,"theme":"view","code":"a","ts":{NOW}}}]}}"#,
            id(1),
            id(2),
            id(3)
        );
        let app = RegisteredApp::new("demo".into(), 1, TimeZone::UTC, None, Secret::new("r".into()));
        let mut reservation = self.budget.reservation_for(&app.quota.usage().bytes);
        reservation.grow(body.len() as u64).unwrap();
        IngestRequest {
            app: Arc::new(app),
            body: body.into(),
            gzip: false,
            signature: None,
            received_at: NOW,
            reservation,
        }
    }

    fn spawn(&self, number: u64) -> tokio::task::JoinHandle<Result<Receipt, Problem>> {
        let (ingestor, request) = (Arc::clone(&self.ingestor), self.request(number));
        tokio::spawn(async move { ingestor.ingest(request).await })
    }
}

/// The same batch as gzip, with `blanks` blanks in its JSON.
fn padded(mut request: IngestRequest, blanks: usize) -> IngestRequest {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut encoder, &request.body).unwrap();
    std::io::Write::write_all(&mut encoder, &vec![b' '; blanks]).unwrap();
    request.body = encoder.finish().unwrap().into();
    request
}

/// On this runtime of one thread a spawned request runs as far as it can before this returns.
async fn let_all_run() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn requests_that_wait_share_one_commit() {
    let bench = Bench::new(1000);
    let release = bench.block_writer(false);
    let requests: Vec<_> = (0..200).map(|number| bench.spawn(number)).collect();
    let_all_run().await;
    assert!(requests.iter().all(|request| !request.is_finished()), "no answer before the commit");
    drop(release);
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().stored, 1);
    }
    assert_eq!(bench.telemetry.commits.get(), 2, "one for the barrier, one for all that waited");
    assert_eq!(bench.spool.head(), 200);
    assert_eq!(bench.budget.reserved(), 0);
}

#[tokio::test]
async fn who_hangs_up_keeps_its_place_until_the_disk_has_answered() {
    let bench = Bench::new(1000);
    let release = bench.block_writer(false);
    let request = bench.spawn(1);
    let_all_run().await;
    request.abort();
    let_all_run().await;
    assert_eq!(bench.ingestor.queue_slots.reserved(), 1);
    drop(release);
    assert_eq!(bench.ingestor.ingest(bench.request(2)).await.unwrap().stored, 1);
    assert_eq!((bench.ingestor.queue_slots.reserved(), bench.spool.head()), (0, 2));
}

#[tokio::test]
async fn a_full_queue_is_a_refusal_at_once_and_costs_the_others_nothing() {
    let bench = Bench::new(3);
    let release = bench.block_writer(false);
    let waiting: Vec<_> = (0..3).map(|number| bench.spawn(number)).collect();
    let_all_run().await;
    let refused = bench.ingestor.ingest(bench.request(9)).await.unwrap_err();
    assert_eq!(refused.code, ProblemCode::Unavailable);
    drop(release);
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().stored, 1);
    }
    assert_eq!(bench.ingestor.ingest(bench.request(9)).await.unwrap().stored, 1);
}

#[tokio::test]
async fn the_same_batch_twice_in_one_commit_is_stored_once() {
    let bench = Bench::new(10);
    let release = bench.block_writer(false);
    let requests: Vec<_> = (0..3).map(|_| bench.spawn(7)).collect();
    let_all_run().await;
    drop(release);
    let mut stored = 0;
    for request in requests {
        let receipt = request.await.unwrap().unwrap();
        assert_eq!(receipt.stored + receipt.duplicate.len() as u64, 1);
        stored += receipt.stored;
    }
    assert_eq!(stored, 1);
    assert_eq!(bench.spool.ledger().unwrap().duplicate, 2);
}

#[tokio::test]
async fn a_request_whose_client_has_gone_is_stored_all_the_same() {
    let bench = Bench::new(10);
    let release = bench.block_writer(false);
    let gone = bench.spawn(1);
    let_all_run().await;
    gone.abort();
    let_all_run().await;
    drop(release);
    assert_eq!(bench.ingestor.ingest(bench.request(1)).await.unwrap().duplicate, [0], "the retry finds it");
}

#[tokio::test]
async fn a_failed_commit_refuses_every_request_in_it_and_the_retry_is_stored() {
    let bench = Bench::new(10);
    let release = bench.block_writer(true);
    let first = bench.spawn(1);
    let_all_run().await;
    drop(release);
    assert_eq!(first.await.unwrap().unwrap().stored, 1, "it came after the failed transaction");
    assert_eq!(bench.telemetry.commit_failures.get(), 1);
    bench.spool.close();
    let refused = bench.ingestor.ingest(bench.request(2)).await.unwrap_err();
    assert_eq!(refused.code, ProblemCode::Unavailable);
}

#[tokio::test]
async fn a_spool_that_no_sink_empties_refuses_more() {
    let bench = Bench::with(10, Limits { spool_max_bytes: 1, ..Limits::default() });
    assert_eq!(bench.ingestor.ingest(bench.request(1)).await.unwrap().stored, 1);
    assert_eq!(bench.ingestor.ingest(bench.request(2)).await.unwrap_err().code, ProblemCode::Unavailable);
}

#[tokio::test]
async fn however_many_wait_for_one_commit_an_app_gets_no_more_than_its_share() {
    let bench = Bench::with(1000, Limits { spool_max_bytes: 20_000, ..Limits::default() });
    bench.ingestor.ingest(bench.request(0)).await.unwrap();
    let one = bench.spool.backlog_bytes();
    let release = bench.block_writer(false);
    let flood: Vec<_> = (1..500).map(|number| bench.spawn(number)).collect();
    let other = {
        let (ingestor, mut request) = (Arc::clone(&bench.ingestor), bench.request(900));
        request.app = Arc::new(RegisteredApp::new("b".into(), 2, TimeZone::UTC, None, Secret::new("r".into())));
        tokio::spawn(async move { ingestor.ingest(request).await })
    };
    let_all_run().await;
    drop(release);
    let mut refused = 0;
    for request in flood {
        let Err(problem) = request.await.unwrap() else { continue };
        assert_eq!(problem.code, ProblemCode::Unavailable);
        assert!(problem.detail.contains("this app's share"), "{}", problem.detail);
        refused += 1;
    }
    assert_eq!(other.await.unwrap().unwrap().stored, 1, "it came last and found room");
    let own = bench.spool.backlog(1).own;
    assert!((17_777..=17_777 + one).contains(&own), "{own}");
    assert_eq!(bench.telemetry.requests_over_share.get(), refused);
    let ledger = bench.spool.ledger().unwrap();
    assert_eq!((ledger.received, ledger.stored), (501 - refused, 501 - refused), "nothing of a refused batch is kept");
    assert_eq!(bench.ingestor.ready([1].into_iter()).unwrap_err(), NotReady::SharesUsedUp);
    assert_eq!(bench.ingestor.ready([1, 2].into_iter()), Ok(()));
    assert_eq!(bench.budget.reserved(), 0);
}

#[tokio::test]
async fn what_a_small_body_inflates_to_decides_where_it_is_decoded() {
    let bench = Bench::new(10);
    let cores = u32::try_from(bench.ingestor.decoders.available_permits()).unwrap();
    let busy = bench.ingestor.decoders.acquire_many(cores).await.unwrap();
    let (small, large) = (padded(bench.request(1), 1000), padded(bench.request(2), 400_000));
    assert!(large.body.len() < 2000, "as sent both are small: {}", large.body.len());
    assert_eq!(bench.ingestor.ingest(small).await.unwrap().stored, 1, "decoded right here");
    let ingestor = Arc::clone(&bench.ingestor);
    let large = tokio::spawn(async move { ingestor.ingest(large).await });
    let_all_run().await;
    assert!(bench.telemetry.decompressed_bytes.get() < 2000, "it waits for its turn elsewhere");
    drop(busy);
    assert_eq!(large.await.unwrap().unwrap().stored, 1);
    assert!(bench.telemetry.decompressed_bytes.get() > 400_000);
    assert_eq!(bench.budget.reserved(), 0);
}
