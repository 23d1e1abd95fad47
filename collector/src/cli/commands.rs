//! What each command does.

use std::io::Write;
use std::path::Path;

use super::serve::{self, Source};
use super::{Command, USAGE, dead_letters, schema, sinks};
use crate::config::{Config, ConfigError, EMBEDDED};
use crate::db::DbError;
use crate::serve::refuse_newer_at_rest;
use crate::sinks::sqlite::StoredRows;
use crate::spool::{Ledger, Reader};

/// Why a command failed.
pub(super) enum Failure {
    /// The configuration is wrong.
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

pub(super) fn run(command: Command) -> Result<(), Failure> {
    if let Command::Export { data_dir, .. }
    | Command::Ledger { data_dir }
    | Command::DeadLetters { data_dir, .. }
    | Command::Sinks { data_dir, .. } = &command
    {
        refuse_newer_at_rest(data_dir).map_err(runtime)?;
    }
    match command {
        Command::Serve { config, listen, data_dir } => serve::run(Source { config, listen, data_dir }),
        Command::Check { config } => {
            Config::read(&config)?;
            print(&format!("{} is valid\n", config.display()))
        }
        Command::Export { data_dir, app, from, to } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            // It flushes by itself, and a reader that has gone away is no error to it.
            let gone = crate::export::run(&data_dir, app.as_deref(), from.as_deref(), to.as_deref(), &mut out);
            let gone = gone.map_err(runtime)?;
            if gone > 0 {
                let said = "retention deleted them, or the embedded store was off, or gave them up";
                eprintln!("subway-collector: {gone} stored events are no longer here: {said}");
            }
            Ok(())
        }
        Command::Ledger { data_dir } => {
            let ledger = ledger(&data_dir)?;
            print(&format!("{}\n", serde_json::to_string(&ledger).map_err(runtime)?))
        }
        Command::DeadLetters { action, data_dir, sink, config } => {
            dead_letters::run(action, &data_dir, sink.as_deref(), config.as_deref())
        }
        Command::Sinks { ending, data_dir, sink } => sinks::run(ending, &data_dir, sink.as_deref()),
        Command::Schema { action, config, sink } => schema::run(action, &config, &sink),
        Command::Help => print(USAGE),
        Command::Version => print(concat!("subway-collector ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(runtime)
}

/// The ledger. The embedded store tells itself how far it is: the spool's cursor follows, and not at all after a crash.
pub(super) fn ledger(data_dir: &Path) -> Result<Ledger, Failure> {
    let spool = Reader::open(data_dir).map_err(runtime)?;
    let before = spool.ledger().map_err(runtime)?;
    if before.sinks.get(EMBEDDED).is_none_or(|sink| !sink.state.is_active()) {
        // A store that is switched off stays as it is, and may be of an older version for ever.
        return Ok(before);
    }
    // Asked before the ledger, which then has every event that the store has.
    let position = match StoredRows::open(data_dir).and_then(|store| store.position()) {
        Err(DbError::Absent(_)) => 0,
        position => position.map_err(|error| Failure::Runtime(format!("the embedded store: {error}")))?,
    };
    Ok(spool.ledger().map_err(runtime)?.reached(EMBEDDED, position))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::sinks::sqlite::{FILE, MIGRATIONS};
    use crate::spool::{Settings, Spool};

    #[test]
    fn a_store_of_an_older_version_matters_only_while_it_is_switched_on() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), &Settings::default(), Arc::default()).unwrap();
        drop(crate::db::open(&dir.path().join(FILE), &MIGRATIONS[..1]).unwrap());
        spool.register(&[EMBEDDED]).unwrap();
        let Err(Failure::Runtime(said)) = ledger(dir.path()) else { panic!("an older store is read") };
        assert!(said.contains("store.db has version 1; start this collector on it once"), "{said}");
        spool.register(&["ch"]).unwrap();
        assert!(ledger(dir.path()).is_ok());
    }
}
