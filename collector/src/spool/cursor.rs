//! How far each sink is, and what it is sending, as the database has it; `progress` moves it.

use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{Reader, SpoolError, positions};

/// How far a sink is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Every event up to this position is delivered, dead, expired or parked.
    pub delivered_to: u64,
    /// How many events are dead: those refused, and those shed (also the ones after [`Cursor::delivered_to`]).
    pub dead: u64,
    /// How many of the dead were given up because the spool was full.
    pub shed: u64,
    /// How many events are expired: they were gone from the log and the embedded store before the sink came to them.
    pub expired: u64,
    /// What is expired or shed arrived before this time, milliseconds since the epoch; `None`: nothing is.
    pub complete_from: Option<i64>,
    /// The batch being sent, if any.
    pub frozen: Option<Frozen>,
    /// Everything after `delivered_to` up to here belongs to a batch that the store refused because of what is in it.
    pub suspect_to: Option<u64>,
    /// The events after what is frozen or suspect, up to here, were given up because the spool was full.
    pub shed_to: Option<u64>,
}

/// A sink batch whose bounds are fixed until it is delivered or cut, over crashes too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    /// Position of its first event.
    pub first: u64,
    /// Position of its last event.
    pub last: u64,
    /// Names it for the store: the same for the same events of the same data directory, never for others.
    pub token: String,
    /// Positions of its events that are not sent with it, in order: they are parked once it is through.
    pub without: Vec<u64>,
}

impl Cursor {
    /// The end of what may have been sent: the events up to here stay until it is known what became of them.
    #[must_use]
    pub fn pinned_to(&self) -> u64 {
        let frozen = self.frozen.as_ref().map_or(0, |frozen| frozen.last);
        self.delivered_to.max(frozen).max(self.suspect_to.unwrap_or(0))
    }

    /// How many events are delivered, dead, expired or parked.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.delivered_to + self.shed_to.map_or(0, |to| to.saturating_sub(self.pinned_to()))
    }
}

/// The name of the batch `first..=last` of the data directory with this identity, but for the events `without`.
pub(super) fn token(identity: &str, first: u64, last: u64, without: &[u64]) -> String {
    let whole = format!("{identity}-{first}-{last}");
    if without.is_empty() {
        return whole;
    }
    format!("{whole}-without-{}", hex::encode(&Sha256::digest(positions::write(without))[..8]))
}

pub(super) fn frozen(sql: &Connection, first: u64, last: u64, without: Vec<u64>) -> Result<Option<Frozen>, SpoolError> {
    let token = token(&identity(sql)?, first, last, &without);
    Ok(Some(Frozen { first, last, token, without }))
}

pub(super) fn identity(sql: &Connection) -> Result<String, SpoolError> {
    Ok(sql.prepare_cached("SELECT token FROM identity")?.query_row([], |row| row.get(0))?)
}

pub(super) fn load(sql: &Connection, sink: &str) -> Result<Cursor, SpoolError> {
    let query =
        "SELECT delivered_to, dead, frozen_first, frozen_last, suspect_to, shed, shed_to, (SELECT token FROM identity),
        expired, complete_from, frozen_without FROM cursor WHERE sink = ?1";
    let read = |row: &rusqlite::Row<'_>| {
        let frozen = match (row.get(2)?, row.get(3)?) {
            (Some(first), Some(last)) => {
                let identity: String = row.get(7)?;
                let without: Option<String> = row.get(10)?;
                let without = without.map(|text| positions::read(&text)).unwrap_or_default();
                Some(Frozen { first, last, token: token(&identity, first, last, &without), without })
            }
            _ => None,
        };
        Ok(Cursor {
            delivered_to: row.get(0)?,
            dead: row.get(1)?,
            frozen,
            suspect_to: row.get(4)?,
            shed: row.get(5)?,
            shed_to: row.get(6)?,
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
        cursor.dead,
        frozen.map(|frozen| frozen.first),
        frozen.map(|frozen| frozen.last),
        cursor.suspect_to,
        cursor.shed,
        cursor.shed_to,
        cursor.expired,
        cursor.complete_from,
        frozen.filter(|frozen| !frozen.without.is_empty()).map(|frozen| positions::write(&frozen.without))
    ])?;
    Ok(())
}

impl Reader {
    /// See [`super::Spool::token`].
    ///
    /// # Errors
    /// If the database fails.
    pub fn token(&self, first: u64, last: u64) -> Result<String, SpoolError> {
        Ok(token(&identity(&self.0)?, first, last, &[]))
    }

    /// See [`super::Spool::cursor`].
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        load(&self.0, sink)
    }
}
