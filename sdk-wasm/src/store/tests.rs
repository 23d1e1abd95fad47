use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use subway_sdk_core::{Key, Store, StoreError, StoreWrite};

use super::{HostStorage, SegmentStore};

/// Fault at a given call of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Kills the process before the call has any effect.
    Kill,
    /// Kills the process while it writes: half of the value is stored.
    Tear,
    /// Kills the process after the call had its effect.
    KillAfter,
    /// The call fails and has no effect.
    Fail,
    /// A write fails and leaves half of the value.
    FailHalf,
    /// A write fails although the value is stored.
    FailWritten,
}

#[derive(Default)]
struct Disk {
    texts: BTreeMap<String, String>,
    calls: usize,
    fault: Option<(usize, Fault)>,
    dead: bool,
    largest: usize,
    /// Most bytes of all texts; `None` for no limit.
    most: Option<usize>,
}

impl Disk {
    fn bytes(&self) -> usize {
        self.texts.values().map(String::len).sum()
    }
}

/// Storage in memory that fails at its n-th write.
#[derive(Clone, Default)]
struct FakeHost(Rc<RefCell<Disk>>);

fn failed() -> StoreError {
    StoreError::failed("the test says so")
}

impl FakeHost {
    /// Applies the fault to one write: Ok(true) continue, Ok(false) continue and then die.
    fn writing(&self, half: impl FnOnce(&mut Disk), whole: impl FnOnce(&mut Disk)) -> Result<(), StoreError> {
        let disk = &mut *self.0.borrow_mut();
        if disk.dead {
            return Err(failed());
        }
        let fault = disk.fault.filter(|(at, _)| *at == disk.calls).map(|(_, fault)| fault);
        disk.calls += 1;
        match fault {
            None => {
                whole(disk);
                Ok(())
            }
            Some(Fault::Fail) => Err(failed()),
            Some(Fault::FailHalf) => {
                half(disk);
                Err(failed())
            }
            Some(Fault::FailWritten) => {
                whole(disk);
                Err(failed())
            }
            Some(deadly) => {
                disk.dead = true;
                match deadly {
                    Fault::Tear => half(disk),
                    Fault::KillAfter => whole(disk),
                    _ => {}
                }
                Err(failed())
            }
        }
    }
}

impl HostStorage for FakeHost {
    fn get(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        let disk = self.0.borrow();
        if disk.dead { Err(failed()) } else { Ok(disk.texts.get(key).cloned()) }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        let disk = self.0.borrow();
        let others = disk.bytes() - disk.texts.get(key).map_or(0, String::len);
        if disk.most.is_some_and(|most| others + value.len() > most) {
            return Err(StoreError::full("exceed max size"));
        }
        drop(disk);
        self.writing(
            |disk| {
                let half = value.chars().take(value.chars().count() / 2).collect();
                disk.texts.insert(key.to_owned(), half);
            },
            |disk| {
                disk.largest = disk.largest.max(value.len());
                disk.texts.insert(key.to_owned(), value.to_owned());
            },
        )
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        self.writing(
            |_| {},
            |disk| {
                disk.texts.remove(key);
            },
        )
    }

    fn keys(&mut self) -> Result<Vec<String>, StoreError> {
        let disk = self.0.borrow();
        // Hosts list keys in any order.
        if disk.dead { Err(failed()) } else { Ok(disk.texts.keys().rev().cloned().collect()) }
    }
}

const KEY_BYTES: usize = 1024;

fn open(host: &FakeHost) -> SegmentStore<FakeHost> {
    host.0.borrow_mut().dead = false;
    SegmentStore::open(host.clone(), "subway.k.", KEY_BYTES).unwrap()
}

fn all(store: &mut impl Store) -> BTreeMap<Key, String> {
    let mut records = BTreeMap::new();
    store.scan(&mut |key, value| assert!(records.insert(key, value.to_owned()).is_none())).unwrap();
    records
}

/// A small generator, so that a failing seed can be named.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (most + 1)
    }

    fn changes(&mut self, round: u64) -> Vec<(Key, Option<String>)> {
        let count = if self.up_to(9) == 0 { 30 } else { self.up_to(5) };
        (0..count)
            .map(|_| {
                let number = self.up_to(40);
                let key =
                    [Key::State, Key::Context(number), Key::Event(number), Key::Batch(number)][self.up_to(3) as usize];
                let value = (self.up_to(2) > 0).then(|| format!("{round}京{}", "v".repeat(self.up_to(120) as usize)));
                (key, value)
            })
            .collect()
    }
}

fn writes(changes: &[(Key, Option<String>)]) -> Vec<StoreWrite<'_>> {
    changes.iter().map(|(key, value)| StoreWrite { key: *key, value: value.as_deref() }).collect()
}

fn change(model: &mut BTreeMap<Key, String>, changes: &[(Key, Option<String>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => model.insert(*key, value.clone()),
            None => model.remove(key),
        };
    }
}

#[test]
fn it_passes_the_suite_of_every_store() {
    for key_bytes in [200 * 1024, 1024 * 1024] {
        let make = || SegmentStore::open(FakeHost::default(), "subway.k.", key_bytes).unwrap();
        subway_sdk_core::testing::store_suite::run(make, |store| {
            SegmentStore::open(store.host.clone(), "subway.k.", key_bytes).unwrap()
        });
    }
}

#[test]
fn it_passes_the_suite_of_full_stores() {
    for key_bytes in [200 * 1024, 1024 * 1024] {
        let store = SegmentStore::open(FakeHost::default(), "subway.k.", key_bytes).unwrap();
        subway_sdk_core::testing::store_suite::run_full(store, |store| {
            let mut disk = store.host.0.borrow_mut();
            disk.most = Some(disk.bytes());
        });
    }
}

#[test]
fn the_reserve_is_found_again_and_is_kept_for_large_logs_only() {
    let host = FakeHost::default();
    let reserve = |host: &FakeHost| host.0.borrow().texts.contains_key("subway.k.reserve");
    let mut store = SegmentStore::open(host.clone(), "subway.k.", 200 * 1024).unwrap();
    store.apply(&[StoreWrite { key: Key::State, value: Some("s") }]).unwrap();
    assert!(!reserve(&host));
    store.apply(&[StoreWrite { key: Key::Event(1), value: Some(&"v".repeat(100_000)) }]).unwrap();
    assert!(reserve(&host));
    drop(store);
    let store = SegmentStore::open(host.clone(), "subway.k.", 200 * 1024).unwrap();
    assert!(store.reserve);
}

/// Runs `rounds` commits with a fault at the `at`-th write; false if that write never happens.
fn survives(seed: u64, rounds: u64, at: usize, fault: Fault) -> bool {
    let host = FakeHost::default();
    host.0.borrow_mut().fault = Some((at, fault));
    let mut dice = Dice(seed);
    let mut model = BTreeMap::new();
    let mut store = open(&host);
    for round in 0..rounds {
        let changes = dice.changes(round);
        let done = store.apply(&writes(&changes));
        let dead = host.0.borrow().dead;
        let mut changed = model.clone();
        change(&mut changed, &changes);
        if dead {
            store = open(&host);
            let found = all(&mut store);
            let killed_in_time = done.is_err() && found == model;
            assert!(killed_in_time || found == changed, "seed {seed}, call {at}, {fault:?}, round {round}");
            model = found;
            continue;
        }
        if done.is_ok() {
            model = changed;
        }
        assert_eq!(all(&mut store), model, "seed {seed}, call {at}, {fault:?}, round {round}");
        if dice.up_to(6) == 0 {
            store = open(&host);
            assert_eq!(all(&mut store), model, "seed {seed}, call {at}, {fault:?}, reopened in round {round}");
        }
    }
    host.0.borrow().calls > at
}

#[test]
fn a_commit_is_complete_or_absent_after_any_fault_of_the_host() {
    for seed in 1..=2 {
        for fault in [Fault::Kill, Fault::Tear, Fault::KillAfter, Fault::Fail, Fault::FailHalf, Fault::FailWritten] {
            let mut at = 0;
            while survives(seed, 50, at, fault) {
                at += 1;
            }
            assert!(at > 50, "only {at} calls were tried");
        }
    }
}

#[test]
fn no_key_holds_more_than_the_host_takes() {
    let host = FakeHost::default();
    let mut store = open(&host);
    let mut dice = Dice(9);
    for round in 0..300 {
        store.apply(&writes(&dice.changes(round))).unwrap();
    }
    let disk = host.0.borrow();
    assert!(disk.largest > KEY_BYTES / 2 && disk.largest <= KEY_BYTES, "largest key: {} bytes", disk.largest);
}

#[test]
fn a_queue_that_fills_and_drains_leaves_few_keys_and_bytes() {
    let host = FakeHost::default();
    let mut store = SegmentStore::open(host.clone(), "subway.k.", 1024 * 1024).unwrap();
    let event = "x".repeat(400);
    let mut most = 0;
    for number in 0..2000 {
        let state = format!("{number}");
        let state = StoreWrite { key: Key::State, value: Some(&state) };
        store.apply(&[state, StoreWrite { key: Key::Event(number), value: Some(&event) }]).unwrap();
        most = most.max(host.0.borrow().texts.len());
    }
    // 2,000 events of 400 bytes are 25 segments of 32 KiB; a binary counter's worth of smaller ones comes on top.
    assert!(most <= 60, "{most} keys");
    let mut batch = Vec::new();
    for number in 0..2000 {
        batch.push(StoreWrite { key: Key::Event(number), value: None });
        if batch.len() == 100 {
            batch.push(StoreWrite { key: Key::State, value: Some("s") });
            store.apply(&batch).unwrap();
            batch.clear();
        }
    }
    let disk = host.0.borrow();
    let bytes: usize = disk.texts.values().map(String::len).sum();
    assert!(disk.texts.len() <= 20 && bytes < 128 * 1024, "{} keys, {bytes} bytes", disk.texts.len());
    drop(disk);
    assert_eq!(all(&mut open(&host)).len(), 1);
}

#[test]
fn a_damaged_segment_costs_only_its_own_records() {
    let host = FakeHost::default();
    let mut store = open(&host);
    let value = "v".repeat(900);
    for number in 0..5 {
        store.apply(&[StoreWrite { key: Key::Event(number), value: Some(&value) }]).unwrap();
    }
    drop(store);
    let key = host.0.borrow().texts.keys().nth(2).cloned().unwrap();
    for damage in ["", "garbage", "00000000 3 2|e1~"] {
        host.0.borrow_mut().texts.insert(key.clone(), damage.to_owned());
        let mut store = open(&host);
        assert_eq!(all(&mut store).keys().copied().collect::<Vec<_>>(), [0, 1, 3, 4].map(Key::Event), "{damage:?}");
        assert_eq!(store.get(Key::Event(2)), Ok(None));
    }
    let mut store = open(&host);
    store.apply(&[StoreWrite { key: Key::Event(2), value: Some("again") }]).unwrap();
    assert_eq!(all(&mut open(&host)).len(), 5);
}

#[test]
fn what_was_found_at_one_opening_is_found_at_the_next() {
    let host = FakeHost::default();
    let mut store = open(&host);
    let value = "v".repeat(600);
    let many: Vec<_> = (0..3).map(|number| StoreWrite { key: Key::Event(number), value: Some(&value) }).collect();
    store.apply(&many).unwrap();
    store.apply(&[StoreWrite { key: Key::Event(3), value: Some(&value) }]).unwrap();
    drop(store);
    // A commit in three segments and one in a fourth. The medium loses the third and damages the next.
    for (lost, damaged) in [(Some(2), vec![3]), (None, vec![2, 3]), (Some(1), vec![2, 3])] {
        let host = FakeHost(Rc::new(RefCell::new(Disk { texts: host.0.borrow().texts.clone(), ..Disk::default() })));
        if let Some(lost) = lost {
            host.0.borrow_mut().texts.remove(&format!("subway.k.{lost}"));
        }
        for number in &damaged {
            host.0.borrow_mut().texts.insert(format!("subway.k.{number}"), String::from("garbage"));
        }
        let found = all(&mut open(&host));
        for _ in 0..3 {
            assert_eq!(all(&mut open(&host)), found, "lost {lost:?}, damaged {damaged:?}");
        }
        let mut store = open(&host);
        store.apply(&[StoreWrite { key: Key::State, value: Some("s") }]).unwrap();
        assert_eq!(all(&mut open(&host)).len(), found.len() + 1, "lost {lost:?}, damaged {damaged:?}");
    }
}

#[test]
fn keys_of_others_are_left_alone() {
    let host = FakeHost::default();
    let others = ["x", "1x", "99999999999", "4294967295", "00", "01"].map(|end| format!("subway.k.{end}"));
    for key in others.iter().map(String::as_str).chain(["subway.", "subway.other.1", "1"]) {
        host.0.borrow_mut().texts.insert(key.to_owned(), String::from("not ours"));
    }
    let mut store = open(&host);
    for _ in 0..3 {
        store.apply(&[StoreWrite { key: Key::State, value: Some("s") }]).unwrap();
        assert_eq!(all(&mut open(&host)).len(), 1);
    }
    assert_eq!(host.0.borrow().texts.values().filter(|text| *text == "not ours").count(), 9);
}

#[test]
fn a_full_host_is_reported_as_full() {
    struct Full;
    impl HostStorage for Full {
        fn get(&mut self, _: &str) -> Result<Option<String>, StoreError> {
            Ok(None)
        }
        fn set(&mut self, _: &str, _: &str) -> Result<(), StoreError> {
            Err(StoreError::full("exceed max size"))
        }
        fn remove(&mut self, _: &str) -> Result<(), StoreError> {
            Ok(())
        }
        fn keys(&mut self) -> Result<Vec<String>, StoreError> {
            Ok(Vec::new())
        }
    }
    let mut store = SegmentStore::open(Full, "p", 1000).unwrap();
    let error = store.apply(&[StoreWrite { key: Key::State, value: Some("s") }]).unwrap_err();
    assert!(error.is_full());
    assert_eq!(store.get(Key::State), Ok(None));
}
