//! The seeded simulation: one client against a network that drops, duplicates, delays and reorders, a collector that
//! answers 413, 429, 503 and worse, a captive portal, clocks that jump and stand still, a user who changes his mind,
//! storage that fails for a moment or for hours or loses records, and a host that is killed between any two steps and
//! inside any commit, or whose power is cut. The same seed gives the same run.
//!
//! After every call of the client its ledger must be exactly what the simulation's own books add up to, and each event
//! that has left the queue must have had a reason for it at that moment; after every step the client must not ask to be
//! woken in the past. While only the disk is broken everything must get through all the same. At the end everything is
//! mended, and each event must have ended once, with the collector and in the ledger alike, and nothing but the state may
//! be left in the store.
//!
//! The two sides may differ for an event only where nobody could have known better, and the simulation knows which events
//! those are: what a dead process had sent while the disk took nothing at all that told of it, and what the medium lost.

mod books;
mod consent;
mod disk;
mod fault;
mod power;
mod restart;
mod server;
mod verdict;
mod world;

use std::collections::BTreeMap;

use books::Accounts;
use disk::Disk;
use fault::Fault;
use power::History;
use server::Server;

use crate::random::Random;
use crate::{Client, Config, Context, DropReason, Id, Ledger, Now};

/// What a run amounted to, for a summary over many seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events handed to the client and accepted.
    pub tracked: u64,
    /// Events that reached the disk.
    pub persisted: u64,
    /// Events the collector stored.
    pub stored: u64,
    /// Events that the collector got again and recognised.
    pub duplicates: u64,
    /// Times the host was killed.
    pub kills: u64,
    /// Times that the power was cut, and the last changes of the disk were undone.
    pub power_cuts: u64,
    /// Uploads handed to the network.
    pub uploads: u64,
    /// Seeds with faults that lasted.
    pub lasting: u64,
    /// Faults that lasted.
    pub faults: u64,
    /// Events sent from memory, because the disk refused them.
    pub from_memory: u64,
    /// Times the user withdrew consent.
    pub withdrawals: u64,
    /// Records that the disk lost.
    pub damaged: u64,
    /// What the ledgers said of acknowledged events, when they ended: at a new grant and at the end.
    pub acked: u64,
    /// What they said of dropped events, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
    /// Events that the client dropped from a full queue or lost, although the collector has them.
    pub disputed: u64,
    /// Events that the collector has and no later life of the client knew of.
    pub forgotten: u64,
}

impl Report {
    /// A ledger has ended.
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
        self.disputed += other.disputed;
        self.forgotten += other.forgotten;
    }
}

/// A defect planted in what surrounds the client, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Defect {
    /// None.
    #[default]
    None,
    /// The disk says that it took events, and did not.
    LosesEvents,
    /// The disk says that it deleted events, and did not.
    KeepsEvents,
    /// The disk never deletes what surrounded events.
    KeepsContexts,
    /// The disk never deletes batches.
    KeepsBatches,
    /// The disk keeps the first state for ever.
    ForgetsState,
    /// The collector says that it stored a batch, and left out its first event.
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

/// What kinds of trouble a seed brings, besides the network.
struct Trouble {
    kills: bool,
    full: bool,
    consent: bool,
    damage: bool,
    power: bool,
    lasting: bool,
}

/// An answer on its way back.
struct Flight {
    batch: Id,
    /// The events of that batch.
    events: Vec<Id>,
    status: Option<u16>,
    body: String,
    /// It is the collector's own answer to what it has taken or refused.
    genuine: bool,
}

struct World {
    random: Random,
    trouble: Trouble,
    config: Config,
    wall: i64,
    mono: u64,
    /// When this life began, and how often its developer was told of a failing store.
    life: (u64, u64),
    version: u64,
    disk: Disk,
    client: Client<Disk>,
    server: Server,
    flights: Vec<Flight>,
    fault: Option<Fault>,
    healed: bool,
    defect: Defect,
    /// The install of each event that the client took.
    tracked: BTreeMap<Id, Id>,
    accounts: Accounts,
    history: History,
    report: Report,
}

/// Steps of trouble before everything is mended.
const STEPS: u64 = 250;
/// Steps allowed for everything to be delivered afterwards.
const DRAIN: u64 = 20_000;

/// Runs one seed.
///
/// # Panics
/// If a contract is broken; the message names what.
#[must_use]
pub fn run(seed: u64) -> Report {
    run_with(seed, Defect::None)
}

/// Runs one seed with a planted defect, which is to be noticed sooner or later.
///
/// # Panics
/// If a contract is broken; the message names what.
#[must_use]
pub fn run_with(seed: u64, defect: Defect) -> Report {
    let mut world = World::new(seed, defect);
    world.synchronise();
    for _ in 0..STEPS {
        world.step();
        world.check_step();
    }
    world.heal();
    world.check();
    world.report
}

impl World {
    fn new(seed: u64, defect: Defect) -> Self {
        let mut random = Random::new(&seed.to_le_bytes(), Now { wall: 0, mono: 0 }, 0);
        let damage = random.up_to(9) == 0;
        let trouble = Trouble {
            kills: damage || random.up_to(3) > 0,
            full: random.up_to(3) == 0,
            consent: random.up_to(3) == 0,
            damage,
            power: random.up_to(3) == 0,
            lasting: random.up_to(1) == 0,
        };
        let (full_rows, full_bytes) = [(12, usize::MAX), (10_000, 3_000)][random.up_to(1) as usize];
        let config = Config {
            consent_required: trouble.consent && random.up_to(1) == 0,
            queue_rows: if trouble.full { full_rows } else { 10_000 },
            queue_bytes: if trouble.full { full_bytes } else { usize::MAX },
            batch_events: 1 + random.up_to(9) as usize,
            flush_events: 1 + random.up_to(9) as usize,
            flush_interval_ms: 1 + random.up_to(20_000),
            persist_delay_ms: [0, 200, 2_000][random.up_to(2) as usize],
            mono_stops_asleep: random.up_to(1) == 0,
            ..Config::default()
        };
        let server = Server::new(1 + random.up_to(9) as usize, defect);
        let disk = Disk::default();
        disk.0.borrow_mut().defect = defect;
        let now = Now { wall: 1_700_000_000_000, mono: 0 };
        let client = open(&disk, &config, 0, &mut random, now);
        Self {
            random,
            trouble,
            config,
            wall: now.wall,
            mono: now.mono,
            life: (0, 0),
            version: 0,
            disk,
            client,
            server,
            flights: Vec::new(),
            fault: None,
            healed: false,
            defect,
            tracked: BTreeMap::new(),
            accounts: Accounts::default(),
            history: History::default(),
            report: Report::default(),
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.wall, mono: self.mono }
    }

    /// True once in `of` times.
    fn chance(&mut self, of: u64) -> bool {
        self.random.up_to(of - 1) == 0
    }
}

/// What surrounds events; long enough to matter to the caps.
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
