//! ClickHouse sink.
//!
//! Invariants:
//! - One batch is one insert and one block with the batch's dedup token, so that the server recognises a repetition, in
//!   the table and in the materialized views behind it.
//! - A repetition that the server no longer recognises, because the batch was split since or is long past, collapses by
//!   the table's key: the same event has the same app, time and ID.
//! - Every setting that this depends on is sent with the insert. Nothing relies on the server's defaults or its
//!   profiles.

mod client;
mod columns;
mod encode;
mod errors;
mod json_sanitizer;
mod migrate;
mod partitions;
mod schema;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::migrate::MissingTablePolicy;
use self::partitions::PartitionScheme;
use super::{CorruptRecord, Delivered, Sink, SinkBatch, SinkError};
use crate::config::{ClickHouse as Settings, Delivery};
use crate::telemetry::SinkMetrics;

pub(crate) use client::{Client, StatementError, UrlParameters};
#[cfg(test)]
pub(crate) use columns::type_name;
pub(crate) use columns::{POSITION, column_names, format_uuid};
pub(crate) use schema::{local_table, parse_ttl_days};

/// More rows and bytes than a batch can have, so that the server never splits or merges blocks.
const UNLIMITED_ROWS: &str = "1000000000";
const UNLIMITED_BYTES: &str = "1000000000000";
/// Maximum partitions in one block for the server; above [`partitions::MAX_PARTITIONS`], so that its own limit never
/// matters.
const SERVER_MAX_PARTITIONS: &str = "100";

/// Settings that only some versions know and that must be sent to those.
const OPTIONAL_SETTINGS: [(&str, &str); 4] = [
    // Overrides insert_deduplicate.
    ("deduplicate_insert", "enable"),
    // Would cut a batch into several blocks.
    ("max_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    // JSON of a client may name a property twice; the column of type JSON takes the first.
    ("type_json_skip_duplicated_paths", "1"),
];

/// Warning for a table with an older partition key.
const DAY_PARTITIONS_WARNING: &str = "the table is partitioned by days or by an unknown key, so an insert takes at most \
    50 of its partitions, and events of many days are many inserts; docs/operations/06-connect-a-store.md says how to \
    move it to months";

struct ClickHouse {
    name: String,
    settings: Settings,
    client: Client,
    /// Those of [`OPTIONAL_SETTINGS`] that the server knows; `None` before the first query for them.
    optional_settings: RwLock<Option<Vec<(&'static str, &'static str)>>>,
    /// Partition scheme of the table. Before the first check it is days, the scheme with the most partitions.
    partition_scheme: RwLock<PartitionScheme>,
    metrics: SinkMetrics,
}

/// Opens the sink without sending anything.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings cannot be used.
pub(crate) fn open(
    name: &str,
    settings: &Settings,
    delivery: &Delivery,
    metrics: SinkMetrics,
) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(ClickHouse {
        metrics,
        partition_scheme: RwLock::new(PartitionScheme::Days),
        name: name.to_owned(),
        client: Client::new(settings, timeout(delivery))?,
        settings: settings.clone(),
        optional_settings: RwLock::new(None),
    }))
}

fn timeout(delivery: &Delivery) -> Duration {
    Duration::from_millis(delivery.request_timeout_ms)
}

/// Returns the statements that create everything the sink needs, to read or to run by hand.
#[must_use]
pub(crate) fn schema(settings: &Settings) -> String {
    schema::script(settings)
}

/// Creates and migrates what is missing in the database, and returns a line for each step.
///
/// It ignores `manage_schema = false`, because an operator asked for it.
///
/// # Errors
/// As [`Sink::prepare`].
pub(crate) async fn apply(settings: &Settings, delivery: &Delivery) -> Result<Vec<String>, SinkError> {
    let client = Client::new(settings, timeout(delivery))?;
    migrate::check_version(&client).await?;
    migrate::apply(&client, settings, MissingTablePolicy::Recreate).await.map(|(steps, _)| steps)
}

impl ClickHouse {
    fn insert_statement(&self) -> String {
        let (database, table) = (self.settings.database(), self.settings.table());
        format!("INSERT INTO {database}.{table} ({}) FORMAT Native", column_names())
    }

    /// Queries which of the [`OPTIONAL_SETTINGS`] the server knows.
    async fn load_server_settings(&self) -> Result<Vec<(&'static str, &'static str)>, SinkError> {
        let answer = self.client.run("SELECT name FROM system.settings FORMAT TSV", UrlParameters::default()).await;
        let answer = answer.map_err(StatementError::retryable)?;
        let known = String::from_utf8_lossy(&answer);
        let optional_settings: Vec<_> =
            OPTIONAL_SETTINGS.into_iter().filter(|(name, _)| known.lines().any(|line| line == *name)).collect();
        if let Ok(mut slot) = self.optional_settings.write() {
            *slot = Some(optional_settings.clone());
        }
        Ok(optional_settings)
    }

    async fn insert_parameters(&self, token: &str) -> Result<UrlParameters, SinkError> {
        let known = self.optional_settings.read().ok().and_then(|optional_settings| optional_settings.clone());
        let optional_settings = match known {
            Some(optional_settings) => optional_settings,
            None => self.load_server_settings().await?,
        };
        let insert = self.insert_statement();
        let settings = [
            ("query", insert.as_str()),
            ("insert_deduplicate", "1"),
            ("insert_deduplication_token", token),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            ("materialized_views_ignore_errors", "0"),
            ("async_insert", "0"),
            ("wait_end_of_query", "1"),
            ("max_insert_block_size", UNLIMITED_ROWS),
            ("min_insert_block_size_rows", UNLIMITED_ROWS),
            ("min_insert_block_size_bytes", UNLIMITED_BYTES),
            ("min_insert_block_size_rows_for_materialized_views", UNLIMITED_ROWS),
            ("min_insert_block_size_bytes_for_materialized_views", UNLIMITED_BYTES),
            ("max_partitions_per_insert_block", SERVER_MAX_PARTITIONS),
            // A batch contains no duplicates; a search for them would cost half of the server's time.
            ("optimize_on_insert", "0"),
            ("input_format_native_allow_types_conversion", "1"),
            // Rows sent through a distributed table are on the shards when the response comes.
            ("distributed_foreground_insert", "1"),
        ]
        .into_iter();
        let parameters = settings
            .chain(optional_settings)
            .fold(UrlParameters::default(), |parameters, (name, value)| parameters.with(name, value));
        Ok(match self.settings.insert_quorum {
            0 => parameters,
            quorum => parameters.with("insert_quorum", &quorum.to_string()),
        })
    }
}

#[async_trait]
impl Sink for ClickHouse {
    fn name(&self) -> &str {
        &self.name
    }

    async fn prepare(&self) -> Result<(), SinkError> {
        migrate::check_version(&self.client).await?;
        self.load_server_settings().await?;
        let partition_scheme = if self.settings.manage_schema {
            let (steps, partition_scheme) =
                migrate::apply(&self.client, &self.settings, MissingTablePolicy::Wait).await?;
            for step in steps {
                tracing::info!(sink = self.name, step, "the schema was migrated");
            }
            partition_scheme
        } else {
            migrate::check(&self.client, &self.settings).await?
        };
        if partition_scheme == PartitionScheme::Days {
            tracing::warn!(sink = self.name, "{DAY_PARTITIONS_WARNING}");
        }
        if let Ok(mut slot) = self.partition_scheme.write() {
            *slot = partition_scheme;
        }
        Ok(())
    }

    fn batch_end(&self, batch: &SinkBatch) -> Result<u64, CorruptRecord> {
        partitions::batch_end(
            batch,
            self.partition_scheme.read().map_or(PartitionScheme::Days, |partition_scheme| *partition_scheme),
        )
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let (token, compression) = (batch.dedup_token.clone(), self.settings.compression);
        let encoded = tokio::task::spawn_blocking(move || encode::encode(&batch, compression)).await;
        let encoded = encoded.map_err(|error| SinkError::retryable(error.to_string()))??;
        if !encoded.body.is_empty() {
            let parameters = self.insert_parameters(&token).await?;
            errors::check_insert(&self.client.insert(parameters, encoded.body, compression).await?)?;
            self.metrics.far_events.inc_by(encoded.far_events);
            self.metrics.overflow_words.inc_by(encoded.dictionary_overflow);
        }
        Ok(Delivered::default())
    }

    /// Inserts no rows. The insert reaches the table, so it detects missing rights, a missing or read-only table and
    /// too many parts, and changes nothing.
    async fn health(&self) -> Result<(), SinkError> {
        let parameters = UrlParameters::default().with("query", &self.insert_statement()).with("async_insert", "0");
        errors::check_insert(&self.client.insert(parameters, Vec::new(), self.settings.compression).await?)
    }
}

#[cfg(test)]
mod partition_tests;
#[cfg(test)]
mod schema_tests;
#[cfg(test)]
mod speed_tests;
#[cfg(test)]
pub(crate) mod test_support;
#[cfg(test)]
mod tests;
