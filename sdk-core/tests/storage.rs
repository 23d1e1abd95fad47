//! Storage that refuses or loses records, and a process that is killed meanwhile: the outcome of each event. The
//! simulation covers the combinations.
#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::rc::Rc;

use subway_sdk_core::{
    Client, Config, DropReason, Id, Input, Key, MemoryStore, Now, Store, StoreError, StoreWrite, Theme, TrackError,
    UploadRequest, UploadResult,
};

const START: Now = Now { wall: 1_700_000_000_000, mono: 5_000 };
/// Delay until a failing store is retried; after that, events are sent from memory.
const RETRY: u64 = 5_000;

fn later(ms: u64) -> Now {
    Now { wall: START.wall + ms as i64, mono: START.mono + ms }
}

/// What a disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refuses {
    Nothing,
    Batches,
    Everything,
}

/// A disk that outlives the client.
#[derive(Clone)]
struct Disk(Rc<RefCell<(MemoryStore, Refuses)>>);

impl Disk {
    fn new() -> Self {
        Self(Rc::new(RefCell::new((MemoryStore::default(), Refuses::Nothing))))
    }

    fn set(&self, refuses: Refuses) {
        self.0.borrow_mut().1 = refuses;
    }

    /// Removes a record, as a defect of the medium.
    fn lose(&self, key: Key) {
        let (store, _) = &mut *self.0.borrow_mut();
        assert!(store.get(key).unwrap().is_some(), "{key:?} is there");
        store.apply(&[StoreWrite { key, value: None }]).unwrap();
    }

    /// Makes the disk full at its current size.
    fn fill(&self) {
        let (store, _) = &mut *self.0.borrow_mut();
        store.set_max_bytes(store.bytes());
    }
}

impl Store for Disk {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let (store, refuses) = &mut *self.0.borrow_mut();
        let batch = writes.iter().any(|write| matches!(write.key, Key::Batch(_)) && write.value.is_some());
        if *refuses == Refuses::Everything || (*refuses == Refuses::Batches && batch) {
            return Err(StoreError::failed("refused"));
        }
        store.apply(writes)
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        self.0.borrow_mut().0.get(key)
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        self.0.borrow_mut().0.scan(visit)
    }
}

/// Opens a client whose queue is full with four events.
fn open(disk: &Disk, now: Now) -> Client<Disk> {
    let config = Config { max_queued_events: 4, ..Config::default() };
    Client::open(disk.clone(), config, "", b"storage", now).unwrap()
}

fn track(client: &mut Client<Disk>, now: Now) -> Result<Id, TrackError> {
    client.track(now, Input { theme: Theme::Click, code: "tap", props: "", page: None, true_ts: None })
}

fn upload(client: &mut Client<Disk>, now: Now) -> Option<UploadRequest> {
    client.poll_task(now).map(|subway_sdk_core::Task::Upload(request)| request)
}

fn acknowledge(client: &mut Client<Disk>, now: Now, request: &UploadRequest) {
    let (batch, events) = (request.batch_id, request.events);
    let body = format!(r#"{{"batch_id":"{batch}","server_time":1,"stored":{events},"duplicate":[],"rejected":[]}}"#);
    client.handle_upload_result(now, batch, UploadResult::Response { status: 200, retry_after_ms: None, body: &body });
}

fn field(body: &str, name: &str) -> serde_json::Value {
    serde_json::from_str::<serde_json::Value>(body).unwrap()[name].clone()
}

/// Returns a disk with four unbatched events, and a client that has sent them although the disk refused `refuses`.
fn sent_behind_the_back_of(disk: &Disk, refuses: Refuses) -> (Client<Disk>, UploadRequest) {
    let mut client = open(disk, START);
    for _ in 0..4 {
        track(&mut client, START).unwrap();
    }
    assert!(client.commit(START));
    disk.set(refuses);
    client.flush(START);
    let request = upload(&mut client, START).or_else(|| upload(&mut client, later(RETRY))).unwrap();
    assert_eq!(request.events, 4);
    assert_eq!(track(&mut client, later(RETRY)), Err(TrackError::QueueFull), "what is on its way is never dropped");
    (client, request)
}

/// Seed 5103 of the simulation, when it failed. No exact number exists here: until the process was killed, the disk
/// accepted neither the batch nor a state since the first upload, so the next run cannot know of the batch. It counts
/// what it did itself.
#[test]
fn a_disk_that_took_nothing_leaves_no_trace_of_a_sending() {
    let disk = Disk::new();
    let (mut client, request) = sent_behind_the_back_of(&disk, Refuses::Everything);
    acknowledge(&mut client, later(RETRY), &request);
    assert_eq!(client.ledger().acked, 4);
    assert!(!client.commit(later(RETRY)), "and the disk does not hear of it");
    drop(client);
    let mut client = open(&disk, later(RETRY));
    assert_eq!((client.ledger().acked, client.ledger().queued), (0, 4), "everything is as it was on the disk");
    disk.set(Refuses::Nothing);
    track(&mut client, later(RETRY)).unwrap();
    let ledger = client.ledger();
    assert_eq!((ledger.generated, ledger.queued, ledger.dropped(DropReason::QueueFull)), (5, 4, 1));
    client.flush(later(RETRY));
    let request = upload(&mut client, later(RETRY)).unwrap();
    acknowledge(&mut client, later(RETRY), &request);
    let ledger = client.ledger();
    assert_eq!((ledger.acked, ledger.queued), (4, 0));
    assert!(ledger.balances());
}

#[test]
fn events_of_a_batch_that_is_not_on_the_disk_are_not_dropped() {
    for refuses in [Refuses::Nothing, Refuses::Batches] {
        let disk = Disk::new();
        let (client, first) = sent_behind_the_back_of(&disk, refuses);
        drop(client);
        if refuses == Refuses::Nothing {
            disk.lose(Key::Batch(1));
        }
        disk.set(Refuses::Nothing);
        let now = later(100_000);
        let mut client = open(&disk, now);
        assert_eq!(track(&mut client, now), Err(TrackError::QueueFull), "{refuses:?}: they may be with the collector");
        let again = upload(&mut client, now).unwrap();
        assert_ne!(again.batch_id, first.batch_id);
        for name in ["events", "first_sent_at"] {
            assert_eq!(field(&again.body, name), field(&first.body, name), "{refuses:?}");
        }
        acknowledge(&mut client, now, &again);
        let ledger = client.ledger();
        assert_eq!((ledger.acked, ledger.queued), (4, 0), "{refuses:?}");
        assert_eq!(ledger.dropped(DropReason::StorageLost), 0, "{refuses:?}");
        assert!(ledger.balances());
    }
}

#[test]
fn what_was_never_sent_makes_room_after_a_restart() {
    let disk = Disk::new();
    let mut client = open(&disk, START);
    for _ in 0..4 {
        track(&mut client, START).unwrap();
    }
    assert!(client.commit(START));
    drop(client);
    let mut client = open(&disk, later(1));
    track(&mut client, later(1)).unwrap();
    assert_eq!(client.ledger().dropped(DropReason::QueueFull), 1);
}

#[test]
fn what_was_acknowledged_is_not_counted_as_lost() {
    let disk = Disk::new();
    let (mut client, request) = sent_behind_the_back_of(&disk, Refuses::Nothing);
    disk.fill();
    // The state has grown by more than all that can be deleted.
    let blob = "x".repeat(10_000);
    client.register(later(RETRY), &format!(r#"{{"blob":"{blob}"}}"#)).unwrap();
    acknowledge(&mut client, later(RETRY), &request);
    assert!(!client.commit(later(RETRY)), "the disk has no room for the common properties");
    track(&mut client, later(RETRY)).unwrap();
    client.flush(later(RETRY));
    let request = upload(&mut client, later(4 * RETRY)).or_else(|| upload(&mut client, later(8 * RETRY))).unwrap();
    assert_eq!(field(&request.body, "common")["blob"], blob, "they are sent all the same");
    drop(client);
    let ledger = open(&disk, later(9 * RETRY)).ledger();
    assert_eq!((ledger.acked, ledger.queued, ledger.dropped(DropReason::QueueFull)), (4, 0, 1));
    assert_eq!(ledger.generated, 5, "nothing is lost but what the disk never heard of");
}
