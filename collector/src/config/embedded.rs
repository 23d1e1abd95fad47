//! `[embedded]`: the store in the data directory, and how long it keeps what.

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Sink, Source, WhenFull};

/// The least that `retention_bytes` may be, bytes: below it the empty indices and one delivery are most of the store.
const LEAST_BYTES: u64 = 64 * 1024 * 1024;

/// The longest time in days: a century, which is longer than any clock here is right.
const MOST_DAYS: u64 = 36_500;

/// The embedded store: whether there is one, and what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Whether events go to `store.db`.
    pub enabled: bool,
    /// Days after its arrival during which an event is kept; 0: for ever.
    pub retention_days: u64,
    /// Bytes of the database beyond which the oldest events are deleted; 0: no limit.
    pub retention_bytes: u64,
    /// Installs of one app whose first time is remembered although retention has deleted their events.
    pub remembered_installs: u64,
    /// Event codes of one app that are kept once and referred to by number; further ones are kept with each event.
    pub codes_per_app: u64,
    /// Contexts (app, device, host) of one app that are kept once; further ones are kept with each batch.
    pub contexts_per_app: u64,
    /// What happens when the spool is full because the store takes nothing.
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
    /// `sinks`: the other stores.
    pub(super) fn checked(self, source: &Source<'_>, sinks: &[Sink]) -> Result<Embedded, ConfigError> {
        let mut embedded = Embedded { when_full: self.when_full.unwrap_or_default(), ..Embedded::default() };
        if let Some(enabled) = self.enabled {
            if !*enabled.get_ref() && sinks.is_empty() {
                let why = "without the embedded store events would be kept nowhere: configure a [[sink]] (clickhouse, elasticsearch or kafka), or leave it on";
                return Err(source.error(enabled.span(), "embedded.enabled", why));
            }
            embedded.enabled = enabled.into_inner();
        }
        if let Some(bytes) = self.retention_bytes.as_ref().filter(|bytes| (1..LEAST_BYTES).contains(bytes.get_ref())) {
            let why = format!("must be 0 (no limit) or at least {LEAST_BYTES}");
            return Err(source.error(bytes.span(), "embedded.retention_bytes", why));
        }
        for (key, value, most, place) in [
            ("retention_days", self.retention_days, MOST_DAYS, &mut embedded.retention_days),
            ("retention_bytes", self.retention_bytes, i64::MAX.unsigned_abs(), &mut embedded.retention_bytes),
            ("remembered_installs", self.remembered_installs, 1_000_000_000, &mut embedded.remembered_installs),
            ("codes_per_app", self.codes_per_app, 1_000_000, &mut embedded.codes_per_app),
            ("contexts_per_app", self.contexts_per_app, 10_000_000, &mut embedded.contexts_per_app),
        ] {
            let Some(value) = value else { continue };
            if *value.get_ref() > most {
                return Err(source.error(value.span(), &format!("embedded.{key}"), format!("must be at most {most}")));
            }
            *place = value.into_inner();
        }
        Ok(embedded)
    }
}
