//! Where the current value of each record lies, and how much of each segment is still needed.

use subway_sdk_core::Key;

/// One segment of the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) number: u32,
    /// Its size, bytes.
    pub(super) bytes: usize,
    /// How many bytes of it are current records.
    pub(super) live: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    key: Key,
    segment: u32,
    bytes: u32,
}

/// The whole log, without the values.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// From the oldest to the newest.
    pub(super) segments: Vec<Segment>,
    /// By key. A sorted vector, because keys come in rising order and the package has no room for a tree.
    places: Vec<Place>,
}

impl Index {
    /// The number that the next segment gets.
    pub(super) fn next_number(&self) -> u32 {
        self.segments.last().map_or(0, |last| last.number + 1)
    }

    fn find(&self, key: Key) -> Result<usize, usize> {
        self.places.binary_search_by(|place| place.key.cmp(&key))
    }

    /// The segment that holds the current value of `key`.
    pub(super) fn segment_of(&self, key: Key) -> Option<u32> {
        self.find(key).ok().map(|at| self.places[at].segment)
    }

    /// Enters where the value of `key` now lies, or that it is gone.
    pub(super) fn set(&mut self, key: Key, place: Option<(u32, usize)>) {
        let found = self.find(key);
        if let Ok(at) = found {
            let old = self.places[at];
            self.change_live(old.segment, |live| live.saturating_sub(old.bytes as usize));
        }
        match (found, place) {
            (Ok(at), Some((segment, bytes))) => self.places[at] = Place { key, segment, bytes: bytes as u32 },
            (Ok(at), None) => {
                self.places.remove(at);
            }
            (Err(at), Some((segment, bytes))) => self.places.insert(at, Place { key, segment, bytes: bytes as u32 }),
            (Err(_), None) => {}
        }
        if let Some((segment, bytes)) = place {
            self.change_live(segment, |live| live + bytes);
        }
    }

    fn change_live(&mut self, number: u32, change: impl FnOnce(usize) -> usize) {
        if let Ok(at) = self.segments.binary_search_by(|segment| segment.number.cmp(&number)) {
            self.segments[at].live = change(self.segments[at].live);
        }
    }

    /// The position of the first of the youngest segments that a commit of `bytes` should take in. Each taken in is at
    /// most as large as all that follow it, as in a binary counter: so a log of n commits has about log n small
    /// segments, and a record is rewritten about log n times.
    pub(super) fn merge_from(&self, bytes: usize, most: usize) -> usize {
        let mut sum = bytes;
        let mut from = self.segments.len();
        while from > 0 {
            let next = self.segments[from - 1].bytes;
            if next > sum || next + sum > most {
                break;
            }
            sum += next;
            from -= 1;
        }
        from
    }

    /// Whether the log holds more dead bytes than live ones and `slack`.
    pub(super) fn is_wasteful(&self, slack: usize) -> bool {
        let (bytes, live) = self.segments.iter().fold((0, 0), |sum, one| (sum.0 + one.bytes, sum.1 + one.live));
        bytes > 2 * live + slack
    }

    /// Bytes of all segments.
    pub(super) fn bytes(&self) -> usize {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Every key, in order.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.places.iter().map(|place| place.key).collect()
    }
}
