//! Output of a command: its result, or why it failed.

use std::io::Write;

use crate::config::ConfigError;

/// Reason why a command failed.
pub(super) enum Failure {
    /// The configuration is invalid.
    Config(ConfigError),
    /// Anything else.
    Runtime(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Config(error)
    }
}

pub(super) fn runtime(error: impl std::fmt::Display) -> Failure {
    Failure::Runtime(error.to_string())
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(runtime)
}
