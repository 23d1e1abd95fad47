//! The driver thread, which owns the client and its store. Takes queued commands, commits them in one transaction,
//! passes uploads to the upload thread, and parks until more work is due.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use subway_sdk_core::{
    Client, Consent, Context, DropReason, Input, Now, Store, StoreError, Task, TrackError, UploadRequest, UploadResult,
};

use crate::clock::Clock;
use crate::command_queue::{Barrier, BarrierId, Command, CommandQueue, DriverReport, EventCounts};
use crate::store::{SqliteStore, StoreHandle};
use crate::transport::Reply;
use crate::types::{LastUpload, TrackEvent};

/// Shortest sleep. A task that is due but cannot be done must not cause a busy loop.
const MIN_SLEEP: Duration = Duration::from_millis(1);

/// Barriers that are kept separately; further ones are merged with the last.
const MAX_BARRIERS: usize = 256;

/// Store of the client: in memory or on disk.
pub(crate) enum AnyStore {
    Memory(subway_sdk_core::MemoryStore),
    Sqlite(Box<SqliteStore>),
}

impl Store for AnyStore {
    fn apply(&mut self, writes: &[subway_sdk_core::StoreWrite<'_>]) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.apply(writes),
            AnyStore::Sqlite(store) => store.apply(writes),
        }
    }

    fn get(&mut self, key: subway_sdk_core::Key) -> Result<Option<String>, StoreError> {
        match self {
            AnyStore::Memory(store) => store.get(key),
            AnyStore::Sqlite(store) => store.get(key),
        }
    }

    fn scan(&mut self, visit: &mut dyn FnMut(subway_sdk_core::Key, &str)) -> Result<(), StoreError> {
        match self {
            AnyStore::Memory(store) => store.scan(visit),
            AnyStore::Sqlite(store) => store.scan(visit),
        }
    }
}

/// State of the driver thread.
pub(crate) struct Driver {
    pub(crate) client: Client<AnyStore>,
    pub(crate) context: Context,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: Arc<CommandQueue>,
    pub(crate) uploads: Sender<UploadRequest>,
    pub(crate) store: StoreHandle,
    pub(crate) barriers: Barriers,
}

/// Barriers that are not reached yet, and reports for the next round.
#[derive(Default)]
pub(crate) struct Barriers {
    /// Barrier IDs with the last sequence number that must be settled.
    settled: VecDeque<(u64, u64)>,
    settled_is_full: bool,
    persisted: Option<u64>,
    reached: [u64; 2],
    last_upload: Option<LastUpload>,
    diagnostics: Vec<String>,
}

impl Barriers {
    /// Adds a barrier for everything up to `seq`. Reaching an ID includes all lower ones, so barriers for the same
    /// sequence number, or close ones if there are many, share an entry. A host that flushes every second while the
    /// network is down for days needs no memory for it.
    fn add(&mut self, id: BarrierId, seq: u64) {
        match self.settled.back_mut() {
            Some(last) if last.1 == seq => last.0 = id,
            Some(last) if self.settled_is_full => *last = (id, seq),
            _ => self.settled.push_back((id, seq)),
        }
        self.settled_is_full = self.settled.len() >= MAX_BARRIERS;
    }
}

/// Drop guard: marks the driver as stopped, even after a panic.
struct StopGuard(Arc<CommandQueue>);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.mark_stopped();
    }
}

impl Driver {
    /// Runs until a stop command.
    pub(crate) fn run(mut self) {
        let stop_guard = StopGuard(self.queue.clone());
        let mut commands = Vec::new();
        let mut counts = EventCounts::default();
        let mut running = true;
        while running {
            counts = self.queue.take(self.sleep(), counts, &mut commands);
            let now = self.clock.now();
            self.client.count_dropped(now, DropReason::QueueFull, counts.full);
            self.client.count_dropped(now, DropReason::Invalid, counts.invalid);
            for command in commands.drain(..) {
                running &= !matches!(command, Command::Stop);
                self.handle(command);
            }
            if running {
                self.work();
            } else {
                self.client.commit(self.clock.now());
            }
            self.publish();
        }
        // Closes the store and releases its lock before waiting threads learn that the driver has stopped.
        drop(self);
        drop(stop_guard);
    }

    fn sleep(&self) -> Option<Duration> {
        let at = self.client.poll_timeout()?;
        let left = at.saturating_sub(self.clock.now().mono);
        Some(Duration::from_millis(left).max(MIN_SLEEP))
    }

    /// Runs all tasks that are due now.
    fn work(&mut self) {
        while let Some(Task::Upload(upload)) = self.client.poll_task(self.clock.now()) {
            let batch_id = upload.batch_id;
            if self.uploads.send(upload).is_err() {
                self.client.handle_upload_result(self.clock.now(), batch_id, UploadResult::Failed);
                self.barriers.diagnostics.push("the upload thread has stopped".to_owned());
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let client = &mut self.client;
        match command {
            Command::Track(now, event) => self.track(now, event, None),
            Command::Identify(now, user) => {
                let refused = client.identify(now, &user).err();
                self.report_error(refused);
            }
            Command::Logout(now) => client.logout(now),
            Command::Register(now, props) => {
                let refused = client.register(now, &props).err();
                self.report_error(refused);
            }
            Command::Unregister(now, name) => client.unregister(now, &name),
            Command::ClearRegistered(now) => client.clear_registered(now),
            Command::SetConsent(now, consent) => self.consent(now, consent),
            Command::SetPage(page) => client.set_page(page),
            Command::SetNetwork(network) => {
                self.context.network = network;
                client.set_context(&self.context.encode());
            }
            Command::SetDevice(device) => {
                device.fill(&mut self.context);
                client.set_context(&self.context.encode());
            }
            Command::SetHost(host) => {
                host.fill(&mut self.context);
                client.set_context(&self.context.encode());
            }
            Command::Foreground(now) => client.foreground(now),
            Command::Background(now) => client.background(now),
            Command::TimerStart(now, name) => client.timer_start(now, &name),
            Command::TimerEnd(now, name, event) => self.track(now, event, Some(&name)),
            Command::Flush(now) => client.flush(now),
            Command::Barrier(Barrier::Settled, id) => self.barriers.add(id, client.last_seq()),
            Command::Barrier(Barrier::Persisted, id) => {
                client.commit(self.clock.now());
                self.barriers.persisted = Some(id);
            }
            Command::Uploaded(batch_id, reply) => self.handle_reply(batch_id, &reply),
            Command::Stop => {}
        }
    }

    /// Records an event. If `timer` is given, stops that timer and adds its duration.
    fn track(&mut self, now: Now, event: TrackEvent, timer: Option<&str>) {
        let page = event.page.map(subway_sdk_core::Page::from);
        let input = Input {
            theme: event.theme.into(),
            code: &event.code,
            props: &event.props,
            page: page.as_ref(),
            true_ts: event.true_ts,
        };
        let done = match timer {
            Some(name) => self.client.timer_end(now, name, input),
            None => self.client.track(now, input),
        };
        // Missing consent and a full queue are not mistakes of the developer; the ledger counts them.
        self.report_error(done.err().filter(|error| matches!(error, TrackError::Invalid(_))));
    }

    fn consent(&mut self, now: Now, consent: Consent) {
        if consent == Consent::Denied {
            self.store.request_secure_wipe();
            // Sequence numbers start again, and all earlier events are settled.
            for (_, seq) in &mut self.barriers.settled {
                *seq = 0;
            }
        }
        self.client.set_consent(now, consent);
    }

    fn handle_reply(&mut self, batch_id: subway_sdk_core::Id, reply: &Reply) {
        let now = self.clock.now();
        let (result, status) = match reply {
            Reply::Answer { status, retry_after_ms, body } => {
                (UploadResult::Response { status: *status, retry_after_ms: *retry_after_ms, body }, Some(*status))
            }
            Reply::Failed(_) => (UploadResult::Failed, None),
        };
        self.barriers.last_upload = Some(LastUpload { status, at: now.wall });
        self.client.handle_upload_result(now, batch_id, result);
    }

    fn report_error(&mut self, error: Option<TrackError>) {
        self.barriers.diagnostics.extend(error.map(|error| error.to_string()));
    }

    fn publish(&mut self) {
        let barriers = &mut self.barriers;
        while let Some((id, seq)) = barriers.settled.front()
            && self.client.is_settled_up_to(*seq)
        {
            barriers.reached[0] = *id;
            barriers.settled.pop_front();
        }
        if self.client.is_persisted()
            && let Some(id) = barriers.persisted.take()
        {
            barriers.reached[1] = id;
        }
        let mut diagnostics = std::mem::take(&mut barriers.diagnostics);
        diagnostics.extend(self.store.take_recovery_reports());
        diagnostics.extend(self.client.take_diagnostics());
        self.queue.publish(DriverReport {
            ledger: self.client.ledger(),
            install: self.client.install_id(),
            diagnostics,
            last_upload: barriers.last_upload.take(),
            reached: barriers.reached,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Barriers, MAX_BARRIERS};

    #[test]
    fn barriers_are_bounded_and_the_last_is_reached_last() {
        let mut barriers = Barriers::default();
        for id in 0..10_000 {
            barriers.add(id, 7);
        }
        assert_eq!(barriers.settled, [(9_999, 7)]);
        for id in 10_000..20_000 {
            barriers.add(id, id);
        }
        assert_eq!((barriers.settled.len(), barriers.settled.back()), (MAX_BARRIERS, Some(&(19_999, 19_999))));
    }
}
