//! Brings a database to where this collector needs it.

use serde::Deserialize;

use super::client::{Client, Failure, Parameters};
use super::cut::Partitions;
use super::{columns, schema};
use crate::config::ClickHouse as Settings;
use crate::sinks::SinkError;

/// The first version that does what the statements need, and why this one.
const NEEDED: (u32, u32) = (24, 8);
const WHY: &str = "since then a repeated insert is recognised in dependent materialized views by its token";

const UNKNOWN_TABLE: u32 = 60;
const UNKNOWN_DATABASE: u32 = 81;

/// What is there.
struct Found {
    /// The number of the last migration, 0 if none or the table is not there.
    version: u32,
    /// The table is not there although it was made once.
    gone: bool,
    /// The columns of the table that is written and read; none if it does not exist.
    columns: Vec<String>,
    /// There is a column of type JSON, and it is computed of every text.
    reads_all: bool,
    /// The engine of the table that holds the events, with everything that follows in its definition.
    engine: String,
}

impl Found {
    /// How the table is divided. A key that is not ours may be as fine as one that an older collector made.
    fn partitions(&self) -> Partitions {
        if self.engine.contains(schema::PARTITION_MARK) { Partitions::Months } else { Partitions::Days }
    }
}

/// The answers of the statements, in the format JSONCompact.
#[derive(Deserialize)]
struct Rows<T> {
    data: Vec<T>,
}

async fn rows<T: for<'de> Deserialize<'de>>(
    client: &Client,
    statement: &str,
    parameters: Parameters,
) -> Result<Vec<T>, Failure> {
    let answer = client.run(&format!("{statement} FORMAT JSONCompact"), parameters).await?;
    let rows: Rows<T> = serde_json::from_slice(&answer).map_err(|error| {
        Failure::Silence(SinkError::retryable(format!("the server's answer cannot be read: {error}")))
    })?;
    Ok(rows.data)
}

/// Refuses a server that is too old.
///
/// # Errors
/// [`SinkError::Unfit`] with both versions; [`SinkError::Retryable`] if the server cannot be asked.
pub(super) async fn check_version(client: &Client) -> Result<(), SinkError> {
    let answer = client.run("SELECT version()", Parameters::default()).await.map_err(Failure::retryable)?;
    let text = String::from_utf8_lossy(&answer).trim().to_owned();
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= NEEDED => Ok(()),
        (Some(Ok(_)), Some(Ok(_))) => Err(SinkError::unfit(format!(
            "ClickHouse {text} is too old: {}.{} or later is needed, because {WHY}",
            NEEDED.0, NEEDED.1
        ))),
        _ => Err(SinkError::retryable(format!("this is no version of ClickHouse: {text:.100}"))),
    }
}

async fn find(client: &Client, settings: &Settings) -> Result<Found, SinkError> {
    let of_table =
        |table: &str| Parameters::default().with_value("database", settings.database()).with_value("table", table);
    let columns = "SELECT name, default_expression FROM system.columns WHERE database = {database:String} AND table = {table:String}";
    let columns: Vec<(String, String)> =
        rows(client, columns, of_table(settings.table())).await.map_err(Failure::retryable)?;
    let engine = "SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}";
    let engine: Vec<(String,)> =
        rows(client, engine, of_table(&schema::local(settings))).await.map_err(Failure::retryable)?;
    let version = format!(
        "SELECT toUInt32(max(version)) FROM {}.schema_version WHERE object = {{table:String}}",
        settings.database()
    );
    let version = match rows::<(u32,)>(client, &version, of_table(settings.table())).await {
        Ok(rows) => rows.first().map_or(0, |(version,)| *version),
        Err(Failure::Answer(UNKNOWN_TABLE | UNKNOWN_DATABASE, _)) => 0,
        Err(failure) => return Err(failure.retryable()),
    };
    let gone = engine.is_empty() || columns.is_empty();
    Ok(Found {
        version: if gone { 0 } else { version },
        gone: gone && version > 0,
        reads_all: columns.iter().any(|(name, made)| name == schema::PROPS_JSON && made.contains("isValidJSON")),
        columns: columns.into_iter().map(|(name, _)| name).collect(),
        engine: engine.into_iter().next().map(|(engine,)| engine).unwrap_or_default(),
    })
}

/// What is to be done about a table that was made once and is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// Make it anew: a person asked for it.
    Remake,
    /// Wait: whoever took it away, perhaps for a moment, would find an empty one in its place.
    Wait,
}

/// Makes and migrates what is missing; says what it did, one line for each step. Doing it twice is fine, also at once.
///
/// # Errors
/// [`SinkError::Retryable`] with what the server said.
pub(super) async fn apply(
    client: &Client,
    settings: &Settings,
    gone: Gone,
) -> Result<(Vec<String>, Partitions), SinkError> {
    let mut did = Vec::new();
    let found = find(client, settings).await?;
    if found.gone && gone == Gone::Wait {
        return Err(SinkError::retryable(format!(
            "the table {}.{} was made once and is gone; `subway-collector schema apply` makes it anew, empty",
            settings.database(),
            settings.table()
        )));
    }
    let missing: Vec<_> = schema::MIGRATIONS.iter().filter(|(version, ..)| *version > found.version).collect();
    if !missing.is_empty() {
        run(client, &schema::versions(settings)).await?;
    }
    for (version, name, template) in missing {
        run(client, &schema::statements(template, settings)).await?;
        run(client, &[schema::note(settings, *version)]).await?;
        did.push(format!("migration {version} ({name}) of {}.{}", settings.database(), settings.table()));
    }
    let found = find(client, settings).await?;
    if let Some(days) = settings.ttl_days {
        let wanted = format!(" TTL {}", schema::ttl(days));
        let there = if days == 0 { !found.engine.contains(" TTL ") } else { found.engine.contains(&wanted) };
        if !there {
            run(client, &[schema::alter_ttl(settings, days)]).await?;
            did.push(format!("time to live of {days} days"));
        }
    }
    if settings.props_json && !found.reads_all {
        run(client, &schema::add_props_json(settings)).await?;
        did.push(format!("column {}", schema::PROPS_JSON));
    }
    complete(settings, &found.columns)?;
    Ok((did, found.partitions()))
}

/// Makes sure that the table is there with every column that is written, without changing anything.
///
/// # Errors
/// [`SinkError::Retryable`] that says what is missing: somebody else may make it any time.
pub(super) async fn check(client: &Client, settings: &Settings) -> Result<Partitions, SinkError> {
    let found = find(client, settings).await?;
    complete(settings, &found.columns)?;
    Ok(found.partitions())
}

fn complete(settings: &Settings, columns: &[String]) -> Result<(), SinkError> {
    let missing: Vec<&str> =
        columns::all().map(|(name, _)| name).filter(|name| !columns.iter().any(|column| column == name)).collect();
    let table = format!("{}.{}", settings.database(), settings.table());
    match missing.len() {
        0 => Ok(()),
        _ if columns.is_empty() => {
            Err(SinkError::retryable(format!("there is no table {table}; `subway-collector schema apply` makes it")))
        }
        _ => Err(SinkError::retryable(format!("the table {table} lacks the columns {}", missing.join(", ")))),
    }
}

async fn run(client: &Client, statements: &[String]) -> Result<(), SinkError> {
    for statement in statements {
        client.run(statement, Parameters::default()).await.map_err(Failure::retryable)?;
    }
    Ok(())
}
