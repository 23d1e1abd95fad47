//! Seeded simulation of one client and its environment. The same seed gives the same run.
//!
//! The network drops, duplicates, delays and reorders. The collector answers 413, 429, 503 and worse; a captive portal
//! answers in its place. Clocks jump and stand still, the user changes the decision about consent, storage fails
//! briefly or for hours or loses records. The host is killed between any two steps and inside any commit, or its power
//! is cut.
//!
//! After every call of the client its ledger must equal the one of the simulation's oracle, and each event that has
//! left the queue must have a reason. After every step the client must not ask for a wake-up in the past. While only
//! the disk is broken, every event must still be delivered. At the end all faults are removed. Then each event must
//! have exactly one outcome, the same with the collector and in the ledger, and the store must hold nothing but the
//! state.
//!
//! The two sides can differ for an event only if no evidence was left, and the simulation knows these events: those
//! that a killed process had sent while the disk accepted no trace of it, and those that the medium lost.

mod checks;
mod consent;
mod disk;
mod lasting_fault;
mod oracle;
mod power;
mod restart;
mod server;
mod steps;

use std::collections::BTreeMap;

use disk::Disk;
use lasting_fault::ActiveFault;
use oracle::Oracle;
use power::History;
use server::Server;

use crate::random::Random;
use crate::{Client, Config, Context, DropReason, Id, Ledger, Now};

/// Totals of a run, for a summary over many seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that the client accepted.
    pub tracked: u64,
    /// Events that reached the disk.
    pub persisted: u64,
    /// Events that the collector stored.
    pub stored: u64,
    /// Events that the collector received again and recognised.
    pub duplicates: u64,
    /// Kills of the host.
    pub kills: u64,
    /// Power cuts, which undo the last changes of the disk.
    pub power_cuts: u64,
    /// Uploads given to the network.
    pub uploads: u64,
    /// Seeds with lasting faults.
    pub lasting: u64,
    /// Lasting faults.
    pub faults: u64,
    /// Events sent from memory, because the disk refused them.
    pub from_memory: u64,
    /// Withdrawals of consent.
    pub withdrawals: u64,
    /// Records that the disk lost.
    pub damaged: u64,
    /// Acknowledged events in the final ledgers: at a new grant and at the end.
    pub acked: u64,
    /// Dropped events in the final ledgers, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Events that the client dropped from a full queue or lost, although the collector has them.
    pub ambiguous: u64,
    /// Events that the collector has and that no later run of the client knows.
    pub unknown_to_client: u64,
}

impl Report {
    /// Adds a final ledger.
    fn close(&mut self, ledger: &Ledger) {
        self.acked += ledger.acked;
        for (sum, dropped) in self.dropped.iter_mut().zip(ledger.dropped) {
            *sum += dropped;
        }
    }
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.tracked += other.tracked;
        self.persisted += other.persisted;
        self.stored += other.stored;
        self.duplicates += other.duplicates;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.uploads += other.uploads;
        self.lasting += other.lasting;
        self.faults += other.faults;
        self.from_memory += other.from_memory;
        self.withdrawals += other.withdrawals;
        self.damaged += other.damaged;
        self.acked += other.acked;
        for (sum, dropped) in self.dropped.iter_mut().zip(other.dropped) {
            *sum += dropped;
        }
        self.ambiguous += other.ambiguous;
        self.unknown_to_client += other.unknown_to_client;
    }
}

/// Defect planted in the environment, to check that the simulation detects it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defect {
    /// None.
    #[default]
    None,
    /// The disk claims to have stored events, but has not.
    LosesEvents,
    /// The disk claims to have deleted events, but has not.
    KeepsEvents,
    /// The disk never deletes contexts.
    KeepsContexts,
    /// The disk never deletes batches.
    KeepsBatches,
    /// The disk keeps the first state for ever.
    ForgetsState,
    /// The collector claims to have stored a batch, but skipped its first event.
    LyingCollector,
}

impl Defect {
    /// Every defect.
    pub const ALL: [Defect; 6] = [
        Defect::LosesEvents,
        Defect::KeepsEvents,
        Defect::KeepsContexts,
        Defect::KeepsBatches,
        Defect::ForgetsState,
        Defect::LyingCollector,
    ];
}

/// Kinds of faults of a seed, beside those of the network.
struct FaultPlan {
    kills: bool,
    full: bool,
    consent: bool,
    damage: bool,
    power: bool,
    lasting: bool,
}

/// A response on its way back.
struct InFlightResponse {
    batch: Id,
    /// Events of that batch.
    events: Vec<Id>,
    status: Option<u16>,
    body: String,
    /// Sent by the collector, about what it accepted or refused.
    genuine: bool,
}

struct Simulator {
    random: Random,
    plan: FaultPlan,
    config: Config,
    wall: i64,
    mono: u64,
    /// Start of this run, and the number of its diagnostics about a failing store.
    life: (u64, u64),
    version: u64,
    disk: Disk,
    client: Client<Disk>,
    server: Server,
    in_flight: Vec<InFlightResponse>,
    fault: Option<ActiveFault>,
    network_healed: bool,
    defect: Defect,
    /// Install of each event that the client accepted.
    tracked: BTreeMap<Id, Id>,
    oracle: Oracle,
    history: History,
    report: Report,
}

/// Steps with faults, before all are removed.
const FAULT_STEPS: u64 = 250;
/// Steps allowed afterwards to deliver everything.
const DRAIN_STEPS: u64 = 20_000;

/// Runs one seed.
///
/// # Panics
/// If an invariant is violated; the message names it.
#[must_use]
pub fn run(seed: u64) -> Report {
    run_with(seed, Defect::None)
}

/// Runs one seed with a planted defect, which should be detected.
///
/// # Panics
/// If an invariant is violated; the message names it.
#[must_use]
pub fn run_with(seed: u64, defect: Defect) -> Report {
    let mut simulator = Simulator::new(seed, defect);
    simulator.sync_disk();
    for _ in 0..FAULT_STEPS {
        simulator.step();
        simulator.check_step();
    }
    simulator.heal();
    simulator.check();
    simulator.report
}

impl Simulator {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut random = Random::new(&seed.to_le_bytes(), Now { wall: 0, mono: 0 }, 0);
        let damage = random.gen_inclusive(9) == 0;
        let plan = FaultPlan {
            kills: damage || random.gen_inclusive(3) > 0,
            full: random.gen_inclusive(3) == 0,
            consent: random.gen_inclusive(3) == 0,
            damage,
            power: random.gen_inclusive(3) == 0,
            lasting: random.gen_inclusive(1) == 0,
        };
        let (small_len, small_bytes) = [(12, usize::MAX), (10_000, 3_000)][random.gen_inclusive(1) as usize];
        let config = Config {
            consent_required: plan.consent && random.gen_inclusive(1) == 0,
            max_queued_events: if plan.full { small_len } else { 10_000 },
            max_queued_bytes: if plan.full { small_bytes } else { usize::MAX },
            max_batch_events: 1 + random.gen_inclusive(9) as usize,
            flush_events: 1 + random.gen_inclusive(9) as usize,
            flush_interval_ms: 1 + random.gen_inclusive(20_000),
            persist_delay_ms: [0, 200, 2_000][random.gen_inclusive(2) as usize],
            mono_stops_asleep: random.gen_inclusive(1) == 0,
            ..Config::default()
        };
        let server = Server::new(1 + random.gen_inclusive(9) as usize, defect);
        let disk = Disk::default();
        disk.0.borrow_mut().defect = defect;
        let now = Now { wall: 1_700_000_000_000, mono: 0 };
        let client = open(&disk, &config, 0, &mut random, now);
        Self {
            random,
            plan,
            config,
            wall: now.wall,
            mono: now.mono,
            life: (0, 0),
            version: 0,
            disk,
            client,
            server,
            in_flight: Vec::new(),
            fault: None,
            network_healed: false,
            defect,
            tracked: BTreeMap::new(),
            oracle: Oracle::default(),
            history: History::default(),
            report: Report::default(),
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.wall, mono: self.mono }
    }

    /// Returns true once in `of` times.
    fn chance(&mut self, of: u64) -> bool {
        self.random.gen_inclusive(of - 1) == 0
    }
}

/// Returns a context that is long enough to matter to the limits.
fn context(version: u64) -> String {
    Context { app_version: version.to_string(), ..Context::default() }.encode()
}

fn open(disk: &Disk, config: &Config, version: u64, random: &mut Random, now: Now) -> Client<Disk> {
    let entropy = random.next_u64().to_le_bytes();
    match Client::open(disk.clone(), config.clone(), &context(version), &entropy, now) {
        Ok(client) => client,
        Err(error) => panic!("the client did not open: {error}"),
    }
}
