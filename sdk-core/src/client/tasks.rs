//! The second verb: what the host should do now.

use subway_protocol::codec::encode::{Envelope, write_batch};

use super::Client;
use super::state::split_event;
use crate::store::{Key, Store, StoreError};
use crate::transport::{Task, UploadRequest};
use crate::{Consent, DropReason, Id, Now, limits};

impl<S: Store> Client<S> {
    /// Persists what is due and returns work for the host, if there is some now. To be called at [`Client::next_wake`],
    /// after every input that may have changed it, and after [`Client::on_result`], until it returns `None`.
    pub fn poll_task(&mut self, now: Now) -> Option<Task> {
        let (now, mono) = (self.clock.read(now), now.mono);
        self.expire_upload(now);
        if self.pending.due().is_some_and(|due| due <= now.mono) {
            self.store_changes(now);
        }
        if self.upload.in_flight.is_some() || self.consent != Consent::Granted || now.mono < self.upload.retry_at {
            return None;
        }
        // Ends: each round sends, or puts a batch off, or loses events.
        while self.send_at().is_some_and(|at| at <= now.mono) {
            if self.queue.front(now.mono).is_none() {
                let entries = self.queue.gather(self.upload.batch_events, self.config.batch_bytes);
                self.freeze(entries, now.wall.max(0), now);
                self.upload.flush_at = self.upload.flush_at.max(now.mono);
                self.touch(now);
            }
            // A batch is stored before it is first sent, and so are its events; but a store that keeps failing does not
            // keep them from being sent.
            if !self.store_changes(now) && self.pending.grace() > now.mono {
                return None;
            }
            if let Some(task) = self.send_front(now, mono) {
                return Some(task);
            }
        }
        // Events that turned out to be lost.
        if self.pending.due().is_some_and(|due| due <= now.mono) {
            self.store_changes(now);
        }
        None
    }

    fn send_front(&mut self, now: Now, mono: u64) -> Option<Task> {
        let batch = self.queue.front(now.mono)?;
        let (id, first_sent_at, context) = (batch.id, batch.first_sent_at, batch.context());
        let seqs: Vec<u64> = batch.entries.iter().map(|entry| entry.seq).collect();
        let mut records = Vec::with_capacity(seqs.len());
        for seq in &seqs {
            match self.read_event(*seq) {
                Ok(record) => records.push(record),
                Err(error) => {
                    self.put_off(id, now, &error);
                    return None;
                }
            }
        }
        let texts: Vec<&str> =
            records.iter().flatten().filter_map(|record| split_event(record)).map(|(.., json)| json).collect();
        if texts.len() < seqs.len() {
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
            sent_mono: mono,
            first_sent_at,
            context: self.queue.contexts.text(context).unwrap_or_default(),
            ledger: &ledger,
        };
        let mut body = String::with_capacity(texts.iter().map(|text| text.len() + 1).sum::<usize>() + 1024);
        write_batch(&mut body, &envelope, texts.iter().copied());
        if let Some(batch) = self.queue.batch_mut(id) {
            batch.unreadable = 0;
        }
        self.upload.in_flight = Some((id, now.mono + limits::UPLOAD_TIMEOUT_MS));
        Some(Task::Upload(UploadRequest { batch_id: id, body, events: seqs.len() }))
    }

    /// An event's record, from memory if the store was not told of it yet.
    fn read_event(&mut self, seq: u64) -> Result<Option<String>, StoreError> {
        match self.pending.value(Key::Event(seq)) {
            Some(record) => Ok(Some(record.to_owned())),
            None => self.store.get(Key::Event(seq)),
        }
    }

    /// A batch that cannot be read now must not keep the others from being sent.
    fn put_off(&mut self, id: Id, now: Now, error: &StoreError) {
        self.notice_store(now, error);
        if let Some(batch) = self.queue.batch_mut(id) {
            let wait = limits::STORE_RETRY_MS << batch.unreadable.min(16);
            batch.unreadable = batch.unreadable.saturating_add(1);
            batch.retry_at = now.mono + wait.min(limits::STORE_RETRY_CAP_MS);
        }
    }

    /// Some events of a batch are gone from the store: the others form a new batch.
    fn lose(&mut self, id: Id, kept: impl Fn(usize) -> bool, now: Now) {
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
            self.freeze(rest, batch.first_sent_at, now);
        }
        self.touch(now);
    }

    /// An upload that was never answered has failed.
    fn expire_upload(&mut self, now: Now) {
        if self.upload.in_flight.is_some_and(|(_, deadline)| deadline <= now.mono) {
            self.upload.in_flight = None;
            self.retry_later(now, None);
        }
    }
}
