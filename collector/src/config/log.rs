//! `[log]`: how the collector says what it does, on stderr, one line per event.

use serde::Deserialize;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::text::Text;
use super::{ConfigError, Source};

/// The form of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for what collects logs.
    Json,
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The form of a line.
    pub format: Format,
    /// What is logged, in the syntax of `RUST_LOG`, which overrides it: `info`, `debug`, `info,subway_collector=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: Format::Text, level: "info".into() }
    }
}

/// Whether every part ends in a level. The filter's own parser takes a misspelt level for the name of a target, and then
/// nothing would be logged.
fn is_filter(text: &str) -> bool {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    let has_level = |part: &str| {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        levels.iter().any(|known| known.eq_ignore_ascii_case(level.trim()))
    };
    text.split(',').all(has_level) && EnvFilter::try_new(text).is_ok()
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    format: Option<Spanned<Text>>,
    level: Option<Spanned<Text>>,
}

impl Table {
    pub(super) fn checked(self, source: &Source<'_>) -> Result<Log, ConfigError> {
        let mut log = Log::default();
        if let Some(format) = self.format {
            log.format = match &**format.get_ref() {
                "text" => Format::Text,
                "json" => Format::Json,
                _ => return Err(source.error(format.span(), "log.format", "must be \"text\" or \"json\"")),
            };
        }
        if let Some(level) = self.level {
            if !is_filter(level.get_ref()) {
                let why = "must be error, warn, info, debug or trace, or such levels by target as in RUST_LOG";
                return Err(source.error(level.span(), "log.level", why));
            }
            log.level = level.get_ref().to_string();
        }
        Ok(log)
    }
}
