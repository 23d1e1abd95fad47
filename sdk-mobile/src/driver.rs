//! The one thread that owns the client and its store: takes what the host handed over, stores it in one transaction,
//! gives uploads to the uploader, sleeps until there is something to do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use subway_sdk_core::{
    Client, Consent, Context, DropReason, Input, Now, Store, StoreError, Task, TrackError, UploadRequest, UploadResult,
};

use crate::clock::Clock;
use crate::inbox::{Counts, Inbox, Message, Report};
use crate::store::{SqliteStore, StoreControl};
use crate::transport::Reply;
use crate::types::{LastUpload, TrackEvent};

/// Never sleep for less: a task that is due but cannot be done must not turn into a busy loop.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// Moments that are waited for; more are waited for together with the last.
const WAITERS: usize = 256;

/// The two places to keep events.
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

/// What the thread owns.
pub(crate) struct Driver {
    pub(crate) client: Client<AnyStore>,
    pub(crate) context: Context,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) uploads: Sender<UploadRequest>,
    pub(crate) store: StoreControl,
    pub(crate) waiters: Waiters,
}

/// Who waits for what.
#[derive(Default)]
pub(crate) struct Waiters {
    /// Tickets with the last sequence number that must have ended.
    ended: VecDeque<(u64, u64)>,
    ended_is_full: bool,
    persisted: Option<u64>,
    answered: [u64; 2],
    last_upload: Option<LastUpload>,
    notices: Vec<String>,
}

impl Waiters {
    /// A ticket waits for the end of everything up to `seq`. The highest ticket answers the lower ones, so that those who
    /// wait for the same, or for nearly the same where there are many, need one entry: a host that asks every second
    /// while the network is away for days costs nothing.
    fn wait(&mut self, ticket: u64, seq: u64) {
        match self.ended.back_mut() {
            Some(last) if last.1 == seq => last.0 = ticket,
            Some(last) if self.ended_is_full => *last = (ticket, seq),
            _ => self.ended.push_back((ticket, seq)),
        }
        self.ended_is_full = self.ended.len() >= WAITERS;
    }
}

/// Says that the driver is gone, however it went.
struct Leaving(Arc<Inbox>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Driver {
    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let leaving = Leaving(self.inbox.clone());
        let mut messages = Vec::new();
        let mut counts = Counts::default();
        let mut running = true;
        while running {
            counts = self.inbox.take(self.sleep(), counts, &mut messages);
            let now = self.clock.now();
            self.client.count_dropped(now, DropReason::QueueFull, counts.full);
            self.client.count_dropped(now, DropReason::Invalid, counts.invalid);
            for message in messages.drain(..) {
                running &= !matches!(message, Message::Stop);
                self.handle(message);
            }
            if running {
                self.work();
            } else {
                self.client.commit(self.clock.now());
            }
            self.publish();
        }
        // The store is closed and its lock released before anybody is told that the driver is gone.
        drop(self);
        drop(leaving);
    }

    fn sleep(&self) -> Option<Duration> {
        let at = self.client.poll_timeout()?;
        let left = at.saturating_sub(self.clock.now().mono);
        Some(Duration::from_millis(left).max(SHORTEST_SLEEP))
    }

    /// Does everything that is due now.
    fn work(&mut self) {
        while let Some(Task::Upload(upload)) = self.client.poll_task(self.clock.now()) {
            let batch_id = upload.batch_id;
            if self.uploads.send(upload).is_err() {
                self.client.handle_upload_result(self.clock.now(), batch_id, UploadResult::Failed);
                self.waiters.notices.push("the upload thread is gone".to_owned());
            }
        }
    }

    fn handle(&mut self, message: Message) {
        let client = &mut self.client;
        match message {
            Message::Track(now, event) => self.track(now, event, None),
            Message::Identify(now, user) => {
                let refused = client.identify(now, &user).err();
                self.told(refused);
            }
            Message::Logout(now) => client.logout(now),
            Message::Register(now, props) => {
                let refused = client.register(now, &props).err();
                self.told(refused);
            }
            Message::Unregister(now, name) => client.unregister(now, &name),
            Message::ClearRegistered(now) => client.clear_registered(now),
            Message::SetConsent(now, consent) => self.consent(now, consent),
            Message::SetPage(page) => client.set_page(page),
            Message::SetNetwork(network) => {
                self.context.network = network;
                client.set_context(&self.context.encode());
            }
            Message::SetDevice(device) => {
                device.fill(&mut self.context);
                client.set_context(&self.context.encode());
            }
            Message::SetHost(host) => {
                host.fill(&mut self.context);
                client.set_context(&self.context.encode());
            }
            Message::Foreground(now) => client.foreground(now),
            Message::Background(now) => client.background(now),
            Message::TimerStart(now, name) => client.timer_start(now, &name),
            Message::TimerEnd(now, name, event) => self.track(now, event, Some(&name)),
            Message::Flush(now) => client.flush(now),
            Message::WhenEnded(ticket) => self.waiters.wait(ticket, client.last_seq()),
            Message::WhenPersisted(ticket) => {
                client.commit(self.clock.now());
                self.waiters.persisted = Some(ticket);
            }
            Message::Uploaded(batch_id, reply) => self.uploaded(batch_id, &reply),
            Message::Stop => {}
        }
    }

    /// Records an event; with a `timer`, that timer ends and gives it its duration.
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
        // Without consent and with a full queue there is nothing a developer must mend; the ledger has it.
        self.told(done.err().filter(|error| matches!(error, TrackError::Invalid(_))));
    }

    fn consent(&mut self, now: Now, consent: Consent) {
        if consent == Consent::Denied {
            self.store.wipe_next();
            // Sequence numbers begin anew, and whatever was waited for has ended.
            for (_, seq) in &mut self.waiters.ended {
                *seq = 0;
            }
        }
        self.client.set_consent(now, consent);
    }

    fn uploaded(&mut self, batch_id: subway_sdk_core::Id, reply: &Reply) {
        let now = self.clock.now();
        let (result, status) = match reply {
            Reply::Response { status, retry_after_ms, body } => {
                (UploadResult::Response { status: *status, retry_after_ms: *retry_after_ms, body }, Some(*status))
            }
            Reply::Failed(_) => (UploadResult::Failed, None),
        };
        self.waiters.last_upload = Some(LastUpload { status, at: now.wall });
        self.client.handle_upload_result(now, batch_id, result);
    }

    fn told(&mut self, error: Option<TrackError>) {
        self.waiters.notices.extend(error.map(|error| error.to_string()));
    }

    fn publish(&mut self) {
        let waiters = &mut self.waiters;
        while let Some((ticket, seq)) = waiters.ended.front()
            && self.client.is_settled_up_to(*seq)
        {
            waiters.answered[0] = *ticket;
            waiters.ended.pop_front();
        }
        if self.client.is_persisted()
            && let Some(ticket) = waiters.persisted.take()
        {
            waiters.answered[1] = ticket;
        }
        let mut notices = std::mem::take(&mut waiters.notices);
        notices.extend(self.store.take_recoveries());
        notices.extend(self.client.take_diagnostics());
        self.inbox.publish(Report {
            ledger: self.client.ledger(),
            install: self.client.install_id(),
            notices,
            last_upload: waiters.last_upload.take(),
            answered: waiters.answered,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{WAITERS, Waiters};

    #[test]
    fn those_who_wait_are_bounded_and_the_last_is_answered_last() {
        let mut waiters = Waiters::default();
        for ticket in 0..10_000 {
            waiters.wait(ticket, 7);
        }
        assert_eq!(waiters.ended, [(9_999, 7)]);
        for ticket in 10_000..20_000 {
            waiters.wait(ticket, ticket);
        }
        assert_eq!((waiters.ended.len(), waiters.ended.back()), (WAITERS, Some(&(19_999, 19_999))));
    }
}
