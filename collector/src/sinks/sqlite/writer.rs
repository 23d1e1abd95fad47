//! Writes the store: one batch, one transaction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, ErrorCode, Statement, Transaction, TransactionBehavior, params};

use super::columns::ColumnStorage;
use super::dictionary::{Dictionary, DictionaryLimits};
use super::ident::Ident;
use super::packed::pack;
use super::parts::{self, PartLimits, PartWriter};
use super::{FILE, MIGRATIONS, columns};
use crate::clock::ClockGuard;
use crate::config::Embedded;
use crate::db::{self, DbError, Layout};
use crate::record::{Event, Record, Value};
use crate::sinks::{CorruptRecord, SinkBatch, SinkError};
use crate::telemetry::Telemetry;

/// SQLite's page cache of the writer in KiB: the inner pages of every index and the leaves of today.
const CACHE_KIB: i64 = 32 * 1024;

/// Layout of the file. Events are appended by the thousand, so bigger pages are split and logged less often. Free pages
/// can be returned to the file system.
const FILE_LAYOUT: Layout = Layout { page_bytes: 16 * 1024, gives_back: true };

/// Pages in the write-ahead log before it is copied into the database: 32 MiB, so that the pages of the dictionaries
/// and of the index's end are copied once for several transactions.
const CHECKPOINT_PAGES: i64 = 2048;

/// Progress of the sweep over the dictionaries: the table, and the ID of its last checked row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SweepCursor {
    pub(super) table: usize,
    pub(super) row: i64,
}

pub(super) struct Writer {
    path: PathBuf,
    pub(super) settings: Embedded,
    telemetry: Arc<Telemetry>,
    /// Maximum events of a part.
    pub(super) part_events: i64,
    pub(super) connection: Connection,
    /// Whether the file can return free pages to the file system.
    pub(super) can_shrink: bool,
    pub(super) dictionary: Dictionary,
    /// `None` after a transaction that did not commit, because its view of the parts is wrong.
    parts: Option<PartWriter>,
    pub(super) sweep: Option<SweepCursor>,
    /// Plausibility of the clock; `None` before its first use.
    pub(super) guard: Option<ClockGuard>,
    pub(super) position: u64,
}

/// Reason why a write failed.
enum WriteError {
    Sql(rusqlite::Error),
    CorruptRecord(CorruptRecord),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        WriteError::Sql(error)
    }
}

impl From<CorruptRecord> for WriteError {
    fn from(error: CorruptRecord) -> Self {
        WriteError::CorruptRecord(error)
    }
}

impl From<WriteError> for SinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Sql(error) => database_error(error),
            WriteError::CorruptRecord(unreadable) => unreadable.into(),
        }
    }
}

fn database_error(error: rusqlite::Error) -> SinkError {
    SinkError::retryable(format!("{FILE}: {error}"))
}

fn connect(path: &Path) -> Result<(Connection, u64), DbError> {
    let mut connection = db::open_laid_out(path, MIGRATIONS, FILE_LAYOUT)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    parts::upgrade(&mut connection)?;
    let position: i64 = connection.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
    Ok((connection, position.unsigned_abs()))
}

/// State of the writer during a transaction. It is valid only if the transaction commits.
struct TransactionState {
    dictionary: Dictionary,
    parts: PartWriter,
    /// Buffer for the packed events of a record, reused.
    packed: Vec<u8>,
}

impl Writer {
    pub(super) fn open(dir: &Path, settings: &Embedded, telemetry: Arc<Telemetry>) -> Result<Self, DbError> {
        let path = dir.join(FILE);
        let (connection, position) = connect(&path)?;
        let mode: i64 = connection.pragma_query_value(None, "auto_vacuum", |row| row.get(0))?;
        let limits = DictionaryLimits { codes: settings.codes_per_app, contexts: settings.contexts_per_app };
        let writer = Self {
            path,
            settings: settings.clone(),
            telemetry,
            part_events: parts::MAX_PART_EVENTS,
            connection,
            can_shrink: mode != 0,
            dictionary: Dictionary::new(limits),
            parts: None,
            // A crash may have happened between dropping a part and sweeping what it referred to.
            sweep: Some(SweepCursor::default()),
            guard: None,
            position,
        };
        writer.report_metrics()?;
        Ok(writer)
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the parts and loads them if necessary.
    pub(super) fn parts(&mut self) -> rusqlite::Result<&PartWriter> {
        let parts = self.take_parts()?;
        Ok(self.parts.insert(parts))
    }

    /// Takes the parts for a transaction that changes them. Put them back if it commits.
    pub(super) fn take_parts(&mut self) -> rusqlite::Result<PartWriter> {
        if let Some(parts) = self.parts.take() {
            return Ok(parts);
        }
        let Embedded { retention_days, retention_bytes, .. } = self.settings;
        let mut limits = PartLimits::of(retention_days, retention_bytes, FILE_LAYOUT.page_bytes);
        limits.events = self.part_events;
        PartWriter::load(&self.connection, limits)
    }

    pub(super) fn put_parts(&mut self, parts: PartWriter) {
        self.parts = Some(parts);
    }

    /// Updates the store's metrics.
    pub(super) fn report_metrics(&self) -> rusqlite::Result<()> {
        let query = "SELECT coalesce(sum(deleted_events), 0), coalesce(sum(forgotten_installs), 0),
            coalesce(sum(codes_in_rows), 0), coalesce(sum(contexts_in_rows), 0) FROM app";
        let figures = self
            .connection
            .prepare_cached(query)?
            .query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
        self.telemetry.store.set(figures);
        self.telemetry.store.set_bytes(self.used_bytes()?);
        Ok(())
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

    /// Checks that the store can be written: takes the write lock and releases it.
    pub(super) fn probe(&mut self) -> Result<(), SinkError> {
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(database_error)?;
        transaction.rollback().map_err(database_error)
    }

    /// Moves the position to `to`, because the events up to it will never come.
    pub(super) fn skip(&mut self, to: u64, now: i64) -> Result<(), SinkError> {
        if to <= self.position {
            return Ok(());
        }
        let result = self.skip_to(i64::try_from(to).unwrap_or(i64::MAX), now);
        if let Err(error) = &result {
            self.reconnect_after(error);
        } else {
            self.position = to;
        }
        result.map_err(database_error)
    }

    fn skip_to(&mut self, to: i64, now: i64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let first = i64::try_from(self.position).unwrap_or(i64::MAX) + 1;
        transaction.execute("INSERT OR REPLACE INTO missing VALUES (?1, ?2)", [first, to])?;
        transaction.execute("UPDATE cursor SET position = ?1", [to])?;
        // Their event times are unknown, but they arrived before now.
        transaction.execute(
            "UPDATE app SET complete_from = max(coalesce(complete_from, ?1), ?1),
                installs_complete_from = max(coalesce(installs_complete_from, ?1), ?1)",
            [now],
        )?;
        transaction.commit()
    }

    /// Stores the events of the batch that are new, in one transaction with the cursor.
    pub(super) fn deliver(&mut self, batch: &SinkBatch) -> Result<(), SinkError> {
        if batch.last <= self.position {
            return Ok(());
        }
        // The state of a transaction is dropped if it does not commit, also after a panic, so it is put back only after
        // the commit.
        let parts = self.take_parts().map_err(database_error)?;
        let empty = Dictionary::new(self.dictionary.limits());
        let dictionary = std::mem::replace(&mut self.dictionary, empty);
        let mut state = TransactionState { dictionary, parts, packed: Vec::new() };
        if let Err(error) = self.commit(&mut state, batch) {
            if let WriteError::Sql(error) = &error {
                self.reconnect_after(error);
            }
            return Err(error.into());
        }
        (self.dictionary, self.parts) = (state.dictionary, Some(state.parts));
        if self.settings.retention_bytes > 0 {
            // The store must not exceed its limit between two timed retention steps.
            if let Err(error) = self.retention_time().and_then(|now| self.drop_expired_part(now)) {
                tracing::warn!(%error, "retention after a delivery failed in the embedded store; it will be tried again");
            }
        }
        Ok(())
    }

    /// Opens a new connection after an error of the disk or the file, because the old one may keep a damaged view.
    pub(super) fn reconnect_after(&mut self, error: &rusqlite::Error) {
        if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
            return;
        }
        if let Ok((connection, position)) = connect(&self.path) {
            (self.connection, self.position, self.parts) = (connection, position, None);
        }
    }

    fn commit(&mut self, state: &mut TransactionState, batch: &SinkBatch) -> Result<(), WriteError> {
        let done = self.position;
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut size_checked = false;
        batch.for_each_record(|record, at, events| {
            let (at, events) = crate::sinks::events_in_range(at, events, done + 1, batch.last);
            if events.is_empty() {
                return Ok::<(), WriteError>(());
            }
            if !std::mem::replace(&mut size_checked, true) {
                state.parts.begin_next_if_large(
                    &transaction,
                    i64::try_from(at).unwrap_or(i64::MAX),
                    record.received_at,
                )?;
            }
            Ok(insert_record(&transaction, state, record, at, events)?)
        })?;
        state.parts.flush(&transaction)?;
        let in_rows = state.dictionary.flush(&transaction)?;
        let last = i64::try_from(batch.last).unwrap_or(i64::MAX);
        transaction.prepare_cached("UPDATE cursor SET position = ?1")?.execute([last])?;
        transaction.commit()?;
        self.telemetry.store.kept_in_rows(in_rows);
        self.position = batch.last;
        Ok(())
    }
}

/// Cache of the IDs of the last few texts of a record, because its events mostly share them.
struct RecentIds<'e, const N: usize> {
    known: [(&'e str, i64); N],
    next: usize,
}

impl<const N: usize> Default for RecentIds<'_, N> {
    fn default() -> Self {
        Self { known: [("", 0); N], next: 0 }
    }
}

impl<'e, const N: usize> RecentIds<'e, N> {
    /// Returns the ID of `text`, and loads it if it is not cached. 0 means that there is none and is loaded each time.
    fn id_of(&mut self, text: &'e str, load: impl FnOnce(&str) -> rusqlite::Result<i64>) -> rusqlite::Result<i64> {
        if let Some((_, number)) = self.known.iter().find(|(known, number)| *number != 0 && *known == text) {
            return Ok(*number);
        }
        let number = load(text)?;
        self.known[self.next % N] = (text, number);
        self.next += 1;
        Ok(number)
    }
}

/// Writes the events of one record. The first has the position `first`.
fn insert_record(
    sql: &Transaction<'_>,
    state: &mut TransactionState,
    record: &Record<'_>,
    first: u64,
    events: &[Event<'_>],
) -> rusqlite::Result<()> {
    let TransactionState { dictionary, parts, .. } = state;
    let batch = i64::try_from(first).unwrap_or(i64::MAX);
    parts.begin_next_if_full(sql, batch, record.received_at)?;
    dictionary.set_parts(parts.ids());
    let app = dictionary.app(sql, &record.app_key)?;
    let times = || events.iter().map(|event| event.event_time);
    let earliest = times().min().unwrap_or(record.received_at);
    parts.add_events(app, events.len(), earliest, times().max().unwrap_or(earliest));
    let install = dictionary.install(sql, app, &record.install_id, earliest)?;
    let (mut first, mut left) = (batch, events);
    while !left.is_empty() {
        let packed = insert_batch(sql, state, record, left, [first, app, install])?;
        left = left.get(packed..).unwrap_or_default();
        first += i64::try_from(packed).unwrap_or(i64::MAX);
    }
    let TransactionState { dictionary, parts, .. } = state;
    let mut row = sql.prepare_cached(parts.insert_event())?;
    let (mut users, mut sessions) = (RecentIds::<1>::default(), RecentIds::<1>::default());
    let (mut themes, mut codes) = (RecentIds::<4>::default(), RecentIds::<8>::default());
    for (position, event) in (batch..).zip(events) {
        let user = users.id_of(&event.user_id, |id| dictionary.user(sql, app, id))?;
        let session = sessions.id_of(&event.session_id, |id| dictionary.session(sql, app, id))?;
        let theme = themes.id_of(&event.theme, |text| dictionary.word(sql, text))?;
        let code = codes.id_of(&event.code, |text| dictionary.code(sql, app, text))?;
        let values = [app, event.event_time, theme, code, install, user, session, position];
        for (number, value) in (1..).zip(values) {
            row.raw_bind_parameter(number, value)?;
        }
        row.raw_bind_parameter(values.len() + 1, (code == 0).then_some(&*event.code))?;
        row.raw_execute()?;
    }
    Ok(())
}

/// Writes one row of a record: what its events share, and the first of `events` packed. Returns how many.
fn insert_batch(
    sql: &Transaction<'_>,
    state: &mut TransactionState,
    record: &Record<'_>,
    events: &[Event<'_>],
    [batch, app, install]: [i64; 3],
) -> rusqlite::Result<usize> {
    let context = state.dictionary.context(sql, app, &record.context)?;
    let in_row = (context == 0).then(|| serde_json::to_string(&record.context)).transpose();
    let in_row = in_row.map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let packed = pack(events, &mut state.packed);
    let mut row = sql.prepare_cached(state.parts.insert_batch())?;
    for (number, value) in (1..).zip([batch, app, install, context]) {
        row.raw_bind_parameter(number, value)?;
    }
    row.raw_bind_parameter(5, in_row)?;
    row.raw_bind_parameter(6, &state.packed[..])?;
    let values = record.values();
    for (number, (at, storage)) in (7..).zip(columns::batch_columns()) {
        bind(&mut row, number, values[at], storage)?;
    }
    row.raw_execute()?;
    Ok(packed)
}

/// Binds a value that is not in a dictionary.
fn bind(row: &mut Statement<'_>, number: usize, value: Value<'_>, storage: ColumnStorage) -> rusqlite::Result<()> {
    match value {
        Value::Text(text) if storage == ColumnStorage::Ident => row.raw_bind_parameter(number, Ident::new(text)),
        Value::Text(text) => row.raw_bind_parameter(number, text),
        Value::Time(time) => row.raw_bind_parameter(number, time),
        Value::Number(count) => row.raw_bind_parameter(number, count.map(u64::cast_signed)),
        Value::Flag(flag) => row.raw_bind_parameter(number, flag),
        Value::Object(object) => row.raw_bind_parameter(number, object.map(|object| object.get())),
    }
}
