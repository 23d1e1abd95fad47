//! The tables: numbered migrations, and what they become with the settings. PURE; `migrate` brings them into a database.

use super::{columns, json_sanitizer};
use crate::config::ClickHouse as Settings;

/// What must be there before any migration.
const VERSION_TABLE: &str = include_str!("migrations/000_versions.sql");

/// Every migration: its number, its name, its statements. Only ever appended to.
pub(super) const MIGRATIONS: [(u32, &str, &str); 4] = [
    (1, "ods", include_str!("migrations/001_ods.sql")),
    (2, "dwd", include_str!("migrations/002_dwd.sql")),
    (3, "columns", COLUMNS),
    (4, "readable", include_str!("migrations/004_readable.sql")),
];

/// Brings a table that is there up to the columns that are declared: a new column is a migration with this text and the next
/// number. A new table has them already.
const COLUMNS: &str = include_str!("migrations/columns.sql");

/// Marks a statement that is only for clusters.
const CLUSTER_ONLY_MARK: &str = "-- with a cluster";

/// Blocks whose tokens a table remembers: each partition of an insert is one, so at least the last 200 inserts.
const DEDUP_WINDOW_BLOCKS: u32 = 10_000;
/// How long a replicated table remembers them, seconds: a batch that was sent before a long outage is known after it.
const DEDUP_WINDOW_SECONDS: u32 = 30 * 24 * 60 * 60;

/// What a row's partition is: the month of its event, or the year if it is more than 400 days from its arrival
/// ([`crate::sinks::days::MAX_NEAR_DAYS`]). Both times of an event are the same however often it is delivered, so its repetitions
/// meet in one partition.
pub(super) const PARTITION: &str =
    "if(abs(dateDiff('day', received_at, event_time)) <= 400, toYYYYMM(event_time), toYear(event_time))";
/// What only that key has, as the server spells it.
pub(super) const PARTITION_MARK: &str = "toYear(event_time)";

/// The latest time that a time to live is counted from; see `TTL_DAYS` of the settings.
const MAX_TTL_START: &str = "2050-01-01 00:00:00";

/// Most different properties that become columns of their own inside of the JSON column; the others share one.
const MAX_JSON_PATHS: u32 = 256;

/// Keeps the properties as a column of type JSON.
pub(super) const PROPS_JSON: &str = "props_json";

/// The table that holds the events: behind the distributed one if there is a cluster.
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

/// Every column, each on a line of its own.
fn column_lines(indent: &str, before: &str) -> String {
    let lines: Vec<String> =
        columns::all().map(|column| format!("{indent}{before}{}", columns::column_definition(column))).collect();
    lines.join(",\n")
}

/// The statements of a template, in order, without the semicolons.
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

/// What must be there before any migration.
pub(super) fn version_table(settings: &Settings) -> Vec<String> {
    render(VERSION_TABLE, settings)
}

/// The expression of the time to live, spelt as the server does.
pub(super) fn ttl_expression(days: u64) -> String {
    format!("toDateTime(least(event_time, toDateTime64('{MAX_TTL_START}', 3, 'UTC'))) + toIntervalDay({days})")
}

/// The days of the time to live in a table's definition, as [`ttl_expression`] makes it. Another one is the operator's, and what it does with
/// which rows is not known.
pub(crate) fn parse_ttl_days(engine: &str) -> Option<i64> {
    let made = ttl_expression(0);
    let (_, rest) = engine.split_once(&format!(" TTL {}", made.strip_suffix("0)")?))?;
    let (days, rest) = rest.split_once(')')?;
    if rest.is_empty() || rest.starts_with(" SETTINGS ") { days.parse().ok() } else { None }
}

/// The statement that sets or removes the time to live.
pub(super) fn alter_ttl(settings: &Settings, days: u64) -> String {
    let table = format!("{}.{}{}", settings.database(), local_table(settings), on_cluster(settings));
    match days {
        0 => format!("ALTER TABLE {table} REMOVE TTL"),
        // Parts are not rewritten for it: what is too old goes with the next merge.
        days => {
            format!("ALTER TABLE {table} MODIFY TTL {} SETTINGS materialize_ttl_after_modify = 0", ttl_expression(days))
        }
    }
}

/// The statements that add the column of type JSON, or compute it as it is computed now, for each table. It is computed from
/// the text when a row comes, so rows that were there before have it computed when they are read.
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

/// Notes that a migration was done.
pub(super) fn record_version(settings: &Settings, version: u32) -> String {
    let (database, object) = (settings.database(), settings.table());
    format!("INSERT INTO {database}.schema_version (object, version) VALUES ('{object}', {version})")
}

/// Everything, for a person to read or to run.
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
