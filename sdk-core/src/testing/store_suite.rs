//! Conformance suite for implementations of [`Store`].

use crate::store::{Key, Store, StoreWrite};

fn put(key: Key, value: &str) -> StoreWrite<'_> {
    StoreWrite { key, value: Some(value) }
}

fn delete(key: Key) -> StoreWrite<'static> {
    StoreWrite { key, value: None }
}

fn all<S: Store>(store: &mut S) -> Vec<(Key, String)> {
    let mut records = Vec::new();
    let scanned = store.scan(&mut |key, value| records.push((key, value.to_owned())));
    assert_eq!(scanned, Ok(()), "a scan of a healthy store works");
    records
}

/// Runs every check on fresh stores from `make`. `reopen` ends a store as abruptly as the implementation can arrange
/// (ideally without any clean-up) and opens what it left behind.
///
/// # Panics
/// If the implementation does not conform.
pub fn run<S: Store>(mut make: impl FnMut() -> S, mut reopen: impl FnMut(S) -> S) {
    values_are_kept_replaced_and_deleted(&mut make(), "before");
    records_survive(make(), &mut reopen);
    the_last_of_two_writes_to_a_key_wins(&mut make());
    keys_come_in_order(&mut make());
    any_text_comes_back(make(), &mut reopen);
    much_comes_back(make(), &mut reopen);
    behaves_like_a_map(make(), &mut reopen);
}

/// Checks a store whose medium `fill` makes full: deleting needs no space and frees some.
///
/// # Panics
/// If the implementation does not conform.
pub fn run_full<S: Store>(mut store: S, fill: impl FnOnce(&mut S)) {
    let value = "页x".repeat(100);
    let mut writes = vec![put(Key::State, "state"), put(Key::Context(1), "context"), put(Key::Batch(1), "batch")];
    writes.extend((0..300).map(|number| put(Key::Event(number), &value)));
    for write in writes {
        assert_eq!(store.apply(&[write]), Ok(()));
    }
    fill(&mut store);
    let before = all(&mut store);
    let large = value.repeat(1000);
    let refused = store.apply(&[put(Key::State, "refused"), put(Key::Event(1000), &large)]);
    assert!(refused.is_err_and(|error| error.is_full()), "a full store says so");
    assert_eq!(all(&mut store), before, "and has changed nothing");
    for hundred in 0..2 {
        let mut writes: Vec<_> = (0..100).map(|number| delete(Key::Event(hundred * 100 + number))).collect();
        writes.push(put(Key::State, "statf"));
        assert_eq!(store.apply(&writes), Ok(()), "deleting needs no room");
    }
    for number in 400..500 {
        assert_eq!(store.apply(&[put(Key::Event(number), &value)]), Ok(()), "what was deleted has made room");
    }
    let kept: Vec<Key> = all(&mut store).into_iter().map(|(key, _)| key).filter(|key| *key < Key::Event(400)).collect();
    let mut expected = vec![Key::State, Key::Context(1)];
    expected.extend((200..300).map(Key::Event));
    assert_eq!(kept, expected);
}

fn values_are_kept_replaced_and_deleted<S: Store>(store: &mut S, first: &str) {
    assert_eq!(all(store), [], "a new store is empty");
    assert_eq!(store.get(Key::State), Ok(None));
    assert_eq!(store.apply(&[]), Ok(()), "no change is a change");
    assert_eq!(store.apply(&[put(Key::State, first), put(Key::Event(1), "e")]), Ok(()));
    assert_eq!(store.get(Key::State).ok().flatten().as_deref(), Some(first));
    assert_eq!(store.apply(&[put(Key::State, "after"), delete(Key::Event(1)), delete(Key::Batch(9))]), Ok(()));
    assert_eq!(all(store), [(Key::State, "after".to_owned())]);
    assert_eq!(store.get(Key::Event(1)), Ok(None));
}

fn records_survive<S: Store>(mut store: S, reopen: &mut impl FnMut(S) -> S) {
    assert_eq!(store.apply(&[put(Key::Context(3), "c"), put(Key::Event(7), "e7"), put(Key::Event(8), "e8")]), Ok(()));
    store = reopen(store);
    assert_eq!(store.apply(&[delete(Key::Event(7)), put(Key::Batch(1), "b")]), Ok(()));
    store = reopen(store);
    let expected = [(Key::Context(3), "c"), (Key::Event(8), "e8"), (Key::Batch(1), "b")];
    assert_eq!(all(&mut store), expected.map(|(key, value)| (key, value.to_owned())));
}

fn the_last_of_two_writes_to_a_key_wins<S: Store>(store: &mut S) {
    assert_eq!(store.apply(&[put(Key::Event(1), "a"), put(Key::Event(1), "b")]), Ok(()));
    assert_eq!(store.apply(&[put(Key::Event(2), "c"), delete(Key::Event(2))]), Ok(()));
    assert_eq!(store.apply(&[delete(Key::Event(3)), put(Key::Event(3), "d")]), Ok(()));
    assert_eq!(all(store), [(Key::Event(1), "b".to_owned()), (Key::Event(3), "d".to_owned())]);
}

fn keys_come_in_order<S: Store>(store: &mut S) {
    let keys = [Key::Batch(2), Key::Event(10), Key::Event(9), Key::Context(1), Key::State, Key::Event(100)];
    for key in keys {
        assert_eq!(store.apply(&[put(key, "x")]), Ok(()));
    }
    let mut sorted = keys.to_vec();
    sorted.sort();
    assert_eq!(all(store).into_iter().map(|(key, _)| key).collect::<Vec<_>>(), sorted);
}

fn any_text_comes_back<S: Store>(mut store: S, reopen: &mut impl FnMut(S) -> S) {
    let texts = [
        "",
        " ",
        "\n\r\t\u{1}",
        "\"quoted\" \\ 'x' %s ;--",
        "京东 🚇 é\u{301}\u{200d}",
        "{\"k\":[1,2]}",
        "a|b:c,d=e",
        "0",
    ];
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(store.apply(&[put(Key::Event(number as u64), text)]), Ok(()));
    }
    store = reopen(store);
    for (number, text) in texts.iter().enumerate() {
        assert_eq!(store.get(Key::Event(number as u64)).ok().flatten().as_deref(), Some(*text));
    }
}

fn much_comes_back<S: Store>(mut store: S, reopen: &mut impl FnMut(S) -> S) {
    let big = "页x".repeat(8 * 1024);
    let writes: Vec<StoreWrite<'_>> = (0..20).map(|number| put(Key::Event(number), &big)).collect();
    assert_eq!(store.apply(&writes), Ok(()));
    let small: Vec<String> = (0..1000).map(|number| format!("value {number}")).collect();
    let writes: Vec<StoreWrite<'_>> =
        small.iter().enumerate().map(|(number, value)| put(Key::Event(100 + number as u64), value)).collect();
    assert_eq!(store.apply(&writes), Ok(()));
    store = reopen(store);
    let records = all(&mut store);
    assert_eq!(records.len(), 1020);
    assert!(records[..20].iter().all(|(_, value)| *value == big));
    assert!(records[20..].iter().zip(&small).all(|((_, value), expected)| value == expected));
}

/// Runs a few hundred pseudo-random transactions against a model, with restarts in between.
fn behaves_like_a_map<S: Store>(mut store: S, reopen: &mut impl FnMut(S) -> S) {
    let mut random = crate::random::Random::new(b"store suite", crate::Now { wall: 0, mono: 0 }, 0);
    let mut model = std::collections::BTreeMap::new();
    for round in 0..300u64 {
        let changes: Vec<(Key, Option<String>)> = (0..random.gen_inclusive(8))
            .map(|_| {
                let number = random.gen_inclusive(15);
                let key = [Key::State, Key::Context(number), Key::Event(number), Key::Batch(number)]
                    [random.gen_inclusive(3) as usize];
                let value = (random.gen_inclusive(2) > 0)
                    .then(|| format!("{round}-{}", "v".repeat(random.gen_inclusive(40) as usize)));
                (key, value)
            })
            .collect();
        let writes: Vec<StoreWrite<'_>> =
            changes.iter().map(|(key, value)| StoreWrite { key: *key, value: value.as_deref() }).collect();
        assert_eq!(store.apply(&writes), Ok(()));
        for (key, value) in changes {
            match value {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        if random.gen_inclusive(9) == 0 {
            store = reopen(store);
        }
        if random.gen_inclusive(4) == 0 {
            assert_eq!(all(&mut store), model.clone().into_iter().collect::<Vec<_>>());
        }
    }
    store = reopen(store);
    assert_eq!(all(&mut store), model.into_iter().collect::<Vec<_>>());
}
