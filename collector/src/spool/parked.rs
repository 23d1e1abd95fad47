//! Parked events: events that wait in a table of their own until their store has created the resource that they need
//! (docs/adr/0013).
//!
//! The cursor passes them, so that events behind them are not delayed. They stay pending in the ledger until they are
//! delivered or dead-lettered.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::cursor::{load, save};
use super::dead_letters::{self, DeadLetter};
use super::read::json_text;
use super::{Backlog, Spool, SpoolError, SpoolReader, Tx, positions};

/// Parked events of one sink: some hundred requests' worth. Bounds what a sender gets by naming every day again and
/// again.
pub(super) const MAX_EVENTS: u64 = 100_000;
/// Bytes of one sink's parked events, each with a copy of what its record shares. Bounds the disk, as
/// `dead_letter_bytes` does.
pub(super) const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// Rows scanned for the resources that an app's oldest parked events need. Bounds the time of a scan.
const MAX_SCANNED_ROWS: u64 = 1000;
/// Rows deleted by one transaction when a sink is forgotten. Bounds how long the answers to clients wait behind it.
const DELETE_CHUNK_ROWS: u64 = 500;
/// Estimated bytes of a row without its record.
const ROW_OVERHEAD_BYTES: u64 = 128;

/// Parked event of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The event's position in the spool.
    pub position: u64,
    /// Key of its app.
    pub app_key: String,
    /// ID of the event.
    pub event_id: String,
    /// Resource that the store has to create for it. Events that need the same one are sent together.
    pub resource: String,
    /// Time of its arrival, milliseconds since the epoch.
    pub arrived: i64,
    /// JSON of a [`crate::record::Record`] with this one event.
    pub record: String,
}

impl Parked {
    /// Returns about how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.record.len() as u64 + ROW_OVERHEAD_BYTES
    }
}

/// Limits of what is sent together.
#[derive(Clone, Copy, Debug)]
pub struct ParkedGroupLimits {
    /// Resources that the store has to create for it.
    pub max_resources: usize,
    /// Events. Bounds what has to be sent one by one if they are refused.
    pub max_events: u64,
    /// Bytes, not counting the last event. Bounds memory.
    pub max_bytes: u64,
}

/// Parked events that are sent next. The group stays the same until its outcome is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedGroup {
    /// App whose turn it is. Events of other apps may be included.
    pub app_key: String,
    /// Events in the order of their positions, at least one.
    pub events: Vec<Parked>,
    /// Whether each is sent by itself, because the group was refused.
    pub singly: bool,
}

/// Parked events of one sink by app, and the free space for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedQuota {
    /// Events and bytes by app.
    apps: BTreeMap<String, (u64, u64)>,
    events: u64,
    bytes: u64,
}

impl ParkedQuota {
    /// Reserves space for one more event of `app`. Returns `false` if the app's share is used up.
    ///
    /// The space is shared as that of the log is (docs/adr/0009), so that no app takes all of it.
    pub fn reserve(&mut self, app: &str, bytes: u64) -> bool {
        let (events_before, bytes_before) = self.apps.get(app).copied().unwrap_or_default();
        let (own_events, own_bytes) = (events_before + 1, bytes_before + bytes);
        let fits = |own, total, cap| Backlog { own, total }.check_capacity(cap).is_ok();
        let has_room = fits(own_events, self.events + 1, MAX_EVENTS) && fits(own_bytes, self.bytes + bytes, MAX_BYTES);
        if has_room {
            self.apps.insert(app.to_owned(), (own_events, own_bytes));
            (self.events, self.bytes) = (self.events + 1, self.bytes + bytes);
        }
        has_room
    }

    /// Returns how many events are parked.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

pub(super) fn insert(sql: &Connection, sink: &str, parked: &Parked) -> Result<(), SpoolError> {
    let query = "INSERT INTO parked (sink, position, app_key, event_id, resource, arrived, bytes, record)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Parked { position, app_key, event_id, resource, arrived, record } = parked;
    sql.prepare_cached(query)?.execute(params![
        sink,
        position,
        app_key,
        event_id,
        resource,
        arrived,
        parked.bytes(),
        record
    ])?;
    Ok(())
}

fn remove(sql: &Connection, sink: &str, position: u64) -> Result<bool, SpoolError> {
    let query = "DELETE FROM parked WHERE sink = ?1 AND position = ?2";
    Ok(sql.prepare_cached(query)?.execute(params![sink, position])? > 0)
}

/// Returns the number of parked events by sink. Sinks without any are absent.
pub(super) fn counts(sql: &Connection) -> Result<BTreeMap<String, u64>, SpoolError> {
    let mut statement = sql.prepare_cached("SELECT sink, sum(events) FROM parked_total GROUP BY sink")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Returns when the oldest parked event of a sink arrived, or `None` if there is none.
pub(super) fn oldest(sql: &Connection, sink: &str) -> Result<Option<i64>, SpoolError> {
    let query = "SELECT arrived FROM parked WHERE sink = ?1 ORDER BY position LIMIT 1";
    Ok(sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?)
}

/// Deletes some parked events of a sink that is being forgotten. Returns how many.
pub(super) fn delete_chunk(tx: &Tx<'_>, sink: &str) -> Result<usize, SpoolError> {
    let query = "DELETE FROM parked WHERE sink = ?1 AND position IN
        (SELECT position FROM parked WHERE sink = ?1 ORDER BY position LIMIT ?2)";
    Ok(tx.sql.prepare_cached(query)?.execute(params![sink, DELETE_CHUNK_ROWS])?)
}

/// Stores the group that is being sent. An empty one means that none is.
fn save_group(sql: &Connection, sink: &str, positions: &[u64], singly: bool) -> Result<(), SpoolError> {
    if positions.is_empty() {
        sql.prepare_cached("DELETE FROM parked_group WHERE sink = ?1")?.execute([sink])?;
    } else {
        let query = "INSERT OR REPLACE INTO parked_group VALUES (?1, ?2, ?3)";
        sql.prepare_cached(query)?.execute(params![sink, positions::write(positions), singly])?;
    }
    Ok(())
}

/// Returns the positions of the group that is being sent, and whether each event is sent by itself.
fn load_group(sql: &Connection, sink: &str) -> Result<(Vec<u64>, bool), SpoolError> {
    let mut statement = sql.prepare_cached("SELECT positions, alone FROM parked_group WHERE sink = ?1")?;
    let group = statement.query_row([sink], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    Ok(group.map(|(text, singly)| (positions::read(&text), singly)).unwrap_or_default())
}

fn record_outcome(tx: &mut Tx<'_>, sink: &str, taken: &[u64], dead_letters: &[DeadLetter]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let (mut left, singly) = load_group(tx.sql, sink)?;
    for position in taken {
        remove(tx.sql, sink, *position)?;
    }
    for letter in dead_letters {
        if remove(tx.sql, sink, letter.position)? {
            dead_letters::insert(tx.sql, letter)?;
            cursor.discarded += 1;
        }
    }
    let finished: BTreeSet<u64> =
        taken.iter().copied().chain(dead_letters.iter().map(|letter| letter.position)).collect();
    left.retain(|position| !finished.contains(position));
    save_group(tx.sql, sink, &left, singly)?;
    save(tx.sql, sink, &cursor)
}

const COLUMNS: &str = "position, app_key, event_id, resource, arrived, record";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Parked> {
    Ok(Parked {
        position: row.get(0)?,
        app_key: row.get(1)?,
        event_id: row.get(2)?,
        resource: row.get(3)?,
        arrived: row.get(4)?,
        record: json_text(row, 5)?,
    })
}

impl SpoolReader {
    /// Reads how much is parked for `sink`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_quota(&self, sink: &str) -> Result<ParkedQuota, SpoolError> {
        let mut quota = ParkedQuota::default();
        let query = "SELECT app_key, events, bytes FROM parked_total WHERE sink = ?1";
        let mut statement = self.0.prepare_cached(query)?;
        let mut rows = statement.query([sink])?;
        while let Some(row) = rows.next()? {
            let (app, events, bytes) = (row.get(0)?, row.get(1)?, row.get(2)?);
            (quota.events, quota.bytes) = (quota.events + events, quota.bytes + bytes);
            quota.apps.insert(app, (events, bytes));
        }
        Ok(quota)
    }

    /// Reads the group of `sink` that is being sent, without events that are gone by now. `None` if it is empty.
    fn current_group(&self, sink: &str) -> Result<Option<ParkedGroup>, SpoolError> {
        let (positions, singly) = load_group(&self.0, sink)?;
        let mut statement =
            self.0.prepare_cached(&format!("SELECT {COLUMNS} FROM parked WHERE sink = ?1 AND position = ?2"))?;
        let mut events = Vec::new();
        for position in positions {
            events.extend(statement.query_row(params![sink, position], read).optional()?);
        }
        let app_key = events.first().map(|event: &Parked| event.app_key.clone());
        Ok(app_key.map(|app_key| ParkedGroup { app_key, events, singly }))
    }

    /// Selects the next group: parked events that need few resources, those of the oldest events of the next app after
    /// `app`.
    ///
    /// Apps take turns. Events of other apps that need the same resources are included.
    fn select_group(
        &self,
        sink: &str,
        app: &str,
        limits: ParkedGroupLimits,
    ) -> Result<Option<ParkedGroup>, SpoolError> {
        let query = "SELECT app_key FROM parked_total WHERE sink = ?1 ORDER BY app_key <= ?2, app_key LIMIT 1";
        let mut statement = self.0.prepare_cached(query)?;
        let next_app: Option<String> = statement.query_row([sink, app], |row| row.get(0)).optional()?;
        let Some(app_key) = next_app else { return Ok(None) };
        let query = "SELECT resource FROM parked WHERE sink = ?1 AND app_key = ?2 ORDER BY position LIMIT ?3";
        let mut statement = self.0.prepare_cached(query)?;
        let mut rows = statement.query(params![sink, app_key, MAX_SCANNED_ROWS])?;
        let mut resources = BTreeSet::new();
        while let Some(row) = rows.next()?.filter(|_| resources.len() < limits.max_resources) {
            resources.insert(row.get::<_, String>(0)?);
        }
        let query = format!("SELECT {COLUMNS} FROM parked WHERE sink = ?1 AND resource = ?2 ORDER BY position");
        let mut statement = self.0.prepare_cached(&query)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for resource in resources {
            let mut rows = statement.query([sink, &resource])?;
            while (events.len() as u64) < limits.max_events && bytes < limits.max_bytes {
                let Some(row) = rows.next()? else { break };
                let parked = read(row)?;
                bytes += parked.bytes();
                events.push(parked);
            }
        }
        events.sort_unstable_by_key(|parked| parked.position);
        Ok((!events.is_empty()).then_some(ParkedGroup { app_key, events, singly: false }))
    }
}

impl Spool {
    /// Returns how much is parked for `sink`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_quota(&self, sink: &str) -> Result<ParkedQuota, SpoolError> {
        self.read(|reader| reader.parked_quota(sink))
    }

    /// Returns the next group of parked events of `sink`, and stores it before it is sent.
    ///
    /// A group from before a crash is returned unchanged. Otherwise selects events of the app after `app` within the
    /// `limits`. `None` if nothing is parked.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_group(
        &self,
        sink: &str,
        app: &str,
        limits: ParkedGroupLimits,
    ) -> Result<Option<ParkedGroup>, SpoolError> {
        if let Some(group) = self.read(|reader| reader.current_group(sink))? {
            return Ok(Some(group));
        }
        let Some(group) = self.read(|reader| reader.select_group(sink, app, limits))? else { return Ok(None) };
        let (sink, positions) =
            (sink.to_owned(), group.events.iter().map(|parked| parked.position).collect::<Vec<_>>());
        self.call(move |tx| save_group(tx.sql, &sink, &positions, false))?;
        Ok(Some(group))
    }

    /// Changes the group that is being sent to the events at `positions`, each sent by itself, because the group was
    /// refused.
    ///
    /// Without positions no group is being sent any more, and its events wait for their next turn.
    ///
    /// # Errors
    /// If the database fails.
    pub fn send_parked_singly(&self, sink: &str, positions: Vec<u64>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| save_group(tx.sql, &sink, &positions, true))
    }

    /// Records the outcome of parked events in one commit: the `taken` are delivered and `dead_letters` are kept. Both
    /// are no longer parked.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn record_parked_outcome(
        &self,
        sink: &str,
        taken: Vec<u64>,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| record_outcome(tx, &sink, &taken, &dead_letters))
    }
}
