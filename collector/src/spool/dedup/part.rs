//! Part of the index: the IDs of one app and period, sorted, in a file that never changes.
//!
//! The file consists of pages of 256 IDs (16 bytes each, big-endian, ascending), the first ID and the CRC-32 of each
//! page, the filter, and a footer. All other numbers are little-endian. Every byte is verified when it is read.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::fault::corrupt;
use super::filter::{self, Filter};
use super::hash::HashKey;
use super::partial_file::{PartialFile, check_free_space};

/// IDs in a page: 4 KiB, the unit in which a disk reads.
const PAGE_IDS: usize = 256;
const ID_BYTES: usize = 16;
const PAGE_BYTES: usize = PAGE_IDS * ID_BYTES;
/// Bytes of a page besides its IDs: its first ID and its checksum.
const FENCE_BYTES: usize = ID_BYTES + 4;

/// IDs whose filter blocks are prefetched together: the first-level cache has lines for as many, besides the IDs.
const PREFETCHED_IDS: usize = 256;

const MAGIC: [u8; 8] = *b"SUBWAYID";
const FOOTER_BYTES: usize = 64;

/// Bytes written before they are synced, so that the last sync of a part is short and does not delay commits.
const SYNC_BYTES: usize = 4 * 1024 * 1024;

/// Row of a part in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartMeta {
    /// Number of the part, from which its file is named.
    pub(super) no: u64,
    pub(super) app: i64,
    pub(super) ids: u64,
    /// Times at which the first and the last of its IDs were seen, milliseconds since the epoch.
    pub(super) from: i64,
    pub(super) to: i64,
}

impl PartMeta {
    /// Returns the bytes of its file.
    pub(super) fn bytes(&self) -> u64 {
        bytes(self.ids)
    }
}

/// Returns the bytes of the file of `ids` IDs.
pub(super) fn bytes(ids: u64) -> u64 {
    ids * ID_BYTES as u64 + pages(ids) * FENCE_BYTES as u64 + filter::bytes(ids) + FOOTER_BYTES as u64
}

fn pages(ids: u64) -> u64 {
    ids.div_ceil(PAGE_IDS as u64)
}

/// Returns the path of the part `no` in the folder of the parts.
pub(super) fn path(folder: &Path, no: u64) -> PathBuf {
    folder.join(format!("{no:010}.ids"))
}

/// Event ID that is looked up.
#[derive(Clone, Copy)]
pub(super) struct IdLookup {
    pub(super) id: u128,
    pub(super) hash: u64,
    /// Index of the ID in the batch.
    pub(super) at: usize,
    pub(super) found: bool,
}

/// Part that is open for searches.
pub(super) struct Part {
    pub(super) meta: PartMeta,
    path: PathBuf,
    file: Option<File>,
    firsts: Vec<u128>,
    sums: Vec<u32>,
    last: u128,
    filter: Option<Filter>,
    page: Vec<u8>,
}

fn ids(page: &[u8]) -> impl ExactSizeIterator<Item = u128> {
    page.as_chunks::<ID_BYTES>().0.iter().map(|id| u128::from_be_bytes(*id))
}

fn footer(meta: &PartMeta, key: HashKey, fences: u32, filter: u32, last: u128) -> [u8; FOOTER_BYTES] {
    let mut out = Vec::with_capacity(FOOTER_BYTES);
    out.extend(MAGIC);
    out.extend(&key.bytes()[..8]);
    out.extend(last.to_be_bytes());
    out.extend(meta.app.to_le_bytes());
    out.extend(meta.ids.to_le_bytes());
    out.extend(fences.to_le_bytes());
    out.extend(filter.to_le_bytes());
    out.resize(FOOTER_BYTES - 4, 0);
    let sum = crc32fast::hash(&out);
    out.extend(sum.to_le_bytes());
    let mut footer = [0; FOOTER_BYTES];
    footer.copy_from_slice(&out);
    footer
}

impl Part {
    /// Opens the file of a part. Loads its filter if `with_filter`; without one every search reads a page.
    ///
    /// # Errors
    /// If the file is missing, truncated, different from what was written, or unreadable.
    pub(super) fn open(folder: &Path, meta: PartMeta, key: HashKey, with_filter: bool) -> io::Result<Self> {
        let path = path(folder, meta.no);
        let mut file = File::open(&path)?;
        if file.metadata()?.len() != meta.bytes() {
            return Err(corrupt("its size is wrong"));
        }
        let mut foot = [0; FOOTER_BYTES];
        file.seek(SeekFrom::End(-(FOOTER_BYTES as i64)))?;
        file.read_exact(&mut foot)?;
        let field = |at: usize| u32::from_le_bytes([foot[at], foot[at + 1], foot[at + 2], foot[at + 3]]);
        let (fences_sum, filter_sum) = (field(48), field(52));
        let mut last = [0; ID_BYTES];
        last.copy_from_slice(&foot[16..32]);
        let last = u128::from_be_bytes(last);
        if foot != footer(&meta, key, fences_sum, filter_sum, last) {
            return Err(corrupt("its footer is wrong"));
        }
        let count = usize::try_from(pages(meta.ids)).unwrap_or(usize::MAX);
        let mut fences = vec![0; count * FENCE_BYTES];
        file.seek(SeekFrom::Start(meta.ids * ID_BYTES as u64))?;
        file.read_exact(&mut fences)?;
        let mut filter = None;
        if with_filter {
            let mut bytes = vec![0; usize::try_from(filter::bytes(meta.ids)).unwrap_or(usize::MAX)];
            file.read_exact(&mut bytes)?;
            if crc32fast::hash(&bytes) != filter_sum {
                return Err(corrupt("the checksum of its filter is wrong"));
            }
            filter = Some(Filter::read(&bytes));
        }
        if crc32fast::hash(&fences) != fences_sum {
            return Err(corrupt("the checksum of its index is wrong"));
        }
        let (firsts, sums) = fences.split_at(count * ID_BYTES);
        let firsts = ids(firsts).collect();
        let sums = sums.as_chunks::<4>().0.iter().map(|sum| u32::from_le_bytes(*sum)).collect();
        Ok(Self { meta, path, file: Some(file), firsts, sums, last, filter, page: Vec::new() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the bytes of its filter in memory.
    pub(super) fn filter_bytes(&self) -> u64 {
        self.filter.as_ref().map_or(0, Filter::bytes)
    }

    pub(super) fn drop_filter(&mut self) {
        self.filter = None;
    }

    /// Closes the file until the next search. Returns whether it was open.
    pub(super) fn close(&mut self) -> bool {
        self.file.take().is_some()
    }

    pub(super) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Marks the `lookups` that the part contains. `candidates` is a reused buffer.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub(super) fn search(&mut self, lookups: &mut [IdLookup], candidates: &mut Vec<usize>) -> io::Result<()> {
        let first = self.firsts.first().copied().unwrap_or(u128::MAX);
        let range = first..=self.last;
        candidates.clear();
        let (mut at, mut touched) = (0, 0);
        for group in lookups.chunks(PREFETCHED_IDS) {
            let sought_here = |one: &IdLookup| !one.found && range.contains(&one.id);
            if let Some(filter) = &self.filter {
                let blocks = group.iter().filter(|one| sought_here(one));
                touched = blocks.fold(touched, |touched, one| touched ^ filter.prefetch(one.hash));
            }
            for one in group {
                if sought_here(one) && self.filter.as_ref().is_none_or(|filter| filter.may_contain(one.hash)) {
                    candidates.push(at);
                }
                at += 1;
            }
        }
        std::hint::black_box(touched);
        let mut loaded = usize::MAX;
        for at in candidates.drain(..) {
            let id = lookups[at].id;
            let page = self.firsts.partition_point(|first| *first <= id).saturating_sub(1);
            if page != loaded {
                self.load(page)?;
                loaded = page;
            }
            let found = self.page.as_chunks::<ID_BYTES>().0.binary_search(&id.to_be_bytes()).is_ok();
            lookups[at].found = found;
        }
        Ok(())
    }

    /// Reads one page into `self.page`.
    fn load(&mut self, at: usize) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            closed => closed.insert(File::open(&self.path)?),
        };
        let start = at * PAGE_BYTES;
        let end = (start + PAGE_BYTES).min(usize::try_from(self.meta.ids).unwrap_or(usize::MAX) * ID_BYTES);
        self.page.resize(end.saturating_sub(start), 0);
        read_at(file, &mut self.page, start as u64)?;
        if self.sums.get(at) != Some(&crc32fast::hash(&self.page)) {
            return Err(corrupt("the checksum of a page is wrong"));
        }
        Ok(())
    }

    /// Returns all its IDs in ascending order.
    pub(super) fn into_ids(self) -> PartIds {
        PartIds { part: self, page: 0, at: 0 }
    }
}

#[cfg(unix)]
fn read_at(file: &mut File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, start)
}

#[cfg(not(unix))]
fn read_at(file: &mut File, buffer: &mut [u8], start: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(start))?;
    file.read_exact(buffer)
}

/// Sequential reader of a part.
pub(super) struct PartIds {
    part: Part,
    page: usize,
    at: usize,
}

impl PartIds {
    /// Returns the next ID, or `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub(super) fn next(&mut self) -> io::Result<Option<u128>> {
        if self.at * ID_BYTES >= self.part.page.len() {
            if self.page >= self.part.firsts.len() {
                return Ok(None);
            }
            self.part.load(self.page)?;
            (self.page, self.at) = (self.page + 1, 0);
        }
        let id = self.part.page.as_chunks::<ID_BYTES>().0.get(self.at).map(|id| u128::from_be_bytes(*id));
        self.at += 1;
        Ok(id)
    }
}

/// Writer of a new part file.
pub(super) struct PartWriter {
    out: BufWriter<File>,
    path: PartialFile,
    key: HashKey,
    page: Vec<u8>,
    firsts: Vec<u128>,
    sums: Vec<u32>,
    filter: Filter,
    ids: u64,
    last: u128,
    unsynced: usize,
}

impl PartWriter {
    /// Creates the file of the part `no` for `expected` IDs.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(super) fn new(folder: &Path, no: u64, expected: u64, key: HashKey) -> io::Result<Self> {
        let path = path(folder, no);
        check_free_space(folder, bytes(expected))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self {
            out: BufWriter::with_capacity(256 * 1024, options.open(&path)?),
            path: PartialFile::at(path),
            key,
            page: Vec::with_capacity(PAGE_BYTES),
            firsts: Vec::new(),
            sums: Vec::new(),
            filter: Filter::with_capacity(expected),
            ids: 0,
            last: 0,
            unsynced: 0,
        })
    }

    /// Appends an ID, which must not be smaller than the previous one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn push(&mut self, id: u128) -> io::Result<()> {
        if self.page.is_empty() {
            self.firsts.push(id);
        }
        self.page.extend(id.to_be_bytes());
        self.filter.insert(self.key.hash(id));
        self.ids += 1;
        self.last = id;
        if self.page.len() == PAGE_BYTES { self.end_page() } else { Ok(()) }
    }

    fn end_page(&mut self) -> io::Result<()> {
        self.sums.push(crc32fast::hash(&self.page));
        self.out.write_all(&self.page)?;
        self.unsynced += self.page.len();
        self.page.clear();
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.out.flush()?;
            self.out.get_ref().sync_data()?;
        }
        Ok(())
    }

    /// Completes the file and syncs it with its name. See [`PartMeta`] for `app`, `from` and `to`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(mut self, no: u64, app: i64, from: i64, to: i64) -> io::Result<Part> {
        if !self.page.is_empty() {
            self.end_page()?;
        }
        let meta = PartMeta { no, app, ids: self.ids, from, to };
        let mut fences: Vec<u8> = self.firsts.iter().flat_map(|id| id.to_be_bytes()).collect();
        fences.extend(self.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        self.out.write_all(&fences)?;
        // The filter has to be as large as the file's size says.
        if self.filter.bytes() != filter::bytes(self.ids) {
            return Err(corrupt("a part was begun for another number of IDs than it got"));
        }
        let mut filter = Vec::with_capacity(usize::try_from(self.filter.bytes()).unwrap_or(0));
        self.filter.write(&mut filter)?;
        self.out.write_all(&filter)?;
        let foot = footer(&meta, self.key, crc32fast::hash(&fences), crc32fast::hash(&filter), self.last);
        self.out.write_all(&foot)?;
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        if let Some(folder) = self.path.path().parent() {
            sync_folder(folder)?;
        }
        Ok(Part {
            meta,
            path: self.path.keep(),
            file: None,
            firsts: self.firsts,
            sums: self.sums,
            last: self.last,
            filter: Some(self.filter),
            page: Vec::new(),
        })
    }
}

/// Syncs the file names of a folder.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
