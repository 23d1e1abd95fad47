//! Queue between the host's threads and the driver, with the driver's last report.
//!
//! One lock guards everything. It is held for a few dozen instructions at a time, never across IO, so a caller waits
//! neither for the disk nor for the network. The ledger is exact at any time, because an event moves from `waiting` to
//! `taken` to the client's own ledger under this lock.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subway_sdk_core::{Consent, DropReason, Id, Ledger, Now, Page};

use crate::transport::Reply;
use crate::types::{DeviceInfo, HostInfo, LastUpload, TrackEvent};

/// Events in the queue. The driver takes all at once, so this limit is reached only while the disk hangs.
pub(crate) const MAX_QUEUED_EVENTS: usize = 8192;
/// Bytes of these events. Bounds the memory while the disk hangs.
pub(crate) const MAX_QUEUED_BYTES: usize = 4 * 1024 * 1024;
/// Other commands (identify, set_page, ..) in the queue; further ones are rejected with a diagnostic.
pub(crate) const MAX_QUEUED_COMMANDS: usize = 1024;
/// Diagnostics kept until they are fetched; the oldest are removed first.
const MAX_DIAGNOSTICS: usize = 64;
/// Events per round from which the driver polls the queue after [`COALESCE_WINDOW`] instead of being woken. Waking a thread
/// costs the caller more than everything else in `track()`.
const COALESCE_THRESHOLD: u64 = 16;
/// Time of such a pause, and so the longest delay before an event is stored.
const COALESCE_WINDOW: Duration = Duration::from_millis(1);
/// Memory of an event beside its texts, bytes.
const EVENT_OVERHEAD: usize = 256;

/// Number of a barrier. Barriers of one kind are reached in the order of their numbers.
pub(crate) type BarrierId = u64;

/// Work for the driver.
pub(crate) enum Command {
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
    /// Asks to be notified when everything before it has reached this state.
    Barrier(Barrier, BarrierId),
    Uploaded(Id, Reply),
    /// Commits everything and stops. An upload in flight is abandoned.
    Stop,
}

impl Command {
    fn event_bytes(&self) -> Option<usize> {
        let (Command::Track(_, event) | Command::TimerEnd(_, _, event)) = self else { return None };
        let page = event.page.as_ref().map_or(0, |page| page.path.len() + page.title.len() + page.referrer.len());
        Some(event.code.len() + event.props.len() + page + EVENT_OVERHEAD)
    }
}

/// Reason for which a command was rejected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PushError {
    Full,
    Closed,
}

/// Events that are not counted by the client yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounts {
    pub(crate) events: u64,
    pub(crate) full: u64,
    pub(crate) invalid: u64,
}

/// Report of the driver after each round.
pub(crate) struct DriverReport {
    pub(crate) ledger: Ledger,
    pub(crate) install: Id,
    pub(crate) diagnostics: Vec<String>,
    pub(crate) last_upload: Option<LastUpload>,
    /// Highest barrier of each kind that is reached.
    pub(crate) reached: [u64; 2],
}

/// Kind of a barrier.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Barrier {
    /// All earlier events are settled: acknowledged or dropped.
    Settled = 0,
    /// All earlier events are in the store.
    Persisted = 1,
}

/// State of the driver, which decides whether it must be woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum DriverState {
    /// Working; it checks the queue afterwards.
    Running,
    /// Pausing for [`COALESCE_WINDOW`]; woken for anything but an event.
    Coalescing,
    /// Waiting for a command or its next task.
    Parked,
}

struct QueueState {
    commands: Vec<Command>,
    bytes: usize,
    calls: usize,
    /// Events in `commands`, or dropped since the driver last took them.
    waiting: EventCounts,
    /// Events taken by the driver and not in `ledger` yet.
    taken: EventCounts,
    ledger: Ledger,
    install: Id,
    diagnostics: VecDeque<String>,
    last_upload: Option<LastUpload>,
    last_barrier: BarrierId,
    reached: [u64; 2],
    driver: DriverState,
    /// Rejects commands, because the driver is stopping or has stopped.
    closed: bool,
    stopped: bool,
}

/// Shared by the handle, the driver and the upload thread.
pub(crate) struct CommandQueue {
    state: Mutex<QueueState>,
    driver_wakeup: Condvar,
    barrier_reached: Condvar,
}

impl CommandQueue {
    pub(crate) fn new(ledger: Ledger, install: Id) -> Self {
        let state = QueueState {
            commands: Vec::new(),
            bytes: 0,
            calls: 0,
            waiting: EventCounts::default(),
            taken: EventCounts::default(),
            ledger,
            install,
            diagnostics: VecDeque::new(),
            last_upload: None,
            last_barrier: 0,
            reached: [0; 2],
            driver: DriverState::Running,
            closed: false,
            stopped: false,
        };
        Self { state: Mutex::new(state), driver_wakeup: Condvar::new(), barrier_reached: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // Ignores mutex poisoning: no code panics under the lock, and the counters would still be consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a command. An event that does not fit is counted as dropped.
    pub(crate) fn push(&self, command: Command) -> Result<(), PushError> {
        let mut state = self.lock();
        let is_event = command.event_bytes().is_some();
        state.admit(command)?;
        self.wake(state, is_event);
        Ok(())
    }

    fn wake(&self, mut state: MutexGuard<'_, QueueState>, is_event: bool) {
        let wanted = match state.driver {
            DriverState::Running => false,
            DriverState::Coalescing => !is_event,
            DriverState::Parked => true,
        };
        if wanted {
            state.driver = DriverState::Running;
            drop(state);
            self.driver_wakeup.notify_one();
        }
    }

    /// Counts an event that was rejected because it breaks a rule of the wire.
    pub(crate) fn count_invalid(&self) {
        let mut state = self.lock();
        if !state.closed {
            state.waiting.invalid += 1;
        }
    }

    /// Enqueues a barrier and returns its ID. `None` if the queue is closed or full.
    pub(crate) fn submit_barrier(&self, barrier: Barrier) -> Option<u64> {
        let mut state = self.lock();
        let id = state.last_barrier + 1;
        state.admit(Command::Barrier(barrier, id)).ok()?;
        state.last_barrier = id;
        self.wake(state, false);
        Some(id)
    }

    /// Waits until a barrier is reached. Returns `false` after the timeout, or if the driver stopped before.
    pub(crate) fn wait(&self, barrier: Barrier, id: BarrierId, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| state.stopped || state.reached[barrier as usize] >= id);
        self.lock().reached[barrier as usize] >= id
    }

    /// Waits until the driver has stopped.
    pub(crate) fn wait_stopped(&self, timeout: Duration) -> bool {
        self.wait_until(timeout, |state| state.stopped);
        self.lock().stopped
    }

    fn wait_until(&self, timeout: Duration, done: impl Fn(&QueueState) -> bool) {
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
            state = self.barrier_reached.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for commands, at most `timeout` (`None`: for ever), and moves all of them into `commands`, which must be
    /// empty.
    ///
    /// For the driver. `last` is the result of the previous call. Returns the counters of the commands taken.
    pub(crate) fn take(
        &self,
        timeout: Option<Duration>,
        last: EventCounts,
        commands: &mut Vec<Command>,
    ) -> EventCounts {
        let mut state = self.lock();
        if last.events >= COALESCE_THRESHOLD && !state.has_calls() {
            state = self.park(state, DriverState::Coalescing, COALESCE_WINDOW.min(timeout.unwrap_or(COALESCE_WINDOW)));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while state.commands.is_empty() {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                break;
            }
            state = self.park(state, DriverState::Parked, left);
        }
        std::mem::swap(&mut state.commands, commands);
        state.bytes = 0;
        state.calls = 0;
        state.taken = std::mem::take(&mut state.waiting);
        state.taken
    }

    fn park<'a>(
        &self,
        mut state: MutexGuard<'a, QueueState>,
        how: DriverState,
        time: Duration,
    ) -> MutexGuard<'a, QueueState> {
        state.driver = how;
        let mut state = self.driver_wakeup.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
        state.driver = DriverState::Running;
        state
    }

    /// Publishes the report of a round, which covers everything taken. For the driver.
    pub(crate) fn publish(&self, report: DriverReport) {
        let mut state = self.lock();
        state.taken = EventCounts::default();
        state.ledger = report.ledger;
        state.install = report.install;
        state.last_upload = report.last_upload.or(state.last_upload);
        for diagnostic in report.diagnostics {
            state.diagnostic(diagnostic);
        }
        let reached = state.reached != report.reached;
        state.reached = report.reached;
        drop(state);
        if reached {
            self.barrier_reached.notify_all();
        }
    }

    /// Marks the driver as stopped, regularly or by a panic. For the driver.
    pub(crate) fn mark_stopped(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.stopped = true;
        drop(state);
        self.barrier_reached.notify_all();
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

    /// Adds a message for the developer.
    pub(crate) fn diagnostic(&self, text: String) {
        self.lock().diagnostic(text);
    }

    pub(crate) fn take_diagnostics(&self) -> Vec<String> {
        self.lock().diagnostics.drain(..).collect()
    }
}

impl QueueState {
    /// Returns whether anything but events is queued.
    fn has_calls(&self) -> bool {
        self.commands.len() as u64 > self.waiting.events
    }

    fn admit(&mut self, command: Command) -> Result<(), PushError> {
        if self.closed {
            return Err(PushError::Closed);
        }
        match command.event_bytes() {
            Some(bytes) => {
                if self.waiting.events as usize >= MAX_QUEUED_EVENTS || self.bytes + bytes > MAX_QUEUED_BYTES {
                    self.waiting.full += 1;
                    return Err(PushError::Full);
                }
                self.waiting.events += 1;
                self.bytes += bytes;
            }
            // An upload's result and the stop command are always accepted: there is at most one of each.
            None if matches!(command, Command::Uploaded(..) | Command::Stop) => {}
            None => {
                if self.calls >= MAX_QUEUED_COMMANDS {
                    self.diagnostic("a call was ignored: calls come faster than they can be stored".to_owned());
                    return Err(PushError::Full);
                }
                self.calls += 1;
            }
        }
        self.closed = matches!(command, Command::Stop);
        self.commands.push(command);
        Ok(())
    }

    fn diagnostic(&mut self, text: String) {
        if self.diagnostics.len() == MAX_DIAGNOSTICS {
            self.diagnostics.pop_front();
        }
        self.diagnostics.push_back(text);
    }
}

#[cfg(test)]
mod tests;
