//! Opens the index: loads the state in memory and removes orphaned files.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::path::Path;

use rusqlite::Connection;

use super::hash::HashKey;
use super::part::{Part, PartMeta};
use super::worker::Workers;
use super::{Dedup, DedupSettings, maintenance, migrate};
use crate::spool::SpoolError;

/// Name of the folder of the parts inside the data directory.
pub const DEDUP_FOLDER: &str = "dedup";

fn io(error: std::io::Error) -> SpoolError {
    SpoolError::io(DEDUP_FOLDER, error)
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Removes the files that belong to no part: left by a crash, merged or expired. One that cannot be removed only uses
/// disk space.
fn remove_orphans(folder: &Path, parts: &[PartMeta]) -> std::io::Result<()> {
    let part_paths: HashSet<_> = parts.iter().map(|part| super::part::path(folder, part.no)).collect();
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if !part_paths.contains(&path)
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(file = %path.display(), %error, "a file that is no part of the dedup index cannot be removed");
        }
    }
    Ok(())
}

fn parts(sql: &Connection) -> Result<Vec<PartMeta>, SpoolError> {
    let query = "SELECT no, app, ids, seen_from, seen_to FROM part ORDER BY seen_to, no";
    let mut statement = sql.prepare(query)?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok(PartMeta { no: row.get(0)?, app: row.get(1)?, ids: row.get(2)?, from: row.get(3)?, to: row.get(4)? })
    };
    Ok(statement.query_map([], read)?.collect::<rusqlite::Result<_>>()?)
}

impl Dedup {
    /// Opens the index of the data directory `dir`, whose database is `sql`.
    ///
    /// # Errors
    /// If the database fails, the folder cannot be used, or there is no thread. A part that is damaged is no error: it is
    /// lost, and said so.
    pub(in crate::spool) fn open(
        dir: &Path,
        settings: &DedupSettings,
        sql: &mut Connection,
        now: i64,
    ) -> Result<Self, SpoolError> {
        let folder = dir.join(DEDUP_FOLDER);
        make_folder(&folder).map_err(io)?;
        let key = HashKey::new(sql.query_row("SELECT key FROM dedup_key", [], |row| row.get(0))?);
        migrate::migrate_seen_table(sql, &folder, key, now)?;
        let metas = parts(sql)?;
        remove_orphans(&folder, &metas).map_err(io)?;
        let mut dedup = Self {
            workers: Workers::start(&folder, key).map_err(io)?,
            folder,
            key,
            settings: settings.clone(),
            horizons: None,
            apps: BTreeMap::new(),
            fresh_ids: 0,
            next_row: 1,
            next_part: metas.iter().map(|part| part.no + 1).max().unwrap_or(1),
            touched: Vec::new(),
            changes: Vec::new(),
            extents_changed: BTreeSet::new(),
            results: VecDeque::new(),
            apps_with_garbage: VecDeque::new(),
            expiry_due: false,
            retry: maintenance::RetryTimes::default(),
            clock_guard: super::expiry::clock_guard(sql, now)?,
            open_files: 0,
            lookups: Vec::new(),
            candidates: Vec::new(),
        };
        dedup.load_apps(sql)?;
        dedup.load_parts(sql, metas)?;
        dedup.load_fresh(sql)?;
        Ok(dedup)
    }

    fn load_apps(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        let mut statement = sql.prepare("SELECT app, sealed_to, forgotten_to FROM dedup_app")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let index = self.app(row.get(0)?);
            (index.sealed_to, index.forgotten_to) = (row.get(1)?, row.get(2)?);
        }
        Ok(())
    }

    /// Opens the parts. Loads the filters of small parts first: each filter saves one read of a page per new ID,
    /// whatever its size.
    fn load_parts(&mut self, sql: &Connection, metas: Vec<PartMeta>) -> Result<(), SpoolError> {
        let mut by_size: Vec<usize> = (0..metas.len()).collect();
        by_size.sort_by_key(|at| metas[*at].ids);
        let mut budget = self.settings.memory_bytes;
        let mut with_filter = vec![false; metas.len()];
        for at in by_size {
            let bytes = super::filter::bytes(metas[at].ids);
            with_filter[at] = bytes <= budget;
            budget -= if with_filter[at] { bytes } else { 0 };
        }
        for (meta, with_filter) in metas.into_iter().zip(with_filter) {
            match Part::open(&self.folder, meta, self.key, with_filter) {
                Ok(mut part) => {
                    part.close();
                    self.app(meta.app).parts.push(part);
                }
                Err(error) if super::fault::is_transient(&error) => {
                    let file = super::part::path(&self.folder, meta.no);
                    return Err(SpoolError::io(file.display().to_string(), error));
                }
                Err(error) => self.record_lost(sql, meta, &error.to_string())?,
            }
        }
        Ok(())
    }

    /// Loads the sets from the table `fresh`, without the IDs that are in parts or being written to one.
    fn load_fresh(&mut self, sql: &Connection) -> Result<(), SpoolError> {
        for index in self.apps.values_mut() {
            index.fresh.clear();
            index.new.clear();
            index.seen_span = None;
        }
        self.touched.clear();
        self.fresh_ids = 0;
        let mut statement = sql.prepare("SELECT app, no, at, ids FROM fresh ORDER BY app, no")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (app, no, at) = (row.get(0)?, row.get::<_, u64>(1)?, row.get(2)?);
            self.next_row = self.next_row.max(no + 1);
            let index = self.app(app);
            if no <= index.sealing.as_ref().map_or(index.sealed_to, |sealing| sealing.last_row) {
                continue;
            }
            let before = index.fresh.len();
            let bytes = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            index.fresh.extend(bytes.as_chunks::<16>().0.iter().map(|id| u128::from_be_bytes(*id)));
            index.extend_seen_span(at, at);
            let more = index.fresh.len() - before;
            self.fresh_ids += more as u64;
        }
        self.apps_with_garbage = self.apps.keys().copied().collect();
        let sealed = self.apps.values().map(|index| index.sealed_to + 1).max().unwrap_or(1);
        self.next_row = self.next_row.max(sealed);
        Ok(())
    }

    /// Loads the state in memory again after a failed transaction. A commit that was reported as failed may have
    /// reached the disk.
    ///
    /// Returns `false` if the index has to be opened again instead.
    ///
    /// # Errors
    /// If the database fails.
    pub(in crate::spool) fn reload(&mut self, sql: &Connection) -> Result<bool, SpoolError> {
        let known: HashSet<u64> =
            self.apps.values().flat_map(|index| index.parts.iter().map(|part| part.meta.no)).collect();
        let stored: HashSet<u64> = parts(sql)?.into_iter().map(|part| part.no).collect();
        if known != stored {
            return Ok(false);
        }
        self.roll_back_changes();
        self.load_fresh(sql)?;
        Ok(true)
    }
}
