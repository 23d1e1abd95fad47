//! Handles upload results. Events are deleted only after a receipt.

use subway_protocol::codec::problem::is_batch_problem;
use subway_protocol::codec::receipt::Receipt;

use super::{Client, concat};
use crate::queue::QueuedEvent;
use crate::store::{Key, Store};
use crate::transport::UploadResult;
use crate::{DropReason, Id, Now, limits};

impl<S: Store> Client<S> {
    /// Handles the result of an upload. A late response for a batch that is still queued is handled as well.
    ///
    /// | response | effect |
    /// | --- | --- |
    /// | 200 with the receipt of this batch | each event is settled as the receipt says |
    /// | 200 with any other body (a captive portal), no response | kept; retried with backoff |
    /// | 404, 405, 408, 415, 429, 5xx, any other status | kept; retried with backoff, not before `Retry-After` |
    /// | 413, 400 with the collector's problem | bisected, down to the one event at fault, which is dropped |
    /// | 413 of an intermediary | bisected; a single event is kept and retried late, after the others |
    /// | 400 of an intermediary (a proxy), 400 that says the gzip was damaged | kept; retried with backoff |
    /// | 401, 403 | kept; retried slowly |
    pub fn handle_upload_result(&mut self, now: Now, batch_id: Id, result: UploadResult<'_>) {
        let now = self.clock.read(now);
        if self.upload.in_flight.is_some_and(|(id, _)| id == batch_id) {
            self.upload.in_flight = None;
        }
        match result {
            UploadResult::Response { status: 200, body, .. } => match Receipt::decode(body) {
                Ok(receipt) if receipt.batch_id == batch_id => self.apply_receipt(now, &receipt),
                _ => self.retry_later(now, None),
            },
            UploadResult::Response { status: 413, body, .. } if is_batch_problem(413, body) => {
                self.bisect(now, batch_id, DropReason::TooLarge);
            }
            UploadResult::Response { status: 413, .. } => self.handle_intermediary_413(now, batch_id),
            UploadResult::Response { status: 400, body, .. } if is_batch_problem(400, body) => {
                self.report_refusal(400, body);
                self.bisect(now, batch_id, DropReason::Poison);
            }
            UploadResult::Response { status: 400, .. } => {
                self.report_intermediary(400);
                self.retry_later(now, None);
            }
            UploadResult::Response { status: status @ (401 | 403), body, .. } => {
                self.report_refusal(status, body);
                self.upload.retry_at = now.mono + self.upload.backoff.next_auth_delay(&mut self.random);
            }
            UploadResult::Response { retry_after_ms, .. } => self.retry_later(now, retry_after_ms),
            UploadResult::Failed => self.retry_later(now, None),
        }
    }

    pub(super) fn retry_later(&mut self, now: Now, retry_after_ms: Option<u64>) {
        self.upload.retry_at = now.mono + self.upload.backoff.next_delay(retry_after_ms, &mut self.random);
    }

    fn apply_receipt(&mut self, now: Now, receipt: &Receipt) {
        let Some(batch) = self.queue.remove_batch(receipt.batch_id) else {
            return;
        };
        let events = batch.events.len() as u64;
        if !receipt.accounts_for(events) {
            self.queue.freeze(batch);
            self.retry_later(now, None);
            return;
        }
        self.ledger.acked += events - receipt.rejected.len() as u64;
        self.drop_events(DropReason::Rejected, receipt.rejected.len() as u64);
        for rejected in &receipt.rejected {
            self.diagnostic(concat("the collector rejected an event: ", &rejected.detail));
        }
        self.write_buffer.delete(Key::Batch(batch.number));
        self.release(&batch.events);
        // Recovers from a 413 of the collector or an intermediary: the batch size grows by one event per receipt.
        self.upload.max_batch_events = (self.upload.max_batch_events + 1).min(self.config.effective_batch_events());
        self.upload.backoff.reset();
        self.upload.retry_at = 0;
        self.schedule_commit(now);
        self.write_buffer.schedule(now.mono);
        self.write_buffer.unblock();
    }

    /// Splits a batch that the collector refuses into halves, which are sent separately. A single event is dropped.
    fn bisect(&mut self, now: Now, batch_id: Id, reason: DropReason) {
        let Some(batch) = self.queue.remove_batch(batch_id) else {
            return;
        };
        self.write_buffer.delete(Key::Batch(batch.number));
        let half = batch.events.len() / 2;
        if reason == DropReason::TooLarge {
            self.upload.max_batch_events = self.upload.max_batch_events.min(half.max(1));
        }
        if half == 0 {
            self.drop_events(reason, 1);
            self.diagnostic(concat("an event was given up: ", reason.as_str()));
            self.release(&batch.events);
        } else {
            let (first, second): (&[QueuedEvent], &[QueuedEvent]) = batch.events.split_at(half);
            self.freeze(first.to_vec(), batch.first_sent_at, now);
            self.freeze(second.to_vec(), batch.first_sent_at, now);
        }
        self.upload.retry_at = 0;
        self.schedule_commit(now);
        self.write_buffer.schedule(now.mono);
    }

    /// Handles a 413 of an intermediary, whose limit is lower than the collector's. Smaller batches can pass. An event
    /// that is too large even alone is retried late and does not block the others.
    fn handle_intermediary_413(&mut self, now: Now, batch_id: Id) {
        match self.queue.batch_mut(batch_id) {
            Some(batch) if batch.events.len() > 1 => self.bisect(now, batch_id, DropReason::TooLarge),
            Some(batch) => {
                batch.retry_at = now.mono + limits::INTERMEDIARY_RETRY_MS;
                self.report_intermediary(413);
                self.retry_later(now, None);
            }
            None => {}
        }
    }

    fn report_intermediary(&mut self, status: u16) {
        let mut text = String::from("a batch was refused with status ");
        subway_protocol::json::write_integer(&mut text, i64::from(status));
        text.push_str(" by an intermediary (a proxy, a firewall), or was damaged on the way; it is kept and retried");
        self.diagnostic_once(text);
    }

    fn report_refusal(&mut self, status: u16, body: &str) {
        let mut text = String::from("the collector refused a batch with status ");
        subway_protocol::json::write_integer(&mut text, i64::from(status));
        text.push_str(": ");
        text.push_str(subway_protocol::outcome::truncate(body, 512));
        self.diagnostic(text);
    }
}
