//! Between the host's threads and the driver: what was handed over but not taken yet, and what the driver last told.
//!
//! Everything lies under one lock that is held for a few dozen instructions at a time, never across IO: a caller neither
//! waits for the disk nor for the network. The figures of the ledger are exact at every moment, because an event moves
//! from `waiting` to `taken` to the client's own ledger under this lock.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subway_sdk_core::{Consent, DropReason, Id, Ledger, Now, Page};

use crate::transport::Reply;
use crate::types::{DeviceInfo, HostInfo, LastUpload, TrackEvent};

/// Events handed over and not taken yet. The driver takes all at once, so this is reached only while the disk hangs.
pub(crate) const INBOX_EVENTS: usize = 8192;
/// Their bytes. Bounds the memory that a hanging disk can cost.
pub(crate) const INBOX_BYTES: usize = 4 * 1024 * 1024;
/// Other calls (identify, set_page, ..) handed over and not taken yet; further ones are refused with a notice.
pub(crate) const INBOX_CALLS: usize = 1024;
/// Notices kept until they are fetched; the oldest go first.
const NOTICES: usize = 64;
/// A round with so many events means that events come fast. Then the driver looks again by itself after [`LINGER`], and
/// nobody needs to wake it: a wake-up costs the caller more than everything else in `track()` together.
const FAST_EVENTS: u64 = 16;
/// How long it waits then. Also the longest time by which this delays storing an event.
const LINGER: Duration = Duration::from_millis(1);
/// What an event costs beside its texts, bytes.
const EVENT_OVERHEAD: usize = 256;

/// One thing for the driver to do.
pub(crate) enum Message {
    Track(Now, TrackEvent),
    Identify(Now, String),
    Logout(Now),
    Register(Now, String),
    Unregister(Now, String),
    ClearRegistered(Now),
    SetConsent(Now, Consent),
    SetPage(Option<Page>),
    SetNetwork(String),
    SetDevice(DeviceInfo),
    SetHost(HostInfo),
    Foreground(Now),
    Background(Now),
    TimerStart(Now, String),
    TimerEnd(Now, String, TrackEvent),
    Flush(Now),
    /// To be answered when everything before it has ended (acknowledged or dropped).
    WhenEnded(u64),
    /// To be answered when everything before it is in the store.
    WhenPersisted(u64),
    Uploaded(Id, Reply),
    /// Store everything and end; the upload in flight, if any, is left to itself.
    Stop,
}

impl Message {
    fn event_bytes(&self) -> Option<usize> {
        let (Message::Track(_, event) | Message::TimerEnd(_, _, event)) = self else { return None };
        let page = event.page.as_ref().map_or(0, |page| page.path.len() + page.title.len() + page.referrer.len());
        Some(event.code.len() + event.props.len() + page + EVENT_OVERHEAD)
    }
}

/// Why something was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// Events counted outside the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) full: u64,
    pub(crate) invalid: u64,
}

/// What the driver tells after each round.
pub(crate) struct Report {
    pub(crate) ledger: Ledger,
    pub(crate) install: Id,
    pub(crate) notices: Vec<String>,
    pub(crate) last_upload: Option<LastUpload>,
    /// The highest ticket of [`Message::WhenEnded`] and [`Message::WhenPersisted`] that is to be answered.
    pub(crate) answered: [u64; 2],
}

/// Which of the two kinds of ticket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Ended = 0,
    Persisted = 1,
}

/// What the driver does, which decides whether it must be woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DriverIs {
    /// Working; it will look here afterwards.
    Awake,
    /// Waiting for [`LINGER`]; worth waking for anything but an event.
    Lingering,
    /// Waiting for a message or its next task.
    Asleep,
}

struct State {
    messages: Vec<Message>,
    bytes: usize,
    calls: usize,
    /// In `messages`, or dropped since the driver looked last.
    waiting: Counts,
    /// Taken by the driver, not in `ledger` yet.
    taken: Counts,
    ledger: Ledger,
    install: Id,
    notices: VecDeque<String>,
    last_upload: Option<LastUpload>,
    tickets: u64,
    answered: [u64; 2],
    driver: DriverIs,
    /// No further messages: the driver has been told to end, or is gone.
    closed: bool,
    gone: bool,
}

/// Shared by the handle, the driver and the uploader.
pub(crate) struct Inbox {
    state: Mutex<State>,
    for_driver: Condvar,
    for_waiters: Condvar,
}

impl Inbox {
    pub(crate) fn new(ledger: Ledger, install: Id) -> Self {
        let state = State {
            messages: Vec::new(),
            bytes: 0,
            calls: 0,
            waiting: Counts::default(),
            taken: Counts::default(),
            ledger,
            install,
            notices: VecDeque::new(),
            last_upload: None,
            tickets: 0,
            answered: [0; 2],
            driver: DriverIs::Awake,
            closed: false,
            gone: false,
        };
        Self { state: Mutex::new(state), for_driver: Condvar::new(), for_waiters: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing here panics while it holds the lock; if it did, the figures would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over one message. An event that does not fit is counted as dropped.
    pub(crate) fn push(&self, message: Message) -> Result<(), Refused> {
        let mut state = self.lock();
        let is_event = message.event_bytes().is_some();
        state.admit(message)?;
        self.wake(state, is_event);
        Ok(())
    }

    fn wake(&self, mut state: MutexGuard<'_, State>, is_event: bool) {
        let wanted = match state.driver {
            DriverIs::Awake => false,
            DriverIs::Lingering => !is_event,
            DriverIs::Asleep => true,
        };
        if wanted {
            state.driver = DriverIs::Awake;
            drop(state);
            self.for_driver.notify_one();
        }
    }

    /// Counts an event that was refused at the call because it breaks a rule of the wire.
    pub(crate) fn count_invalid(&self) {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.invalid += 1;
        }
    }

    /// Draws a number and hands over the message that asks for it. `None` if the inbox is closed or full.
    pub(crate) fn ask(&self, wait: Wait) -> Option<u64> {
        let mut state = self.lock();
        let ticket = state.tickets + 1;
        let message = match wait {
            Wait::Ended => Message::WhenEnded(ticket),
            Wait::Persisted => Message::WhenPersisted(ticket),
        };
        state.admit(message).ok()?;
        state.tickets = ticket;
        self.wake(state, false);
        Some(ticket)
    }

    /// Waits until a ticket has been answered. `false` if the time is up or the driver gone before.
    pub(crate) fn wait(&self, wait: Wait, ticket: u64, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| state.gone || state.answered[wait as usize] >= ticket);
        self.lock().answered[wait as usize] >= ticket
    }

    /// Waits until the driver has ended.
    pub(crate) fn wait_gone(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| state.gone);
        self.lock().gone
    }

    fn wait_until(&self, timeout: Duration, done: impl Fn(&State) -> bool) {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        while !done(&state) {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return;
            }
            state = self.for_waiters.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The driver's side: waits at most `timeout` (`None`: for ever) for messages and takes them all into `messages`,
    /// which must be empty. `last` is what the last call returned. Returns what was counted outside of the messages.
    pub(crate) fn take(&self, timeout: Option<Duration>, last: Counts, messages: &mut Vec<Message>) -> Counts {
        let mut state = self.lock();
        if last.events >= FAST_EVENTS && !state.has_calls() {
            state = self.doze(state, DriverIs::Lingering, LINGER.min(timeout.unwrap_or(LINGER)));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while state.messages.is_empty() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.doze(state, DriverIs::Asleep, left);
        }
        std::mem::swap(&mut state.messages, messages);
        state.bytes = 0;
        state.calls = 0;
        state.taken = std::mem::take(&mut state.waiting);
        state.taken
    }

    fn doze<'a>(&self, mut state: MutexGuard<'a, State>, how: DriverIs, time: Duration) -> MutexGuard<'a, State> {
        state.driver = how;
        let mut state = self.for_driver.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        state.driver = DriverIs::Awake;
        state
    }

    /// The driver's side: everything taken is in this report.
    pub(crate) fn publish(&self, report: Report) {
        let mut state = self.lock();
        state.taken = Counts::default();
        state.ledger = report.ledger;
        state.install = report.install;
        state.last_upload = report.last_upload.or(state.last_upload);
        for notice in report.notices {
            state.notice(notice);
        }
        let answered = state.answered != report.answered;
        state.answered = report.answered;
        drop(state);
        if answered {
            self.for_waiters.notify_all();
        }
    }

    /// The driver's side: it has ended, in order or not.
    pub(crate) fn leave(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.gone = true;
        drop(state);
        self.for_waiters.notify_all();
    }

    pub(crate) fn ledger(&self) -> Ledger {
        let state = self.lock();
        let mut ledger = state.ledger.clone();
        for counts in [state.waiting, state.taken] {
            ledger.generated += counts.events + counts.full + counts.invalid;
            ledger.queued += counts.events;
            ledger.drop(DropReason::QueueFull, counts.full);
            ledger.drop(DropReason::Invalid, counts.invalid);
        }
        ledger
    }

    pub(crate) fn install(&self) -> Id {
        self.lock().install
    }

    pub(crate) fn last_upload(&self) -> Option<LastUpload> {
        self.lock().last_upload
    }

    /// Something that the developer should know.
    pub(crate) fn notice(&self, text: String) {
        self.lock().notice(text);
    }

    pub(crate) fn take_diagnostics(&self) -> Vec<String> {
        self.lock().notices.drain(..).collect()
    }
}

impl State {
    /// Whether anything but events waits.
    fn has_calls(&self) -> bool {
        self.messages.len() as u64 > self.waiting.events
    }

    fn admit(&mut self, message: Message) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        match message.event_bytes() {
            Some(bytes) => {
                if self.waiting.events as usize >= INBOX_EVENTS || self.bytes + bytes > INBOX_BYTES {
                    self.waiting.full += 1;
                    return Err(Refused::Full);
                }
                self.waiting.events += 1;
                self.bytes += bytes;
            }
            // What came of an upload, or the order to end, is never turned away: there is one of each at most.
            None if matches!(message, Message::Uploaded(..) | Message::Stop) => {}
            None => {
                if self.calls >= INBOX_CALLS {
                    self.notice("a call was ignored: calls come faster than they can be stored".to_owned());
                    return Err(Refused::Full);
                }
                self.calls += 1;
            }
        }
        self.closed = matches!(message, Message::Stop);
        self.messages.push(message);
        Ok(())
    }

    fn notice(&mut self, text: String) {
        if self.notices.len() == NOTICES {
            self.notices.pop_front();
        }
        self.notices.push_back(text);
    }
}

#[cfg(test)]
mod tests;
