//! Where the columns of a stored event are in the store's tables.

use std::sync::LazyLock;

use rusqlite::types::Value;
use serde_json::value::RawValue;

use super::ident::ident_text;
use crate::record::{Column, Context, Event, Kind, Of, Owned, Record, Source, all};

/// How a column is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// As it is.
    Plain,
    /// As 16 bytes where it is a UUID.
    Ident,
    /// As the number of a word that all apps share.
    Word,
    /// As the number of a word of the app, or beside it in `code_text`.
    Code,
    /// As the number of an app, an install, a user or a session: what metrics count.
    App,
    Install,
    User,
    Session,
}

impl Place {
    fn of(column: &Column) -> Self {
        match (column.name, column.kind, column.of) {
            ("code", ..) => Place::Code,
            ("app_key", ..) => Place::App,
            ("install_id", ..) => Place::Install,
            ("user_id", ..) => Place::User,
            ("session_id", ..) => Place::Session,
            ("batch_id", ..) | (_, Kind::Uuid, _) => Place::Ident,
            (_, Kind::Word, Of::Event) => Place::Word,
            _ => Place::Plain,
        }
    }
}

/// The places of an event's columns, in the order of [`Event::COLUMNS`].
pub(super) static OF_EVENT: LazyLock<Vec<Place>> = LazyLock::new(|| Event::COLUMNS.iter().map(Place::of).collect());

/// The columns of a batch that are in its own row, with their index in [`Record::COLUMNS`].
pub(super) fn of_batch() -> impl Iterator<Item = (usize, Place)> {
    let places = Record::COLUMNS.iter().map(Place::of).enumerate();
    places.filter(|(_, place)| !matches!(place, Place::App | Place::Install))
}

/// The column's name in the table `event`.
fn stored_name(column: &Column) -> &'static str {
    match Place::of(column) {
        Place::User => "user",
        Place::Session => "session",
        _ => column.name,
    }
}

fn insert(table: &str, names: &[&str]) -> String {
    let marks: Vec<String> = (1..=names.len()).map(|number| format!("?{number}")).collect();
    format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), marks.join(", "))
}

/// Inserts an event into a part: position, app, batch, install, the code if it has no number, then its columns.
pub(super) fn insert_event(part: i64) -> String {
    let own = ["position", "app", "batch", "install", "code_text"].into_iter();
    let names: Vec<&str> = own.chain(Event::COLUMNS.iter().map(stored_name)).collect();
    insert(&format!("event_{part}"), &names)
}

/// Inserts a batch into a part: its number, its context, the context if it has no number, then its columns.
pub(super) fn insert_batch(part: i64) -> String {
    let columns = of_batch().filter_map(|(at, _)| Record::COLUMNS.get(at)).map(|column| column.name);
    let names: Vec<&str> = ["id", "context", "context_json"].into_iter().chain(columns).collect();
    insert(&format!("batch_{part}"), &names)
}

/// Finds a context (app, then its columns) and makes one (app, part, then its columns).
pub(super) static CONTEXT: LazyLock<(String, String)> = LazyLock::new(|| {
    let names: Vec<&str> = Context::COLUMNS.iter().map(|column| column.name).collect();
    let pairs: Vec<String> = names.iter().zip(2..).map(|(name, number)| format!("{name} = ?{number}")).collect();
    let own = ["app", "part"].into_iter();
    (
        format!("SELECT id, part FROM context WHERE app = ?1 AND {}", pairs.join(" AND ")),
        insert("context", &own.chain(names).collect::<Vec<_>>()),
    )
});

/// The columns that a part's table of events must have besides its own, each with its definition.
pub(super) fn declared_of_event() -> Vec<(&'static str, &'static str)> {
    Event::COLUMNS.iter().map(|column| (stored_name(column), definition(column))).collect()
}

/// The same for a part's table of batches.
pub(super) fn declared_of_batch() -> Vec<(&'static str, &'static str)> {
    let columns = of_batch().filter_map(|(at, _)| Record::COLUMNS.get(at));
    columns.map(|column| (column.name, definition(column))).collect()
}

/// What a column of a part is, with the value of events that were stored before it was declared.
fn definition(column: &Column) -> &'static str {
    match (Place::of(column), column.kind) {
        (Place::Word | Place::Code | Place::User | Place::Session, _) => "INTEGER NOT NULL DEFAULT 0",
        (Place::Ident, _) => "ANY NOT NULL DEFAULT ''",
        (_, Kind::Text | Kind::Word | Kind::Uuid) => "TEXT NOT NULL DEFAULT ''",
        (_, Kind::Time | Kind::Number | Kind::Flag) => "INTEGER NOT NULL DEFAULT 0",
        (_, Kind::MaybeTime | Kind::MaybeNumber) => "INTEGER",
        (_, Kind::Object) => "TEXT",
    }
}

/// Selects whole events of one part: `source` is a query that gives their positions in a column `position`. `CROSS JOIN` makes
/// SQLite take the positions first and look everything else up.
pub(crate) fn select(part: i64, source: &str, order: &str) -> String {
    let expressions: Vec<String> = all()
        .map(|column| match (Place::of(column), column.of) {
            (Place::App, _) => "a.key".to_owned(),
            (Place::Install, _) => "i.install_id".to_owned(),
            (Place::User, _) => "u.user_id".to_owned(),
            (Place::Session, _) => "s.session_id".to_owned(),
            (Place::Word, _) => format!("(SELECT text FROM word WHERE id = e.{})", column.name),
            (Place::Code, _) => format!("coalesce(e.code_text, (SELECT text FROM word WHERE id = e.{}))", column.name),
            (_, Of::Event) => format!("e.{}", column.name),
            (_, Of::Batch) => format!("b.{}", column.name),
            // Without a row of its own the context is in that of the batch.
            (_, Of::Context) => format!("coalesce(c.{0}, b.context_json ->> '{0}')", column.name),
        })
        .collect();
    format!(
        "SELECT e.position, {}
        FROM ({source}) p CROSS JOIN event_{part} e ON e.position = p.position CROSS JOIN batch_{part} b ON b.id = e.batch
            LEFT JOIN context c ON c.id = b.context CROSS JOIN app a ON a.id = e.app CROSS JOIN install i ON i.id = e.install
            LEFT JOIN user u ON u.id = e.user LEFT JOIN session s ON s.id = e.session
        ORDER BY {order}",
        expressions.join(", ")
    )
}

/// The values of one result of [`select`], after the position.
pub(super) struct Result<'a> {
    row: &'a rusqlite::Row<'a>,
    at: usize,
}

impl<'a> Result<'a> {
    pub(super) fn new(row: &'a rusqlite::Row<'a>) -> Self {
        Self { row, at: 0 }
    }
}

impl Source for Result<'_> {
    type Error = rusqlite::Error;

    fn next(&mut self, column: &'static Column) -> rusqlite::Result<Owned> {
        self.at += 1;
        let value: Value = self.row.get(self.at)?;
        Ok(match (column.kind, value) {
            (_, Value::Null) => Owned::Absent,
            (Kind::Text | Kind::Word | Kind::Uuid, value) => Owned::Text(ident_text(value)),
            (Kind::Time | Kind::MaybeTime, Value::Integer(number)) => Owned::Time(number),
            (Kind::Number | Kind::MaybeNumber, Value::Integer(number)) => Owned::Number(number.cast_unsigned()),
            (Kind::Flag, Value::Integer(number)) => Owned::Flag(number != 0),
            (Kind::Object, Value::Text(json)) => Owned::Object(RawValue::from_string(json).map_err(|error| {
                rusqlite::Error::FromSqlConversionFailure(self.at, rusqlite::types::Type::Text, Box::new(error))
            })?),
            (_, value) => {
                return Err(rusqlite::Error::InvalidColumnType(self.at, column.name.into(), value.data_type()));
            }
        })
    }
}
