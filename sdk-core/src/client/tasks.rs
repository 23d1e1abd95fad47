//! Hands out work to the host: commits that are due and the next upload.

use subway_protocol::codec::encode::{Envelope, write_batch};

use super::Client;
use super::state::split_event;
use crate::store::{Key, Store, StoreError};
use crate::transport::{Task, UploadRequest};
use crate::{Consent, DropReason, Id, Now, limits};

impl<S: Store> Client<S> {
    /// Commits what is due and returns an upload if one is due.
    ///
    /// Call it at [`Client::poll_timeout`], after every input, and after [`Client::handle_upload_result`], until it returns `None`.
    pub fn poll_task(&mut self, now: Now) -> Option<Task> {
        let (now, mono) = (self.clock.read(now), now.mono);
        self.expire_upload(now);
        if self.write_buffer.due().is_some_and(|due| due <= now.mono) {
            self.commit_changes(now);
        }
        if self.upload.in_flight.is_some() || self.consent != Consent::Granted || now.mono < self.upload.retry_at {
            return None;
        }
        // Terminates: each round sends, defers a batch, or drops events.
        while self.send_due().is_some_and(|at| at <= now.mono) {
            if self.queue.front(now.mono).is_none() {
                let events = self.queue.take_batch(self.upload.max_batch_events, self.config.max_batch_bytes);
                self.freeze(events, now.wall.max(0), now);
                self.upload.flush_at = self.upload.flush_at.max(now.mono);
                self.schedule_commit(now);
            }
            // Events and batch are stored before the first upload, except if the store keeps failing.
            if !self.commit_changes(now) && self.write_buffer.grace_until() > now.mono {
                return None;
            }
            if let Some(task) = self.send_front(now, mono) {
                return Some(task);
            }
        }
        // Commits the drop of events that turned out to be lost.
        if self.write_buffer.due().is_some_and(|due| due <= now.mono) {
            self.commit_changes(now);
        }
        None
    }

    fn send_front(&mut self, now: Now, mono: u64) -> Option<Task> {
        let batch = self.queue.front(now.mono)?;
        let (id, first_sent_at, context) = (batch.id, batch.first_sent_at, batch.context());
        let seqs: Vec<u64> = batch.events.iter().map(|event| event.seq).collect();
        let mut records = Vec::with_capacity(seqs.len());
        for seq in &seqs {
            match self.read_event(*seq) {
                Ok(record) => records.push(record),
                Err(error) => {
                    self.defer_batch(id, now, &error);
                    return None;
                }
            }
        }
        let texts: Vec<&str> =
            records.iter().flatten().filter_map(|record| split_event(record)).map(|(.., json)| json).collect();
        if texts.len() < seqs.len() {
            let kept = |at: usize| records[at].as_deref().and_then(split_event).is_some();
            self.drop_missing(id, kept, now);
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

    /// Returns an event's record, from the buffer if it is not committed yet.
    fn read_event(&mut self, seq: u64) -> Result<Option<String>, StoreError> {
        match self.write_buffer.uncommitted_value(Key::Event(seq)) {
            Some(record) => Ok(Some(record.to_owned())),
            None => self.store.get(Key::Event(seq)),
        }
    }

    /// Defers a batch whose events cannot be read now, so that it does not block the others.
    fn defer_batch(&mut self, id: Id, now: Now, error: &StoreError) {
        self.report_store_error(now, error);
        if let Some(batch) = self.queue.batch_mut(id) {
            let wait = limits::STORE_RETRY_MS << batch.unreadable.min(16);
            batch.unreadable = batch.unreadable.saturating_add(1);
            batch.retry_at = now.mono + wait.min(limits::STORE_RETRY_CAP_MS);
        }
    }

    /// Drops events that are missing in the store. The remaining events form a new batch.
    fn drop_missing(&mut self, id: Id, kept: impl Fn(usize) -> bool, now: Now) {
        let Some(batch) = self.queue.remove_batch(id) else {
            return;
        };
        self.write_buffer.delete(Key::Batch(batch.number));
        let (mut rest, mut lost) = (Vec::new(), Vec::new());
        for (at, event) in batch.events.iter().enumerate() {
            if kept(at) { rest.push(*event) } else { lost.push(*event) }
        }
        self.release(&lost);
        self.drop_events(DropReason::StorageLost, lost.len() as u64);
        if !rest.is_empty() {
            self.freeze(rest, batch.first_sent_at, now);
        }
        self.schedule_commit(now);
    }

    /// Treats an upload without a response in time as failed.
    fn expire_upload(&mut self, now: Now) {
        if self.upload.in_flight.is_some_and(|(_, deadline)| deadline <= now.mono) {
            self.upload.in_flight = None;
            self.retry_later(now, None);
        }
    }
}
