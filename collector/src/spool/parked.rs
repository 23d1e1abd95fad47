//! Parked events: those that wait beside the log until the store has made what they need, which takes it long. The cursor passes
//! them, so that nobody waits behind them, and they stay pending: the ledger counts them so until they are delivered or dead.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension, params};

use super::cursor::{load, save};
use super::letters::{self, DeadLetter};
use super::{Backlog, Reader, Spool, SpoolError, Tx, positions};

/// Events that may be parked for one sink: some hundred requests' worth, so that a sender who names every day again and again
/// finds an end of it.
pub(super) const MOST_EVENTS: u64 = 100_000;
/// Bytes that they may take, each with a copy of what its record shares: bounds the disk, as `dead_letter_bytes` does.
pub(super) const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// Rows looked through for the things that an app's oldest parked events need: bounds the time, whatever is parked.
const LOOKED_THROUGH: u64 = 1000;
/// Rows deleted by one transaction when a sink is forgotten, so that it never holds up the answers to clients for long.
const DROPPED_AT_ONCE: u64 = 500;
/// About what a row takes besides its record, bytes.
const ROW_BYTES: u64 = 128;

/// An event that waits beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// The event's position in the spool.
    pub position: u64,
    /// Its app.
    pub app_key: String,
    /// Its identity.
    pub event_id: String,
    /// What the store has to make for it; others that need the same go with it.
    pub thing: String,
    /// When it arrived, milliseconds since the epoch.
    pub arrived: i64,
    /// JSON of a [`crate::record::Record`] with this one event.
    pub record: String,
}

impl Parked {
    /// About how many bytes it takes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.record.len() as u64 + ROW_BYTES
    }
}

/// How much may be sent together.
#[derive(Clone, Copy, Debug)]
pub struct GroupCap {
    /// Things that the store has to make for it.
    pub things: usize,
    /// Events: bounds what has to be sent one by one if they are refused.
    pub events: u64,
    /// Bytes, but for the last event. Bounds memory.
    pub bytes: u64,
}

/// Parked events that are sent next, the same until it is known what became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The app whose turn it is; events of others may go with it.
    pub app_key: String,
    /// In the order of their positions; never none.
    pub events: Vec<Parked>,
    /// Each is sent by itself: together they were refused.
    pub alone: bool,
}

/// How much is parked for one sink, and whether there is room for more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParkedRoom {
    /// Events and bytes by app.
    apps: BTreeMap<String, (u64, u64)>,
    events: u64,
    bytes: u64,
}

impl ParkedRoom {
    /// Takes room for one more event of `app`; `false` if there is none for this app: the room is shared as that of the log
    /// is (docs/adr/0009), so that no app takes it all.
    pub fn take(&mut self, app: &str, bytes: u64) -> bool {
        let (events_before, bytes_before) = self.apps.get(app).copied().unwrap_or_default();
        let (own_events, own_bytes) = (events_before + 1, bytes_before + bytes);
        let fits = |own, total, cap| Backlog { own, total }.room(cap).is_ok();
        let room = fits(own_events, self.events + 1, MOST_EVENTS) && fits(own_bytes, self.bytes + bytes, MOST_BYTES);
        if room {
            self.apps.insert(app.to_owned(), (own_events, own_bytes));
            (self.events, self.bytes) = (self.events + 1, self.bytes + bytes);
        }
        room
    }

    /// How many events are parked.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

pub(super) fn insert(sql: &Connection, sink: &str, parked: &Parked) -> Result<(), SpoolError> {
    let query = "INSERT INTO parked (sink, position, app_key, event_id, thing, arrived, bytes, record)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let Parked { position, app_key, event_id, thing, arrived, record } = parked;
    sql.prepare_cached(query)?.execute(params![
        sink,
        position,
        app_key,
        event_id,
        thing,
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

/// How many events are parked for each sink; of a sink with none nothing is here.
pub(super) fn counts(sql: &Connection) -> Result<BTreeMap<String, u64>, SpoolError> {
    let mut statement = sql.prepare_cached("SELECT sink, sum(events) FROM parked_total GROUP BY sink")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// When the oldest parked event of a sink arrived; `None` if there is none.
pub(super) fn oldest(sql: &Connection, sink: &str) -> Result<Option<i64>, SpoolError> {
    let query = "SELECT arrived FROM parked WHERE sink = ?1 ORDER BY position LIMIT 1";
    Ok(sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?)
}

/// Drops some of what is parked for a sink that is forgotten. Returns how many.
pub(super) fn drop_some(tx: &Tx<'_>, sink: &str) -> Result<usize, SpoolError> {
    let query = "DELETE FROM parked WHERE sink = ?1 AND position IN
        (SELECT position FROM parked WHERE sink = ?1 ORDER BY position LIMIT ?2)";
    Ok(tx.sql.prepare_cached(query)?.execute(params![sink, DROPPED_AT_ONCE])?)
}

/// Notes which events are being sent. None: nothing is.
fn note_group(sql: &Connection, sink: &str, positions: &[u64], alone: bool) -> Result<(), SpoolError> {
    if positions.is_empty() {
        sql.prepare_cached("DELETE FROM parked_group WHERE sink = ?1")?.execute([sink])?;
    } else {
        let query = "INSERT OR REPLACE INTO parked_group VALUES (?1, ?2, ?3)";
        sql.prepare_cached(query)?.execute(params![sink, positions::write(positions), alone])?;
    }
    Ok(())
}

/// The events being sent that are still parked, and whether each is sent alone.
fn noted_group(sql: &Connection, sink: &str) -> Result<(Vec<u64>, bool), SpoolError> {
    let mut statement = sql.prepare_cached("SELECT positions, alone FROM parked_group WHERE sink = ?1")?;
    let noted = statement.query_row([sink], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).optional()?;
    Ok(noted.map(|(text, alone)| (positions::read(&text), alone)).unwrap_or_default())
}

fn settle(tx: &mut Tx<'_>, sink: &str, taken: &[u64], dead: &[DeadLetter]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let (mut left, alone) = noted_group(tx.sql, sink)?;
    for position in taken {
        remove(tx.sql, sink, *position)?;
    }
    for letter in dead {
        if remove(tx.sql, sink, letter.position)? {
            letters::insert(tx.sql, letter)?;
            cursor.dead += 1;
        }
    }
    let gone: BTreeSet<u64> = taken.iter().copied().chain(dead.iter().map(|letter| letter.position)).collect();
    left.retain(|position| !gone.contains(position));
    note_group(tx.sql, sink, &left, alone)?;
    save(tx.sql, sink, &cursor)
}

const COLUMNS: &str = "position, app_key, event_id, thing, arrived, record";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Parked> {
    Ok(Parked {
        position: row.get(0)?,
        app_key: row.get(1)?,
        event_id: row.get(2)?,
        thing: row.get(3)?,
        arrived: row.get(4)?,
        record: row.get(5)?,
    })
}

impl Reader {
    /// How much is parked for `sink`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_room(&self, sink: &str) -> Result<ParkedRoom, SpoolError> {
        let mut room = ParkedRoom::default();
        let query = "SELECT app_key, events, bytes FROM parked_total WHERE sink = ?1";
        let mut statement = self.0.prepare_cached(query)?;
        let mut rows = statement.query([sink])?;
        while let Some(row) = rows.next()? {
            let (app, events, bytes) = (row.get(0)?, row.get(1)?, row.get(2)?);
            (room.events, room.bytes) = (room.events + events, room.bytes + bytes);
            room.apps.insert(app, (events, bytes));
        }
        Ok(room)
    }

    /// The parked events of `sink` that are being sent; those gone meanwhile are left out. `None` if none is.
    fn noted(&self, sink: &str) -> Result<Option<Group>, SpoolError> {
        let (positions, alone) = noted_group(&self.0, sink)?;
        let mut statement =
            self.0.prepare_cached(&format!("SELECT {COLUMNS} FROM parked WHERE sink = ?1 AND position = ?2"))?;
        let mut events = Vec::new();
        for position in positions {
            events.extend(statement.query_row(params![sink, position], read).optional()?);
        }
        let app_key = events.first().map(|event: &Parked| event.app_key.clone());
        Ok(app_key.map(|app_key| Group { app_key, events, alone }))
    }

    /// Some parked events that need few things, those of the oldest events of the next app after `app`: every app has its turn.
    /// Whatever else needs these things goes with it.
    fn next(&self, sink: &str, app: &str, cap: GroupCap) -> Result<Option<Group>, SpoolError> {
        let query = "SELECT app_key FROM parked_total WHERE sink = ?1 ORDER BY app_key <= ?2, app_key LIMIT 1";
        let mut statement = self.0.prepare_cached(query)?;
        let next: Option<String> = statement.query_row([sink, app], |row| row.get(0)).optional()?;
        let Some(app_key) = next else { return Ok(None) };
        let query = "SELECT thing FROM parked WHERE sink = ?1 AND app_key = ?2 ORDER BY position LIMIT ?3";
        let mut statement = self.0.prepare_cached(query)?;
        let mut rows = statement.query(params![sink, app_key, LOOKED_THROUGH])?;
        let mut wanted = BTreeSet::new();
        while let Some(row) = rows.next()?.filter(|_| wanted.len() < cap.things) {
            wanted.insert(row.get::<_, String>(0)?);
        }
        let query = format!("SELECT {COLUMNS} FROM parked WHERE sink = ?1 AND thing = ?2 ORDER BY position");
        let mut statement = self.0.prepare_cached(&query)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        for thing in wanted {
            let mut rows = statement.query([sink, &thing])?;
            while (events.len() as u64) < cap.events && bytes < cap.bytes {
                let Some(row) = rows.next()? else { break };
                let parked = read(row)?;
                bytes += parked.bytes();
                events.push(parked);
            }
        }
        events.sort_unstable_by_key(|parked| parked.position);
        Ok((!events.is_empty()).then_some(Group { app_key, events, alone: false }))
    }
}

impl Spool {
    /// How much is parked for `sink`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_room(&self, sink: &str) -> Result<ParkedRoom, SpoolError> {
        self.read(|reader| reader.parked_room(sink))
    }

    /// The parked events of `sink` to be sent next, noted before they are: those of before a crash come first and unchanged,
    /// then some of the app after `app`, as many as `cap` allows. `None` if nothing is parked.
    ///
    /// # Errors
    /// If the database fails.
    pub fn parked_group(&self, sink: &str, app: &str, cap: GroupCap) -> Result<Option<Group>, SpoolError> {
        if let Some(group) = self.read(|reader| reader.noted(sink))? {
            return Ok(Some(group));
        }
        let Some(group) = self.read(|reader| reader.next(sink, app, cap))? else { return Ok(None) };
        let (sink, positions) =
            (sink.to_owned(), group.events.iter().map(|parked| parked.position).collect::<Vec<_>>());
        self.call(move |tx| note_group(tx.sql, &sink, &positions, false))?;
        Ok(Some(group))
    }

    /// Each of the parked events at `positions` is sent by itself from now on: together they were refused. None: nothing is
    /// being sent any more, and all of them wait for their next turn.
    ///
    /// # Errors
    /// If the database fails.
    pub fn part_group(&self, sink: &str, positions: Vec<u64>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| note_group(tx.sql, &sink, &positions, true))
    }

    /// What became of parked events, in one commit: the `taken` are delivered, those of the letters are `dead`, and neither waits any
    /// more.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn settle_parked(&self, sink: &str, taken: Vec<u64>, dead: Vec<DeadLetter>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| settle(tx, &sink, &taken, &dead))
    }
}
