//! Writing the store: one batch, one transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Statement, Transaction, TransactionBehavior, params};

use super::columns::{INSERT_BATCH, INSERT_EVENT, OF_EVENT, Place};
use super::dictionary::{Dictionary, Ident};
use super::{FILE, MIGRATIONS, columns};
use crate::db::{self, DbError};
use crate::record::{Event, Record, Value};
use crate::sinks::{SinkBatch, SinkError, Unreadable};

/// SQLite's page cache of the writer, KiB: the inner pages of every index and the leaves of today.
const CACHE_KIB: i64 = 32 * 1024;

/// Size of a page, bytes. Events are appended by the thousand: bigger pages are split and logged less often.
const PAGE_BYTES: u32 = 16 * 1024;

/// Pages in the write-ahead log before it is copied into the database: 32 MiB, so that the pages of the dictionaries
/// and of the index's end are copied once for several transactions.
const CHECKPOINT_PAGES: i64 = 2048;

pub(super) struct Writer {
    path: PathBuf,
    connection: Connection,
    dictionary: Dictionary,
    position: u64,
}

/// A write that failed: the database did, or the record cannot be read.
enum WriteError {
    Sql(rusqlite::Error),
    Unreadable(Unreadable),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        WriteError::Sql(error)
    }
}

impl From<Unreadable> for WriteError {
    fn from(error: Unreadable) -> Self {
        WriteError::Unreadable(error)
    }
}

impl From<WriteError> for SinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Sql(error) => SinkError::retryable(format!("{FILE}: {error}")),
            WriteError::Unreadable(unreadable) => unreadable.into(),
        }
    }
}

fn connect(path: &Path) -> Result<(Connection, u64), DbError> {
    let connection = db::open_paged(path, MIGRATIONS, PAGE_BYTES)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    let position: i64 = connection.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
    Ok((connection, position.unsigned_abs()))
}

impl Writer {
    pub(super) fn open(dir: &Path) -> Result<Self, DbError> {
        let path = dir.join(FILE);
        let (connection, position) = connect(&path)?;
        Ok(Self { path, connection, dictionary: Dictionary::default(), position })
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn set_timezones(&mut self, apps: &[(String, String)]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for (key, timezone) in apps {
            let sql = "INSERT INTO app (key, timezone) VALUES (?1, ?2)
                ON CONFLICT (key) DO UPDATE SET timezone = excluded.timezone WHERE timezone <> excluded.timezone";
            transaction.execute(sql, params![key, timezone])?;
        }
        transaction.commit()
    }

    /// Whether the store can be written: takes the write lock and gives it back.
    pub(super) fn probe(&mut self) -> Result<(), SinkError> {
        let fails = |error: rusqlite::Error| SinkError::retryable(format!("{FILE}: {error}"));
        self.connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(fails)?
            .rollback()
            .map_err(fails)
    }

    /// Brings the events of the batch that are not in the store yet into it, in one transaction with the cursor.
    pub(super) fn deliver(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        if batch.last <= self.position {
            return Ok(());
        }
        // What the caches learn in a transaction is gone if it does not commit, a panic included. So they are put back
        // only after the commit.
        let mut dictionary = std::mem::take(&mut self.dictionary);
        match self.commit(&mut dictionary, batch) {
            Ok(()) => self.dictionary = dictionary,
            Err(error) => {
                if let WriteError::Sql(error) = &error {
                    self.reconnect_after(error);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// After an error of the disk or the file itself a connection may keep a damaged view; a new one starts clean.
    fn reconnect_after(&mut self, error: &rusqlite::Error) {
        if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
            return;
        }
        if let Ok((connection, position)) = connect(&self.path) {
            (self.connection, self.position) = (connection, position);
        }
    }

    fn commit(&mut self, dictionary: &mut Dictionary, batch: &SinkBatch) -> Result<(), WriteError> {
        let done = self.position;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        batch.for_each_record(|record, at, events| {
            let (at, events) = crate::sinks::within(at, events, done + 1, batch.last);
            if events.is_empty() {
                Ok::<(), WriteError>(())
            } else {
                Ok(insert(&transaction, dictionary, record, at, events)?)
            }
        })?;
        let last = i64::try_from(batch.last).unwrap_or(i64::MAX);
        transaction.prepare_cached("UPDATE cursor SET position = ?1")?.execute([last])?;
        transaction.commit()?;
        self.position = batch.last;
        Ok(())
    }
}

/// Writes the events of one record, the first of which has the position `first`.
fn insert(
    sql: &Transaction<'_>,
    dictionary: &mut Dictionary,
    record: &Record<'_>,
    first: u64,
    events: &[Event<'_>],
) -> rusqlite::Result<()> {
    let app = dictionary.app(sql, &record.app_key)?;
    let context = dictionary.context(sql, &record.context)?;
    let earliest = events.iter().map(|event| event.event_time).min().unwrap_or(record.received_at);
    let install = dictionary.install(sql, app, &record.install_id, earliest)?;
    let batch = i64::try_from(first).unwrap_or(i64::MAX);
    let mut row = sql.prepare_cached(&INSERT_BATCH)?;
    row.raw_bind_parameter(1, batch)?;
    row.raw_bind_parameter(2, context)?;
    let values = record.values();
    for (number, (at, place)) in (3..).zip(columns::of_batch()) {
        bind(&mut row, number, values[at], place)?;
    }
    row.raw_execute()?;
    let mut row = sql.prepare_cached(&INSERT_EVENT)?;
    // Neighbours mostly have the same user and session.
    let (mut last_user, mut last_session) = (("", 0), ("", 0));
    for (position, event) in (batch..).zip(events) {
        for (number, value) in (1..).zip([position, app, batch, install]) {
            row.raw_bind_parameter(number, value)?;
        }
        for ((number, value), place) in (5..).zip(event.values()).zip(OF_EVENT.iter().copied()) {
            let text = if let Value::Text(text) = value { text } else { "" };
            match place {
                Place::Word => row.raw_bind_parameter(number, dictionary.word(sql, text)?)?,
                Place::User => {
                    if last_user.0 != text {
                        last_user = (&event.user_id, dictionary.user(sql, app, text)?);
                    }
                    row.raw_bind_parameter(number, last_user.1)?;
                }
                Place::Session => {
                    if last_session.0 != text {
                        last_session = (&event.session_id, dictionary.session(sql, app, text)?);
                    }
                    row.raw_bind_parameter(number, last_session.1)?;
                }
                place => bind(&mut row, number, value, place)?,
            }
        }
        row.raw_execute()?;
    }
    Ok(())
}

/// Binds a value that no dictionary has.
fn bind(row: &mut Statement<'_>, number: usize, value: Value<'_>, place: Place) -> rusqlite::Result<()> {
    match value {
        Value::Text(text) if place == Place::Ident => row.raw_bind_parameter(number, Ident::new(text)),
        Value::Text(text) => row.raw_bind_parameter(number, text),
        Value::Time(time) => row.raw_bind_parameter(number, time),
        Value::Number(count) => row.raw_bind_parameter(number, count.map(u64::cast_signed)),
        Value::Flag(flag) => row.raw_bind_parameter(number, flag),
        Value::Object(object) => row.raw_bind_parameter(number, object.map(|object| object.get())),
    }
}
