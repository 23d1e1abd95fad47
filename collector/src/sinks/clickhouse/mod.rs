//! ClickHouse as a sink.
//!
//! Invariants:
//! - One batch is one insert is one block with the batch's token, so that the server recognises a repetition, in the table
//!   and in the materialized views behind it.
//! - What the server no longer recognises, because the batch was cut in two meanwhile or long ago, collapses by the table's
//!   key: the same event has the same app, time and ID.
//! - Every setting that this rests on is sent with the insert; nothing is left to the server's defaults or its profiles.

mod client;
mod columns;
mod cut;
mod errors;
mod migrate;
mod native;
mod readable;
mod schema;

use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;

use self::cut::Partitions;
use self::migrate::Gone;
use super::{Delivered, Sink, SinkBatch, SinkError, Unreadable};
use crate::config::{ClickHouse as Settings, Delivery};
use crate::telemetry::SinkMetrics;

pub(crate) use client::{Client, Failure, Parameters};
#[cfg(test)]
pub(crate) use columns::type_name;
pub(crate) use columns::{POSITION, names as column_names, uuid_text};
pub(crate) use schema::{days_to_live, local};

/// More rows and bytes than a batch can have: below them the server puts nothing apart.
const ONE_BLOCK_ROWS: &str = "1000000000";
const ONE_BLOCK_BYTES: &str = "1000000000000";
/// Partitions in one block; more than [`cut::PARTITIONS`], so that the server's own limit never matters.
const PARTITIONS: &str = "100";

/// Settings that only some versions know, and that matter where they are known.
const LATER_SETTINGS: [(&str, &str); 4] = [
    // Overrides insert_deduplicate.
    ("deduplicate_insert", "enable"),
    // Would cut a batch into several blocks.
    ("max_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    // JSON as it comes may name a property twice; the column of type JSON takes the first.
    ("type_json_skip_duplicated_paths", "1"),
];

/// What is said of a table that is divided otherwise than one that is made now.
const BY_DAYS: &str = "the table is not partitioned by months and far years, as one made now would be: an insert takes at most 50 \
    of its partitions, and events of many days are many inserts; docs/operations/06-connect-a-store.md says how it is \
    moved";

struct ClickHouse {
    name: String,
    settings: Settings,
    client: Client,
    /// Those of [`LATER_SETTINGS`] that the server knows; `None` until it has been asked.
    later: RwLock<Option<Vec<(&'static str, &'static str)>>>,
    /// How the table is divided; days, of which there are most, until it has been asked.
    partitions: RwLock<Partitions>,
    metrics: SinkMetrics,
}

/// Opens the sink. Nothing is sent yet.
///
/// # Errors
/// [`SinkError::Unfit`] if the settings cannot be used.
pub(crate) fn open(
    name: &str,
    settings: &Settings,
    delivery: &Delivery,
    metrics: SinkMetrics,
) -> Result<Arc<dyn Sink>, SinkError> {
    Ok(Arc::new(ClickHouse {
        metrics,
        partitions: RwLock::new(Partitions::Days),
        name: name.to_owned(),
        client: Client::new(settings, timeout(delivery))?,
        settings: settings.clone(),
        later: RwLock::new(None),
    }))
}

fn timeout(delivery: &Delivery) -> Duration {
    Duration::from_millis(delivery.request_timeout_ms)
}

/// The statements that make everything the sink needs, for a person to read or to run.
#[must_use]
pub(crate) fn schema(settings: &Settings) -> String {
    schema::script(settings)
}

/// Makes and migrates what is missing in the database; says what it did, a line for each step. Does so even if the
/// settings say `manage_schema = false`: a person asked for it.
///
/// # Errors
/// As [`Sink::prepare`].
pub(crate) async fn apply(settings: &Settings, delivery: &Delivery) -> Result<Vec<String>, SinkError> {
    let client = Client::new(settings, timeout(delivery))?;
    migrate::check_version(&client).await?;
    migrate::apply(&client, settings, Gone::Remake).await.map(|(did, _)| did)
}

impl ClickHouse {
    fn insert(&self) -> String {
        let (database, table) = (self.settings.database(), self.settings.table());
        format!("INSERT INTO {database}.{table} ({}) FORMAT Native", column_names())
    }

    /// Asks which of the [`LATER_SETTINGS`] the server knows.
    async fn learn(&self) -> Result<Vec<(&'static str, &'static str)>, SinkError> {
        let answer = self.client.run("SELECT name FROM system.settings FORMAT TSV", Parameters::default()).await;
        let answer = answer.map_err(Failure::retryable)?;
        let known = String::from_utf8_lossy(&answer);
        let later: Vec<_> =
            LATER_SETTINGS.into_iter().filter(|(name, _)| known.lines().any(|line| line == *name)).collect();
        if let Ok(mut place) = self.later.write() {
            *place = Some(later.clone());
        }
        Ok(later)
    }

    async fn parameters(&self, token: &str) -> Result<Parameters, SinkError> {
        let known = self.later.read().ok().and_then(|later| later.clone());
        let later = match known {
            Some(later) => later,
            None => self.learn().await?,
        };
        let insert = self.insert();
        let settings = [
            ("query", insert.as_str()),
            ("insert_deduplicate", "1"),
            ("insert_deduplication_token", token),
            ("deduplicate_blocks_in_dependent_materialized_views", "1"),
            ("materialized_views_ignore_errors", "0"),
            ("async_insert", "0"),
            ("wait_end_of_query", "1"),
            ("max_insert_block_size", ONE_BLOCK_ROWS),
            ("min_insert_block_size_rows", ONE_BLOCK_ROWS),
            ("min_insert_block_size_bytes", ONE_BLOCK_BYTES),
            ("min_insert_block_size_rows_for_materialized_views", ONE_BLOCK_ROWS),
            ("min_insert_block_size_bytes_for_materialized_views", ONE_BLOCK_BYTES),
            ("max_partitions_per_insert_block", PARTITIONS),
            // A batch has no repetitions in itself; looking for them would cost half of the server's time.
            ("optimize_on_insert", "0"),
            ("input_format_native_allow_types_conversion", "1"),
            // What goes through a distributed table is on the shards when the answer comes.
            ("distributed_foreground_insert", "1"),
        ]
        .into_iter();
        let parameters =
            settings.chain(later).fold(Parameters::default(), |parameters, (name, value)| parameters.with(name, value));
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
        self.learn().await?;
        let partitions = if self.settings.manage_schema {
            let (did, partitions) = migrate::apply(&self.client, &self.settings, Gone::Wait).await?;
            for step in did {
                tracing::info!(sink = self.name, step, "the schema was changed");
            }
            partitions
        } else {
            migrate::check(&self.client, &self.settings).await?
        };
        if partitions == Partitions::Days {
            tracing::warn!(sink = self.name, "{BY_DAYS}");
        }
        if let Ok(mut place) = self.partitions.write() {
            *place = partitions;
        }
        Ok(())
    }

    fn cut(&self, batch: &SinkBatch) -> Result<u64, Unreadable> {
        cut::cut(batch, self.partitions.read().map_or(Partitions::Days, |partitions| *partitions))
    }

    async fn deliver(&self, batch: Arc<SinkBatch>) -> Result<Delivered, SinkError> {
        let (token, compression) = (batch.token.clone(), self.settings.compression);
        let encoded = tokio::task::spawn_blocking(move || native::encode(&batch, compression)).await;
        let encoded = encoded.map_err(|error| SinkError::retryable(error.to_string()))??;
        if !encoded.body.is_empty() {
            let parameters = self.parameters(&token).await?;
            errors::judge(&self.client.insert(parameters, encoded.body, compression).await?)?;
            self.metrics.far_events.inc_by(encoded.far);
            self.metrics.overflow_words.inc_by(encoded.overflow);
        }
        Ok(Delivered::default())
    }

    /// An insert without rows: it goes as far as to the table, so it finds out about rights, a missing table, one that is
    /// read-only and too many parts, and changes nothing.
    async fn health(&self) -> Result<(), SinkError> {
        let parameters = Parameters::default().with("query", &self.insert()).with("async_insert", "0");
        errors::judge(&self.client.insert(parameters, Vec::new(), self.settings.compression).await?)
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
