//! Transactional store on a host that only has texts under keys.
//!
//! A log: each commit is one new segment under a new key, so it is complete or absent, and nothing that a later failure
//! could need is ever overwritten. Replaying the segments in order yields the records.
//!
//! # Invariants
//! - A key is written before what it replaces is removed, and removals go from the oldest segment to the newest. So the
//!   host can be killed between any two calls.
//! - A deletion is kept until no older segment can hold what it deletes.
//! - A commit too large for one key is several segments, each with the number of the last one. If the last one is
//!   missing and nothing follows it, the commit never happened.

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

/// Largest result of merging younger segments into a commit, bytes. Merging keeps the number of keys small, because
/// hosts are slow at listing and removing keys. Beyond this size it only costs writes.
const MAX_MERGE_BYTES: usize = 32 * 1024;
/// Dead bytes tolerated beyond the number of live ones, before the oldest segment is compacted.
const SLACK_BYTES: usize = 64 * 1024;
/// Largest number in a key of ours: no install makes so many commits, and the next number must fit.
const MAX_SEGMENT_NUMBER: u32 = u32::MAX / 2;

/// Space reserved for deletions, bytes, because a full storage does not even accept a deletion. Enough for the numbers
/// of several batches, the state, and the live records of the oldest segment.
const RESERVE_BYTES: usize = 8 * 1024;
/// Size of the log from which the reserve is kept, bytes: a smaller log is not what fills a storage.
const RESERVE_THRESHOLD_BYTES: usize = 64 * 1024;

/// A [`Store`] on a [`HostStorage`].
#[derive(Debug)]
pub struct SegmentStore<H> {
    host: H,
    prefix: String,
    /// Most bytes under one key.
    key_bytes: usize,
    index: Index,
    /// Segment read or written last, verified. The events of one batch mostly are in one segment.
    cache: Option<(u32, String)>,
    /// Keys of a failed commit that could not be removed yet; the newest last.
    orphans: Vec<u32>,
    /// Whether the host holds the reserve.
    reserve: bool,
}

impl<H: HostStorage> SegmentStore<H> {
    /// Opens the log whose keys begin with `prefix`. Damaged segments are skipped.
    ///
    /// The host accepts at most `key_bytes` bytes under one key (1 MB on JD and WeChat, 200 KB on Alipay).
    ///
    /// # Errors
    /// [`StoreError`] if the host cannot list or read its keys.
    pub fn open(mut host: H, prefix: &str, key_bytes: usize) -> Result<Self, StoreError> {
        let keys = host.keys()?;
        let mut numbers: Vec<u32> = keys.iter().filter_map(|key| number_of(key, prefix)).collect();
        numbers.sort_unstable();
        let reserve = keys.iter().any(|key| key.strip_prefix(prefix) == Some(RESERVE));
        let (prefix, index) = (prefix.to_owned(), Index::default());
        let mut store = Self { host, prefix, key_bytes, index, cache: None, orphans: Vec::new(), reserve };
        let (incomplete, end) = store.find_incomplete_commit(&numbers)?;
        store.orphans = numbers.split_off(incomplete);
        if let (Some(end), Some(newest), false) = (end, numbers.last(), store.orphans.is_empty())
            && end > *newest
        {
            // The end of a complete commit was damaged or lost. Removing the orphans also removes the only sign of it,
            // so an empty segment replaces it.
            let key = store.key(end);
            if store.host.set(&key, &segment::encode("", end)).is_ok() {
                numbers.push(end);
            }
        }
        for number in numbers {
            store.replay(number)?;
        }
        // A failure here occurs again in the first commit, which reports it.
        let _ = store.remove_orphans();
        Ok(store)
    }

    /// Returns the number of keys in use.
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

    /// Returns where in `numbers` an incomplete commit begins (their count if there is none), and the number of the
    /// last segment of the commit before it, if that can be read.
    fn find_incomplete_commit(&mut self, numbers: &[u32]) -> Result<(usize, Option<u32>), StoreError> {
        let newest = numbers.last().copied().unwrap_or(0);
        let mut incomplete = numbers.len();
        while incomplete > 0 {
            let text = self.read(numbers[incomplete - 1])?;
            if let Some(last) = segment::verify(&text) {
                let reaches_beyond = numbers.get(incomplete).is_some_and(|first| last >= *first);
                if last <= newest && !reaches_beyond {
                    return Ok((incomplete, Some(last)));
                }
            }
            incomplete -= 1;
        }
        Ok((0, None))
    }

    fn replay(&mut self, number: u32) -> Result<(), StoreError> {
        let text = self.read(number)?;
        let damaged = segment::verify(&text).is_none();
        self.index_segment(number, text.len(), if damaged { "" } else { &text });
        Ok(())
    }

    /// Adds a verified segment, or an empty text, to the index.
    fn index_segment(&mut self, number: u32, bytes: usize, text: &str) {
        self.index.segments.push(Segment { number, bytes, live: 0 });
        for (key, value) in segment::records(text) {
            self.index.set(key, value.map(|value| (number, record_bytes(value))));
        }
    }

    /// Takes the text of a segment out of the cache; the caller puts it back. Empty if the host has damaged it since.
    fn take_cached(&mut self, number: u32) -> Result<String, StoreError> {
        if let Some((cached, text)) = self.cache.take()
            && cached == number
        {
            return Ok(text);
        }
        let text = self.read(number)?;
        Ok(if segment::verify(&text).is_some() { text } else { String::new() })
    }

    /// Copies the live records of segment `number`; its deletions only if `deletions`.
    fn copy_live(
        &mut self,
        number: u32,
        deletions: bool,
        writes: &[StoreWrite<'_>],
        writer: &mut SegmentWriter,
    ) -> Result<(), StoreError> {
        let text = self.take_cached(number)?;
        for (key, value) in segment::records(&text) {
            let location = self.index.segment_of(key);
            let needed = if value.is_some() { location == Some(number) } else { deletions && location.is_none() };
            if needed && !writes.iter().any(|write| write.key == key) {
                writer.push(key, value);
            }
        }
        self.cache = Some((number, text));
        Ok(())
    }

    /// Removes the keys of a failed commit, newest first, so that the rest stays without its last segment.
    fn remove_orphans(&mut self) -> Result<(), StoreError> {
        while let Some(number) = self.orphans.last() {
            let key = self.key(*number);
            self.host.remove(&key)?;
            self.orphans.pop();
        }
        Ok(())
    }

    /// Writes the segments under new keys and indexes them. On failure nothing has changed.
    fn append(&mut self, segments: Vec<String>) -> Result<(), StoreError> {
        let first = self.index.next_number();
        let last = first + segments.len() as u32 - 1;
        let mut number = first;
        let mut encoded = Vec::new();
        for records in &segments {
            let text = segment::encode(records, last);
            // Includes a key that could not be written, because some hosts leave a damaged value.
            self.orphans.push(number);
            let key = self.key(number);
            if let Err(error) = self.host.set(&key, &text) {
                let _ = self.remove_orphans();
                return Err(error);
            }
            encoded.push(text);
            number += 1;
        }
        self.orphans.clear();
        number = first;
        for text in encoded {
            self.index_segment(number, text.len(), &text);
            self.cache = Some((number, text));
            number += 1;
        }
        Ok(())
    }

    /// Removes dead segments: from the oldest on, and those that were just copied (`from..to`). If the host fails, they
    /// are removed after the next commit.
    fn remove_dead_segments(&mut self, from: u32, to: u32) {
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
        let merge = self.index.merge_from(incoming + HEAD_BYTES, MAX_MERGE_BYTES.min(self.key_bytes));
        let merged: Vec<u32> = self.index.segments[merge..].iter().map(|segment| segment.number).collect();
        let end = self.index.next_number();
        let mut writer = self.segment_writer();
        if merge > 0 && self.index.needs_compaction(SLACK_BYTES) {
            // No segment is older than the oldest one, so its deletions are no longer needed.
            self.copy_live(self.index.segments[0].number, false, writes, &mut writer)?;
        }
        for number in &merged {
            self.copy_live(*number, merge > 0, writes, &mut writer)?;
        }
        self.finish(writes, writer, merged.first().copied().unwrap_or(end), end)
    }

    /// Commits with few bytes beside the new records: merges nothing, and compacts the oldest segment only if little of
    /// it is live, because it can be large.
    fn commit_small(&mut self, writes: &[StoreWrite<'_>]) -> Result<(), StoreError> {
        let end = self.index.next_number();
        let mut writer = self.segment_writer();
        if let Some(oldest) = self.index.segments.first().map(|segment| segment.number) {
            self.copy_live(oldest, false, writes, &mut writer)?;
            if writer.bytes() > RESERVE_BYTES / 2 {
                writer = self.segment_writer();
            }
        }
        self.finish(writes, writer, end, end)
    }

    fn finish(
        &mut self,
        writes: &[StoreWrite<'_>],
        mut writer: SegmentWriter,
        from: u32,
        to: u32,
    ) -> Result<(), StoreError> {
        for write in writes {
            writer.push(write.key, write.value);
        }
        self.append(writer.segments)?;
        self.remove_dead_segments(from, to);
        Ok(())
    }

    fn segment_writer(&self) -> SegmentWriter {
        SegmentWriter { max_bytes: self.key_bytes - HEAD_BYTES, segments: vec![String::new()] }
    }

    /// Commits to a full host: without merging, and with the reserve released if the writes free space.
    fn commit_full(&mut self, writes: &[StoreWrite<'_>], error: StoreError) -> Result<(), StoreError> {
        if !error.is_full() || self.commit_small(writes).is_ok() {
            return if error.is_full() { Ok(()) } else { Err(error) };
        }
        let bytes: usize = writes.iter().filter_map(|write| write.value).map(str::len).sum();
        let frees_space = writes.iter().any(|write| write.value.is_none()) && bytes <= RESERVE_BYTES / 2;
        if !self.reserve || !frees_space {
            return Err(error);
        }
        let key = self.reserve_key();
        self.host.remove(&key)?;
        self.reserve = false;
        self.remove_orphans()?;
        self.commit_small(writes)
    }

    fn reserve_key(&self) -> String {
        let mut key = self.prefix.clone();
        key.push_str(RESERVE);
        key
    }

    /// Writes the reserve if it is missing and useful. A failure is retried after the next commit.
    fn ensure_reserve(&mut self) {
        if !self.reserve && self.index.bytes() > RESERVE_THRESHOLD_BYTES {
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
        self.remove_orphans()?;
        let done = self.commit(writes).or_else(|error| {
            self.remove_orphans()?;
            self.commit_full(writes, error)
        });
        if done.is_ok() {
            self.ensure_reserve();
        }
        done
    }

    fn get(&mut self, key: Key) -> Result<Option<String>, StoreError> {
        let Some(number) = self.index.segment_of(key) else { return Ok(None) };
        let text = self.take_cached(number)?;
        // The last one, because a commit can write a key twice.
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

/// Splits records into segments that fit under one key.
struct SegmentWriter {
    max_bytes: usize,
    segments: Vec<String>,
}

impl SegmentWriter {
    fn bytes(&self) -> usize {
        self.segments.iter().map(String::len).sum()
    }

    fn push(&mut self, key: Key, value: Option<&str>) {
        let full = self
            .segments
            .last()
            .is_some_and(|last| !last.is_empty() && last.len() + record_bytes(value.unwrap_or("")) > self.max_bytes);
        if full {
            self.segments.push(String::new());
        }
        if let Some(last) = self.segments.last_mut() {
            push_record(last, key, value);
        }
    }
}

/// Returns the most bytes of a record: its value, a letter, two numbers, two separators.
fn record_bytes(value: &str) -> usize {
    value.len() + 1 + 20 + 10 + 2
}

/// Suffix of the key that holds the reserve.
const RESERVE: &str = "reserve";

fn number_of(key: &str, prefix: &str) -> Option<u32> {
    let text = key.strip_prefix(prefix)?;
    let (number, rest) = take_number(text)?;
    // `07` is not ours either: it would stand for the key of 7.
    let ours =
        rest.is_empty() && (text.len() == 1 || !text.starts_with('0')) && number <= u64::from(MAX_SEGMENT_NUMBER);
    if ours { Some(number as u32) } else { None }
}
