//! The index compared with a model, with crashes between any two steps and damaged parts.

mod faults;

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;
use rusqlite::TransactionBehavior;

use super::*;
use crate::db;
use crate::spool::{FILE, MIGRATIONS};

const LAYOUT: db::Layout = db::Layout { page_bytes: 4096, gives_back: true };

const SMALL: DedupSettings = DedupSettings { fresh_ids: 40, memory_bytes: 4096, reserve_bytes: 0 };

fn few_ids(fresh_ids: u64, memory_bytes: u64) -> DedupSettings {
    DedupSettings { fresh_ids, memory_bytes, reserve_bytes: 0 }
}

fn wide() -> Horizons {
    Horizons::default()
}

/// Index with a connection as the spool's writer has it.
struct Lab {
    dir: tempfile::TempDir,
    sql: Option<Connection>,
    dedup: Option<Dedup>,
    settings: DedupSettings,
    horizons: Horizons,
    now: i64,
}

/// Step at which a crash happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Crash {
    Never,
    BeforeCommit,
    AfterCommit,
}

impl Lab {
    fn new(settings: DedupSettings, horizons: Horizons) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut lab = Self { dir, sql: None, dedup: None, settings, horizons, now: 1_000 };
        lab.open();
        lab
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join(DEDUP_FOLDER)
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.folder()).unwrap().count()
    }

    /// Drops the index without a close and opens what is on disk.
    fn open(&mut self) {
        (self.dedup, self.sql) = (None, None);
        let mut sql = db::open_laid_out(&self.dir.path().join(FILE), MIGRATIONS, LAYOUT).unwrap();
        // What dies here is never the machine.
        sql.pragma_update(None, "synchronous", "OFF").unwrap();
        let mut dedup = Dedup::open(self.dir.path(), &self.settings, &mut sql, self.now).unwrap();
        dedup.set_horizons(self.horizons.clone());
        (self.sql, self.dedup) = (Some(sql), Some(dedup));
    }

    /// Runs one transaction. Returns what was new, or `None` if the crash came before the commit.
    fn insert_new_ids(&mut self, app: i64, ids: &[u128], crash: Crash) -> Option<Vec<bool>> {
        self.now += 1;
        let (sql, dedup) = (self.sql.as_mut().unwrap(), self.dedup.as_mut().unwrap());
        let mut new = vec![false; ids.len()];
        dedup.wait_below_cap().unwrap();
        let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
        dedup.apply_results(&transaction, self.now).unwrap();
        let ids = ids.iter().map(|id| Id::from_bytes(id.to_be_bytes()));
        dedup.insert_new_ids(&transaction, app, ids, |at, fresh| new[at] = fresh).unwrap();
        dedup.flush(&transaction, self.now).unwrap();
        if crash == Crash::BeforeCommit {
            drop(transaction);
            self.open();
            return None;
        }
        transaction.commit().unwrap();
        if crash == Crash::AfterCommit {
            self.open();
        } else {
            dedup.committed(self.now);
            dedup.run_maintenance();
        }
        Some(new)
    }

    /// Waits for the threads and applies their results until nothing is left to do.
    fn settle(&mut self) {
        while self.dedup.as_ref().unwrap().is_busy() {
            self.insert_new_ids(0, &[], Crash::Never);
            // However long the threads take, nothing grows old meanwhile.
            self.now -= 1;
            std::thread::yield_now();
        }
    }

    fn extent(&self, app: i64) -> DedupExtent {
        self.dedup.as_ref().unwrap().extents().get(&app).copied().unwrap_or_default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    See { app: i64, ids: Vec<u16>, crash: Crash },
    Settle,
    Restart,
    HalfWrittenFile,
    Rollback,
}

fn step() -> impl Strategy<Value = Step> {
    let crash = prop_oneof![8 => Just(Crash::Never), 1 => Just(Crash::BeforeCommit), 1 => Just(Crash::AfterCommit)];
    prop_oneof![
        12 => (0..3i64, prop::collection::vec(0..600u16, 0..30), crash).prop_map(|(app, ids, crash)| Step::See { app, ids, crash }),
        3 => Just(Step::Settle),
        1 => Just(Step::Restart),
        1 => Just(Step::HalfWrittenFile),
        1 => Just(Step::Rollback),
    ]
}

/// Spreads a number over an ID, half of them like UUIDv7 (ordered), half random.
fn id(number: u16) -> u128 {
    let number = u128::from(number);
    if number.is_multiple_of(2) {
        number << 80 | 7
    } else {
        number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
    }
}

fn agree(steps: Vec<Step>, settings: &DedupSettings, horizons: &Horizons) {
    let mut lab = Lab::new(settings.clone(), horizons.clone());
    let mut model: HashMap<(i64, u128), i64> = HashMap::new();
    for step in steps {
        match step {
            Step::See { app, ids, crash } => {
                let ids: Vec<u128> = ids.into_iter().map(id).collect();
                let Some(found) = lab.insert_new_ids(app, &ids, crash) else { continue };
                let forgotten = lab.extent(app).forgotten_to.unwrap_or(0);
                for (id, new) in ids.iter().zip(found) {
                    match model.get(&(app, *id)) {
                        Some(seen) if *seen > forgotten => assert!(!new, "{id:x} of {app} was seen at {seen}"),
                        Some(_) => {}
                        None => assert!(new, "{id:x} of {app} was never seen"),
                    }
                    if new {
                        model.insert((app, *id), lab.now);
                    }
                }
            }
            Step::Settle => lab.settle(),
            Step::Restart => lab.open(),
            Step::HalfWrittenFile => {
                let no = lab.dedup.as_ref().unwrap().next_part;
                std::fs::write(part::path(&lab.folder(), no + 1000), b"half").unwrap();
            }
            Step::Rollback => {
                // The commit fails; the collector goes on with a fresh connection, as the writer does.
                let (sql, dedup) = (lab.sql.as_mut().unwrap(), lab.dedup.as_mut().unwrap());
                let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate).unwrap();
                dedup.apply_results(&transaction, lab.now).unwrap();
                dedup.insert_new_ids(&transaction, 1, [Id::from_bytes([0xAB; 16])].into_iter(), |_, _| {}).unwrap();
                dedup.flush(&transaction, lab.now).unwrap();
                drop(transaction);
                assert!(dedup.reload(sql).unwrap());
            }
        }
    }
    lab.settle();
    let named: i64 = lab.sql.as_ref().unwrap().query_row("SELECT count(*) FROM part", [], |row| row.get(0)).unwrap();
    lab.open();
    assert_eq!(lab.files() as i64, named, "no file is left behind");
    for ((app, id), seen) in model {
        if lab.extent(app).forgotten_to.unwrap_or(0) < seen {
            assert_eq!(lab.insert_new_ids(app, &[id], Crash::Never).unwrap(), [false]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_knows_exactly_what_was_committed_whatever_crashes(steps in prop::collection::vec(step(), 1..60)) {
        agree(steps, &SMALL, &wide());
    }

    #[test]
    fn it_knows_exactly_what_its_horizon_holds(steps in prop::collection::vec(step(), 1..60)) {
        let small = Horizon { age_ms: 60, bytes: 16_000 };
        agree(steps, &SMALL, &Horizons { other: Horizon::default(), apps: [(1, small)].into() });
    }
}

fn many(range: std::ops::Range<u64>) -> Vec<u128> {
    range.map(|number| u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)).collect()
}

#[test]
fn a_flood_of_one_app_ends_only_its_own_horizon() {
    let small = Horizon { age_ms: i64::MAX, bytes: 100_000 };
    let horizons = Horizons { other: Horizon::default(), apps: [(1, small)].into() };
    let mut lab = Lab::new(few_ids(500, 1 << 20), horizons);
    let quiet = many(0..300);
    assert_eq!(lab.insert_new_ids(2, &quiet, Crash::Never).unwrap(), [true; 300]);
    for start in (0..100_000).step_by(500) {
        lab.insert_new_ids(1, &many(start..start + 500), Crash::Never);
    }
    lab.settle();
    let (flooded, kept) = (lab.extent(1), lab.extent(2));
    assert!(flooded.forgotten_to.is_some() && flooded.bytes <= 100_000, "{flooded:?}");
    assert!(flooded.bytes >= 60_000, "a share of the horizon goes at once, not all of it: {flooded:?}");
    assert_eq!((kept.ids, kept.forgotten_to), (300, None));
    assert_eq!(lab.insert_new_ids(2, &quiet, Crash::Never).unwrap(), [false; 300]);
    assert_eq!(
        lab.insert_new_ids(1, &many(99_000..99_500), Crash::Never).unwrap(),
        [false; 500],
        "the newest are known"
    );
    assert_eq!(lab.insert_new_ids(1, &many(0..500), Crash::Never).unwrap(), [true; 500], "the oldest are not");
    assert!(lab.files() < 30, "{}", lab.files());
}

#[test]
fn what_is_older_than_the_horizon_goes_and_the_horizon_in_force_says_so() {
    let horizons = Horizons { other: Horizon { age_ms: 1_000, bytes: 1 << 30 }, apps: HashMap::new() };
    let mut lab = Lab::new(few_ids(100, 1 << 20), horizons);
    lab.insert_new_ids(1, &many(0..100), Crash::Never);
    lab.settle();
    let horizon = |lab: &Lab| lab.dedup.as_ref().unwrap().horizon_ms(1, lab.now);
    assert_eq!((lab.extent(1).forgotten_to, horizon(&lab)), (None, 1_000));
    lab.now += 2_000;
    lab.dedup.as_mut().unwrap().schedule_expiry();
    lab.settle();
    assert_eq!((lab.extent(1).ids, lab.files()), (0, 0));
    lab.now += 500;
    assert_eq!(horizon(&lab), 1_000, "what was forgotten is older than the horizon asked for");
}

/// Damages the file of the only part in `lab` and returns how many of its IDs a lookup finds new after that.
fn after_damage(reopen: bool, spoil: impl Fn(&Path)) -> (Vec<bool>, DedupExtent) {
    let mut lab = Lab::new(few_ids(1000, 1 << 20), wide());
    lab.insert_new_ids(1, &many(0..1000), Crash::Never);
    lab.settle();
    let before = lab.extent(1);
    assert_eq!((before.ids, lab.files()), (1000, 1));
    let file = std::fs::read_dir(lab.folder()).unwrap().next().unwrap().unwrap().path();
    spoil(&file);
    if reopen {
        lab.open();
    }
    let new = lab.insert_new_ids(1, &many(0..1000), Crash::Never).unwrap();
    let extent = lab.extent(1);
    assert!(extent.lost_parts == 0 || extent.horizon_ms(lab.now) < lab.now, "the horizon in force is shorter");
    lab.open();
    assert_eq!(
        lab.insert_new_ids(1, &many(0..1000), Crash::Never).unwrap(),
        [false; 1000],
        "what was stored again is known again"
    );
    assert_eq!(lab.extent(1).forgotten_to, extent.forgotten_to);
    (new, extent)
}

#[test]
fn a_part_that_is_missing_or_damaged_is_lost_aloud_and_never_believed() {
    let flip = |at: fn(usize) -> usize| {
        move |file: &Path| {
            let mut bytes = std::fs::read(file).unwrap();
            let place = at(bytes.len());
            bytes[place] ^= 1;
            std::fs::write(file, bytes).unwrap();
        }
    };
    let footer = after_damage(true, flip(|len| len - 20));
    let filter = after_damage(true, flip(|len| len - 200));
    let index = after_damage(true, flip(|_| 1000 * 16 + 3));
    let page = after_damage(false, flip(|_| 5));
    let missing = after_damage(true, |file| std::fs::remove_file(file).unwrap());
    let short = after_damage(true, |file| std::fs::write(file, b"short").unwrap());
    for (new, extent) in [footer, filter, index, missing, short, page] {
        assert_eq!(extent.lost_parts, 1);
        assert!(extent.forgotten_to.is_some());
        assert!(new.iter().any(|new| *new));
    }
    let (whole, extent) = after_damage(true, |_| {});
    assert_eq!((whole.iter().any(|new| *new), extent.lost_parts), (false, 0));
}

#[test]
fn without_memory_for_filters_it_is_as_exact() {
    let mut lab = Lab::new(few_ids(500, 0), wide());
    for start in (0..10_000).step_by(500) {
        assert_eq!(lab.insert_new_ids(1, &many(start..start + 500), Crash::Never).unwrap(), [true; 500]);
    }
    lab.settle();
    assert_eq!(lab.insert_new_ids(1, &many(0..10_000), Crash::Never).unwrap(), [false; 10_000]);
    assert_eq!(lab.insert_new_ids(1, &many(10_000..10_100), Crash::Never).unwrap(), [true; 100]);
}

#[test]
fn an_index_that_cannot_be_written_keeps_its_memory_bounded_and_goes_on_once_it_can() {
    let mut lab = Lab::new(few_ids(100, 1 << 20), wide());
    let folder = lab.folder();
    std::fs::remove_dir(&folder).unwrap();
    std::fs::write(&folder, b"in the way").unwrap();
    let mut stored = 0;
    let refusal = loop {
        if let Err(error) = lab.dedup.as_mut().unwrap().wait_below_cap() {
            break error.to_string();
        }
        lab.insert_new_ids(1, &many(stored..stored + 50), Crash::Never);
        stored += 50;
        assert!(stored <= 1_000, "memory is bounded");
    };
    assert!(refusal.contains("the dedup index cannot be written"), "{refusal}");
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    assert_eq!(lab.insert_new_ids(1, &many(0..stored), Crash::Never).unwrap(), vec![false; stored as usize]);
    lab.settle();
    assert!(lab.files() > 0);
}

#[test]
fn the_table_of_older_data_directories_becomes_parts_that_know_every_id() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    {
        let layout = db::Layout { page_bytes: 16 * 1024, gives_back: false };
        let sql = db::open_laid_out(&path, &MIGRATIONS[..2], layout).unwrap();
        let mut insert = sql.prepare("INSERT INTO seen VALUES (?1, ?2)").unwrap();
        for id in many(0..20_000) {
            insert.execute(params![(id % 2) as i64, id.to_be_bytes()]).unwrap();
        }
        sql.execute("INSERT INTO install VALUES (1, ?1, 5, 'b', 6, 7)", [[1u8; 16]]).unwrap();
    }
    let spool = crate::spool::Spool::open(dir.path(), &crate::spool::SpoolSettings::default(), Arc::default()).unwrap();
    let insert_new_ids = |app: i64, ids: Vec<u128>| {
        let act = move |tx: &mut crate::spool::Tx<'_>| {
            let mut new = 0;
            let ids = ids.iter().map(|id| Id::from_bytes(id.to_be_bytes()));
            tx.insert_new_ids(app, ids, |_, fresh| new += u64::from(fresh))?;
            Ok(new)
        };
        spool.call(act).unwrap()
    };
    let of = |app: u128| many(0..20_000).into_iter().filter(move |id| id % 2 == app).collect::<Vec<_>>();
    assert_eq!((insert_new_ids(0, of(0)), insert_new_ids(1, of(1))), (0, 0), "every ID is known, of its own app");
    assert_eq!(insert_new_ids(0, of(1)), of(1).len() as u64);
    let point = spool.call(|tx| tx.clock_anchor(1, Id::from_bytes([1; 16]))).unwrap().unwrap();
    assert_eq!((point.seq, point.event_time), (5, 7));
    spool.close();
    let sql = Connection::open(&path).unwrap();
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name IN ('seen', 'install')";
    assert_eq!(sql.query_row(tables, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    assert_eq!(sql.pragma_query_value(None, "auto_vacuum", |row| row.get::<_, i64>(0)).unwrap(), 2);
}
