//! The façade: one struct, four verbs.

mod face;
mod inputs;
mod pending;
mod results;
mod state;
mod tasks;

use inputs::Held;
pub use inputs::{Input, check_user};
use pending::Pending;

use crate::queue::{Backoff, Queue};
use crate::random::Random;
use crate::session::Sessions;
use crate::store::Store;
use crate::{Config, Consent, DropReason, Id, Ledger, Now, OpenError, Page, limits};

/// One install of the SDK. See the crate's documentation for how a host drives it.
pub struct Client<S> {
    store: S,
    config: Config,
    random: Random,
    /// Which run of the monotonic clock this is.
    boot: String,

    install: Id,
    consent: Consent,
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
    /// Contexts that waiting events were recorded in, by number; the last is the current one if `context_known`.
    contexts: Vec<(u64, String)>,
    context_known: bool,
    next_context: u64,
    next_batch: u64,

    queue: Queue,
    pending: Pending,
    held: Vec<Held>,
    page: Option<Page>,
    timers: Vec<(String, u64)>,
    notices: Vec<String>,
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
    /// `entropy`: as many random bytes as the host can get, ideally 32; see [`Random`].
    ///
    /// # Errors
    /// If the store cannot be read. A damaged or empty store is none: the client begins anew with what is readable, and
    /// the ledger counts what was lost.
    pub fn open(mut store: S, config: Config, context: &str, entropy: &[u8], now: Now) -> Result<Self, OpenError> {
        let saved = state::load(&mut store).map_err(OpenError::Store)?;
        let mut random = Random::new(entropy, now, saved.salt);
        let boot = random.id(0).text()[24..32].to_owned();
        let consent = match saved.consent {
            Some(consent) => consent,
            None if config.consent_required => Consent::Unknown,
            None => Consent::Granted,
        };
        let batch_events = config.batch_events.clamp(1, subway_protocol::limits::EVENTS_PER_BATCH as usize);
        let install = saved.install.unwrap_or_else(|| random.id(now.wall));
        let mut client = Self {
            store,
            config,
            random,
            boot,
            install,
            consent,
            seq: saved.seq,
            user: saved.user,
            common: saved.common,
            sessions: saved.sessions,
            ledger: saved.ledger,
            context: String::new(),
            contexts: Vec::new(),
            context_known: false,
            next_context: 1,
            next_batch: 1,
            queue: Queue::default(),
            pending: Pending::default(),
            held: Vec::new(),
            page: None,
            timers: Vec::new(),
            notices: Vec::new(),
            upload: Upload { batch_events, ..Upload::default() },
        };
        client.restore(saved.contexts, saved.events, saved.batches, now);
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

    /// When the host must call [`Client::poll_task`] next, on the monotonic clock; a time in the past means at once.
    /// `None`: not before the next input.
    #[must_use]
    pub fn next_wake(&self) -> Option<u64> {
        let persist = self.pending.due().filter(|_| self.consent != Consent::Unknown);
        let send = match self.upload.in_flight {
            Some((_, deadline)) => Some(deadline),
            None if self.consent != Consent::Granted => None,
            None => self.send_at().map(|at| at.max(self.upload.retry_at).max(self.pending.blocked_until())),
        };
        match (persist, send) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// When something should be sent, were nothing in the way.
    fn send_at(&self) -> Option<u64> {
        if self.queue.batches() > 0 {
            return Some(0);
        }
        let oldest = self.queue.oldest_loose()?;
        let now = self.queue.loose_rows() >= self.config.flush_events || oldest <= self.upload.flush_to;
        Some(if now { 0 } else { self.upload.flush_at })
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
