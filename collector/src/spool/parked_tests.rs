//! What is parked is pending, whatever happens, and has an end.

use super::parked::{MOST_BYTES, MOST_EVENTS};
use super::*;
use crate::db;

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &Settings::default(), Arc::default()).unwrap()
}

/// A spool with 100 events, of which the sink `a` has taken none.
fn hundred(dir: &Path) -> Spool {
    let spool = open(dir);
    spool.register(&["a"]).unwrap();
    spool.call(|tx| (0..10).try_for_each(|_| tx.append(1, "{}", 10).map(drop))).unwrap();
    spool
}

fn parked(position: u64, app: &str, thing: &str) -> Parked {
    Parked {
        position,
        app_key: app.into(),
        event_id: format!("e{position}"),
        thing: thing.into(),
        arrived: 1000 + position.cast_signed(),
        record: "{}".into(),
    }
}

fn most(things: usize) -> GroupCap {
    GroupCap { things, events: 1000, bytes: 1024 * 1024 }
}

fn letter(position: u64) -> DeadLetter {
    DeadLetter {
        sink: "a".into(),
        position,
        app_key: "x".into(),
        event_id: format!("e{position}"),
        reason: "no".into(),
        dead_at: 1,
        record: "{}".into(),
    }
}

/// Passes the events up to `last`, of which some are parked.
fn pass(spool: &Spool, last: u64, parked: Vec<Parked>) {
    spool.pass("a", last, Passed { parked, ..Passed::default() }).unwrap();
}

fn figures(spool: &Spool) -> SinkLedger {
    let ledger = spool.ledger().unwrap();
    let sink = ledger.sinks["a"].clone();
    assert_eq!(sink.delivered + sink.dead + sink.pending + sink.expired, ledger.stored);
    sink
}

fn positions(group: &Group) -> Vec<u64> {
    group.events.iter().map(|event| event.position).collect()
}

#[test]
fn what_is_parked_is_pending_until_it_is_delivered_or_dead() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    pass(&spool, 50, vec![parked(3, "x", "d1"), parked(4, "x", "d2"), parked(40, "y", "d1")]);
    let expected = SinkLedger { delivered: 47, pending: 53, parked: 3, ..SinkLedger::default() };
    assert_eq!(figures(&spool), expected);
    assert_eq!(figures(&spool).position(), 50);
    // The log does not keep what is parked, and its age stays known.
    pass(&spool, 100, Vec::new());
    spool.trim().unwrap();
    assert_eq!(spool.read_after(0, 99, 99).unwrap(), []);
    assert_eq!(spool.status("nobody", 0).unwrap().waiting["a"], 1003);
    let outside = Passed { parked: vec![parked(7, "x", "d")], ..Passed::default() };
    assert!(matches!(spool.pass("a", 100, outside), Err(SpoolError::BadRange { .. })));
    spool.settle_parked("a", vec![3], vec![letter(40)]).unwrap();
    let expected = SinkLedger { delivered: 98, dead: 1, pending: 1, parked: 1, ..SinkLedger::default() };
    assert_eq!(figures(&spool), expected);
    spool.close();
    let spool = open(dir.path());
    assert_eq!(figures(&spool), expected);
    // Twice is once.
    spool.settle_parked("a", vec![3, 4], vec![letter(40)]).unwrap();
    assert_eq!(figures(&spool), SinkLedger { delivered: 99, dead: 1, ..SinkLedger::default() });
    assert_eq!(spool.dead_letters(Some("a"), 0, 9).unwrap(), [letter(40)]);
    assert!(spool.status("nobody", 0).unwrap().waiting.is_empty());
    assert_eq!(spool.parked_room("a").unwrap(), ParkedRoom::default());
}

#[test]
fn every_app_has_its_turn_and_takes_along_what_needs_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    let of_x = (1..=20).map(|n| parked(n, "x", &format!("d{}", n % 10)));
    pass(
        &spool,
        100,
        of_x.chain([parked(31, "y", "d1"), parked(32, "y", "other"), parked(33, "z", "other")]).collect(),
    );
    let next = |app: &str| spool.parked_group("a", app, most(3)).unwrap().unwrap();
    let first = next("");
    assert_eq!((positions(&first), first.alone), (vec![1, 2, 3, 11, 12, 13, 31], false));
    assert_eq!(next("x"), first, "what is being sent is the same until it is settled");
    spool.part_group("a", vec![2, 3, 1]).unwrap();
    let alone = next("x");
    assert_eq!((positions(&alone), alone.alone), (vec![2, 3, 1], true));
    spool.settle_parked("a", vec![3], Vec::new()).unwrap();
    assert_eq!(positions(&next("x")), [2, 1]);
    spool.part_group("a", Vec::new()).unwrap();
    let second = next("x");
    assert_eq!(positions(&second), [1, 11, 31, 32, 33], "the other app's turn");
    assert_eq!((&*first.app_key, &*second.app_key), ("x", "y"), "whatever goes with it");
    spool.settle_parked("a", vec![1, 11, 31, 32, 33], Vec::new()).unwrap();
    assert_eq!(positions(&next("y")), [2, 4, 5, 12, 14, 15], "and round again");
    spool.part_group("a", Vec::new()).unwrap();
    let few = GroupCap { events: 2, ..most(3) };
    assert_eq!(positions(&spool.parked_group("a", "y", few).unwrap().unwrap()), [2, 12]);
    spool.settle_parked("a", (1..=100).collect(), Vec::new()).unwrap();
    assert_eq!(spool.parked_group("a", "x", most(3)).unwrap(), None);
}

#[test]
fn the_events_a_frozen_batch_goes_without_are_the_same_until_it_is_through() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    let whole = spool.freeze("a", 1, 50).unwrap().frozen.unwrap();
    spool.narrow("a", 40, false).unwrap();
    spool.advance("a", 40, Vec::new(), false).unwrap();
    assert!(spool.freeze_with("a", (41, 60), Vec::new(), vec![40, 41]).is_err(), "without what is not in it");
    let without: Vec<u64> = (42..=55).chain([59]).collect();
    let frozen = spool.freeze_with("a", (41, 60), Vec::new(), without.clone()).unwrap().frozen.unwrap();
    assert_eq!(frozen.without, without);
    assert!(frozen.token.contains("-41-60-without-") && !whole.token.contains("without"), "{}", frozen.token);
    spool.close();
    let spool = open(dir.path());
    assert_eq!(spool.cursor("a").unwrap().frozen, Some(frozen.clone()));
    let narrow = spool.narrow("a", 57, true).unwrap().frozen.unwrap();
    assert_eq!(narrow.without, (42..=55).collect::<Vec<_>>());
    assert_ne!(narrow.token, frozen.token);
    assert_eq!(figures(&spool).parked, 0, "not before the cursor passes them");
}

#[test]
fn the_room_is_bounded_and_no_app_takes_it_all() {
    let mut room = ParkedRoom::default();
    let mut taken = 0;
    while room.take("greedy", 1) {
        taken += 1;
    }
    assert_eq!(taken, MOST_EVENTS * SHARE / (SHARE + 1));
    assert!((0..1000).all(|_| room.take("other", 1)));
    assert_eq!(room.events(), taken + 1000);
    let (mut room, mut bytes) = (ParkedRoom::default(), 0);
    while room.take("greedy", 1024 * 1024) {
        bytes += 1024 * 1024;
    }
    assert!(bytes <= MOST_BYTES * SHARE / (SHARE + 1) && bytes > MOST_BYTES / 2, "{bytes}");
    assert!(room.take("other", 1024 * 1024));
}

#[test]
fn a_retired_sink_counts_what_is_parked_as_expired_and_a_forgotten_one_drops_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    pass(&spool, 60, (1..=60).map(|n| parked(n, "x", "d")).collect());
    spool.register(&[]).unwrap();
    assert_eq!((figures(&spool).pending, figures(&spool).parked), (100, 60));
    spool.retire("a").unwrap();
    let retired = figures(&spool);
    assert_eq!((retired.pending, retired.parked, retired.expired), (0, 0, 100));
    spool.register(&["a"]).unwrap();
    assert_eq!((figures(&spool).pending, figures(&spool).parked), (100, 60), "it goes on where it left off");
    let group = spool.parked_group("a", "", most(1)).unwrap().unwrap();
    assert_eq!(group.events.len(), 60);
    spool.register(&[]).unwrap();
    spool.retire("a").unwrap();
    spool.forget("a").unwrap();
    spool.register(&["a"]).unwrap();
    assert_eq!(figures(&spool), SinkLedger { pending: 100, ..SinkLedger::default() });
    assert_eq!(spool.parked_group("a", "", most(1)).unwrap(), None);
}

#[test]
fn a_spool_of_the_version_before_goes_on_with_its_frozen_batch() {
    let dir = tempfile::tempdir().unwrap();
    let before = MIGRATIONS.iter().position(|sql| sql.contains("CREATE TABLE parked")).unwrap();
    let sql = db::open(&dir.path().join(FILE), &MIGRATIONS[..before]).unwrap();
    sql.execute_batch(
        "INSERT INTO record (first, events, json) VALUES (1, 9, '{}'); INSERT INTO counter VALUES ('stored', 9);
        INSERT INTO cursor (sink, delivered_to, frozen_first, frozen_last) VALUES ('a', 2, 3, 5)",
    )
    .unwrap();
    drop(sql);
    let spool = open(dir.path());
    spool.register(&["a"]).unwrap();
    let frozen = spool.cursor("a").unwrap().frozen.unwrap();
    assert_eq!((frozen.first, frozen.last, &frozen.without[..]), (3, 5, &[][..]));
    assert_eq!(frozen.token, spool.token(3, 5).unwrap(), "the store knows it by its name");
    assert_eq!(figures(&spool), SinkLedger { delivered: 2, pending: 7, ..SinkLedger::default() });
}
