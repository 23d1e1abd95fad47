//! `[embedded]`: the store in the data directory.

use serde::Deserialize;
use toml::Spanned;

use super::{ConfigError, Sink, Source};

/// The embedded store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Embedded {
    /// Whether events go to `store.db`.
    pub enabled: bool,
}

impl Default for Embedded {
    fn default() -> Self {
        Self { enabled: true }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    enabled: Option<Spanned<bool>>,
}

impl Table {
    /// `sinks`: the other stores.
    pub(super) fn checked(self, source: &Source<'_>, sinks: &[Sink]) -> Result<Embedded, ConfigError> {
        let mut embedded = Embedded::default();
        if let Some(enabled) = self.enabled {
            if !*enabled.get_ref() && sinks.is_empty() {
                let why = "without the embedded store events would be kept nowhere: configure a [[sink]] (clickhouse, elasticsearch or kafka), or leave it on";
                return Err(source.error(enabled.span(), "embedded.enabled", why));
            }
            embedded.enabled = enabled.into_inner();
        }
        Ok(embedded)
    }
}
