//! The third verb: what came of it. Nothing is deleted without a receipt.

use subway_protocol::codec::problem::is_batch_problem;
use subway_protocol::codec::receipt::Receipt;

use super::{Client, joined};
use crate::queue::Entry;
use crate::store::{Key, Store};
use crate::transport::UploadResult;
use crate::{DropReason, Id, Now, limits};

impl<S: Store> Client<S> {
    /// Reports what came of an upload. A late answer to a batch that still waits counts as well as a timely one.
    ///
    /// | answer | what happens |
    /// | --- | --- |
    /// | 200 with the receipt of this batch | each event ends as the receipt says |
    /// | 200 with anything else (a captive portal), no answer | kept; retried with backoff |
    /// | 404, 405, 408, 415, 429, 5xx, any other status | kept; retried with backoff, not before `Retry-After` |
    /// | 413, 400 with the collector's problem | halved, down to the one event to blame, which is dropped |
    /// | 413 of anybody else | halved; one event alone is kept and retried late, the others before it |
    /// | 400 of anybody else (a proxy), 400 that says the gzip was damaged | kept; retried with backoff |
    /// | 401, 403 | kept; retried slowly |
    pub fn on_result(&mut self, now: Now, batch_id: Id, result: UploadResult<'_>) {
        let now = self.clock.read(now);
        if self.upload.in_flight.is_some_and(|(id, _)| id == batch_id) {
            self.upload.in_flight = None;
        }
        match result {
            UploadResult::Answer { status: 200, body, .. } => match Receipt::decode(body) {
                Ok(receipt) if receipt.batch_id == batch_id => self.apply(now, &receipt),
                _ => self.retry_later(now, None),
            },
            UploadResult::Answer { status: 413, body, .. } if is_batch_problem(413, body) => {
                self.halve(now, batch_id, DropReason::TooLarge);
            }
            UploadResult::Answer { status: 413, .. } => self.too_large_on_the_way(now, batch_id),
            UploadResult::Answer { status: 400, body, .. } if is_batch_problem(400, body) => {
                self.notice_refusal(400, body);
                self.halve(now, batch_id, DropReason::Poison);
            }
            UploadResult::Answer { status: 400, .. } => {
                self.notice_stranger(400);
                self.retry_later(now, None);
            }
            UploadResult::Answer { status: status @ (401 | 403), body, .. } => {
                self.notice_refusal(status, body);
                self.upload.retry_at = now.mono + self.upload.backoff.denied(&mut self.random);
            }
            UploadResult::Answer { retry_after_ms, .. } => self.retry_later(now, retry_after_ms),
            UploadResult::Failed => self.retry_later(now, None),
        }
    }

    pub(super) fn retry_later(&mut self, now: Now, retry_after_ms: Option<u64>) {
        self.upload.retry_at = now.mono + self.upload.backoff.failed(retry_after_ms, &mut self.random);
    }

    fn apply(&mut self, now: Now, receipt: &Receipt) {
        let Some(batch) = self.queue.thaw(receipt.batch_id) else {
            return;
        };
        let events = batch.entries.len() as u64;
        if !receipt.accounts_for(events) {
            self.queue.freeze(batch);
            self.retry_later(now, None);
            return;
        }
        self.ledger.acked += events - receipt.rejected.len() as u64;
        self.drop_events(DropReason::Rejected, receipt.rejected.len() as u64);
        for rejected in &receipt.rejected {
            self.notice(joined("the collector rejected an event: ", &rejected.detail));
        }
        self.pending.delete(Key::Batch(batch.number));
        self.forget(&batch.entries);
        // The collector, or somebody before it, once said 413: what it takes now is felt for, one event at a time.
        self.upload.batch_events = (self.upload.batch_events + 1).min(self.config.batch_events());
        self.upload.backoff.reset();
        self.upload.retry_at = 0;
        self.touch(now);
        self.pending.touch(now.mono);
        self.pending.unblock();
    }

    /// The collector will not take this batch: its halves are tried for themselves; a single event is given up.
    fn halve(&mut self, now: Now, batch_id: Id, reason: DropReason) {
        let Some(batch) = self.queue.thaw(batch_id) else {
            return;
        };
        self.pending.delete(Key::Batch(batch.number));
        let half = batch.entries.len() / 2;
        if reason == DropReason::TooLarge {
            self.upload.batch_events = self.upload.batch_events.min(half.max(1));
        }
        if half == 0 {
            self.drop_events(reason, 1);
            self.notice(joined("an event was given up: ", reason.as_str()));
            self.forget(&batch.entries);
        } else {
            let (first, second): (&[Entry], &[Entry]) = batch.entries.split_at(half);
            self.freeze(first.to_vec(), batch.first_sent_at, now);
            self.freeze(second.to_vec(), batch.first_sent_at, now);
        }
        self.upload.retry_at = 0;
        self.touch(now);
        self.pending.touch(now.mono);
    }

    /// Somebody on the way takes less than the collector. Smaller batches may pass; an event that is too large even alone
    /// waits for better days, and must not keep the others from being sent.
    fn too_large_on_the_way(&mut self, now: Now, batch_id: Id) {
        match self.queue.batch_mut(batch_id) {
            Some(batch) if batch.entries.len() > 1 => self.halve(now, batch_id, DropReason::TooLarge),
            Some(batch) => {
                batch.retry_at = now.mono + limits::REFUSED_RETRY_MS;
                self.notice_stranger(413);
                self.retry_later(now, None);
            }
            None => {}
        }
    }

    fn notice_stranger(&mut self, status: u16) {
        let mut text = String::from("a batch was refused with status ");
        subway_protocol::json::write_integer(&mut text, i64::from(status));
        text.push_str(" by somebody on the way to the collector (a proxy, a firewall), or was damaged there; it is kept and tried again");
        self.notice_once(text);
    }

    fn notice_refusal(&mut self, status: u16, body: &str) {
        let mut text = String::from("the collector refused a batch with status ");
        subway_protocol::json::write_integer(&mut text, i64::from(status));
        text.push_str(": ");
        text.push_str(subway_protocol::outcome::truncate(body, 512));
        self.notice(text);
    }
}
