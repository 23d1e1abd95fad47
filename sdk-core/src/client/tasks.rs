//! The second verb: what the host should do now.

use subway_protocol::codec::encode::{Envelope, write_batch};

use super::Client;
use super::state::split_event;
use crate::queue::{Batch, Entry};
use crate::store::{Key, Store};
use crate::transport::{Task, UploadRequest};
use crate::{Consent, DropReason, Now, limits};

impl<S: Store> Client<S> {
    /// Persists what is due and returns work for the host, if there is some now. To be called at [`Client::next_wake`],
    /// after every input that may have changed it, and after [`Client::on_result`], until it returns `None`.
    pub fn poll_task(&mut self, now: Now) -> Option<Task> {
        self.expire_upload(now);
        if self.pending.due().is_some_and(|due| due <= now.mono) && !self.commit(now) {
            return None;
        }
        let idle = self.upload.in_flight.is_none() && self.consent == Consent::Granted;
        if !idle || now.mono < self.upload.retry_at || self.send_at().is_none_or(|at| at > now.mono) {
            return None;
        }
        if self.queue.batches() == 0 {
            let entries = self.queue.gather(self.upload.batch_events, self.config.batch_bytes);
            self.freeze(entries, now);
            self.upload.flush_at = self.upload.flush_at.max(now.mono);
            self.touch(now);
        }
        // A batch is stored before it is first sent, and so are its events.
        if !self.commit(now) {
            return None;
        }
        self.send_front(now)
    }

    /// Tells the store what changed, at once.
    ///
    /// A host calls this when it may be killed soon; otherwise [`Client::poll_task`] does it in time. Returns whether
    /// everything is stored now.
    pub fn commit(&mut self, now: Now) -> bool {
        if self.pending.due().is_none() || self.consent == Consent::Unknown {
            return true;
        }
        if self.pending.blocked_until() > now.mono {
            return false;
        }
        let state = self.encode_state();
        match self.pending.commit(&mut self.store, &state) {
            Ok(()) => true,
            Err(error) => {
                self.pending.block(now.mono + limits::STORE_RETRY_MS);
                self.notice(error.describe());
                false
            }
        }
    }

    /// Freezes these events, which were taken out of the queue, into a new batch.
    pub(super) fn freeze(&mut self, entries: Vec<Entry>, now: Now) {
        let id = self.random.id(now.wall);
        let batch = Batch { number: self.next_batch, id, entries };
        self.next_batch += 1;
        self.pending.put(Key::Batch(batch.number), batch.encode());
        self.queue.freeze(batch);
    }

    fn send_front(&mut self, now: Now) -> Option<Task> {
        let batch = self.queue.front()?;
        let (id, entries, context) = (batch.id, batch.entries.clone(), batch.context());
        let mut records = Vec::with_capacity(entries.len());
        for entry in &entries {
            match self.store.get(Key::Event(entry.seq)) {
                Ok(record) => records.push(record),
                Err(error) => {
                    self.pending.block(now.mono + limits::STORE_RETRY_MS);
                    self.notice(error.describe());
                    return None;
                }
            }
        }
        let texts: Vec<&str> =
            records.iter().flatten().filter_map(|record| split_event(record)).map(|(.., json)| json).collect();
        if texts.len() < entries.len() {
            let kept = |at: usize| records[at].as_deref().and_then(split_event).is_some();
            self.lose(id, kept, now);
            return None;
        }
        let mut ledger = String::new();
        self.ledger().write(&mut ledger);
        let envelope = Envelope {
            batch_id: id,
            install_id: self.install,
            sent_at: now.wall.max(0),
            sent_mono: now.mono,
            context: self.context_text(context),
            ledger: &ledger,
        };
        let mut body = String::with_capacity(texts.iter().map(|text| text.len() + 1).sum::<usize>() + 1024);
        write_batch(&mut body, &envelope, texts.iter().copied());
        self.upload.in_flight = Some((id, now.mono + limits::UPLOAD_TIMEOUT_MS));
        Some(Task::Upload(UploadRequest { batch_id: id, body, events: entries.len() }))
    }

    /// Some events of a batch are gone from the store: the others form a new batch.
    fn lose(&mut self, id: crate::Id, kept: impl Fn(usize) -> bool, now: Now) {
        let Some(batch) = self.queue.thaw(id) else {
            return;
        };
        self.pending.delete(Key::Batch(batch.number));
        let (mut rest, mut lost) = (Vec::new(), Vec::new());
        for (at, entry) in batch.entries.iter().enumerate() {
            if kept(at) { rest.push(*entry) } else { lost.push(*entry) }
        }
        self.forget(&lost);
        self.drop_events(DropReason::StorageLost, lost.len() as u64);
        if !rest.is_empty() {
            self.freeze(rest, now);
        }
        self.touch(now);
    }

    /// These events wait no more: the store and the index forget them.
    pub(super) fn forget(&mut self, entries: &[Entry]) {
        self.queue.forget(entries);
        for entry in entries {
            self.pending.delete(Key::Event(entry.seq));
        }
    }

    /// An upload that was never answered has failed.
    fn expire_upload(&mut self, now: Now) {
        if self.upload.in_flight.is_some_and(|(_, deadline)| deadline <= now.mono) {
            self.upload.in_flight = None;
            self.retry_later(now, None);
        }
    }
}
