//! The native store on a file that the medium has changed.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use subway_mobile::store::{OpenStoreError, SqliteStore};
use subway_sdk_core::{Client, Config, Key, Now, Store, StoreWrite};
use tempfile::TempDir;

/// Records in the file before it is damaged: enough for inner pages.
const RECORDS: u64 = 30;

/// Folder in memory if available, because a file is written and synced for every input.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap()
}

fn file(folder: &TempDir) -> PathBuf {
    folder.path().join("subway.db")
}

/// Returns the file of a store as a client leaves it.
fn whole() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = folder();
        let mut store = SqliteStore::open(folder.path()).unwrap();
        let value = format!("11:{{\"code\":\"{}\"}}", "x".repeat(300));
        let events = (1..=RECORDS).map(|seq| StoreWrite { key: Key::Event(seq), value: Some(&value) });
        let others = [
            StoreWrite { key: Key::State, value: Some("{\"seq\":30,\"ledger\":{\"generated\":30,\"queued\":30}}") },
            StoreWrite { key: Key::Context(1), value: Some("\"app\":{\"version\":\"1\"}") },
        ];
        store.apply(&events.chain(others).collect::<Vec<_>>()).unwrap();
        drop(store);
        std::fs::read(file(&folder)).unwrap()
    })
}

/// Damages the file and opens it. Two bytes say where the file is truncated (0: nowhere); then every three say which
/// byte gets which value. The store must open, a client must open on it, and later writes must be kept; or the store
/// must report a later version and leave the file unchanged.
pub fn run(data: &[u8]) {
    let mut bytes = whole().to_vec();
    let number = |pair: &[u8]| usize::from(pair[0]) << 8 | usize::from(pair[1]);
    if let Some(cut) = data.get(..2).map(number).filter(|cut| *cut > 0) {
        bytes.truncate(cut);
    }
    for change in data.get(2..).unwrap_or_default().chunks_exact(3) {
        if let Some(byte) = bytes.get_mut(number(change)) {
            *byte = change[2];
        }
    }
    let folder = folder();
    std::fs::write(file(&folder), &bytes).unwrap();
    let mut store = match SqliteStore::open(folder.path()) {
        Err(OpenStoreError::Newer { .. }) => {
            assert_eq!(std::fs::read(file(&folder)).unwrap(), bytes);
            return;
        }
        opened => opened.unwrap(),
    };
    store.scan(&mut |_, _| {}).unwrap();
    let key = Key::Event(RECORDS + 7);
    store.apply(&[StoreWrite { key, value: Some("kept") }]).unwrap();
    drop(store);
    let mut store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(store.get(key).unwrap().as_deref(), Some("kept"));
    let now = Now { wall: 1_431_835_512_000, mono: 1000 };
    let client = Client::open(store, Config::default(), "", b"entropy", now).unwrap();
    assert!(client.ledger().balances(), "{:?}", client.ledger());
}
