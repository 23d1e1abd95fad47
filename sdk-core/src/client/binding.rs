//! Calls for a binding with threads of its own: count events it dropped itself, and ask whether events are settled.

use super::Client;
use crate::store::Store;
use crate::{DropReason, Now};

impl<S: Store> Client<S> {
    /// Counts events that a binding dropped before they reached [`Client::track`] because its own buffer was full.
    ///
    /// Without this call they would be missing from the ledger.
    pub fn count_dropped(&mut self, now: Now, reason: DropReason, events: u64) {
        let now = self.clock.read(now);
        if events > 0 {
            self.ledger.generated += events;
            self.drop_events(reason, events);
            self.schedule_commit(now);
        }
    }

    /// Returns the last sequence number in use; 0 if there is none.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Returns whether every event up to this sequence number is settled: acknowledged or dropped.
    #[must_use]
    pub fn is_settled_up_to(&self, seq: u64) -> bool {
        self.queue.oldest_frozen_seq().into_iter().chain(self.queue.oldest_unbatched_seq()).all(|waiting| waiting > seq)
    }

    /// Returns whether all changes are committed to the store.
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        self.write_buffer.due().is_none()
    }
}

#[cfg(test)]
mod tests {
    use crate::{Config, Input, MemoryStore, Task, Theme, UploadResult};

    use super::*;

    const NOW: Now = Now { wall: 1_000_000, mono: 0 };
    const INPUT: Input<'_> = Input { theme: Theme::View, code: "page_view", props: "", page: None, true_ts: None };

    fn client() -> Client<MemoryStore> {
        Client::open(MemoryStore::default(), Config::default(), "", b"binding", NOW).unwrap()
    }

    #[test]
    fn events_dropped_by_a_binding_are_in_the_ledger_and_survive() {
        let mut client = client();
        client.count_dropped(NOW, DropReason::QueueFull, 3);
        client.track(NOW, INPUT).unwrap();
        assert!(!client.is_persisted());
        assert!(client.commit(NOW) && client.is_persisted());
        let store = client.into_store();
        let ledger = Client::open(store, Config::default(), "", b"", NOW).unwrap().ledger();
        assert_eq!((ledger.generated, ledger.queued, ledger.dropped(DropReason::QueueFull)), (4, 1, 3));
        assert!(ledger.balances());
    }

    #[test]
    fn events_are_settled_when_none_is_unbatched_or_frozen() {
        let mut client = client();
        assert!(client.is_settled_up_to(u64::MAX), "nothing waits");
        client.track(NOW, INPUT).unwrap();
        let first = client.last_seq();
        assert!(!client.is_settled_up_to(first));
        client.flush(NOW);
        let Some(Task::Upload(upload)) = client.poll_task(NOW) else { panic!("a flush sends") };
        client.track(NOW, INPUT).unwrap();
        assert!(!client.is_settled_up_to(first), "it is frozen, not ended");
        let mut receipt = String::from(r#"{"server_time":0,"stored":1,"duplicate":[],"rejected":[],"batch_id":""#);
        upload.batch_id.write(&mut receipt);
        receipt.push_str("\"}");
        let answer = UploadResult::Response { status: 200, retry_after_ms: None, body: &receipt };
        client.handle_upload_result(NOW, upload.batch_id, answer);
        assert!(client.is_settled_up_to(first));
        assert!(!client.is_settled_up_to(client.last_seq()), "the second event waits");
    }
}
