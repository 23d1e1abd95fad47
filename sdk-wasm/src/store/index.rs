//! Index of the log: the segment of each record's current value, and how much of each segment is still needed.

use subway_sdk_core::Key;

/// One segment of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    /// Size, bytes.
    pub(super) bytes: usize,
    /// Size of its current records, bytes.
    pub(super) live: usize,
}

#[derive(Clone, Copy, Debug)]
struct RecordLocation {
    key: Key,
    segment: u32,
    bytes: u32,
}

/// Index of the whole log, without the values.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Oldest first.
    pub(super) segments: Vec<Segment>,
    /// Ordered by key. A sorted vector, because keys come in rising order and the package has no space for a tree.
    locations: Vec<RecordLocation>,
}

impl Index {
    /// Returns the number of the next segment.
    pub(super) fn next_number(&self) -> u32 {
        self.segments.last().map_or(0, |last| last.number + 1)
    }

    fn find(&self, key: Key) -> Result<usize, usize> {
        self.locations.binary_search_by(|location| location.key.cmp(&key))
    }

    /// Returns the segment with the current value of `key`.
    pub(super) fn segment_of(&self, key: Key) -> Option<u32> {
        self.find(key).ok().map(|at| self.locations[at].segment)
    }

    /// Sets the location of the current value of `key`; `None` if it was deleted.
    pub(super) fn set(&mut self, key: Key, location: Option<(u32, usize)>) {
        let found = self.find(key);
        if let Ok(at) = found {
            let old = self.locations[at];
            self.change_live(old.segment, |live| live.saturating_sub(old.bytes as usize));
        }
        match (found, location) {
            (Ok(at), Some((segment, bytes))) => {
                self.locations[at] = RecordLocation { key, segment, bytes: bytes as u32 }
            }
            (Ok(at), None) => {
                self.locations.remove(at);
            }
            (Err(at), Some((segment, bytes))) => {
                self.locations.insert(at, RecordLocation { key, segment, bytes: bytes as u32 })
            }
            (Err(_), None) => {}
        }
        if let Some((segment, bytes)) = location {
            self.change_live(segment, |live| live + bytes);
        }
    }

    fn change_live(&mut self, number: u32, change: impl FnOnce(usize) -> usize) {
        if let Ok(at) = self.segments.binary_search_by(|segment| segment.number.cmp(&number)) {
            self.segments[at].live = change(self.segments[at].live);
        }
    }

    /// Returns the position of the first of the youngest segments that a commit of `bytes` should merge.
    ///
    /// Each merged segment is at most as large as all that follow it, as in a binary counter. So a log of n commits has
    /// about log n small segments, and a record is rewritten about log n times.
    pub(super) fn merge_from(&self, bytes: usize, max_bytes: usize) -> usize {
        let mut sum = bytes;
        let mut from = self.segments.len();
        while from > 0 {
            let next = self.segments[from - 1].bytes;
            if next > sum || next + sum > max_bytes {
                break;
            }
            sum += next;
            from -= 1;
        }
        from
    }

    /// Returns whether the log holds more dead bytes than live ones and `slack`.
    pub(super) fn needs_compaction(&self, slack: usize) -> bool {
        let (bytes, live) = self.segments.iter().fold((0, 0), |sum, one| (sum.0 + one.bytes, sum.1 + one.live));
        bytes > 2 * live + slack
    }

    /// Returns the bytes of all segments.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Returns every key, in order.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.locations.iter().map(|location| location.key).collect()
    }
}
