//! Migrates a database to the schema that this collector needs.

use serde::Deserialize;

use super::client::{Client, StatementError, UrlParameters};
use super::partitions::PartitionScheme;
use super::{columns, schema};
use crate::config::ClickHouse as Settings;
use crate::sinks::SinkError;

/// First version with the behaviour that the sink depends on, and the reason.
const MIN_VERSION: (u32, u32) = (24, 8);
const MIN_VERSION_REASON: &str =
    "since then a repeated insert is recognised in dependent materialized views by its token";

const UNKNOWN_TABLE: u32 = 60;
const UNKNOWN_DATABASE: u32 = 81;

/// State of the schema in the database.
struct SchemaState {
    /// Number of the last migration; 0 if there is none or the table is missing.
    version: u32,
    /// The table is missing although it was created before.
    is_missing: bool,
    /// Columns of the table that is written and read; none if the table is missing.
    columns: Vec<String>,
    /// The column of type JSON exists and accepts every text.
    is_json_sanitized: bool,
    /// Engine of the table that holds the events, with the rest of its definition.
    engine: String,
}

impl SchemaState {
    /// Returns the partition scheme. An unknown partition key may be as fine as that of an older collector.
    fn partitions(&self) -> PartitionScheme {
        if self.engine.contains(schema::PARTITION_MARK) { PartitionScheme::Months } else { PartitionScheme::Days }
    }
}

/// Rows of a response in the format JSONCompact.
#[derive(Deserialize)]
struct Rows<T> {
    data: Vec<T>,
}

async fn rows<T: for<'de> Deserialize<'de>>(
    client: &Client,
    statement: &str,
    parameters: UrlParameters,
) -> Result<Vec<T>, StatementError> {
    let answer = client.run(&format!("{statement} FORMAT JSONCompact"), parameters).await?;
    let rows: Rows<T> = serde_json::from_slice(&answer).map_err(|error| {
        StatementError::NoResponse(SinkError::retryable(format!("the server's response cannot be decoded: {error}")))
    })?;
    Ok(rows.data)
}

/// Checks that the server is new enough.
///
/// # Errors
/// [`SinkError::Misconfigured`] with both versions; [`SinkError::Retryable`] if the server does not answer.
pub(super) async fn check_version(client: &Client) -> Result<(), SinkError> {
    let answer = client.run("SELECT version()", UrlParameters::default()).await.map_err(StatementError::retryable)?;
    let text = String::from_utf8_lossy(&answer).trim().to_owned();
    let mut numbers = text.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= MIN_VERSION => Ok(()),
        (Some(Ok(_)), Some(Ok(_))) => Err(SinkError::misconfigured(format!(
            "ClickHouse {text} is too old: {}.{} or later is needed, because {MIN_VERSION_REASON}",
            MIN_VERSION.0, MIN_VERSION.1
        ))),
        _ => Err(SinkError::retryable(format!("the version of ClickHouse cannot be parsed: {text:.100}"))),
    }
}

async fn inspect(client: &Client, settings: &Settings) -> Result<SchemaState, SinkError> {
    let table_parameters =
        |table: &str| UrlParameters::default().with_value("database", settings.database()).with_value("table", table);
    let columns = "SELECT name, default_expression FROM system.columns WHERE database = {database:String} AND table = {table:String}";
    let columns: Vec<(String, String)> =
        rows(client, columns, table_parameters(settings.table())).await.map_err(StatementError::retryable)?;
    let engine = "SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}";
    let engine: Vec<(String,)> = rows(client, engine, table_parameters(&schema::local_table(settings)))
        .await
        .map_err(StatementError::retryable)?;
    let version = format!(
        "SELECT toUInt32(max(version)) FROM {}.schema_version WHERE object = {{table:String}}",
        settings.database()
    );
    let version = match rows::<(u32,)>(client, &version, table_parameters(settings.table())).await {
        Ok(rows) => rows.first().map_or(0, |(version,)| *version),
        Err(StatementError::Server(UNKNOWN_TABLE | UNKNOWN_DATABASE, _)) => 0,
        Err(failure) => return Err(failure.retryable()),
    };
    let is_missing = engine.is_empty() || columns.is_empty();
    Ok(SchemaState {
        version: if is_missing { 0 } else { version },
        is_missing: is_missing && version > 0,
        is_json_sanitized: columns
            .iter()
            .any(|(name, made)| name == schema::PROPS_JSON && made.contains("isValidJSON")),
        columns: columns.into_iter().map(|(name, _)| name).collect(),
        engine: engine.into_iter().next().map(|(engine,)| engine).unwrap_or_default(),
    })
}

/// Policy for a table that was created before and is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MissingTablePolicy {
    /// Create it again, because an operator asked for it.
    Recreate,
    /// Wait, because an operator who moved it away for a moment would find an empty one in its place.
    Wait,
}

/// Creates and migrates what is missing, and returns one line for each step. It is idempotent, also when it runs twice
/// at once.
///
/// # Errors
/// [`SinkError::Retryable`] with the server's reason.
pub(super) async fn apply(
    client: &Client,
    settings: &Settings,
    missing_table: MissingTablePolicy,
) -> Result<(Vec<String>, PartitionScheme), SinkError> {
    let mut steps = Vec::new();
    let state = inspect(client, settings).await?;
    if state.is_missing && missing_table == MissingTablePolicy::Wait {
        return Err(SinkError::retryable(format!(
            "the table {}.{} was created before and is missing; run `subway-collector schema apply` to create it again, empty",
            settings.database(),
            settings.table()
        )));
    }
    let missing: Vec<_> = schema::MIGRATIONS.iter().filter(|(version, ..)| *version > state.version).collect();
    if !missing.is_empty() {
        execute(client, &schema::version_table(settings)).await?;
    }
    for (version, name, template) in missing {
        execute(client, &schema::render(template, settings)).await?;
        execute(client, &[schema::record_version(settings, *version)]).await?;
        steps.push(format!("migration {version} ({name}) of {}.{}", settings.database(), settings.table()));
    }
    let state = inspect(client, settings).await?;
    if let Some(days) = settings.ttl_days {
        let wanted = format!(" TTL {}", schema::ttl_expression(days));
        let there = if days == 0 { !state.engine.contains(" TTL ") } else { state.engine.contains(&wanted) };
        if !there {
            execute(client, &[schema::alter_ttl(settings, days)]).await?;
            steps.push(format!("time to live of {days} days"));
        }
    }
    if settings.props_json && !state.is_json_sanitized {
        execute(client, &schema::add_props_json(settings)).await?;
        steps.push(format!("column {}", schema::PROPS_JSON));
    }
    check_columns(settings, &state.columns)?;
    Ok((steps, state.partitions()))
}

/// Checks that the table exists with every column that is written, without changing anything.
///
/// # Errors
/// [`SinkError::Retryable`] that names what is missing, because it may be created at any time.
pub(super) async fn check(client: &Client, settings: &Settings) -> Result<PartitionScheme, SinkError> {
    let state = inspect(client, settings).await?;
    check_columns(settings, &state.columns)?;
    Ok(state.partitions())
}

fn check_columns(settings: &Settings, columns: &[String]) -> Result<(), SinkError> {
    let missing: Vec<&str> =
        columns::all().map(|column| column.name).filter(|name| !columns.iter().any(|column| column == name)).collect();
    let table = format!("{}.{}", settings.database(), settings.table());
    match missing.len() {
        0 => Ok(()),
        _ if columns.is_empty() => Err(SinkError::retryable(format!(
            "the table {table} is missing; run `subway-collector schema apply` to create it"
        ))),
        _ => Err(SinkError::retryable(format!("the table {table} lacks the columns {}", missing.join(", ")))),
    }
}

async fn execute(client: &Client, statements: &[String]) -> Result<(), SinkError> {
    for statement in statements {
        client.run(statement, UrlParameters::default()).await.map_err(StatementError::retryable)?;
    }
    Ok(())
}
