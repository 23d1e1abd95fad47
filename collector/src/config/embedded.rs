//! `[embedded]`: the store in the data directory and its retention.

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, SinkConfig, Source, WhenFull};

/// Smallest `retention_bytes`: below it the empty indices and one delivery are most of the store.
const MIN_RETENTION_BYTES: u64 = 64 * 1024 * 1024;

/// Longest retention, days: a century, longer than any disk lasts.
const MAX_RETENTION_DAYS: u64 = 36_500;

/// Settings of the embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Whether events are stored in `store.db`.
    pub enabled: bool,
    /// Days for which an event is kept after its arrival; 0 means for ever.
    pub retention_days: u64,
    /// Bytes of the database beyond which the oldest events are deleted; 0 means no limit.
    pub retention_bytes: u64,
    /// Installs of one app whose first time is kept after retention has deleted their events.
    pub remembered_installs: u64,
    /// Event codes of one app that are stored once and referenced by number; further ones are stored with each event.
    pub codes_per_app: u64,
    /// Contexts (app, device, host) of one app that are stored once; further ones are stored with each batch.
    pub contexts_per_app: u64,
    /// Policy for a spool that is full because the store accepts nothing.
    pub when_full: WhenFull,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            enabled: true,
            retention_days: 0,
            retention_bytes: 0,
            remembered_installs: 10_000_000,
            codes_per_app: 10_000,
            contexts_per_app: 100_000,
            when_full: WhenFull::Block,
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    enabled: Option<Spanned<bool>>,
    retention_days: Option<Spanned<u64>>,
    retention_bytes: Option<Spanned<u64>>,
    remembered_installs: Option<Spanned<u64>>,
    codes_per_app: Option<Spanned<u64>>,
    contexts_per_app: Option<Spanned<u64>>,
    when_full: Option<WhenFull>,
}

impl Table {
    /// Checks the ranges. `sinks` are the other stores.
    pub(super) fn validate(self, source: &Source<'_>, sinks: &[SinkConfig]) -> Result<Embedded, ConfigError> {
        let mut embedded = Embedded { when_full: self.when_full.unwrap_or_default(), ..Embedded::default() };
        if let Some(enabled) = self.enabled {
            if !*enabled.get_ref() && sinks.is_empty() {
                let why = "without the embedded store events would be kept nowhere: configure a [[sink]] (clickhouse, elasticsearch or kafka), or leave it on";
                return Err(source.error(enabled.span(), "embedded.enabled", why));
            }
            embedded.enabled = enabled.into_inner();
        }
        if let Some(bytes) =
            self.retention_bytes.as_ref().filter(|bytes| (1..MIN_RETENTION_BYTES).contains(bytes.get_ref()))
        {
            let why = format!("must be 0 (no limit) or at least {MIN_RETENTION_BYTES}");
            return Err(source.error(bytes.span(), "embedded.retention_bytes", why));
        }
        for (key, value, max, target) in [
            ("retention_days", self.retention_days, MAX_RETENTION_DAYS, &mut embedded.retention_days),
            ("retention_bytes", self.retention_bytes, i64::MAX.unsigned_abs(), &mut embedded.retention_bytes),
            ("remembered_installs", self.remembered_installs, 1_000_000_000, &mut embedded.remembered_installs),
            ("codes_per_app", self.codes_per_app, 1_000_000, &mut embedded.codes_per_app),
            ("contexts_per_app", self.contexts_per_app, 10_000_000, &mut embedded.contexts_per_app),
        ] {
            let Some(value) = value else { continue };
            if *value.get_ref() > max {
                return Err(source.error(value.span(), &format!("embedded.{key}"), format!("must be at most {max}")));
            }
            *target = value.into_inner();
        }
        Ok(embedded)
    }
}
