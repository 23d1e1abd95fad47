//! The seeded simulation: one client against a network that drops, duplicates, delays and reorders, a collector that
//! answers 413, 429, 503 and worse, a captive portal, clocks that jump, storage that fails, and a host that is killed
//! between any two steps and inside any commit. The same seed gives the same run.
//!
//! After every step the ledger must balance. At the end the network heals, and every event that was ever persisted must
//! be with the collector exactly once or in the ledger with its reason.

mod disk;
mod server;

use disk::{Disk, Fate};
use server::{BAD, POISON, Server};

use crate::random::Random;
use crate::store::Store;
use crate::transport::{Task, UploadRequest, UploadResult};
use crate::{Client, Config, Consent, Context, DropReason, Id, Input, Now, Theme};

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
    /// Uploads handed to the network.
    pub uploads: u64,
}

/// What kinds of trouble a seed brings, besides the network.
struct Trouble {
    kills: bool,
    full: bool,
    consent: bool,
    damage: bool,
}

/// An answer on its way back.
struct Flight {
    batch: Id,
    status: Option<u16>,
    body: String,
}

struct World {
    random: Random,
    trouble: Trouble,
    config: Config,
    wall: i64,
    mono: u64,
    version: u64,
    disk: Disk,
    client: Client<Disk>,
    server: Server,
    flights: Vec<Flight>,
    healed: bool,
    withdrawn: bool,
    report: Report,
}

/// Steps of trouble before the network heals.
const STEPS: u64 = 250;
/// Steps allowed for everything to be delivered afterwards.
const DRAIN: u64 = 20_000;

/// Runs one seed.
///
/// # Panics
/// If a contract is broken; the message names the seed's step.
#[must_use]
pub fn run(seed: u64) -> Report {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        assert!(world.client.ledger().balances(), "generated = acked + queued + dropped: {:?}", world.client.ledger());
    }
    world.heal();
    world.check();
    world.report
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(&seed.to_le_bytes(), Now { wall: 0, mono: 0 }, 0);
        let trouble = Trouble {
            kills: random.up_to(3) > 0,
            full: random.up_to(3) == 0,
            consent: random.up_to(3) == 0,
            damage: random.up_to(9) == 0,
        };
        let config = Config {
            consent_required: trouble.consent && random.up_to(1) == 0,
            queue_rows: if trouble.full { 12 } else { 10_000 },
            batch_events: 1 + random.up_to(9) as usize,
            flush_events: 1 + random.up_to(9) as usize,
            flush_interval_ms: 1 + random.up_to(20_000),
            persist_delay_ms: [0, 200, 2_000][random.up_to(2) as usize],
            ..Config::default()
        };
        let server = Server::new(1 + random.up_to(9) as usize);
        let disk = Disk::default();
        let now = Now { wall: 1_700_000_000_000, mono: 0 };
        let client = open(&disk, &config, 0, &mut random, now);
        let (wall, mono) = (now.wall, now.mono);
        let report = Report::default();
        Self {
            random,
            trouble,
            config,
            wall,
            mono,
            version: 0,
            disk,
            client,
            server,
            flights: Vec::new(),
            healed: false,
            withdrawn: false,
            report,
        }
    }

    fn now(&self) -> Now {
        Now { wall: self.wall, mono: self.mono }
    }

    /// True once in `of` times.
    fn chance(&mut self, of: u64) -> bool {
        self.random.up_to(of - 1) == 0
    }

    fn step(&mut self) {
        match self.random.up_to(19) {
            0..=6 => self.track(),
            7..=11 => self.poll(),
            12..=14 => self.land(),
            15 => self.pass_time(),
            16 => self.jump(),
            17 => self.host_event(),
            18 if self.trouble.kills => self.kill(),
            _ => self.trouble_ahead(),
        }
        if self.disk.0.borrow().killed {
            self.kill();
        }
    }

    fn track(&mut self) {
        let theme = Theme::ALL[self.random.up_to(10) as usize];
        let code = match self.random.up_to(29) {
            0 => BAD,
            1 => POISON,
            _ => "fine",
        };
        let true_ts = self.chance(5).then_some(1_400_000_000_000);
        let props =
            format!(r#"{{"version":"{}","pad":"{}"}}"#, self.version, "x".repeat(self.random.up_to(99) as usize));
        let input = Input { theme, code, props: &props, page: None, true_ts };
        if self.client.track(self.now(), input).is_ok() {
            self.report.tracked += 1;
        }
        if self.chance(30) {
            let refused = self.client.track(self.now(), Input { code: "not\na code", ..input });
            assert!(refused.is_err(), "a code with a space is refused");
        }
    }

    fn poll(&mut self) {
        let now = self.now();
        if let Some(Task::Upload(request)) = self.client.poll_task(now) {
            self.report.uploads += 1;
            self.send(&request);
        }
    }

    /// The network: what becomes of a request.
    fn send(&mut self, request: &UploadRequest) {
        let batch = request.batch_id;
        let fault = if self.healed { 99 } else { self.random.up_to(19) };
        let (status, body) = match fault {
            0 => (None, String::new()),
            1 => (Some(200), String::from("<html>Welcome to the airport</html>")),
            2 => (Some(200), String::new()),
            3 => (Some([503, 500, 502, 429, 408, 404, 301][self.random.up_to(6) as usize]), String::new()),
            4 => (Some([401, 403][self.random.up_to(1) as usize]), String::new()),
            5 => {
                self.server.take(&request.body);
                (None, String::new())
            }
            6 => {
                self.server.take(&request.body);
                (Some(504), String::new())
            }
            7 => {
                self.server.take(&request.body);
                let (status, body) = self.server.take(&request.body);
                (Some(status), body)
            }
            8 => return,
            _ => {
                let (status, body) = self.server.take(&request.body);
                (Some(status), body)
            }
        };
        self.flights.push(Flight { batch, status, body });
    }

    /// Some answer arrives, not necessarily the first sent, perhaps twice.
    fn land(&mut self) {
        if self.flights.is_empty() {
            return;
        }
        let at = self.random.up_to(self.flights.len() as u64 - 1) as usize;
        let flight = self.flights.remove(at);
        let times = if self.chance(9) { 2 } else { 1 };
        for _ in 0..times {
            let retry_after_ms = self.chance(3).then(|| self.random.up_to(5_000));
            let result = match flight.status {
                Some(status) => UploadResult::Answer { status, retry_after_ms, body: &flight.body },
                None => UploadResult::Failed,
            };
            self.client.on_result(self.now(), flight.batch, result);
        }
    }

    fn pass_time(&mut self) {
        let most = [50, 5_000, 100_000, 4_000_000][self.random.up_to(3) as usize];
        let passed = self.random.up_to(most);
        self.mono += passed;
        self.wall += passed as i64;
    }

    fn jump(&mut self) {
        let jump = self.random.up_to(2 * 86_400_000) as i64 - 86_400_000;
        self.wall += jump;
    }

    fn host_event(&mut self) {
        let now = self.now();
        match self.random.up_to(8) {
            0 => self.client.background(now),
            1 => self.client.foreground(now),
            2 => self.client.flush(now),
            3 => assert_eq!(self.client.identify(now, "user"), Ok(())),
            4 => self.client.logout(now),
            5 => assert_eq!(self.client.register(now, r#"{"channel":"qr"}"#), Ok(())),
            6 => self.client.clear_registered(now),
            7 => {
                self.version += 1;
                self.client.set_context(&context(self.version));
            }
            _ if self.trouble.consent => self.decide(),
            _ => {}
        }
    }

    fn decide(&mut self) {
        let consent = if self.chance(2) { Consent::Granted } else { Consent::Denied };
        self.withdrawn |= consent == Consent::Denied;
        self.client.set_consent(self.now(), consent);
        if consent == Consent::Denied {
            assert_eq!(self.client.ledger().queued, 0, "a withdrawal wipes the queue");
        }
    }

    fn trouble_ahead(&mut self) {
        self.disk.0.borrow_mut().fate = match self.random.up_to(2) {
            1 if self.trouble.kills => Fate::KilledBefore,
            2 if self.trouble.kills => Fate::KilledAfter,
            _ => Fate::Fails,
        };
    }

    /// The process dies and is started again: what was not on the disk is gone, and so are the open requests.
    fn kill(&mut self) {
        self.report.kills += 1;
        {
            let mut contents = self.disk.0.borrow_mut();
            contents.killed = false;
            contents.fate = Fate::Works;
        }
        self.flights.clear();
        if self.trouble.damage && self.chance(3) {
            self.damage();
        }
        self.mono = self.random.up_to(1_000);
        let now = self.now();
        self.client = open(&self.disk, &self.config, self.version, &mut self.random, now);
    }

    /// The medium loses one record.
    fn damage(&mut self) {
        let mut keys = Vec::new();
        let mut contents = self.disk.0.borrow_mut();
        let scanned = contents.store.scan(&mut |key, _| keys.push(key));
        assert_eq!(scanned, Ok(()));
        keys.retain(|key| matches!(key, crate::Key::Event(_) | crate::Key::Batch(_)));
        if !keys.is_empty() {
            let key = keys[self.random.up_to(keys.len() as u64 - 1) as usize];
            let applied = contents.store.apply(&[crate::Write { key, value: None }]);
            assert_eq!(applied, Ok(()));
        }
    }

    /// The network heals, storage works, the user agrees: everything must be delivered, and the client must rest.
    fn heal(&mut self) {
        self.healed = true;
        self.disk.0.borrow_mut().fate = Fate::Works;
        if self.trouble.consent {
            self.client.set_consent(self.now(), Consent::Granted);
        }
        self.client.flush(self.now());
        for _ in 0..DRAIN {
            self.poll();
            if !self.flights.is_empty() {
                self.land();
                continue;
            }
            let Some(wake) = self.client.next_wake() else { return };
            let passed = wake.saturating_sub(self.mono);
            self.mono += passed;
            self.wall += passed as i64;
        }
        panic!("the client never rests: {:?}", self.client.ledger());
    }

    fn check(&mut self) {
        let ledger = self.client.ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!(ledger.queued, 0, "everything was delivered");
        let contents = self.disk.0.borrow();
        let stored = &self.server.stored;
        assert!(stored.iter().all(|id| contents.persisted.contains_key(id)), "nothing is sent before it is stored");
        let count = |code: &str| contents.persisted.values().filter(|other| *other == code).count() as u64;
        if !self.withdrawn && !self.trouble.damage {
            assert_eq!(ledger.acked, stored.len() as u64, "what is acknowledged is what the collector stored");
            let missing = contents.persisted.len() as u64 - stored.len() as u64;
            let given_up = ledger.dropped(DropReason::Rejected) + ledger.dropped(DropReason::Poison);
            if self.trouble.full {
                assert!(missing <= given_up + ledger.dropped(DropReason::QueueFull), "{missing} missing, {ledger:?}");
            } else {
                assert_eq!(missing, given_up, "every persisted event is with the collector or given up: {ledger:?}");
                assert_eq!(ledger.dropped(DropReason::Rejected), count(BAD));
                assert_eq!(ledger.dropped(DropReason::Poison), count(POISON));
            }
        }
        self.report.persisted = contents.persisted.len() as u64;
        self.report.stored = stored.len() as u64;
        self.report.duplicates = self.server.duplicates;
    }
}

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
