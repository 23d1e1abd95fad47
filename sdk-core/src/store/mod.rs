//! Where the client keeps things between two lives: a small transactional map that the host implements.

mod memory;

use std::fmt;

use subway_protocol::json::{JsonError, Reader};

pub use memory::MemoryStore;

/// What a record is. The order of keys is the order of this enum, then of the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Identity, counters, session: one small record, rewritten at every commit.
    State,
    /// What surrounded events when they were recorded (app, device, ..), by number.
    Context(u64),
    /// One queued event, by sequence number.
    Event(u64),
    /// One frozen batch, by number.
    Batch(u64),
}

impl Key {
    /// A letter for the kind (`s`, `c`, `e`, `b`) and the number, for stores whose keys are texts or columns.
    #[must_use]
    pub fn parts(self) -> (char, u64) {
        match self {
            Key::State => ('s', 0),
            Key::Context(number) => ('c', number),
            Key::Event(number) => ('e', number),
            Key::Batch(number) => ('b', number),
        }
    }

    /// The reverse of [`Key::parts`].
    #[must_use]
    pub fn from_parts(kind: char, number: u64) -> Option<Self> {
        match kind {
            's' if number == 0 => Some(Key::State),
            'c' => Some(Key::Context(number)),
            'e' => Some(Key::Event(number)),
            'b' => Some(Key::Batch(number)),
            _ => None,
        }
    }
}

/// No counter of an install gets so far; what says so was damaged. Half of what JSON keeps exactly, so that there is room to
/// count on from any number that is believed.
pub(crate) const LAST_NUMBER: u64 = subway_protocol::limits::MAX_SAFE_INTEGER / 2;

/// Reads a number that the client has counted.
///
/// # Errors
/// If the next value is no integer from 0 to [`LAST_NUMBER`].
pub(crate) fn counted(reader: &mut Reader<'_>) -> Result<u64, JsonError> {
    u64::try_from(reader.integer()?).ok().filter(|number| *number <= LAST_NUMBER).ok_or(JsonError { at: 0 })
}

/// One change: a new value for a key, or none to delete it. Values are text without NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<'a> {
    /// Which record.
    pub key: Key,
    /// Its new value; `None` deletes it, which is no error if it is not there.
    pub value: Option<&'a str>,
}

/// A transactional map. `testing::store_suite` (feature `testing`) checks implementations.
pub trait Store {
    /// Makes all changes, in order, or none: also when the process is killed in the middle. When it returns `Ok` they
    /// survive the death of the process.
    ///
    /// # Errors
    /// [`StoreError`]; nothing has changed then.
    fn apply(&mut self, writes: &[Write<'_>]) -> Result<(), StoreError>;

    /// The value of one record.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be read.
    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError>;

    /// Visits every record in the order of keys. Records that the medium has damaged are left out.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be read at all.
    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError>;
}

/// The store could not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The medium is full: deleting would help, trying again would not.
    pub full: bool,
    /// What the medium said.
    pub message: String,
}

impl StoreError {
    /// One English sentence without a full stop.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = String::from(if self.full { "storage is full: " } else { "storage failed: " });
        text.push_str(&self.message);
        text
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl std::error::Error for StoreError {}
