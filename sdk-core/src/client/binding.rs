//! What a binding with threads of its own needs besides the four verbs: to count what it had to drop before the client
//! saw it, and to know whether everything up to a moment has ended.

use super::Client;
use crate::store::Store;
use crate::{DropReason, Now};

impl<S: Store> Client<S> {
    /// Counts events that a binding dropped before they reached [`Client::track`] (its own buffer was full), so that the
    /// ledger's equation covers them.
    pub fn count_dropped(&mut self, now: Now, reason: DropReason, events: u64) {
        let now = self.clock.read(now);
        if events > 0 {
            self.ledger.generated += events;
            self.drop_events(reason, events);
            self.touch(now);
        }
    }

    /// The sequence number given last; 0 if none was.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// Whether no event up to this sequence number waits any more: each was acknowledged or dropped.
    #[must_use]
    pub fn ended_up_to(&self, seq: u64) -> bool {
        self.queue.oldest_frozen().into_iter().chain(self.queue.oldest_loose()).all(|waiting| waiting > seq)
    }

    /// Whether the store knows everything that the client knows.
    #[must_use]
    pub fn is_persisted(&self) -> bool {
        self.pending.due().is_none()
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
    fn what_a_face_dropped_is_in_the_ledger_and_survives() {
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
    fn events_have_ended_when_neither_loose_nor_frozen_ones_wait() {
        let mut client = client();
        assert!(client.ended_up_to(u64::MAX), "nothing waits");
        client.track(NOW, INPUT).unwrap();
        let first = client.last_seq();
        assert!(!client.ended_up_to(first));
        client.flush(NOW);
        let Some(Task::Upload(upload)) = client.poll_task(NOW) else { panic!("a flush sends") };
        client.track(NOW, INPUT).unwrap();
        assert!(!client.ended_up_to(first), "it is frozen, not ended");
        let mut receipt = String::from(r#"{"server_time":0,"stored":1,"duplicate":[],"rejected":[],"batch_id":""#);
        upload.batch_id.write(&mut receipt);
        receipt.push_str("\"}");
        let answer = UploadResult::Answer { status: 200, retry_after_ms: None, body: &receipt };
        client.on_result(NOW, upload.batch_id, answer);
        assert!(client.ended_up_to(first));
        assert!(!client.ended_up_to(client.last_seq()), "the second event waits");
    }
}
