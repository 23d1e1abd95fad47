//! Refused events, batches that are too large, and replays of dead letters, under failures and crashes at any point.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;

use super::tests::{PATIENCE, settings, spool, store};
use super::*;
use crate::sinks::{Delivered, SinkBatch};

/// Probabilities of what a store does to a request, decided by a seeded generator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chances {
    /// Requests of a thousand that never arrive.
    pub(super) lost: u64,
    /// Requests of a thousand that are taken without a response.
    pub(super) unanswered: u64,
}

/// Store that refuses some events, recognises batches by their tokens, and keeps everything.
pub(super) struct Model {
    pub(super) poison: Mutex<BTreeSet<u64>>,
    pub(super) refuses_all: Mutex<bool>,
    most: u64,
    chances: Chances,
    random: Mutex<u64>,
    tokens: Mutex<BTreeMap<String, Vec<u64>>>,
    /// How often each event was stored. More than once is a duplicate.
    taken: Mutex<BTreeMap<u64, u32>>,
    pub(super) requests: watch::Sender<u64>,
}

impl Model {
    pub(super) fn new(poison: impl IntoIterator<Item = u64>) -> Arc<Self> {
        Self::hostile(poison, u64::MAX, Chances { lost: 0, unanswered: 0 }, 1)
    }

    pub(super) fn hostile(poison: impl IntoIterator<Item = u64>, most: u64, chances: Chances, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            poison: Mutex::new(poison.into_iter().collect()),
            refuses_all: Mutex::new(false),
            most,
            chances,
            random: Mutex::new(seed),
            tokens: Mutex::default(),
            taken: Mutex::default(),
            requests: watch::Sender::default(),
        })
    }

    fn roll(&self) -> u64 {
        let mut state = self.random.lock().unwrap();
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) % 1000
    }

    pub(super) fn taken(&self) -> Vec<u64> {
        let taken = self.taken.lock().unwrap();
        assert!(taken.values().all(|times| *times == 1), "an event came in twice: {taken:?}");
        taken.keys().copied().collect()
    }

    pub(super) async fn requests(&self, at_least: u64) {
        let mut requests = self.requests.subscribe();
        tokio::time::timeout(PATIENCE, requests.wait_for(|n| *n >= at_least)).await.unwrap().unwrap();
    }
}

#[async_trait]
impl Sink for Model {
    fn name(&self) -> &str {
        "model"
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        self.requests.send_modify(|n| *n += 1);
        if self.roll() < self.chances.lost {
            return Err(SinkError::retryable("the request was lost"));
        }
        let mut positions = Vec::new();
        batch.for_each_record(|_, first, events| {
            positions.extend(first..first + events.len() as u64);
            Ok::<(), crate::sinks::CorruptRecord>(())
        })?;
        if positions.len() as u64 > self.most {
            return Err(SinkError::TooLarge { message: "too large".into() });
        }
        let bad = positions.iter().find(|position| self.poison.lock().unwrap().contains(position)).copied();
        if let Some(position) = bad.or(self.refuses_all.lock().unwrap().then_some(0)) {
            return Err(SinkError::permanent(format!("row {position} is bad")));
        }
        let mut tokens = self.tokens.lock().unwrap();
        match tokens.get(&batch.dedup_token) {
            Some(before) => assert_eq!(*before, positions, "the token {} names two batches", batch.dedup_token),
            None => {
                let mut taken = self.taken.lock().unwrap();
                positions.iter().for_each(|position| *taken.entry(*position).or_default() += 1);
                tokens.insert(batch.dedup_token.clone(), positions);
            }
        }
        drop(tokens);
        if self.roll() < self.chances.unanswered {
            return Err(SinkError::retryable("the answer was lost"));
        }
        Ok(Delivered::default())
    }

    async fn health(&self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn start(spool: &Spool, model: &Arc<Model>, settings: DeliverySettings) -> Fanout {
    let sinks = vec![(Arc::clone(model) as Arc<dyn Sink>, settings)];
    Fanout::start(spool, sinks, FanoutContext::default()).await.unwrap()
}

async fn delivered(fanout: &Fanout, to: u64) {
    let mut delivered = fanout.progress()[0].delivered.clone();
    tokio::time::timeout(PATIENCE, delivered.wait_for(|at| *at >= to)).await.unwrap().unwrap();
}

pub(super) fn dead_letters(spool: &Spool) -> Vec<(u64, String)> {
    spool.dead_letters(None, 0, 9999).unwrap().into_iter().map(|letter| (letter.position, letter.reason)).collect()
}

fn large() -> DeliverySettings {
    DeliverySettings { max_events: 100_000, max_bytes: u64::MAX, ..settings() }
}

#[tokio::test]
async fn one_bad_event_in_a_hundred_thousand_is_found_within_36_requests_wherever_it_is() {
    for poison in [1, 50_000, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        for _ in 0..100 {
            store(&spool, 1000).await;
        }
        let model = Model::new([poison]);
        let fanout = start(&spool, &model, large()).await;
        delivered(&fanout, 100_000).await;
        let requests = *model.requests.borrow();
        assert!(requests <= 36, "{requests} requests for the event {poison}");
        assert_eq!(dead_letters(&spool), [(poison, format!("row {poison} is bad"))]);
        assert_eq!(model.taken().len(), 99_999);
        let ledger = spool.ledger().unwrap().sinks["model"].clone();
        assert_eq!((ledger.delivered, ledger.discarded, ledger.pending), (99_999, 1, 0));
        fanout.drain(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_store_that_refuses_everything_makes_no_dead_letters_and_takes_all_once_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 20).await;
    let model = Model::new([3]);
    *model.refuses_all.lock().unwrap() = true;
    let fanout = start(&spool, &model, large()).await;
    model.requests(200).await;
    assert_eq!((dead_letters(&spool), spool.cursor("model").unwrap().delivered_to), (vec![], 0));
    *model.refuses_all.lock().unwrap() = false;
    delivered(&fanout, 20).await;
    assert_eq!(dead_letters(&spool), [(3, "row 3 is bad".to_owned())]);
    assert_eq!(model.taken().len(), 19);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_bad_event_alone_waits_for_one_that_shows_that_the_store_takes_others() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 1).await;
    let model = Model::new([1, 2]);
    let fanout = start(&spool, &model, large()).await;
    model.requests(5).await;
    store(&spool, 1).await;
    model.requests(12).await;
    assert_eq!(dead_letters(&spool), []);
    store(&spool, 1).await;
    delivered(&fanout, 3).await;
    assert_eq!(dead_letters(&spool).len(), 2);
    assert_eq!(model.taken(), [3]);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_batch_too_large_is_halved_and_nothing_is_suspect() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 1000).await;
    let model = Model::hostile([], 70, Chances { lost: 0, unanswered: 0 }, 1);
    let fanout = start(&spool, &model, large()).await;
    delivered(&fanout, 1000).await;
    assert_eq!(model.taken().len(), 1000);
    let requests = *model.requests.borrow();
    assert!(requests < 25, "{requests} requests: what was too large is not tried again and again");
    assert_eq!(dead_letters(&spool), []);
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn dead_letters_are_replayed_exactly_once_and_doing_it_twice_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    store(&spool, 30).await;
    let model = Model::new([4, 5, 6, 20]);
    let fanout = start(&spool, &model, large()).await;
    delivered(&fanout, 30).await;
    let replayer = Replayer::new(spool.clone(), vec![Arc::clone(&model) as Arc<dyn Sink>]);
    let report = replayer.replay("model", |_| ()).await.unwrap();
    assert_eq!((report.total, report.replayed, report.refused), (4, 0, 4));
    model.poison.lock().unwrap().retain(|position| *position == 5);
    let mut seen = Vec::new();
    let report = replayer.replay("model", |report| seen.push(report.clone())).await.unwrap();
    assert_eq!((report.total, report.replayed, report.refused), (4, 3, 1));
    assert_eq!(seen.last(), Some(&report));
    let report = replayer.replay("model", |_| ()).await.unwrap();
    assert_eq!((report.total, report.replayed, report.refused), (1, 0, 1));
    assert_eq!(dead_letters(&spool), [(5, "row 5 is bad".to_owned())]);
    assert_eq!(model.taken().len(), 29);
    let ledger = spool.ledger().unwrap().sinks["model"].clone();
    assert_eq!((ledger.delivered, ledger.discarded, ledger.pending), (29, 1, 0));
    assert!(replayer.replay("nobody", |_| ()).await.unwrap_err().to_string().contains("nobody"));
    fanout.drain(PATIENCE).await;
}

/// Lives through a data directory: events arrive, the collector is killed at random moments, requests and responses
/// get lost, some events are poison, and dead letters are replayed, half of which are good by then.
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
    let mut stored = 0;
    while stored < total {
        let spool = spool(dir.path());
        let fanout = start(&spool, &model, settings.clone()).await;
        let more = (1 + roll(60)).min(total - stored);
        store(&spool, more).await;
        stored += more;
        let mut requests = model.requests.subscribe();
        let enough = *requests.borrow() + roll(12);
        let _ = tokio::time::timeout(Duration::from_millis(30), requests.wait_for(|n| *n >= enough)).await;
        // The kill: the workers end wherever they are.
        drop(fanout);
        spool.close();
    }
    let spool = spool(dir.path());
    let fanout = start(&spool, &model, settings).await;
    if poison.contains(&total) {
        // The last event has no neighbour yet that could show that the store takes others.
        store(&spool, 1).await;
        stored += 1;
    }
    delivered(&fanout, stored).await;
    let dead: Vec<u64> = dead_letters(&spool).into_iter().map(|(position, _)| position).collect();
    assert_eq!(dead, poison.iter().copied().collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(model.taken().len() as u64, stored - poison.len() as u64, "seed {seed}");
    model.poison.lock().unwrap().retain(|position| position % 2 == 0);
    let replayer = Replayer::new(spool.clone(), vec![Arc::clone(&model) as Arc<dyn Sink>]);
    while replayer.replay("model", |_| ()).await.is_err() {}
    let left = poison.iter().filter(|position| *position % 2 == 0).count() as u64;
    let ledger = spool.ledger().unwrap().sinks["model"].clone();
    assert_eq!((ledger.delivered, ledger.discarded, ledger.pending), (stored - left, left, 0), "seed {seed}");
    assert_eq!(model.taken().len() as u64, ledger.delivered, "seed {seed}");
    fanout.drain(PATIENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_every_event_is_taken_once_or_is_a_dead_letter_and_the_ledger_says_so() {
    let seeds = std::env::var("SUBWAY_FANOUT_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(40);
    for seed in 1..=seeds {
        live(seed).await;
    }
}

#[tokio::test]
async fn a_full_spool_sheds_what_only_the_shedding_sink_waits_for_and_counts_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let (slow, good) = (Model::hostile([], u64::MAX, Chances { lost: 1000, unanswered: 0 }, 1), Model::new([]));
    struct Named(&'static str, Arc<Model>);
    #[async_trait]
    impl Sink for Named {
        fn name(&self) -> &str {
            self.0
        }
        async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
            self.1.deliver(batch).await
        }
        async fn health(&self) -> Result<(), SinkError> {
            Ok(())
        }
    }
    let sinks: Vec<(Arc<dyn Sink>, DeliverySettings)> = vec![
        (
            Arc::new(Named("slow", Arc::clone(&slow))),
            DeliverySettings { drops_oldest: true, max_events: 10, ..settings() },
        ),
        (Arc::new(Named("good", Arc::clone(&good))), settings()),
    ];
    let context = FanoutContext { spool_max_bytes: 20_000, ..FanoutContext::default() };
    let fanout = Fanout::start(&spool, sinks, context).await.unwrap();
    let mut stored = 0;
    let mut shed = 0;
    while shed < 300 {
        store(&spool, 10).await;
        stored += 10;
        assert!(fanout.progress()[1].wait_for(stored, PATIENCE).await);
        let ledger = spool.ledger().unwrap();
        let sink = &ledger.sinks["slow"];
        assert_eq!(sink.delivered + sink.discarded + sink.pending, ledger.stored);
        assert_eq!((sink.discarded, sink.delivered), (sink.dropped_oldest, 0));
        shed = sink.dropped_oldest;
        assert!(stored < 100_000, "nothing is shed");
    }
    assert_eq!(spool.ledger().unwrap().sinks["good"].discarded, 0);
    let frozen = spool.cursor("slow").unwrap().frozen;
    fanout.drain(Duration::from_millis(1)).await;
    spool.close();
    // The batch that was on its way was not shed: it arrives, and the ledger adds up over the hole.
    let spool = super::tests::spool(dir.path());
    let well = Model::new([]);
    let sinks: Vec<(Arc<dyn Sink>, DeliverySettings)> = vec![(Arc::new(Named("slow", Arc::clone(&well))), settings())];
    let fanout = Fanout::start(&spool, sinks, FanoutContext::default()).await.unwrap();
    assert!(fanout.progress()[0].wait_for(stored, PATIENCE).await);
    let sink = spool.ledger().unwrap().sinks["slow"].clone();
    assert_eq!((sink.delivered, sink.discarded, sink.pending), (stored - sink.dropped_oldest, sink.dropped_oldest, 0));
    let taken = well.taken();
    assert_eq!(taken.len() as u64, sink.delivered);
    assert!(frozen.is_some_and(|frozen| taken.contains(&frozen.first)));
    fanout.drain(PATIENCE).await;
}

#[tokio::test]
async fn a_sink_that_comes_late_gets_what_the_spool_has_forgotten_from_the_embedded_store() {
    use crate::sinks::sqlite::{EmbeddedSink, StoreBackfill};
    let dir = tempfile::tempdir().unwrap();
    let spool = spool(dir.path());
    let embedded: Arc<dyn Sink> = Arc::new(EmbeddedSink::open(dir.path()).unwrap());
    let fanout =
        Fanout::start(&spool, vec![(Arc::clone(&embedded), settings())], FanoutContext::default()).await.unwrap();
    for _ in 0..10 {
        store(&spool, 30).await;
    }
    assert!(fanout.progress()[0].wait_for(300, PATIENCE).await);
    fanout.drain(PATIENCE).await;
    assert_eq!(spool.read_after(0, 9, 9).unwrap(), []);
    let model = Model::new([123]);
    let sinks = vec![
        (embedded, settings()),
        (Arc::clone(&model) as Arc<dyn Sink>, DeliverySettings { max_events: 70, ..settings() }),
    ];
    let history: Arc<dyn BackfillSource> = Arc::new(StoreBackfill::new(dir.path()));
    let context = FanoutContext { history: Some(history), ..FanoutContext::default() };
    let fanout = Fanout::start(&spool, sinks, context).await.unwrap();
    store(&spool, 30).await;
    assert!(fanout.progress()[1].wait_for(330, PATIENCE).await);
    assert_eq!(model.taken().len(), 329);
    assert_eq!(dead_letters(&spool), [(123, "row 123 is bad".to_owned())]);
    fanout.drain(PATIENCE).await;
}
