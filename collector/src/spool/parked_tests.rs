//! Parked events stay pending in every case, and their number is bounded.

use super::parked::{MAX_BYTES, MAX_EVENTS};
use super::*;
use crate::db;

fn open(dir: &Path) -> Spool {
    Spool::open(dir, &SpoolSettings::default(), Arc::default()).unwrap()
}

/// Creates a spool with 100 events, of which the sink `a` has taken none.
fn hundred(dir: &Path) -> Spool {
    let spool = open(dir);
    spool.register(&["a"]).unwrap();
    spool.call(|tx| (0..10).try_for_each(|_| tx.append(1, "{}", 10).map(drop))).unwrap();
    spool
}

fn parked(position: u64, app: &str, resource: &str) -> Parked {
    Parked {
        position,
        app_key: app.into(),
        event_id: format!("e{position}"),
        resource: resource.into(),
        arrived: 1000 + position.cast_signed(),
        record: "{}".into(),
    }
}

fn limits(max_resources: usize) -> ParkedGroupLimits {
    ParkedGroupLimits { max_resources, max_events: 1000, max_bytes: 1024 * 1024 }
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

/// Advances over the events up to `last`, of which some are parked.
fn advance_with(spool: &Spool, last: u64, parked: Vec<Parked>) {
    spool.advance_with("a", last, Undelivered { parked, ..Undelivered::default() }).unwrap();
}

fn figures(spool: &Spool) -> SinkLedger {
    let ledger = spool.ledger().unwrap();
    let sink = ledger.sinks["a"].clone();
    assert_eq!(sink.delivered + sink.discarded + sink.pending + sink.expired, ledger.stored);
    sink
}

fn positions(group: &ParkedGroup) -> Vec<u64> {
    group.events.iter().map(|event| event.position).collect()
}

#[test]
fn what_is_parked_is_pending_until_it_is_delivered_or_dead() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    advance_with(&spool, 50, vec![parked(3, "x", "d1"), parked(4, "x", "d2"), parked(40, "y", "d1")]);
    let expected = SinkLedger { delivered: 47, pending: 53, parked: 3, ..SinkLedger::default() };
    assert_eq!(figures(&spool), expected);
    assert_eq!(figures(&spool).position(), 50);
    // The log does not keep what is parked, and its age stays known.
    advance_with(&spool, 100, Vec::new());
    spool.trim().unwrap();
    assert_eq!(spool.read_after(0, 99, 99).unwrap(), []);
    assert_eq!(spool.status("nobody", 0).unwrap().oldest_pending["a"], 1003);
    let outside = Undelivered { parked: vec![parked(7, "x", "d")], ..Undelivered::default() };
    assert!(matches!(spool.advance_with("a", 100, outside), Err(SpoolError::BadRange { .. })));
    spool.record_parked_outcome("a", vec![3], vec![letter(40)]).unwrap();
    let expected = SinkLedger { delivered: 98, discarded: 1, pending: 1, parked: 1, ..SinkLedger::default() };
    assert_eq!(figures(&spool), expected);
    spool.close();
    let spool = open(dir.path());
    assert_eq!(figures(&spool), expected);
    // Twice is once.
    spool.record_parked_outcome("a", vec![3, 4], vec![letter(40)]).unwrap();
    assert_eq!(figures(&spool), SinkLedger { delivered: 99, discarded: 1, ..SinkLedger::default() });
    assert_eq!(spool.dead_letters(Some("a"), 0, 9).unwrap(), [letter(40)]);
    assert!(spool.status("nobody", 0).unwrap().oldest_pending.is_empty());
    assert_eq!(spool.parked_quota("a").unwrap(), ParkedQuota::default());
}

#[test]
fn every_app_has_its_turn_and_takes_along_what_needs_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    let of_x = (1..=20).map(|n| parked(n, "x", &format!("d{}", n % 10)));
    advance_with(
        &spool,
        100,
        of_x.chain([parked(31, "y", "d1"), parked(32, "y", "other"), parked(33, "z", "other")]).collect(),
    );
    let next = |app: &str| spool.parked_group("a", app, limits(3)).unwrap().unwrap();
    let first = next("");
    assert_eq!((positions(&first), first.singly), (vec![1, 2, 3, 11, 12, 13, 31], false));
    assert_eq!(next("x"), first, "what is being sent is the same until it is settled");
    spool.send_parked_singly("a", vec![2, 3, 1]).unwrap();
    let singly = next("x");
    assert_eq!((positions(&singly), singly.singly), (vec![2, 3, 1], true));
    spool.record_parked_outcome("a", vec![3], Vec::new()).unwrap();
    assert_eq!(positions(&next("x")), [2, 1]);
    spool.send_parked_singly("a", Vec::new()).unwrap();
    let second = next("x");
    assert_eq!(positions(&second), [1, 11, 31, 32, 33], "the other app's turn");
    assert_eq!((&*first.app_key, &*second.app_key), ("x", "y"), "whatever goes with it");
    spool.record_parked_outcome("a", vec![1, 11, 31, 32, 33], Vec::new()).unwrap();
    assert_eq!(positions(&next("y")), [2, 4, 5, 12, 14, 15], "and round again");
    spool.send_parked_singly("a", Vec::new()).unwrap();
    let few = ParkedGroupLimits { max_events: 2, ..limits(3) };
    assert_eq!(positions(&spool.parked_group("a", "y", few).unwrap().unwrap()), [2, 12]);
    spool.record_parked_outcome("a", (1..=100).collect(), Vec::new()).unwrap();
    assert_eq!(spool.parked_group("a", "x", limits(3)).unwrap(), None);
}

#[test]
fn the_events_a_frozen_batch_goes_without_are_the_same_until_it_is_through() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    let whole = spool.freeze("a", 1, 50).unwrap().frozen.unwrap();
    spool.shrink_frozen("a", 40, false).unwrap();
    spool.advance("a", 40, Vec::new(), false).unwrap();
    assert!(spool.freeze_with("a", (41, 60), Vec::new(), vec![40, 41]).is_err(), "without what is not in it");
    let without: Vec<u64> = (42..=55).chain([59]).collect();
    let frozen = spool.freeze_with("a", (41, 60), Vec::new(), without.clone()).unwrap().frozen.unwrap();
    assert_eq!(frozen.excluded, without);
    assert!(
        frozen.dedup_token.contains("-41-60-without-") && !whole.dedup_token.contains("without"),
        "{}",
        frozen.dedup_token
    );
    spool.close();
    let spool = open(dir.path());
    assert_eq!(spool.cursor("a").unwrap().frozen, Some(frozen.clone()));
    let shrink_frozen = spool.shrink_frozen("a", 57, true).unwrap().frozen.unwrap();
    assert_eq!(shrink_frozen.excluded, (42..=55).collect::<Vec<_>>());
    assert_ne!(shrink_frozen.dedup_token, frozen.dedup_token);
    assert_eq!(figures(&spool).parked, 0, "not before the cursor passes them");
}

#[test]
fn the_room_is_bounded_and_no_app_takes_it_all() {
    let mut quota = ParkedQuota::default();
    let mut taken = 0;
    while quota.reserve("greedy", 1) {
        taken += 1;
    }
    assert_eq!(taken, MAX_EVENTS * FREE_SPACE_MULTIPLE / (FREE_SPACE_MULTIPLE + 1));
    assert!((0..1000).all(|_| quota.reserve("other", 1)));
    assert_eq!(quota.events(), taken + 1000);
    let (mut quota, mut bytes) = (ParkedQuota::default(), 0);
    while quota.reserve("greedy", 1024 * 1024) {
        bytes += 1024 * 1024;
    }
    assert!(bytes <= MAX_BYTES * FREE_SPACE_MULTIPLE / (FREE_SPACE_MULTIPLE + 1) && bytes > MAX_BYTES / 2, "{bytes}");
    assert!(quota.reserve("other", 1024 * 1024));
}

#[test]
fn a_retired_sink_counts_what_is_parked_as_expired_and_a_forgotten_one_drops_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = hundred(dir.path());
    advance_with(&spool, 60, (1..=60).map(|n| parked(n, "x", "d")).collect());
    spool.register(&[]).unwrap();
    assert_eq!((figures(&spool).pending, figures(&spool).parked), (100, 60));
    spool.retire("a").unwrap();
    let retired = figures(&spool);
    assert_eq!((retired.pending, retired.parked, retired.expired), (0, 0, 100));
    spool.register(&["a"]).unwrap();
    assert_eq!((figures(&spool).pending, figures(&spool).parked), (100, 60), "it goes on where it left off");
    let group = spool.parked_group("a", "", limits(1)).unwrap().unwrap();
    assert_eq!(group.events.len(), 60);
    spool.register(&[]).unwrap();
    spool.retire("a").unwrap();
    // Its deletion ends after the first step, and it returns: what is gone was never delivered.
    assert!(spool.call(|tx| sinks::forget(tx, "a")).unwrap(), "not done yet");
    spool.register(&["a"]).unwrap();
    let (left, was) = (figures(&spool), (0, 40, 0, 60));
    assert_eq!((left.delivered, left.pending, left.parked, left.expired), was);
    spool.register(&[]).unwrap();
    spool.retire("a").unwrap();
    spool.forget("a").unwrap();
    spool.register(&["a"]).unwrap();
    assert_eq!(figures(&spool), SinkLedger { pending: 100, ..SinkLedger::default() });
    assert_eq!(spool.parked_group("a", "", limits(1)).unwrap(), None);
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
    assert_eq!((frozen.first, frozen.last, &frozen.excluded[..]), (3, 5, &[][..]));
    assert_eq!(frozen.dedup_token, spool.dedup_token(3, 5).unwrap(), "the store knows it by its name");
    assert_eq!(figures(&spool), SinkLedger { delivered: 2, pending: 7, ..SinkLedger::default() });
}
