//! `[log]`: format and level of the log on stderr.

use serde::Deserialize;
use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::text::Text;
use super::{ConfigError, Source};

/// Format of a line of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON object on each line, for log collectors.
    Json,
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Format of a line.
    pub format: LogFormat,
    /// Levels in the syntax of `RUST_LOG`, which overrides them: `info`, `debug`, `info,subway_collector=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// Returns whether every part ends in a level. The filter's own parser takes a misspelt level for the name of a target,
/// and then nothing would be logged.
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
    pub(super) fn validate(self, source: &Source<'_>) -> Result<LogConfig, ConfigError> {
        let mut log = LogConfig::default();
        if let Some(format) = self.format {
            log.format = match &**format.get_ref() {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
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
