//! The mini-program's log of segments on a storage with arbitrary contents.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use subway_sdk_core::{Key, Store, StoreError, StoreWrite};
use subway_wasm::store::{HostStorage, SegmentStore};

type Texts = BTreeMap<String, String>;

/// A host's storage that keeps every state it was in.
#[derive(Clone, Default)]
struct Host(Rc<RefCell<(Texts, Vec<Texts>)>>);

impl Host {
    fn change(&self, change: impl FnOnce(&mut Texts)) {
        let (now, before) = &mut *self.0.borrow_mut();
        change(now);
        before.push(now.clone());
    }
}

impl HostStorage for Host {
    fn get(&mut self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.0.borrow().0.get(key).cloned())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.change(|texts| _ = texts.insert(key.to_owned(), value.to_owned()));
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        self.change(|texts| _ = texts.remove(key));
        Ok(())
    }

    fn keys(&mut self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.borrow().0.keys().cloned().collect())
    }
}

/// Encodes a segment independently of the store.
fn encode(records: &str, last: u32) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(records.as_bytes());
    format!("{:08x} {} {last}|{records}", crc.sum(), records.len())
}

/// Smaller than any host's limit, so that commits are split into several keys.
const KEY_BYTES: usize = 300;

fn contents(texts: &Texts) -> BTreeMap<Key, String> {
    let host = Host::default();
    host.change(|held| held.clone_from(texts));
    let mut found = BTreeMap::new();
    let mut store = SegmentStore::open(host, "s", KEY_BYTES).unwrap();
    store.scan(&mut |key, value| _ = found.insert(key, value.to_owned())).unwrap();
    found
}

/// Parses `e12` as a key.
fn key(text: &str) -> Option<Key> {
    let kind = text.chars().next()?;
    let number: u64 = text[kind.len_utf8()..].parse().ok()?;
    Key::from_parts(kind, number & subway_protocol::limits::MAX_SAFE_INTEGER)
}

/// Runs a script of lines. `NUMBER:TEXT` puts that text under that key, `NUMBER/LAST!RECORDS` a valid segment with
/// these records; then `KEY=VALUE` and `KEY~` are written and `.` commits. Opens the storage, commits to it, and opens
/// every intermediate state again, which must be the one before or after a commit.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let host = Host::default();
    let mut lines = text.lines().take(LINES).peekable();
    while let Some((name, value)) = lines.peek().and_then(|line| found(line)) {
        host.change(|texts| _ = texts.insert(name, value));
        lines.next();
    }
    let mut before = contents(&host.0.borrow().0);
    let mut store = SegmentStore::open(host.clone(), "s", KEY_BYTES).unwrap();
    let mut values = Vec::new();
    for line in lines.chain(["."]) {
        if line != "." {
            let written = match line.split_once('=') {
                Some((name, value)) => key(name).map(|key| (key, Some(value))),
                None => line.strip_suffix('~').and_then(key).map(|key| (key, None)),
            };
            values.extend(written);
            continue;
        }
        let writes: Vec<StoreWrite<'_>> = values.drain(..).map(|(key, value)| StoreWrite { key, value }).collect();
        let mut after = before.clone();
        for write in &writes {
            match write.value {
                Some(value) => after.insert(write.key, value.to_owned()),
                None => after.remove(&write.key),
            };
        }
        host.0.borrow_mut().1.clear();
        store.apply(&writes).unwrap();
        for texts in &host.0.borrow().1 {
            let found = contents(texts);
            assert!(found == before || found == after, "{found:?} is neither {before:?} nor {after:?}");
        }
        assert_eq!(contents(&host.0.borrow().0), after);
        let mut live = BTreeMap::new();
        store.scan(&mut |key, value| _ = live.insert(key, value.to_owned())).unwrap();
        assert_eq!(live, after);
        before = after;
    }
}

/// Enough for several merges; each intermediate state is opened again.
const LINES: usize = 40;

/// Parses a line that is put into the storage before it is opened.
fn found(line: &str) -> Option<(String, String)> {
    let digits = line.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = line.split_at(digits);
    if let Some(text) = rest.strip_prefix(':') {
        return Some((format!("s{number}"), text.to_owned()));
    }
    let (last, records) = rest.strip_prefix('/')?.split_once('!')?;
    Some((format!("s{number}"), encode(records, last.parse().ok()?)))
}
