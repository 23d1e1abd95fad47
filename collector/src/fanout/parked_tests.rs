//! Parked events under failures and kills at any point.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;

use super::parked_queue::MAX_NEW_RESOURCES;
use super::poison_tests::{Chances, Model, dead_letters};
use super::tests::{PATIENCE, settings, spool, store};
use super::*;
use crate::sinks::{CorruptRecord, Delivered, ResourceNeed, SinkBatch};
use crate::spool::SinkLedger;

/// Store that creates a resource for every few events, and few of them at once.
struct Slow {
    model: Arc<Model>,
    /// Number of resources.
    resources: u64,
    made: Mutex<BTreeSet<u64>>,
    /// Largest number of resources that one delivery created.
    most: Mutex<usize>,
    /// Time that each creation takes.
    takes: Duration,
    /// Whether no more resources can be created.
    full: Mutex<bool>,
}

impl Slow {
    fn new(model: Arc<Model>, resources: u64) -> Arc<Self> {
        Self::taking(model, resources, Duration::ZERO)
    }

    fn taking(model: Arc<Model>, resources: u64, takes: Duration) -> Arc<Self> {
        Arc::new(Self {
            model,
            resources,
            made: Mutex::default(),
            most: Mutex::default(),
            takes,
            full: Mutex::default(),
        })
    }

    /// Returns the resource that an event needs; every third needs none.
    fn resource(&self, position: u64) -> Option<u64> {
        (!position.is_multiple_of(3)).then_some(position % self.resources)
    }
}

fn positions(batch: &SinkBatch) -> Result<Vec<u64>, CorruptRecord> {
    let mut positions = Vec::new();
    batch.for_each_record(|_, first, events| {
        positions.extend(first..first + events.len() as u64);
        Ok::<(), CorruptRecord>(())
    })?;
    Ok(positions)
}

#[async_trait]
impl Sink for Slow {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn needs(&self, batch: &SinkBatch, max_resources: usize) -> Result<Vec<ResourceNeed>, CorruptRecord> {
        let made = self.made.lock().unwrap();
        let needs = positions(batch)?.into_iter().filter_map(|position| {
            let resource = self.resource(position).filter(|resource| !made.contains(resource))?;
            Some(ResourceNeed { position, resource: resource.to_string(), distance: resource })
        });
        let needs: Vec<ResourceNeed> = needs.collect();
        let different: BTreeSet<&String> = needs.iter().map(|need| &need.resource).collect();
        // Nothing need be said of a few.
        Ok(if different.len() <= max_resources && different.len().is_multiple_of(2) { Vec::new() } else { needs })
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let needed: BTreeSet<u64> = positions(&batch)?.into_iter().filter_map(|at| self.resource(at)).collect();
        let new: Vec<u64> =
            needed.into_iter().filter(|resource| !self.made.lock().unwrap().contains(resource)).collect();
        tokio::time::sleep(self.takes * u32::try_from(new.len()).unwrap()).await;
        if *self.full.lock().unwrap() && !new.is_empty() {
            return Err(SinkError::retryable("there is no room for another thing"));
        }
        let result = self.model.deliver(batch).await;
        if result.is_ok() {
            let mut most = self.most.lock().unwrap();
            *most = most.max(new.len());
            self.made.lock().unwrap().extend(new);
        }
        result
    }

    async fn health(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn start(spool: &Spool, sink: &Arc<Slow>, settings: DeliverySettings) -> Fanout {
    let sinks = vec![(Arc::clone(sink) as Arc<dyn Sink>, settings)];
    Fanout::start(spool, sinks, FanoutContext::default()).await.unwrap()
}

fn figures(spool: &Spool) -> SinkLedger {
    let ledger = spool.ledger().unwrap();
    let sink = ledger.sinks["model"].clone();
    assert_eq!(sink.delivered + sink.discarded + sink.pending + sink.expired, ledger.stored);
    assert!(sink.parked <= sink.pending, "{sink:?}");
    sink
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn nobody_waits_behind_what_takes_the_store_long_and_all_of_it_comes_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink = Slow::taking(Model::new([]), 200, Duration::from_millis(20));
    store(&spool, 600).await;
    let began = std::time::Instant::now();
    let fanout = start(&spool, &sink, settings()).await;
    assert!(fanout.progress()[0].wait_for(600, PATIENCE).await);
    let parked = figures(&spool).parked;
    assert!(parked > 300, "{parked}");
    let waited = began.elapsed();
    // Others' events, one by one, while the store makes more than a hundred things, which takes it some seconds.
    let mut longest = waited;
    for n in 1..=20 {
        let began = std::time::Instant::now();
        store(&spool, 1).await;
        assert!(fanout.progress()[0].wait_for(600 + n, PATIENCE).await);
        longest = longest.max(began.elapsed());
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let progress = fanout.progress()[0].clone();
    eventually("it is not delivered", || figures(&spool).pending == 0 && progress.parked() == 0).await;
    assert_eq!(sink.model.taken().len(), 620);
    assert!(*sink.most.lock().unwrap() <= MAX_NEW_RESOURCES);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_drain_does_not_wait_for_what_is_parked_and_the_next_start_goes_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink = Slow::taking(Model::new([]), 1000, Duration::from_millis(5));
    store(&spool, 1000).await;
    let fanout = start(&spool, &sink, settings()).await;
    assert!(fanout.progress()[0].wait_for(1000, PATIENCE).await);
    fanout.drain(Duration::from_secs(5)).await;
    let left = figures(&spool).parked;
    assert!(left > 400, "{left}");
    let fanout = start(&spool, &Slow::new(Arc::clone(&sink.model), 1000), settings()).await;
    assert!(fanout.progress()[0].parked() > 0);
    eventually("it is not delivered", || figures(&spool).pending == 0).await;
    assert_eq!(sink.model.taken().len(), 1000);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_store_that_makes_nothing_any_more_holds_up_only_what_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink = Slow::taking(Model::new([]), 200, Duration::from_millis(5));
    store(&spool, 600).await;
    let fanout = start(&spool, &sink, settings()).await;
    assert!(fanout.progress()[0].wait_for(600, PATIENCE).await);
    *sink.full.lock().unwrap() = true;
    // What those need that come now is there; most of what is parked needs something else.
    sink.made.lock().unwrap().extend((601..=620).map(|position| position % 200));
    for position in 601..=620 {
        store(&spool, 1).await;
        assert!(fanout.progress()[0].wait_for(position, PATIENCE).await);
        assert!(!fanout.progress()[0].is_down() && figures(&spool).parked > 0);
    }
    *sink.full.lock().unwrap() = false;
    eventually("it is not delivered", || figures(&spool).pending == 0).await;
    assert_eq!(sink.model.taken().len(), 620);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_parked_event_is_given_up_only_with_evidence_that_the_store_takes_others() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let sink = Slow::new(Model::new([]), 100);
    store(&spool, 100).await;
    // The store takes the log's events, and then nothing any more.
    let fanout = start(&spool, &sink, DeliverySettings { linger_ms: 0, ..settings() }).await;
    assert!(fanout.progress()[0].wait_for(100, PATIENCE).await);
    *sink.model.refuses_all.lock().unwrap() = true;
    let requests = *sink.model.requests.borrow() + 300;
    sink.model.requests(requests).await;
    assert_eq!(dead_letters(&spool), [], "a store that refuses everything");
    sink.model.poison.lock().unwrap().extend([80, 97]);
    *sink.model.refuses_all.lock().unwrap() = false;
    eventually("it is not delivered", || figures(&spool).pending == 0).await;
    let dead: Vec<u64> = dead_letters(&spool).into_iter().map(|(position, _)| position).collect();
    let parked_poison = dead.iter().all(|position| [80, 97].contains(position));
    assert!(parked_poison, "{dead:?}");
    assert_eq!(sink.model.taken().len() + dead.len(), 100);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_record_that_is_damaged_after_its_batch_was_frozen_costs_nothing_of_what_is_parked() {
    let dir = tempfile::tempdir().unwrap();
    {
        let spool = spool(dir.path());
        store(&spool, 6).await;
        store(&spool, 30).await;
        let lost = Model::hostile([], u64::MAX, Chances { lost: 1000, unanswered: 0 }, 1);
        let fanout = start(&spool, &Slow::new(Arc::clone(&lost), 200), settings()).await;
        lost.requests(1).await;
        drop(fanout);
        let frozen = spool.cursor("model").unwrap().frozen.unwrap();
        assert_eq!((frozen.first, frozen.last, &frozen.excluded[..2]), (1, 36, &[7, 8][..]));
        spool.close();
    }
    let sql = rusqlite::Connection::open(dir.path().join(crate::spool::FILE)).unwrap();
    sql.execute("UPDATE record SET json = 'damaged' WHERE first = 1", []).unwrap();
    drop(sql);
    let spool = spool(dir.path());
    let sink = Slow::new(Model::new([]), 200);
    let fanout = start(&spool, &sink, settings()).await;
    eventually("it is not delivered", || figures(&spool).pending == 0).await;
    let dead: Vec<u64> = dead_letters(&spool).into_iter().map(|(position, _)| position).collect();
    assert_eq!(dead, (1..=6).collect::<Vec<_>>());
    assert_eq!(sink.model.taken(), (7..=36).collect::<Vec<_>>());
    fanout.drain(PATIENCE).await;
}

/// Lives through a data directory: events arrive, the collector is killed at random moments, requests and responses
/// get lost, some events are poison, and the store has to create a resource for two of three.
async fn live(seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let mut random = seed;
    let mut roll = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let total = 40 + roll(200);
    let poison: BTreeSet<u64> = (0..roll(6)).map(|_| 1 + roll(total)).collect();
    let most = if roll(3) == 0 { 10 + roll(30) } else { u64::MAX };
    let model = Model::hostile(poison.iter().copied(), most, Chances { lost: 100, unanswered: 150 }, seed);
    let settings =
        DeliverySettings { max_events: 10 + roll(100), breaker_threshold: 1000, retry_max_backoff_ms: 2, ..settings() };
    let (mut stored, resources) = (0, 5 + roll(60));
    let mut sink = Slow::new(Arc::clone(&model), resources);
    while stored < total {
        let spool = spool(dir.path());
        let fanout = start(&spool, &sink, settings.clone()).await;
        let more = (1 + roll(60)).min(total - stored);
        store(&spool, more).await;
        stored += more;
        let mut requests = model.requests.subscribe();
        let enough = *requests.borrow() + roll(20);
        let _ = tokio::time::timeout(Duration::from_millis(30), requests.wait_for(|n| *n >= enough)).await;
        figures(&spool);
        // The kill: the workers end wherever they are.
        drop(fanout);
        spool.close();
        if roll(2) == 0 {
            // A process that does not know what was made.
            sink = Slow::new(Arc::clone(&model), resources);
        }
    }
    let spool = spool(dir.path());
    let fanout = start(&spool, &sink, settings).await;
    let began = std::time::Instant::now();
    while figures(&spool).pending > 0 {
        // Neighbours show that the store takes others.
        store(&spool, 1).await;
        stored += 1;
        let mut delivered = fanout.progress()[0].delivered.clone();
        let _ = tokio::time::timeout(Duration::from_millis(50), delivered.wait_for(|at| *at >= stored)).await;
        assert!(began.elapsed() < PATIENCE, "seed {seed}: {:?}", figures(&spool));
    }
    fanout.drain(PATIENCE).await;
    let dead: Vec<u64> = dead_letters(&spool).into_iter().map(|(position, _)| position).collect();
    assert_eq!(dead, poison.iter().copied().collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(model.taken().len() as u64, stored - poison.len() as u64, "seed {seed}");
    let ledger = figures(&spool);
    assert_eq!(
        (ledger.delivered, ledger.discarded),
        (stored - poison.len() as u64, poison.len() as u64),
        "seed {seed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_parked_event_is_taken_once_or_is_a_dead_letter_and_the_ledger_says_so() {
    let seeds = std::env::var("SUBWAY_FANOUT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 1..=seeds {
        live(seed).await;
    }
}
