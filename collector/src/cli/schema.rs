//! Runs `schema show|apply`, for what a sink needs in its store.

use std::path::Path;

use super::output::{Failure, print, runtime};
use super::parse::SchemaAction;
use crate::config::{Config, Kafka, SinkConfig, SinkKind};
use crate::sinks::{self, clickhouse, elasticsearch};
use crate::telemetry::SinkMetrics;

pub(super) fn run(action: SchemaAction, config: &Path, name: &str) -> Result<(), Failure> {
    let config = Config::read(config)?;
    let sink = config.sinks.iter().find(|sink| sink.name == name).ok_or_else(|| {
        let known: Vec<&str> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
        Failure::Runtime(format!("no [[sink]] is named {name}; there are: {}", known.join(", ")))
    })?;
    match action {
        SchemaAction::Show => print(&show(sink)),
        SchemaAction::Apply => {
            let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(runtime)?;
            print(&tokio.block_on(apply(sink, &config.zones()))?)
        }
    }
}

fn show(sink: &SinkConfig) -> String {
    match &sink.kind {
        SinkKind::ClickHouse(settings) => clickhouse::schema(settings),
        SinkKind::Elasticsearch(settings) => elasticsearch::schema(settings),
        SinkKind::Kafka(settings) => topics(settings),
    }
}

/// Returns the topics, one on each line.
fn topics(settings: &Kafka) -> String {
    let (partitions, message_bytes) = (settings.partitions(), settings.message_bytes());
    let replicas = settings.replication_factor.map_or("the brokers' default".to_owned(), |factor| factor.to_string());
    let line = |name| {
        format!(
            "topic {name}: {partitions} partitions, replication factor {replicas}, max.message.bytes at least {message_bytes}\n"
        )
    };
    settings.topics().into_iter().map(line).collect()
}

async fn apply(sink: &SinkConfig, zones: &[(String, String)]) -> Result<String, Failure> {
    let did = match &sink.kind {
        SinkKind::ClickHouse(settings) => clickhouse::apply(settings, &sink.delivery).await.map_err(runtime)?,
        SinkKind::Elasticsearch(settings) => elasticsearch::apply(settings, &sink.delivery).await.map_err(runtime)?,
        // `prepare` reports only whether everything exists in the end.
        SinkKind::Kafka(_) => {
            sinks::open(sink, zones, SinkMetrics::default()).map_err(runtime)?.prepare().await.map_err(runtime)?;
            return Ok(format!("{}: everything is there\n", sink.name));
        }
    };
    if did.is_empty() {
        return Ok(format!("{}: nothing to do\n", sink.name));
    }
    Ok(did.iter().map(|step| format!("{}: {step}\n", sink.name)).collect())
}
