//! Persistent storage of the client: a small transactional map that the host implements.

mod memory;

use std::fmt;

use subway_protocol::json::{JsonError, Reader};

pub use memory::MemoryStore;

/// Key of a record. Keys are ordered by kind, in the order of this enum, then by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Identity, counters, session: one small record, rewritten at every commit.
    State,
    /// App, device and common properties of events, by number.
    Context(u64),
    /// One queued event, by sequence number.
    Event(u64),
    /// One frozen batch, by number.
    Batch(u64),
}

impl Key {
    /// Returns a letter for the kind (`s`, `c`, `e`, `b`) and the number, for stores whose keys are texts or columns.
    #[must_use]
    pub fn parts(self) -> (char, u64) {
        match self {
            Key::State => ('s', 0),
            Key::Context(number) => ('c', number),
            Key::Event(number) => ('e', number),
            Key::Batch(number) => ('b', number),
        }
    }

    /// Returns the key with these parts; the inverse of [`Key::parts`].
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

/// Largest number in a key or counter; a larger one was damaged, because no install counts so far. Half of what JSON
/// keeps exactly, so that counting can continue from any accepted number.
pub(crate) const LAST_NUMBER: u64 = subway_protocol::limits::MAX_SAFE_INTEGER / 2;

/// Reads a number that the client has counted.
///
/// # Errors
/// If the next value is no integer from 0 to [`LAST_NUMBER`].
pub(crate) fn read_count(reader: &mut Reader<'_>) -> Result<u64, JsonError> {
    u64::try_from(reader.integer()?).ok().filter(|number| *number <= LAST_NUMBER).ok_or(JsonError { at: 0 })
}

/// One change: a new value for a key, or none to delete it. Values are text without NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreWrite<'a> {
    /// Key of the record.
    pub key: Key,
    /// New value. `None` deletes the record; a missing record is not an error.
    pub value: Option<&'a str>,
}

/// A transactional map. `testing::store_suite` (feature `testing`) checks implementations.
///
/// # Example
/// A store that keeps everything in one map, and its changes only in memory:
///
/// ```
/// use std::collections::BTreeMap;
/// use subway_sdk_core::{Key, Store, StoreError, StoreWrite};
///
/// #[derive(Default)]
/// struct MapStore(BTreeMap<Key, String>);
///
/// impl Store for MapStore {
///     fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
///         for write in writes {
///             match write.value {
///                 Some(value) => self.0.insert(write.key, value.to_owned()),
///                 None => self.0.remove(&write.key),
///             };
///         }
///         Ok(())
///     }
///
///     fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
///         Ok(self.0.get(&key).cloned())
///     }
///
///     fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
///         self.0.iter().for_each(|(key, value)| visit(*key, value));
///         Ok(())
///     }
/// }
///
/// let mut store = MapStore::default();
/// store.apply(&[StoreWrite { key: Key::Event(1), value: Some("{}") }])?;
/// assert_eq!(store.get(Key::Event(1))?.as_deref(), Some("{}"));
/// # Ok::<(), StoreError>(())
/// ```
pub trait Store {
    /// Applies all changes in order, or none, even if the process is killed meanwhile. After `Ok` they survive the
    /// death of the process.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing has changed.
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError>;

    /// Returns the value of one record.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be read.
    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError>;

    /// Visits every record in the order of keys. Records that the medium has damaged are skipped.
    ///
    /// # Errors
    /// [`StoreError`] if the store could not be read at all.
    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError>;
}

/// Failure of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// Kind of failure, which decides how the client reacts.
    pub kind: StoreErrorKind,
    /// Message of the medium.
    pub message: String,
}

/// Kind of a [`StoreError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// The medium is full. Deleting helps, retrying does not.
    Full,
    /// Any other failure. A retry can succeed.
    Failed,
}

impl StoreError {
    /// Creates an error of a full medium.
    #[must_use]
    pub fn full(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Full, message: message.into() }
    }

    /// Creates an error of any other kind.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: StoreErrorKind::Failed, message: message.into() }
    }

    /// Returns whether the medium is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.kind == StoreErrorKind::Full
    }
}

/// Writes one English sentence without a full stop.
impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_full() { "storage is full: " } else { "storage failed: " })?;
        f.write_str(&self.message)
    }
}

impl std::error::Error for StoreError {}
