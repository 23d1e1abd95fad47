//! Maps the columns of a stored event to the store's tables.

use std::sync::LazyLock;

use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::ident::ident_text;
use crate::record::{Column, ColumnKind, ColumnScope, ColumnSource, Context, Event, OwnedValue, Record, all};

/// Storage of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnStorage {
    /// The value itself.
    Plain,
    /// 16 bytes where it is a UUID, else the text.
    Ident,
    /// ID of a word that all apps share.
    Word,
    /// ID of a word of the app, or the text in `code_text`.
    Code,
    /// ID of an app, an install, a user or a session: what metrics count.
    App,
    Install,
    User,
    Session,
}

impl ColumnStorage {
    fn of(column: &Column) -> Self {
        match (column.name, column.kind, column.of) {
            ("code", ..) => ColumnStorage::Code,
            ("app_key", ..) => ColumnStorage::App,
            ("install_id", ..) => ColumnStorage::Install,
            ("user_id", ..) => ColumnStorage::User,
            ("session_id", ..) => ColumnStorage::Session,
            ("batch_id", ..) | (_, ColumnKind::Uuid, _) => ColumnStorage::Ident,
            (_, ColumnKind::Keyword, ColumnScope::Event) => ColumnStorage::Word,
            _ => ColumnStorage::Plain,
        }
    }
}

/// Returns the columns of a batch that are in its own row, with their index in [`Record::COLUMNS`].
pub(super) fn batch_columns() -> impl Iterator<Item = (usize, ColumnStorage)> {
    let storages = Record::COLUMNS.iter().map(ColumnStorage::of).enumerate();
    storages.filter(|(_, storage)| !matches!(storage, ColumnStorage::App | ColumnStorage::Install))
}

/// Returns the column's name in the table `event`.
fn stored_name(column: &Column) -> &'static str {
    match ColumnStorage::of(column) {
        ColumnStorage::User => "user",
        ColumnStorage::Session => "session",
        _ => column.name,
    }
}

fn insert(table: &str, names: &[&str]) -> String {
    let marks: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), marks.join(", "))
}

/// Returns the statement that inserts an event into a part: what metrics need, its position, and the code if that has
/// no ID.
pub(super) fn insert_event(part: i64) -> String {
    let names = ["app", "event_time", "theme", "code", "install", "user", "session", "position", "code_text"];
    insert(&format!("event_{part}"), &names)
}

/// Returns the statement that inserts a batch into a part: its ID, app and install, its context, the context if that
/// has no ID, its events, then its columns.
pub(super) fn insert_batch(part: i64) -> String {
    let columns = batch_columns().filter_map(|(at, _)| Record::COLUMNS.get(at)).map(|column| column.name);
    let own = ["id", "app", "install", "context", "context_json", "events"].into_iter();
    insert(&format!("batch_{part}"), &own.chain(columns).collect::<Vec<_>>())
}

/// Returns the statements that create the tables of a part. The table of events is its own index: metrics read nothing
/// else.
pub(super) fn create_tables(part: i64) -> String {
    let columns: Vec<String> =
        batch_column_definitions().into_iter().map(|(name, definition)| format!("{name} {definition}")).collect();
    format!(
        "CREATE TABLE event_{part} (
            app INTEGER NOT NULL, event_time INTEGER NOT NULL, theme INTEGER NOT NULL, code INTEGER NOT NULL,
            install INTEGER NOT NULL, user INTEGER NOT NULL, session INTEGER NOT NULL, position INTEGER NOT NULL, code_text TEXT,
            PRIMARY KEY (app, event_time, theme, code, install, user, session, position)
        ) STRICT, WITHOUT ROWID;
        CREATE TABLE batch_{part} (
            id INTEGER PRIMARY KEY, app INTEGER NOT NULL, install INTEGER NOT NULL, context INTEGER NOT NULL, context_json TEXT,
            {}, events BLOB NOT NULL
        ) STRICT;",
        columns.join(", ")
    )
}

/// Statements that find a context (app, then its columns) and insert one (app, part, then its columns).
pub(super) static CONTEXT_SQL: LazyLock<(String, String)> = LazyLock::new(|| {
    let names: Vec<&str> = Context::COLUMNS.iter().map(|column| column.name).collect();
    let pairs: Vec<String> = names.iter().zip(2..).map(|(name, number)| format!("{name} = ?{number}")).collect();
    let own = ["app", "part"].into_iter();
    (
        format!("SELECT id, part FROM context WHERE app = ?1 AND {}", pairs.join(" AND ")),
        insert("context", &own.chain(names).collect::<Vec<_>>()),
    )
});

/// Returns the columns, with definitions, of the table of events in a part from before events were packed.
pub(super) fn event_column_definitions() -> Vec<(&'static str, &'static str)> {
    Event::COLUMNS.iter().map(|column| (stored_name(column), definition(column))).collect()
}

/// Returns the columns that a part's table of batches must have besides its own.
pub(super) fn batch_column_definitions() -> Vec<(&'static str, &'static str)> {
    let columns = batch_columns().filter_map(|(at, _)| Record::COLUMNS.get(at));
    columns.map(|column| (column.name, definition(column))).collect()
}

/// Returns the definition of a column, with the value of events from before it was declared.
fn definition(column: &Column) -> &'static str {
    match (ColumnStorage::of(column), column.kind) {
        (ColumnStorage::Word | ColumnStorage::Code | ColumnStorage::User | ColumnStorage::Session, _) => {
            "INTEGER NOT NULL DEFAULT 0"
        }
        (ColumnStorage::Ident, _) => "ANY NOT NULL DEFAULT ''",
        (_, ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid) => "TEXT NOT NULL DEFAULT ''",
        (_, ColumnKind::Time | ColumnKind::Number | ColumnKind::Flag) => "INTEGER NOT NULL DEFAULT 0",
        (_, ColumnKind::NullableTime | ColumnKind::NullableNumber) => "INTEGER",
        (_, ColumnKind::Object) => "TEXT",
    }
}

/// Returns the statement that selects whole events of one part from before events were packed, at the positions after
/// ?1 and up to ?2, at most ?3. `CROSS JOIN` makes SQLite take the positions first and look everything else up.
pub(super) fn select_events(part: i64) -> String {
    let expressions: Vec<String> = all()
        .map(|column| match (ColumnStorage::of(column), column.of) {
            (ColumnStorage::User, _) => "u.user_id".to_owned(),
            (ColumnStorage::Session, _) => "s.session_id".to_owned(),
            (ColumnStorage::Word, _) => format!("(SELECT text FROM word WHERE id = e.{})", column.name),
            (ColumnStorage::Code, _) => {
                format!("coalesce(e.code_text, (SELECT text FROM word WHERE id = e.{}))", column.name)
            }
            (_, ColumnScope::Event) => format!("e.{}", column.name),
            (_, ColumnScope::Batch | ColumnScope::Context) => batch_expression(column),
        })
        .collect();
    format!(
        "SELECT e.position, {}
        FROM event_{part} e CROSS JOIN batch_{part} b ON b.id = e.batch
            LEFT JOIN context c ON c.id = b.context CROSS JOIN app a ON a.id = e.app CROSS JOIN install i ON i.id = e.install
            LEFT JOIN user u ON u.id = e.user LEFT JOIN session s ON s.id = e.session
        WHERE e.position > ?1 AND e.position <= ?2 ORDER BY e.position LIMIT ?3",
        expressions.join(", ")
    )
}

/// Returns the statement that selects the batches of one part that may have packed events at the positions after ?1 and
/// up to ?2.
pub(super) fn select_batches(part: i64) -> String {
    let columns = all().filter(|column| column.of != ColumnScope::Event);
    format!(
        "SELECT b.id, b.events, {}
        FROM batch_{part} b LEFT JOIN context c ON c.id = b.context CROSS JOIN app a ON a.id = b.app
            CROSS JOIN install i ON i.id = b.install
        WHERE b.id >= (SELECT coalesce(max(id), 0) FROM batch_{part} WHERE id <= ?1 + 1) AND b.id <= ?2 ORDER BY b.id",
        columns.map(batch_expression).collect::<Vec<_>>().join(", ")
    )
}

/// Returns the expression of a column that the events of a batch share.
fn batch_expression(column: &Column) -> String {
    match (ColumnStorage::of(column), column.of) {
        (ColumnStorage::App, _) => "a.key".to_owned(),
        (ColumnStorage::Install, _) => "i.install_id".to_owned(),
        // A context without a row of its own is in that of the batch.
        (_, ColumnScope::Context) => format!("coalesce(c.{0}, b.context_json ->> '{0}')", column.name),
        (_, ColumnScope::Batch | ColumnScope::Event) => format!("b.{}", column.name),
    }
}

/// Values of one result row, column by column.
pub(super) struct RowColumns<'a> {
    row: &'a rusqlite::Row<'a>,
    at: usize,
}

impl<'a> RowColumns<'a> {
    /// Creates a source of the values after the first `own`.
    pub(super) fn after(row: &'a rusqlite::Row<'a>, own: usize) -> Self {
        Self { row, at: own }
    }
}

impl ColumnSource for RowColumns<'_> {
    type Error = rusqlite::Error;

    fn next(&mut self, column: &'static Column) -> rusqlite::Result<OwnedValue> {
        let value: Value = self.row.get(self.at)?;
        self.at += 1;
        Ok(match (column.kind, value) {
            (_, Value::Null) => OwnedValue::Absent,
            (ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid, value) => OwnedValue::Text(ident_text(value)),
            (ColumnKind::Time | ColumnKind::NullableTime, Value::Integer(number)) => OwnedValue::Time(number),
            (ColumnKind::Number | ColumnKind::NullableNumber, Value::Integer(number)) => {
                OwnedValue::Number(number.cast_unsigned())
            }
            (ColumnKind::Flag, Value::Integer(number)) => OwnedValue::Flag(number != 0),
            (ColumnKind::Object, Value::Text(json)) => {
                OwnedValue::Object(RawValue::from_string(json).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(self.at, rusqlite::types::Type::Text, Box::new(error))
                })?)
            }
            (_, value) => {
                return Err(rusqlite::Error::InvalidColumnType(self.at, column.name.into(), value.data_type()));
            }
        })
    }
}
