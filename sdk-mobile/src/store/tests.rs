use std::cell::Cell;
use std::fs;

use subway_sdk_core::testing::store_suite;
use tempfile::TempDir;

use super::*;

thread_local! {
    /// Pages that fit on the medium when a new file is written; `None` for no limit.
    pub(super) static ROOM: Cell<Option<u32>> = const { Cell::new(None) };
}

mod recovery;

/// A store and its directory, which is removed with it.
struct InTemp {
    store: SqliteStore,
    dir: TempDir,
}

impl InTemp {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { store: SqliteStore::open(dir.path()).unwrap(), dir }
    }

    /// Copies the files as they are now, as a killed process leaves them: nothing closed, no checkpoint.
    fn killed(self) -> Self {
        let dir = TempDir::new().unwrap();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
        }
        Self { store: SqliteStore::open(dir.path()).unwrap(), dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(FILE)
    }
}

impl Store for InTemp {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        self.store.apply(writes)
    }
    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        self.store.get(key)
    }
    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        self.store.scan(visit)
    }
}

fn put(key: Key, value: &str) -> StoreWrite<'_> {
    StoreWrite { key, value: Some(value) }
}

fn keys(store: &mut impl Store) -> Vec<Key> {
    let mut keys = Vec::new();
    store.scan(&mut |key, _| keys.push(key)).unwrap();
    keys
}

/// Creates a closed store with `events` events of 400 bytes, so that everything is in the one file.
fn filled(dir: &TempDir, events: u64) {
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let value = "e".repeat(400);
    let mut writes = vec![put(Key::State, "state")];
    writes.extend((0..events).map(|number| put(Key::Event(number), &value)));
    store.apply(&writes).unwrap();
}

#[test]
fn it_passes_the_suite_with_abrupt_ends() {
    store_suite::run(InTemp::new, InTemp::killed);
}

#[test]
fn it_passes_the_suite_with_orderly_ends() {
    store_suite::run(InTemp::new, |InTemp { store, dir }| {
        drop(store);
        InTemp { store: SqliteStore::open(dir.path()).unwrap(), dir }
    });
}

#[test]
fn a_second_client_on_a_directory_is_refused() {
    let dir = TempDir::new().unwrap();
    let first = SqliteStore::open(dir.path()).unwrap();
    let second = SqliteStore::open(dir.path());
    assert!(matches!(second, Err(OpenStoreError::InUse(path)) if path == dir.path()));
    drop(first);
    assert!(SqliteStore::open(dir.path()).is_ok());
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let Err(error) = SqliteStore::open(&file.join("data")) else { panic!("opened") };
    assert!(error.to_string().contains("file/data cannot be used"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_new_directory_is_for_this_user_only() {
    use std::os::unix::fs::PermissionsExt;
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("app/data");
    SqliteStore::open(&data).unwrap();
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_file_that_is_no_database_is_moved_aside() {
    let dir = TempDir::new().unwrap();
    let rubbish = "rubbish ".repeat(1000);
    fs::write(dir.path().join(FILE), &rubbish).unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.handle().take_recovery_reports().len(), 1);
    assert_eq!(keys(&mut store), []);
    assert_eq!(store.apply(&[put(Key::State, "new")]), Ok(()));
    assert_eq!(fs::read_to_string(dir.path().join("subway.db.damaged")).unwrap(), rubbish);
}

#[test]
fn no_byte_of_the_files_head_keeps_the_store_from_opening() {
    let whole = TempDir::new().unwrap();
    filled(&whole, 3);
    let bytes = fs::read(whole.path().join(FILE)).unwrap();
    for at in 0..100 {
        for value in [0, 1, 3, 0x7f, 0xff] {
            let dir = TempDir::new().unwrap();
            let mut changed = bytes.clone();
            changed[at] = value;
            fs::write(dir.path().join(FILE), changed).unwrap();
            let opened = SqliteStore::open(dir.path());
            // A changed version number cannot be told from a later version.
            if (60..64).contains(&at) && matches!(opened, Err(OpenStoreError::Newer { .. })) {
                continue;
            }
            let mut store = opened.unwrap_or_else(|error| panic!("byte {at} is {value}: {error}"));
            let _ = keys(&mut store);
            store.apply(&[put(Key::Event(77), "new")]).unwrap();
            drop(store);
            let found = SqliteStore::open(dir.path()).unwrap().get(Key::Event(77));
            assert_eq!(found.unwrap().as_deref(), Some("new"), "byte {at} is {value}");
        }
    }
}

#[test]
fn what_is_readable_of_a_damaged_file_is_saved() {
    let dir = TempDir::new().unwrap();
    filled(&dir, 1000);
    let path = dir.path().join(FILE);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let found = keys(&mut store);
    assert_eq!(found[0], Key::State);
    assert!((900..1001).contains(&found.len()), "one page of about 10 events is gone: {}", found.len());
    assert_eq!(store.handle().take_recovery_reports().len(), 1);
    assert!(dir.path().join("subway.db.damaged").exists());
    drop(store);
    let mut again = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(keys(&mut again), found);
    assert_eq!(again.handle().take_recovery_reports(), [""; 0]);
}

#[test]
fn damage_that_is_met_while_writing_heals_and_the_write_is_made() {
    let mut temp = InTemp::new();
    let value = "e".repeat(400);
    let writes: Vec<StoreWrite<'_>> = (0..1000).map(|number| put(Key::Event(number), &value)).collect();
    temp.apply(&writes).unwrap();
    table::truncate_log(&temp.store.connection).unwrap();
    temp.store.connection.pragma_update(None, "cache_size", 0).unwrap();
    temp.store.connection.execute_batch("PRAGMA shrink_memory").unwrap();
    let mut bytes = fs::read(temp.file()).unwrap();
    let length = bytes.len();
    bytes[length - 8 * 4096..].fill(0xff);
    fs::write(temp.file(), bytes).unwrap();
    for number in 0..1000 {
        temp.apply(&[StoreWrite { key: Key::Event(number), value: None }, put(Key::State, "after")]).unwrap();
    }
    assert_eq!(temp.store.handle().take_recovery_reports().len(), 1);
    assert_eq!(keys(&mut temp), [Key::State]);
}

#[test]
fn a_full_medium_is_told_apart_and_changes_nothing() {
    let mut temp = InTemp::new();
    temp.apply(&[put(Key::State, "before")]).unwrap();
    let pages: i64 = temp.store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    temp.store.connection.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
    let big = "x".repeat(64 * 1024);
    let error = temp.apply(&[put(Key::State, "after"), put(Key::Event(1), &big)]).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(temp.get(Key::State), Ok(Some("before".to_owned())));
    assert_eq!(temp.apply(&[put(Key::State, "small")]), Ok(()));
}

#[test]
fn it_passes_the_suite_of_full_stores() {
    store_suite::run_full(InTemp::new(), |temp| {
        let connection = &temp.store.connection;
        let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    });
}

/// On a medium that is really full.
#[test]
#[ignore = "by hand: SUBWAY_SMALL_DISK names a directory on a file system of a few megabytes"]
fn a_medium_without_a_byte_left_takes_deletions() {
    let dir = std::env::var_os("SUBWAY_SMALL_DISK").unwrap();
    let dir = TempDir::new_in(dir).unwrap();
    let ballast = dir.path().join("ballast");
    let store = SqliteStore::open(&dir.path().join("sdk")).unwrap();
    store_suite::run_full(store, |_| {
        use io::Write as _;
        let mut file = File::create(&ballast).unwrap();
        while file.write_all(&[1; 512]).is_ok() {}
    });
}

#[test]
fn a_wipe_leaves_no_trace_of_the_text() {
    let dir = TempDir::new().unwrap();
    let secret = "very-private-text";
    fs::write(dir.path().join("subway.db.damaged"), secret).unwrap();
    let mut store = SqliteStore::open(dir.path()).unwrap();
    let value = secret.repeat(20);
    let writes: Vec<StoreWrite<'_>> = (0..100).map(|number| put(Key::Event(number), &value)).collect();
    store.apply(&writes).unwrap();
    assert!(traces(&dir, secret) > 0, "the test can find it");
    store.handle().request_secure_wipe();
    let writes: Vec<StoreWrite<'_>> =
        (0..100).map(|number| StoreWrite { key: Key::Event(number), value: None }).collect();
    store.apply(&writes).unwrap();
    assert_eq!(traces(&dir, secret), 0);
}

fn traces(dir: &TempDir, secret: &str) -> usize {
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(secret.len()).filter(|window| *window == secret.as_bytes()).count()).sum()
}
