//! Clocks that jump, full disks, and merges that fail repeatedly.

use std::time::Duration;

use super::part::PartWriter;
use super::*;

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;

/// Creates an index whose app has seen 3,000 IDs, in parts.
fn seen() -> Lab {
    let mut lab = Lab::new(few_ids(500, 1 << 20), wide());
    lab.now = 20_000 * DAY;
    lab.open();
    for start in (0..3_000).step_by(500) {
        lab.insert_new_ids(1, &many(start..start + 500), Crash::Never);
    }
    look(&mut lab);
    assert_eq!((lab.extent(1).ids, lab.extent(1).forgotten_to), (3_000, None));
    lab
}

/// Runs what the writer runs every minute.
fn look(lab: &mut Lab) {
    lab.dedup.as_mut().unwrap().schedule_expiry();
    lab.settle();
}

/// Advances the collector's clock.
fn advance(lab: &mut Lab, millis: i64) {
    lab.dedup.as_mut().unwrap().clock_guard.pass(millis);
    lab.now += millis;
}

#[test]
fn a_clock_that_is_ahead_for_two_seconds_forgets_nothing() {
    let mut lab = seen();
    lab.now += 100 * DAY;
    lab.insert_new_ids(1, &many(3_000..3_500), Crash::Never);
    look(&mut lab);
    advance(&mut lab, 2_000);
    look(&mut lab);
    lab.now -= 100 * DAY;
    look(&mut lab);
    assert_eq!(lab.insert_new_ids(1, &many(0..3_500), Crash::Never).unwrap(), [false; 3_500]);
    assert_eq!(lab.extent(1).forgotten_to, None);
    let newest = "SELECT max(seen_to) FROM part";
    let newest: i64 = lab.sql.as_ref().unwrap().query_row(newest, [], |row| row.get(0)).unwrap();
    assert!(newest <= lab.now, "what was seen by the wrong clock can expire");
    for _ in 0..10 {
        advance(&mut lab, 10 * DAY);
        look(&mut lab);
    }
    assert_eq!(lab.extent(1).ids, 0, "it does, in its time");
    assert!(lab.extent(1).forgotten_to.is_some_and(|to| to <= lab.now));
}

#[test]
fn a_collector_that_was_off_for_long_forgets_what_is_old_after_some_hours() {
    let mut lab = seen();
    lab.now += 100 * DAY;
    lab.open();
    assert_eq!(lab.insert_new_ids(1, &many(3_000..3_100), Crash::Never).unwrap(), [true; 100]);
    for _ in 0..5 {
        look(&mut lab);
        assert_eq!(lab.extent(1).ids, 3_100, "not before the clock has gone on for hours");
        advance(&mut lab, HOUR);
    }
    advance(&mut lab, 2 * HOUR);
    look(&mut lab);
    assert_eq!(lab.extent(1).ids, 100);
    assert!(lab.extent(1).forgotten_to.is_some_and(|to| to <= lab.now - 99 * DAY));
}

#[test]
fn a_start_with_a_wrong_clock_forgets_nothing_although_it_sees_new_ids_and_starts_again() {
    let mut lab = seen();
    lab.now += 100 * DAY;
    for start in 6..10 {
        lab.open();
        lab.insert_new_ids(1, &many(start * 500..start * 500 + 500), Crash::Never);
        look(&mut lab);
        assert_eq!(lab.extent(1).forgotten_to, None);
    }
    lab.now -= 100 * DAY;
    lab.open();
    look(&mut lab);
    assert_eq!(lab.insert_new_ids(1, &many(0..5_000), Crash::Never).unwrap(), [false; 5_000]);
}

#[test]
fn a_merge_that_fails_leaves_no_file() {
    let mut lab = Lab::new(few_ids(600, 1 << 20), wide());
    // In order, so that nothing but the merge reads the damaged page.
    lab.insert_new_ids(1, &(1..=600).collect::<Vec<u128>>(), Crash::Never);
    lab.settle();
    let file = std::fs::read_dir(lab.folder()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    lab.insert_new_ids(1, &(1_001..=1_600).collect::<Vec<u128>>(), Crash::Never);
    lab.settle();
    assert_eq!(lab.extent(1).lost_parts, 1, "the merge has met the damage");
    assert_eq!(lab.extent(1).ids, 600);
    let left = std::fs::read_dir(lab.folder()).unwrap().map(|file| file.unwrap().path());
    let left: std::collections::BTreeSet<_> = left.collect();
    let parts = [1, 2].map(|no| part::path(&lab.folder(), no));
    assert_eq!(left, parts.into(), "nothing but what was there before, the damaged part for somebody to look at");
}

#[test]
fn a_part_that_is_given_up_or_finds_no_room_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let key = HashKey::new([7; 16]);
    let mut writer = PartWriter::new(dir.path(), 1, 100_000, key).unwrap();
    (0..100_000).for_each(|id| writer.push(id).unwrap());
    assert_eq!(files(), 1);
    drop(writer);
    assert_eq!(files(), 0);
    let mut writer = PartWriter::new(dir.path(), 1, 5_000, key).unwrap();
    writer.push(1).unwrap();
    assert!(writer.finish(1, 1, 0, 0).is_err(), "another number of IDs was promised");
    assert_eq!(files(), 0);
    if cfg!(unix) {
        let refused = PartWriter::new(dir.path(), 1, 1 << 50, key).err().unwrap();
        assert_eq!((refused.kind(), files()), (std::io::ErrorKind::StorageFull, 0));
    }
}

#[test]
fn parts_are_not_merged_while_that_would_take_the_room_of_others() {
    let mut lab = Lab::new(DedupSettings { reserve_bytes: u64::MAX, ..few_ids(500, 1 << 20) }, wide());
    for start in (0..5_000).step_by(500) {
        assert_eq!(lab.insert_new_ids(1, &many(start..start + 500), Crash::Never).unwrap(), [true; 500]);
        lab.settle();
    }
    assert_eq!(lab.files(), 10);
    let dedup = lab.dedup.as_mut().unwrap();
    assert_eq!(dedup.retry.merge_pause, Some(Duration::from_secs(5)), "it is not tried again at once");
    for merge_pause in [10, 20, 40, 80, 160, 300, 300] {
        dedup.retry.merge = None;
        dedup.run_maintenance();
        assert_eq!(dedup.retry.merge_pause, Some(Duration::from_secs(merge_pause)));
    }
    (dedup.retry.merge, dedup.settings.reserve_bytes) = (None, 0);
    dedup.run_maintenance();
    lab.settle();
    assert_eq!(lab.dedup.as_ref().unwrap().retry.merge_pause, None);
    assert!(lab.files() < 10);
    assert_eq!(lab.insert_new_ids(1, &many(0..5_000), Crash::Never).unwrap(), [false; 5_000]);
}

#[test]
fn something_in_the_folder_that_cannot_be_removed_is_no_reason_not_to_start() {
    let mut lab = seen();
    let other = lab.folder().join("lost+found");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "x").unwrap();
    lab.open();
    assert_eq!(lab.insert_new_ids(1, &many(0..3_000), Crash::Never).unwrap(), [false; 3_000]);
    assert!(other.exists());
}
