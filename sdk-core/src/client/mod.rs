//! The façade: one struct, four verbs.

mod binding;
mod consent;
mod inputs;
mod members;
mod pending;
mod results;
mod settings;
mod state;
mod storing;
mod tasks;
mod timers;

use consent::Held;
pub use inputs::Input;
use pending::Pending;
pub use settings::{check_common, check_user};

use crate::clock::Clock;
use crate::queue::{Backoff, Queue};
use crate::random::Random;
use crate::session::Sessions;
use crate::store::Store;
use crate::{Config, Consent, DropReason, Id, Ledger, Now, OpenError, Page, limits};

/// One install of the SDK. See the crate's documentation for how a host drives it.
pub struct Client<S> {
    store: S,
    config: Config,
    clock: Clock,
    random: Random,
    /// Which run of the monotonic clock this is.
    boot: String,

    install: Id,
    consent: Consent,
    /// Everything was wiped: the next grant begins a new ledger.
    wiped: bool,
    /// The last sequence number given.
    seq: u64,
    user: String,
    /// Common properties: names with their values as JSON.
    common: Vec<(String, String)>,
    sessions: Sessions,
    /// `queued` is kept by the queue and filled in when somebody asks.
    ledger: Ledger,

    /// App, SDK, host and device as they are now, as [`crate::Context::encode`] gives them.
    context: String,
    /// The number of the context that events are recorded in now; `None` if something changed since the last event.
    current_context: Option<u64>,
    next_batch: u64,

    queue: Queue,
    pending: Pending,
    held: Vec<Held>,
    page: Option<Page>,
    timers: Vec<(String, u64)>,
    notices: Vec<String>,
    /// Notices that are given once each.
    told: Vec<String>,
    /// When the developer last heard that the store fails (monotonic).
    store_told: Option<u64>,
    upload: Upload,
}

/// The state of sending.
#[derive(Default)]
struct Upload {
    /// The batch that was handed to the host, and when it counts as failed (monotonic).
    in_flight: Option<(Id, u64)>,
    /// Nothing is sent before this time (monotonic).
    retry_at: u64,
    backoff: Backoff,
    /// When the oldest loose event must be sent (monotonic).
    flush_at: u64,
    /// Loose events up to this sequence number are to be sent now.
    flush_to: u64,
    /// Most events per batch; shrinks when the collector says 413.
    batch_events: usize,
}

impl<S: Store> Client<S> {
    /// Opens the client on what `store` holds from earlier lives.
    ///
    /// `context`: what [`crate::Context::encode`] gives, or the same made by other means.
    /// `entropy`: as many random bytes as the host can get, ideally 32. A host that has none still never
    /// gets the same identifiers twice: both clocks and a salt in the store are mixed in.
    ///
    /// # Errors
    /// If the store cannot be read. A damaged or empty store is none: the client begins anew with what is readable, and
    /// the ledger counts what was lost.
    pub fn open(mut store: S, config: Config, context: &str, entropy: &[u8], now: Now) -> Result<Self, OpenError> {
        let saved = state::load(&mut store).map_err(OpenError::Store)?;
        let mut random = Random::new(entropy, now, saved.salt);
        let boot = random.id(0).text()[24..].to_owned();
        let consent = match saved.consent {
            Some(consent) => consent,
            None if config.consent_required => Consent::Unknown,
            None => Consent::Granted,
        };
        let batch_events = config.batch_events();
        let install = saved.install.unwrap_or_else(|| random.id(now.wall));
        let mut client = Self {
            store,
            clock: Clock::new(config.mono_stops_asleep, now),
            config,
            random,
            boot,
            install,
            consent,
            wiped: consent == Consent::Denied,
            seq: saved.seq,
            user: saved.user,
            common: saved.common,
            sessions: saved.sessions,
            ledger: saved.ledger,
            context: String::new(),
            current_context: None,
            next_batch: 1,
            queue: Queue::default(),
            pending: Pending::default(),
            held: Vec::new(),
            page: None,
            timers: Vec::new(),
            notices: Vec::new(),
            told: Vec::new(),
            store_told: None,
            upload: Upload { batch_events, ..Upload::default() },
        };
        client.restore(saved.contexts, saved.events, saved.batches, saved.unreadable, now);
        client.freeze_again(saved.frozen, now);
        client.set_context(context);
        client.touch(now);
        client.upload.flush_at = now.mono + client.config.flush_interval_ms;
        Ok(client)
    }

    /// The install ID: anonymous, made by the SDK, the same until consent is withdrawn.
    #[must_use]
    pub fn install_id(&self) -> Id {
        self.install
    }

    /// The user's decision as the client knows it.
    #[must_use]
    pub fn consent(&self) -> Consent {
        self.consent
    }

    /// Where every event went. Events held until the user decides are not counted yet.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { queued: self.queue.rows() as u64, ..self.ledger.clone() }
    }

    /// Bytes that the store is to hold of what waits: events, what surrounded them, and frozen batches. At most
    /// [`Config::queue_bytes`], and the batches that were frozen since the last event.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Whether the store refused what it was told last.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn store_fails(&self) -> bool {
        self.pending.fails()
    }

    /// The sequence numbers of the events that wait, in no particular order.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn waiting(&self) -> Vec<u64> {
        self.queue.waiting()
    }

    /// The number of the current session.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn session_index(&self) -> u64 {
        self.sessions.current_index()
    }

    /// When the host must call [`Client::poll_task`] next, on the monotonic clock; a time in the past means at once.
    /// `None`: not before the next input.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        let persist = self.pending.due().filter(|_| self.consent != Consent::Unknown || self.wiped);
        let send = match self.upload.in_flight {
            Some((_, deadline)) => Some(deadline),
            None if self.consent != Consent::Granted => None,
            None => self.send_at().map(|at| at.max(self.upload.retry_at).max(self.pending.grace())),
        };
        let wake = match (persist, send) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        wake.map(|wake| self.clock.to_host(wake))
    }

    /// When something should be sent, were nothing in the way.
    fn send_at(&self) -> Option<u64> {
        let frozen = self.queue.next_try();
        let loose = self.queue.oldest_loose().filter(|_| self.queue.batches() < limits::UNREADABLE_BATCHES);
        let loose = loose.map(|oldest| {
            let now = self.queue.loose_rows() >= self.config.flush_events || oldest <= self.upload.flush_to;
            if now { 0 } else { self.upload.flush_at }
        });
        match (frozen, loose) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Messages for the developer since the last call, oldest first: why events were rejected, that the key is wrong.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    fn notice(&mut self, text: String) {
        if self.notices.len() == limits::NOTICES {
            self.notices.remove(0);
        }
        self.notices.push(text);
    }

    /// Gives a notice unless it was given before, or too many of this kind were.
    fn notice_once(&mut self, text: String) {
        if self.told.len() < limits::ONCE_NOTICES && !self.told.contains(&text) {
            self.told.push(text.clone());
            self.notice(text);
        }
    }

    fn drop_events(&mut self, reason: DropReason, events: u64) {
        self.ledger.drop(reason, events);
    }

    /// Something changed that the store should learn.
    fn touch(&mut self, now: Now) {
        self.pending.touch(now.mono + self.config.persist_delay_ms);
    }

    /// The store, for the host's own needs (closing it).
    pub fn into_store(self) -> S {
        self.store
    }
}

fn joined(a: &str, b: &str) -> String {
    let mut text = String::from(a);
    text.push_str(b);
    text
}
