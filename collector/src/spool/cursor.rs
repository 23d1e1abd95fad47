//! Delivery progress of each sink and its frozen batch, as stored in the database. `progress` changes it.

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{SpoolError, SpoolReader, positions};

/// Delivery progress of one sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Last position up to which every event is delivered, discarded, expired or parked.
    pub delivered_to: u64,
    /// Number of discarded events: dead-lettered or dropped. Includes dropped events after [`Cursor::delivered_to`].
    pub discarded: u64,
    /// Number of discarded events that were dropped because the spool was full.
    pub dropped_oldest: u64,
    /// Number of expired events: deleted from the log and the embedded store before the sink reached them.
    pub expired: u64,
    /// Expired and dropped events arrived before this time, milliseconds since the epoch. `None` if there are none.
    pub complete_from: Option<i64>,
    /// Batch that is being sent, if any.
    pub frozen: Option<FrozenBatch>,
    /// End of the bisect range: everything after `delivered_to` up to here belongs to a batch that the store refused
    /// because of its content.
    pub bisect_to: Option<u64>,
    /// Events after the frozen batch and the bisect range, up to here, were dropped because the spool was full.
    pub dropped_to: Option<u64>,
}

/// Sink batch with fixed bounds until it is delivered or shrunk, also across crashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenBatch {
    /// Position of its first event.
    pub first: u64,
    /// Position of its last event.
    pub last: u64,
    /// Identifies the batch for the store. It is the same for the same events of the same data directory, and differs
    /// for all others.
    pub dedup_token: String,
    /// Positions of its events that are parked instead of sent, in order. They are parked when the cursor passes the
    /// batch.
    pub excluded: Vec<u64>,
}

impl Cursor {
    /// Returns the last position that the store may already have. Events up to here are neither trimmed nor dropped
    /// until their outcome is known.
    #[must_use]
    pub fn pinned_to(&self) -> u64 {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.last);
        self.delivered_to.max(frozen).max(self.bisect_to.unwrap_or(0))
    }

    /// Returns how many events are delivered, discarded, expired or parked.
    #[must_use]
    pub fn processed(&self) -> u64 {
        self.delivered_to + self.dropped_to.map_or(0, |to| to.saturating_sub(self.pinned_to()))
    }
}

/// Returns the dedup token of the batch `first..=last` without the events `excluded`, for the data directory
/// `data_dir_id`.
pub(super) fn dedup_token(data_dir_id: &str, first: u64, last: u64, excluded: &[u64]) -> String {
    let whole = format!("{data_dir_id}-{first}-{last}");
    if excluded.is_empty() {
        return whole;
    }
    format!("{whole}-without-{}", hex::encode(&Sha256::digest(positions::write(excluded))[..8]))
}

pub(super) fn freeze_range(
    sql: &Connection,
    first: u64,
    last: u64,
    excluded: Vec<u64>,
) -> Result<Option<FrozenBatch>, SpoolError> {
    let dedup_token = dedup_token(&data_dir_id(sql)?, first, last, &excluded);
    Ok(Some(FrozenBatch { first, last, dedup_token, excluded }))
}

pub(super) fn data_dir_id(sql: &Connection) -> Result<String, SpoolError> {
    Ok(sql.prepare_cached("SELECT token FROM identity")?.query_row([], |row| row.get(0))?)
}

pub(super) fn load(sql: &Connection, sink: &str) -> Result<Cursor, SpoolError> {
    let query =
        "SELECT delivered_to, dead, frozen_first, frozen_last, suspect_to, shed, shed_to, (SELECT token FROM identity),
        expired, complete_from, frozen_without FROM cursor WHERE sink = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let frozen = match (row.get(2)?, row.get(3)?) {
            (Some(first), Some(last)) => {
                let data_dir_id: String = row.get(7)?;
                let excluded: Option<String> = row.get(10)?;
                let excluded = excluded.map(|text| positions::read(&text)).unwrap_or_default();
                Some(FrozenBatch {
                    first,
                    last,
                    dedup_token: dedup_token(&data_dir_id, first, last, &excluded),
                    excluded,
                })
            }
            _ => None,
        };
        Ok(Cursor {
            delivered_to: row.get(0)?,
            discarded: row.get(1)?,
            frozen,
            bisect_to: row.get(4)?,
            dropped_oldest: row.get(5)?,
            dropped_to: row.get(6)?,
            expired: row.get(8)?,
            complete_from: row.get(9)?,
        })
    };
    sql.prepare_cached(query)?
        .query_row([sink], read)
        .optional()?
        .ok_or_else(|| SpoolError::UnknownSink(sink.to_owned()))
}

pub(super) fn save(sql: &Connection, sink: &str, cursor: &Cursor) -> Result<(), SpoolError> {
    let frozen = cursor.frozen.as_ref();
    let query = "UPDATE cursor SET delivered_to = ?2, dead = ?3, frozen_first = ?4, frozen_last = ?5, suspect_to = ?6, shed = ?7,
        shed_to = ?8, expired = ?9, complete_from = ?10, frozen_without = ?11 WHERE sink = ?1";
    sql.prepare_cached(query)?.execute(params![
        sink,
        cursor.delivered_to,
        cursor.discarded,
        frozen.map(|frozen| frozen.first),
        frozen.map(|frozen| frozen.last),
        cursor.bisect_to,
        cursor.dropped_oldest,
        cursor.dropped_to,
        cursor.expired,
        cursor.complete_from,
        frozen.filter(|frozen| !frozen.excluded.is_empty()).map(|frozen| positions::write(&frozen.excluded))
    ])?;
    Ok(())
}

impl SpoolReader {
    /// See [`super::Spool::dedup_token`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn dedup_token(&self, first: u64, last: u64) -> Result<String, SpoolError> {
        Ok(dedup_token(&data_dir_id(&self.0)?, first, last, &[]))
    }

    /// See [`super::Spool::cursor`].
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        load(&self.0, sink)
    }
}
