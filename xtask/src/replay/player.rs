//! Plays the lines of a plan through the real SDK: one instance with its own identity per client, a few at a time.

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use subway_mobile::clock::SystemClock;
use subway_mobile::transport::HttpTransport;
use subway_mobile::{Config, DeviceInfo, HostInfo, Ledger, Settings, Subway};

use super::plan::{Found, Part, Plan};
use super::traffic;
use subway_access_log::Request;

/// Events handed to one instance before it must have sent them: below what its queue holds, so that nothing is dropped.
const CHUNK_EVENTS: usize = 1000;
/// The same in bytes of log, for logs with very long lines.
const CHUNK_BYTES: usize = 512 * 1024;
/// So many different diagnostics of SDK instances are shown; a rejected event names itself in each.
const NOTICES: usize = 100;
/// Between two looks at the progress while waiting, and between two lines of progress on a file.
const LOOK: Duration = Duration::from_millis(200);
const PROGRESS_TERMINAL: Duration = Duration::from_millis(200);
const PROGRESS_FILE: Duration = Duration::from_secs(5);

/// Where to play to, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// The collector's address.
    pub(crate) to: String,
    pub(crate) key: String,
    pub(crate) secret: Option<String>,
    /// Installs at once.
    pub(crate) parallel: usize,
    /// Gives up when nothing at all was acknowledged for so long.
    pub(crate) patience: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Played {
    pub(crate) events: u64,
    pub(crate) acked: u64,
    pub(crate) lost: u64,
}

/// Shared by the workers.
struct Stage<'a> {
    target: &'a Target,
    config: Config,
    transport: Arc<HttpTransport>,
    total: Found,
    lines: AtomicU64,
    installs: AtomicU64,
    acked: AtomicU64,
    given_up: AtomicBool,
    last_progress: Mutex<Instant>,
    notices: Mutex<HashSet<String>>,
}

/// Plays everything. `say` gets progress and notices, one line each.
pub(crate) fn play(plan: &Plan, target: &Target) -> Result<Played> {
    let config = Config {
        allow_http: true,
        secret: target.secret.clone(),
        settings: Settings {
            queue_rows: 4 * CHUNK_EVENTS as u64,
            queue_bytes: 64 * 1024 * 1024,
            flush_events: 100,
            ..Settings::default()
        },
        ..Config::new(&target.to, &target.key)
    };
    let stage = Stage {
        target,
        transport: Arc::new(HttpTransport::new(&config).map_err(|error| anyhow!("{error}"))?),
        config,
        total: plan.found,
        lines: AtomicU64::new(0),
        installs: AtomicU64::new(0),
        acked: AtomicU64::new(0),
        given_up: AtomicBool::new(false),
        last_progress: Mutex::new(Instant::now()),
        notices: Mutex::new(HashSet::new()),
    };
    let mut played = Played::default();
    for part in plan.parts() {
        let done = play_part(&stage, &part?)?;
        played.events += done.events;
        played.acked += done.acked;
        played.lost += done.lost;
    }
    stage.show(true);
    Ok(played)
}

fn play_part(stage: &Stage<'_>, part: &Part) -> Result<Played> {
    let (next, busy) = (AtomicUsize::new(0), AtomicUsize::new(stage.target.parallel));
    thread::scope(|scope| {
        let worker = || {
            let done = work(stage, part, &next);
            busy.fetch_sub(1, Ordering::SeqCst);
            done
        };
        let workers: Vec<_> = (0..stage.target.parallel).map(|_| scope.spawn(worker)).collect();
        let every = if std::io::stderr().is_terminal() { PROGRESS_TERMINAL } else { PROGRESS_FILE };
        let mut shown = Instant::now();
        while busy.load(Ordering::SeqCst) > 0 {
            thread::park_timeout(Duration::from_millis(20));
            if shown.elapsed() >= every {
                stage.show(false);
                shown = Instant::now();
            }
        }
        let mut played = Played::default();
        for worker in workers {
            let done = worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            played.events += done.events;
            played.acked += done.acked;
            played.lost += done.lost;
        }
        Ok(played)
    })
}

/// Plays installs until none is left.
fn work(stage: &Stage<'_>, part: &Part, next: &AtomicUsize) -> Result<Played> {
    let mut played = Played::default();
    loop {
        let install = next.fetch_add(1, Ordering::SeqCst);
        if install >= part.installs() {
            return Ok(played);
        }
        let mut player = Player::open(stage)?;
        for request in part.requests(install) {
            player.play(&request);
        }
        let ledger = player.close();
        played.events += player.events;
        played.acked += ledger.acked;
        played.lost += player.events - ledger.acked;
        stage.installs.fetch_add(1, Ordering::SeqCst);
    }
}

/// One install.
struct Player<'a> {
    stage: &'a Stage<'a>,
    subway: Arc<Subway>,
    device: (DeviceInfo, HostInfo),
    agent: Option<Option<String>>,
    events: u64,
    /// Since the instance last had sent everything.
    chunk: (usize, usize),
    /// Acknowledged as of the last look.
    acked: u64,
}

impl<'a> Player<'a> {
    fn open(stage: &'a Stage<'a>) -> Result<Self> {
        let subway = Subway::open_with(&stage.config, stage.transport.clone(), Arc::new(SystemClock::new()))
            .context("cannot open an SDK instance")?;
        let device = (DeviceInfo::default(), HostInfo::default());
        Ok(Self { stage, subway, device, agent: None, events: 0, chunk: (0, 0), acked: 0 })
    }

    fn play(&mut self, request: &Request) {
        if self.agent.as_ref() != Some(&request.agent) {
            self.agent = Some(request.agent.clone());
            let device = traffic::device(request.agent.as_deref());
            if device != self.device {
                self.subway.set_device(device.0.clone());
                self.subway.set_host(device.1.clone());
                self.device = device;
            }
        }
        for event in traffic::events(request) {
            self.events += 1;
            if let Err(error) = self.subway.track(event) {
                self.stage.say(&format!("an event was refused: {error}"));
            }
        }
        self.stage.lines.fetch_add(1, Ordering::SeqCst);
        self.chunk.0 += 2;
        self.chunk.1 += request.url.len() + request.referrer.as_ref().map_or(0, String::len) + 512;
        if self.chunk.0 >= CHUNK_EVENTS || self.chunk.1 >= CHUNK_BYTES {
            self.drain();
        }
    }

    /// Waits until everything has been sent, or until there is no hope.
    fn drain(&mut self) {
        self.chunk = (0, 0);
        while !self.subway.flush_and_wait(LOOK) {
            self.look();
            if self.stage.is_hopeless(&self.subway) {
                return;
            }
        }
        self.look();
    }

    /// Takes over what was acknowledged since the last look.
    fn look(&mut self) {
        let acked = self.subway.ledger().acked;
        if acked > self.acked {
            self.stage.acked.fetch_add(acked - self.acked, Ordering::SeqCst);
            self.acked = acked;
            *lock(&self.stage.last_progress) = Instant::now();
        }
        for notice in self.subway.take_notices() {
            self.stage.say(&notice);
        }
    }

    fn close(&mut self) -> Ledger {
        self.drain();
        self.subway.close(Duration::ZERO);
        self.look();
        self.subway.ledger()
    }
}

impl Stage<'_> {
    /// Whether waiting on makes no sense: nothing was acknowledged for a long time, or the key is not accepted.
    fn is_hopeless(&self, subway: &Subway) -> bool {
        let refused = matches!(subway.last_upload().and_then(|upload| upload.status), Some(401 | 403));
        let patience = lock(&self.last_progress).elapsed() > self.target.patience;
        if (refused || patience) && !self.given_up.swap(true, Ordering::SeqCst) {
            let why = match subway.last_upload().map(|upload| upload.status) {
                None => "no upload has ended".to_owned(),
                Some(None) => "the collector does not answer".to_owned(),
                Some(Some(status)) => format!("the last answer had status {status}"),
            };
            self.say(&format!("giving up on {}: {why}", self.target.to));
        }
        self.given_up.load(Ordering::SeqCst)
    }

    /// Says something once, and not too many things.
    fn say(&self, text: &str) {
        let mut said = lock(&self.notices);
        if said.len() < NOTICES && said.insert(text.to_owned()) {
            let clear = if std::io::stderr().is_terminal() { "\r\x1b[K" } else { "" };
            eprintln!("{clear}replay: {text}");
        }
    }

    fn show(&self, last: bool) {
        let terminal = std::io::stderr().is_terminal();
        let (start, end) = if terminal { ("\r\x1b[K", if last { "\n" } else { "" }) } else { ("", "\n") };
        eprint!(
            "{start}replay: {} of {} lines, {} of {} installs, {} events acknowledged{end}",
            self.lines.load(Ordering::SeqCst),
            self.total.lines,
            self.installs.load(Ordering::SeqCst),
            self.total.installs,
            self.acked.load(Ordering::SeqCst),
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
