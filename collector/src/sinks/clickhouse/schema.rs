//! Tables: numbered migrations, rendered with the settings. PURE; `migrate` applies them to a database.

use super::{columns, json_sanitizer};
use crate::config::ClickHouse as Settings;

/// Template of what must exist before any migration.
const VERSION_TABLE: &str = include_str!("migrations/000_versions.sql");

/// Migrations: number, name, statements. Append only.
pub(super) const MIGRATIONS: [(u32, &str, &str); 4] = [
    (1, "ods", include_str!("migrations/001_ods.sql")),
    (2, "dwd", include_str!("migrations/002_dwd.sql")),
    (3, "columns", COLUMNS),
    (4, "readable", include_str!("migrations/004_readable.sql")),
];

/// Adds the declared columns that an existing table lacks. A new column is a migration with this text and the next
/// number; a new table has all columns.
const COLUMNS: &str = include_str!("migrations/columns.sql");

/// Prefix of a statement that is only for clusters.
const CLUSTER_ONLY_MARK: &str = "-- with a cluster";

/// Number of blocks whose dedup tokens a table remembers. Each partition of an insert is one, so at least the last 200
/// inserts.
const DEDUP_WINDOW_BLOCKS: u32 = 10_000;
/// Seconds for which a replicated table remembers them, so that a batch sent before a long outage is recognised after
/// it.
const DEDUP_WINDOW_SECONDS: u32 = 30 * 24 * 60 * 60;

/// Partition key: the month of the event, or its year if it is more than 400 days from its arrival
/// ([`crate::sinks::days::MAX_NEAR_DAYS`]). Both times of an event never change, so its repetitions are in one
/// partition.
pub(super) const PARTITION: &str =
    "if(abs(dateDiff('day', received_at, event_time)) <= 400, toYYYYMM(event_time), toYear(event_time))";
/// Part of [`PARTITION`] that no other key has, as the server spells it.
pub(super) const PARTITION_MARK: &str = "toYear(event_time)";

/// Latest time from which a time to live is counted; see `TTL_DAYS` of the settings.
const MAX_TTL_START: &str = "2050-01-01 00:00:00";

/// Maximum properties that become columns of their own inside of the JSON column; the others share one.
const MAX_JSON_PATHS: u32 = 256;

/// Name of the column that holds the properties as type JSON.
pub(super) const PROPS_JSON: &str = "props_json";

/// Returns the table that holds the events: with a cluster, the one behind the distributed table.
pub(crate) fn local_table(settings: &Settings) -> String {
    match settings.cluster() {
        Some(_) => format!("{}_local", settings.table()),
        None => settings.table().to_owned(),
    }
}

fn on_cluster(settings: &Settings) -> String {
    settings.cluster().map(|cluster| format!(" ON CLUSTER '{cluster}'")).unwrap_or_default()
}

fn engine(settings: &Settings, version: &str) -> String {
    if settings.replicated {
        let (path, replica) = (settings.zookeeper_path(), settings.replica_name());
        format!("ReplicatedReplacingMergeTree('{path}', '{replica}', {version})")
    } else {
        format!("ReplacingMergeTree({version})")
    }
}

fn dedup_settings(settings: &Settings) -> String {
    if settings.replicated {
        format!(
            "replicated_deduplication_window = {DEDUP_WINDOW_BLOCKS}, \
             replicated_deduplication_window_seconds = {DEDUP_WINDOW_SECONDS}"
        )
    } else {
        format!("non_replicated_deduplication_window = {DEDUP_WINDOW_BLOCKS}")
    }
}

/// Returns every column on a line of its own.
fn column_lines(indent: &str, before: &str) -> String {
    let lines: Vec<String> =
        columns::all().map(|column| format!("{indent}{before}{}", columns::column_definition(column))).collect();
    lines.join(",\n")
}

/// Renders the statements of a template, in order, without the semicolons.
pub(super) fn render(template: &str, settings: &Settings) -> Vec<String> {
    let values = [
        ("database", settings.database().to_owned()),
        ("table", settings.table().to_owned()),
        ("local", local_table(settings)),
        ("dwd", settings.dwd_prefix().to_owned()),
        ("cluster", settings.cluster().unwrap_or_default().to_owned()),
        ("on_cluster", on_cluster(settings)),
        ("columns", column_lines("    ", "")),
        ("add_columns", column_lines("    ", "ADD COLUMN IF NOT EXISTS ")),
        ("engine_of_events", engine(settings, "received_at")),
        ("engine_of_versions", engine(settings, "applied_at")),
        ("deduplication", dedup_settings(settings)),
        ("partition", PARTITION.to_owned()),
        ("readable", json_sanitizer::sanitized("props")),
    ];
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), &value);
    }
    let statements = text.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
    let wanted =
        statements.filter(|statement| settings.cluster().is_some() || !statement.starts_with(CLUSTER_ONLY_MARK));
    wanted.map(str::to_owned).collect()
}

/// Returns the statements that create what must exist before any migration.
pub(super) fn version_table(settings: &Settings) -> Vec<String> {
    render(VERSION_TABLE, settings)
}

/// Returns the expression of the time to live, spelt as the server spells it.
pub(super) fn ttl_expression(days: u64) -> String {
    format!("toDateTime(least(event_time, toDateTime64('{MAX_TTL_START}', 3, 'UTC'))) + toIntervalDay({days})")
}

/// Parses the days of the time to live from a table's definition, if [`ttl_expression`] created it. `None` for another
/// expression, whose effect is unknown.
pub(crate) fn parse_ttl_days(engine: &str) -> Option<i64> {
    let made = ttl_expression(0);
    let (_, rest) = engine.split_once(&format!(" TTL {}", made.strip_suffix("0)")?))?;
    let (days, rest) = rest.split_once(')')?;
    if rest.is_empty() || rest.starts_with(" SETTINGS ") { days.parse().ok() } else { None }
}

/// Returns the statement that sets or removes the time to live.
pub(super) fn alter_ttl(settings: &Settings, days: u64) -> String {
    let table = format!("{}.{}{}", settings.database(), local_table(settings), on_cluster(settings));
    match days {
        0 => format!("ALTER TABLE {table} REMOVE TTL"),
        // Existing parts are not rewritten: expired rows go with the next merge.
        days => {
            format!("ALTER TABLE {table} MODIFY TTL {} SETTINGS materialize_ttl_after_modify = 0", ttl_expression(days))
        }
    }
}

/// Returns the statements that add the column of type JSON to each table, or change its expression to the current one.
/// The server computes it when a row is inserted, and for older rows when they are read.
pub(super) fn add_props_json(settings: &Settings) -> Vec<String> {
    let mut tables = vec![local_table(settings)];
    if settings.cluster().is_some() {
        tables.push(settings.table().to_owned());
    }
    let kind = format!("JSON(max_dynamic_paths = {MAX_JSON_PATHS})");
    let column = format!("{PROPS_JSON} {kind} MATERIALIZED {}", json_sanitizer::sanitized("props"));
    let verbs = ["ADD COLUMN IF NOT EXISTS", "MODIFY COLUMN"];
    let alter = |table: String| {
        let (database, on_cluster, column) = (settings.database(), on_cluster(settings), &column);
        verbs.map(|verb| format!("ALTER TABLE {database}.{table}{on_cluster} {verb} {column}"))
    };
    tables.into_iter().flat_map(alter).collect()
}

/// Returns the statement that records a migration as done.
pub(super) fn record_version(settings: &Settings, version: u32) -> String {
    let (database, object) = (settings.database(), settings.table());
    format!("INSERT INTO {database}.schema_version (object, version) VALUES ('{object}', {version})")
}

/// Returns all statements, to read or to run by hand.
pub(super) fn script(settings: &Settings) -> String {
    let mut all = version_table(settings);
    for (version, _, template) in MIGRATIONS {
        all.extend(render(template, settings));
        all.push(record_version(settings, version));
    }
    if let Some(days) = settings.ttl_days.filter(|days| *days > 0) {
        all.push(alter_ttl(settings, days));
    }
    if settings.props_json {
        all.extend(add_props_json(settings));
    }
    let mut script = String::new();
    for statement in all {
        script.push_str(&statement);
        script.push_str(";\n\n");
    }
    script
}
