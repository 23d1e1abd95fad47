//! Topics: their names, their creation and their checks.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::Metadata;

use super::client::ClientLog;
use super::errors::error_text;
use crate::config::Kafka as Settings;
use crate::sinks::SinkError;

/// Limit for creating a topic, and for a new topic to get a leader for each partition.
const CREATE_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two checks of a new topic.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Maps events to topics, and creates the topics.
pub(super) struct Topics {
    sink: String,
    settings: Settings,
    partitions: i32,
    /// Replication factor; -1 is the brokers' default.
    replication: i32,
    manage_schema: bool,
    message_bytes: u32,
    client: ClientConfig,
    client_log: ClientLog,
    /// Limit for one request.
    request_timeout: Duration,
    /// Set once the log has a warning that the topics' limits cannot be read.
    warned: AtomicBool,
}

impl Topics {
    pub(super) fn new(
        sink: &str,
        settings: &Settings,
        (client, client_log): (ClientConfig, ClientLog),
        request_timeout: Duration,
    ) -> Self {
        Self {
            sink: sink.to_owned(),
            settings: settings.clone(),
            partitions: settings.partitions().into(),
            replication: settings.replication_factor.map_or(-1, i32::from),
            manage_schema: settings.manage_schema(),
            message_bytes: settings.message_bytes(),
            client,
            client_log,
            request_timeout,
            warned: AtomicBool::new(false),
        }
    }

    /// Returns the topic of events of a theme.
    pub(super) fn topic_for(&self, theme: &str) -> Cow<'_, str> {
        self.settings.topic_of(theme)
    }

    pub(super) fn admin(&self) -> Result<AdminClient<ClientLog>, SinkError> {
        AdminClient::from_config_and_context(&self.client, self.client_log.clone())
            .map_err(|error| SinkError::misconfigured(format!("Kafka's client: {}", error_text(&error))))
    }

    /// Checks that the topics exist and accept the largest message, and creates missing ones. Blocks.
    ///
    /// # Errors
    /// [`SinkError::Misconfigured`] if a topic accepts only smaller messages; [`SinkError::Retryable`] if the cluster
    /// cannot be reached, or a topic is missing and cannot or must not be created.
    pub(super) fn prepare(&self) -> Result<(), SinkError> {
        let admin = self.admin()?;
        let missing = self.missing(&self.metadata(&admin)?);
        if !missing.is_empty() && !self.manage_schema {
            let names = missing.join(", ");
            return Err(SinkError::retryable(format!(
                "missing topics: {names}; create them, or set manage_schema = true"
            )));
        }
        if !missing.is_empty() {
            self.create(&admin, &missing)?;
        }
        self.check_limits(&admin)?;
        let began = std::time::Instant::now();
        loop {
            match self.check_leaders(&self.metadata(&admin)?) {
                Ok(()) => return Ok(()),
                Err(why) if began.elapsed() > CREATE_TIMEOUT => return Err(SinkError::retryable(why)),
                Err(_) => std::thread::sleep(POLL_INTERVAL),
            }
        }
    }

    /// Checks that every topic exists and every partition has a leader. Blocks.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] that names what is missing.
    pub(super) fn check_health(&self) -> Result<(), SinkError> {
        let metadata = self.metadata(&self.admin()?)?;
        // `prepare`, which is called next, creates a deleted topic again.
        if self.manage_schema && !self.missing(&metadata).is_empty() {
            return Ok(());
        }
        self.check_leaders(&metadata).map_err(SinkError::retryable)
    }

    /// Fetches the metadata of all topics, because a request for a single topic would create it on brokers that do so.
    fn metadata(&self, admin: &AdminClient<ClientLog>) -> Result<Metadata, SinkError> {
        admin.inner().fetch_metadata(None, self.request_timeout).map_err(|error| {
            self.client_log.with_last_error(format!("the brokers do not answer: {}", error_text(&error)))
        })
    }

    fn missing(&self, metadata: &Metadata) -> Vec<String> {
        let there = |name: &String| metadata.topics().iter().any(|topic| topic.name() == name);
        self.settings.topics().into_iter().filter(|name| !there(name)).collect()
    }

    fn check_leaders(&self, metadata: &Metadata) -> Result<(), String> {
        for name in self.settings.topics() {
            let topic = metadata.topics().iter().find(|topic| topic.name() == name);
            let topic = topic.ok_or_else(|| format!("the topic {name} is missing"))?;
            if topic.partitions().is_empty() {
                return Err(format!("the topic {name} has no partitions yet"));
            }
            if let Some(partition) = topic.partitions().iter().find(|partition| partition.leader() < 0) {
                return Err(format!("no broker leads partition {} of the topic {name}", partition.id()));
            }
        }
        Ok(())
    }

    fn create(&self, admin: &AdminClient<ClientLog>, names: &[String]) -> Result<(), SinkError> {
        let bytes = self.message_bytes.to_string();
        let new = |name| {
            NewTopic::new(name, self.partitions, TopicReplication::Fixed(self.replication))
                .set("max.message.bytes", &bytes)
        };
        let topics: Vec<NewTopic<'_>> = names.iter().map(|name| new(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(CREATE_TIMEOUT)).operation_timeout(Some(CREATE_TIMEOUT));
        let results = block_on(admin.create_topics(&topics, &options))?
            .map_err(|error| SinkError::retryable(format!("topics cannot be created: {}", error_text(&error))))?;
        for topic in results {
            match topic {
                Ok(name) => tracing::info!(sink = self.sink, name, "topic created"),
                // Another collector was faster.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => {
                    return Err(SinkError::retryable(format!("the topic {name} cannot be created: {code}")));
                }
            }
        }
        Ok(())
    }

    /// Checks the topics' limits: one below the largest message would make the brokers refuse whole requests.
    fn check_limits(&self, admin: &AdminClient<ClientLog>) -> Result<(), SinkError> {
        let names = self.settings.topics();
        let topics: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let options = AdminOptions::new().request_timeout(Some(self.request_timeout));
        let described = block_on(admin.describe_configs(&topics, &options))?;
        let described = described.map_err(|error| SinkError::retryable(error_text(&error)))?;
        for (name, config) in names.iter().zip(described) {
            let entry = match &config {
                Ok(config) => {
                    config.get("max.message.bytes").and_then(|entry| entry.value.as_deref()?.parse::<u32>().ok())
                }
                Err(code) => {
                    if !self.warned.swap(true, Ordering::Relaxed) {
                        tracing::warn!(sink = self.sink, name, %code, "the topic's settings cannot be read");
                    }
                    None
                }
            };
            if entry.is_some_and(|bytes| bytes < self.message_bytes) {
                return Err(SinkError::misconfigured(format!(
                    "the topic {name} takes messages up to {} bytes (max.message.bytes), but message_bytes is {}: raise one or lower the other",
                    entry.unwrap_or_default(),
                    self.message_bytes
                )));
            }
        }
        Ok(())
    }
}

/// Waits for a result of the library, which comes within the timeout of the request.
fn block_on<T>(answer: impl Future<Output = T>) -> Result<T, SinkError> {
    let runtime = tokio::runtime::Handle::try_current().map_err(|error| SinkError::retryable(error.to_string()))?;
    Ok(runtime.block_on(answer))
}
