//! The core's transactional store on a host that only has texts under keys.
//!
//! A log: each commit is one new segment under a new key, so that it is there whole or not at all, and nothing that a
//! later failure could need is ever overwritten. Replayed in order, the segments give the records.
//!
//! # Invariants
//! - A key is written before what it replaces is removed, and removals go from the oldest segment to the newest. So the
//!   host may be killed between any two calls.
//! - A deletion is kept until no older segment can hold what it deletes.
//! - A commit too large for one key is several segments, and each names the last one: without it, and with nothing
//!   after it, the commit never happened.

mod host;
mod index;
mod segment;

#[cfg(test)]
mod tests;

pub use host::HostStorage;
use index::{Index, Segment};
pub(crate) use segment::take_number;
use segment::{HEAD_BYTES, push_record};
use subway_sdk_core::protocol::json::write_unsigned;
use subway_sdk_core::{Key, Store, StoreError, StoreWrite};

/// Younger segments are merged into a commit as long as the result stays below this, bytes. Merging keeps the number of
/// keys small (listing and removing keys is what hosts are slow at); beyond this size it would only cost writes.
const MERGE_BYTES: usize = 32 * 1024;
/// Dead bytes tolerated beyond as many as are live, before the oldest segment is cleared out.
const SLACK_BYTES: usize = 64 * 1024;
/// Keys with greater numbers are not ours: no install makes so many commits, and there must be room for the next number.
const LAST_NUMBER: u32 = u32::MAX / 2;

/// Room kept back for deletions, bytes: a storage that is full takes nothing more, also no word that something may go.
/// Enough for the numbers of several batches, the state, and what is still needed of the oldest segment.
const RESERVE_BYTES: usize = 8 * 1024;
/// The reserve is kept once the log is larger than this, bytes: a smaller one cannot be what fills a storage.
const RESERVE_FROM_BYTES: usize = 64 * 1024;

/// A [`Store`] on a [`HostStorage`].
#[derive(Debug)]
pub struct SegmentStore<H> {
    host: H,
    prefix: String,
    /// Most bytes under one key.
    key_bytes: usize,
    index: Index,
    /// The segment read or written last, checked: the events of one batch mostly lie in one segment.
    cache: Option<(u32, String)>,
    /// Keys of a commit that failed and could not be taken back yet; the newest last.
    debris: Vec<u32>,
    /// Whether the host holds the reserve.
    reserve: bool,
}

impl<H: HostStorage> SegmentStore<H> {
    /// Opens the log whose keys begin with `prefix`. Damaged segments are passed over. The host takes at most
    /// `key_bytes` bytes under one key (1 MB on JD and WeChat, 200 KB on Alipay).
    ///
    /// # Errors
    /// [`StoreError`] if the host cannot list or read its keys.
    pub fn open(mut host: H, prefix: &str, key_bytes: usize) -> Result<Self, StoreError> {
        let keys = host.keys()?;
        let mut numbers: Vec<u32> = keys.iter().filter_map(|key| number_of(key, prefix)).collect();
        numbers.sort_unstable();
        let reserve = keys.iter().any(|key| key.strip_prefix(prefix) == Some(RESERVE));
        let (prefix, index) = (prefix.to_owned(), Index::default());
        let mut store = Self { host, prefix, key_bytes, index, cache: None, debris: Vec::new(), reserve };
        let (torn, end) = store.torn_from(&numbers)?;
        store.debris = numbers.split_off(torn);
        if let (Some(end), Some(newest), false) = (end, numbers.last(), store.debris.is_empty())
            && end > *newest
        {
            // The end of a finished commit was damaged or lost, and only what is removed now shows that there was one.
            let key = store.key(end);
            if store.host.set(&key, &segment::seal("", end)).is_ok() {
                numbers.push(end);
            }
        }
        for number in numbers {
            store.replay(number)?;
        }
        // A failure here is met again, and reported, by the first commit.
        let _ = store.clear_debris();
        Ok(store)
    }

    /// How many keys of the host's storage are in use.
    pub fn segments(&self) -> usize {
        self.index.segments.len()
    }

    fn key(&self, number: u32) -> String {
        let mut key = self.prefix.clone();
        write_unsigned(&mut key, u64::from(number));
        key
    }

    fn read(&mut self, number: u32) -> Result<String, StoreError> {
        let key = self.key(number);
        Ok(self.host.get(&key)?.unwrap_or_default())
    }

    /// Where in `numbers` a commit begins that was never finished, their count if there is none; and the number that the
    /// commit before it ends with, where that can be read.
    fn torn_from(&mut self, numbers: &[u32]) -> Result<(usize, Option<u32>), StoreError> {
        let newest = numbers.last().copied().unwrap_or(0);
        let mut torn = numbers.len();
        while torn > 0 {
            let text = self.read(numbers[torn - 1])?;
            if let Some(last) = segment::open(&text) {
                let reaches_into_torn = numbers.get(torn).is_some_and(|first| last >= *first);
                if last <= newest && !reaches_into_torn {
                    return Ok((torn, Some(last)));
                }
            }
            torn -= 1;
        }
        Ok((0, None))
    }

    fn replay(&mut self, number: u32) -> Result<(), StoreError> {
        let text = self.read(number)?;
        let damaged = segment::open(&text).is_none();
        self.enter(number, text.len(), if damaged { "" } else { &text });
        Ok(())
    }

    /// Enters a checked segment, or an empty text, into the index.
    fn enter(&mut self, number: u32, bytes: usize, text: &str) {
        self.index.segments.push(Segment { number, bytes, live: 0 });
        for (key, value) in segment::records(text) {
            self.index.set(key, value.map(|value| (number, record_bytes(value))));
        }
    }

    /// Takes the text of a segment out of the cache, where it must be put back; empty if the host has damaged it since.
    fn take(&mut self, number: u32) -> Result<String, StoreError> {
        if let Some((cached, text)) = self.cache.take()
            && cached == number
        {
            return Ok(text);
        }
        let text = self.read(number)?;
        Ok(if segment::open(&text).is_some() { text } else { String::new() })
    }

    /// Adds the records of segment `number` that are still needed; its deletions only if `deletions`.
    fn copy(
        &mut self,
        number: u32,
        deletions: bool,
        writes: &[StoreWrite<'_>],
        parts: &mut Parts,
    ) -> Result<(), StoreError> {
        let text = self.take(number)?;
        for (key, value) in segment::records(&text) {
            let place = self.index.segment_of(key);
            let needed = if value.is_some() { place == Some(number) } else { deletions && place.is_none() };
            if needed && !writes.iter().any(|write| write.key == key) {
                parts.push(key, value);
            }
        }
        self.cache = Some((number, text));
        Ok(())
    }

    /// Takes a failed commit's keys back, from the newest on: what remains of it stays without its last segment.
    fn clear_debris(&mut self) -> Result<(), StoreError> {
        while let Some(number) = self.debris.last() {
            let key = self.key(*number);
            self.host.remove(&key)?;
            self.debris.pop();
        }
        Ok(())
    }

    /// Puts the parts under new keys and enters them into the index; on failure nothing has changed.
    fn append(&mut self, parts: Vec<String>) -> Result<(), StoreError> {
        let first = self.index.next_number();
        let last = first + parts.len() as u32 - 1;
        let mut number = first;
        let mut sealed = Vec::new();
        for records in &parts {
            let text = segment::seal(records, last);
            // Also a key that could not be written is taken back: some hosts leave a damaged value.
            self.debris.push(number);
            let key = self.key(number);
            if let Err(error) = self.host.set(&key, &text) {
                let _ = self.clear_debris();
                return Err(error);
            }
            sealed.push(text);
            number += 1;
        }
        self.debris.clear();
        number = first;
        for text in sealed {
            self.enter(number, text.len(), &text);
            self.cache = Some((number, text));
            number += 1;
        }
        Ok(())
    }

    /// Removes dead segments: from the oldest on, and those of which a copy was just written (`from..to`). A host that
    /// fails is asked again after the next commit.
    fn sweep(&mut self, from: u32, to: u32) {
        let mut at = 0;
        while let Some(segment) = self.index.segments.get(at) {
            let (number, live) = (segment.number, segment.live);
            if live > 0 || (at > 0 && !(from..to).contains(&number)) {
                at += 1;
                continue;
            }
            let key = self.key(number);
            if self.host.remove(&key).is_err() {
                break;
            }
            self.index.segments.remove(at);
        }
    }
}

impl<H: HostStorage> SegmentStore<H> {
    fn commit(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let incoming = writes.iter().map(|write| record_bytes(write.value.unwrap_or(""))).sum::<usize>();
        let merge = self.index.merge_from(incoming + HEAD_BYTES, MERGE_BYTES.min(self.key_bytes));
        let merged: Vec<u32> = self.index.segments[merge..].iter().map(|segment| segment.number).collect();
        let end = self.index.next_number();
        let mut parts = self.parts();
        if merge > 0 && self.index.is_wasteful(SLACK_BYTES) {
            // Nothing is older than the oldest segment, so its deletions have done their work.
            self.copy(self.index.segments[0].number, false, writes, &mut parts)?;
        }
        for number in &merged {
            self.copy(*number, merge > 0, writes, &mut parts)?;
        }
        self.finish(writes, parts, merged.first().copied().unwrap_or(end), end)
    }

    /// A commit that writes little beside what is new: nothing is merged. The oldest segment goes if little of it is
    /// needed, for it may be large.
    fn commit_small(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let end = self.index.next_number();
        let mut parts = self.parts();
        if let Some(oldest) = self.index.segments.first().map(|segment| segment.number) {
            self.copy(oldest, false, writes, &mut parts)?;
            if parts.bytes() > RESERVE_BYTES / 2 {
                parts = self.parts();
            }
        }
        self.finish(writes, parts, end, end)
    }

    fn finish(&mut self, writes: &[StoreWrite<'_>], mut parts: Parts, from: u32, to: u32) -> Result<(), StoreError> {
        for write in writes {
            parts.push(write.key, write.value);
        }
        self.append(parts.parts)?;
        self.sweep(from, to);
        Ok(())
    }

    fn parts(&self) -> Parts {
        Parts { most: self.key_bytes - HEAD_BYTES, parts: vec![String::new()] }
    }

    /// What to do when the host is full: merge nothing, and give up the reserve for what makes room.
    fn commit_full(&mut self, writes: &[StoreWrite<'_>], error: StoreError) -> Result<(), StoreError> {
        if !error.is_full() || self.commit_small(writes).is_ok() {
            return if error.is_full() { Ok(()) } else { Err(error) };
        }
        let bytes: usize = writes.iter().filter_map(|write| write.value).map(str::len).sum();
        let makes_room = writes.iter().any(|write| write.value.is_none()) && bytes <= RESERVE_BYTES / 2;
        if !self.reserve || !makes_room {
            return Err(error);
        }
        let key = self.reserve_key();
        self.host.remove(&key)?;
        self.reserve = false;
        self.clear_debris()?;
        self.commit_small(writes)
    }

    fn reserve_key(&self) -> String {
        let mut key = self.prefix.clone();
        key.push_str(RESERVE);
        key
    }

    /// Takes the reserve, if it is worth it and there is room; otherwise after the next commit.
    fn keep_reserve(&mut self) {
        if !self.reserve && self.index.bytes() > RESERVE_FROM_BYTES {
            let key = self.reserve_key();
            let mut text = String::new();
            while text.len() < RESERVE_BYTES {
                text.push_str("reserve ");
            }
            self.reserve = self.host.set(&key, &text).is_ok();
        }
    }
}

impl<H: HostStorage> Store for SegmentStore<H> {
    fn apply(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        self.clear_debris()?;
        let done = self.commit(writes).or_else(|error| {
            self.clear_debris()?;
            self.commit_full(writes, error)
        });
        if done.is_ok() {
            self.keep_reserve();
        }
        done
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        let Some(number) = self.index.segment_of(key) else { return Ok(None) };
        let text = self.take(number)?;
        // The last one, for a commit may write a key twice.
        let found =
            segment::records(&text).filter(|(at, _)| *at == key).last().and_then(|(_, value)| value.map(str::to_owned));
        self.cache = Some((number, text));
        Ok(found)
    }

    fn scan(&mut self, visit: &mut dyn FnMut(Key, &str)) -> Result<(), StoreError> {
        for key in self.index.keys() {
            if let Some(value) = self.get(key)? {
                visit(key, &value);
            }
        }
        Ok(())
    }
}

/// Records on their way into segments, none larger than the host takes.
struct Parts {
    most: usize,
    parts: Vec<String>,
}

impl Parts {
    fn bytes(&self) -> usize {
        self.parts.iter().map(String::len).sum()
    }

    fn push(&mut self, key: Key, value: Option<&str>) {
        let full = self
            .parts
            .last()
            .is_some_and(|last| !last.is_empty() && last.len() + record_bytes(value.unwrap_or("")) > self.most);
        if full {
            self.parts.push(String::new());
        }
        if let Some(last) = self.parts.last_mut() {
            push_record(last, key, value);
        }
    }
}

/// What a record takes at most: its value, a letter, two numbers, two separators.
fn record_bytes(value: &str) -> usize {
    value.len() + 1 + 20 + 10 + 2
}

/// The end of the key under which the reserve lies.
const RESERVE: &str = "reserve";

fn number_of(key: &str, prefix: &str) -> Option<u32> {
    let text = key.strip_prefix(prefix)?;
    let (number, rest) = take_number(text)?;
    // `07` is not ours either: it would stand for the key of 7.
    let ours = rest.is_empty() && (text.len() == 1 || !text.starts_with('0')) && number <= u64::from(LAST_NUMBER);
    if ours { Some(number as u32) } else { None }
}
