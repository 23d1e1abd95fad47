//! What each command does.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::parse::DeadLetters;
use super::serve::{self, Source};
use super::{Command, USAGE};
use crate::config::{Config, ConfigError, EMBEDDED};
use crate::db::DbError;
use crate::sinks::sqlite::StoredRows;
use crate::spool::{DeadLetter, Ledger, Reader};

/// Dead letters read at a time.
const PAGE: u64 = 500;

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
    match command {
        Command::Serve { config, listen, data_dir } => serve::run(Source { config, listen, data_dir }),
        Command::Check { config } => {
            Config::read(&config)?;
            print(&format!("{} is valid\n", config.display()))
        }
        Command::Export { data_dir, app, from, to } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            // It flushes by itself, and a reader that has gone away is no error to it.
            crate::export::run(&data_dir, app.as_deref(), from.as_deref(), to.as_deref(), &mut out).map_err(runtime)
        }
        Command::Ledger { data_dir } => {
            let ledger = ledger(&data_dir)?;
            print(&format!("{}\n", serde_json::to_string(&ledger).map_err(runtime)?))
        }
        Command::DeadLetters { action, data_dir, sink } => dead_letters(action, &data_dir, sink.as_deref()),
        Command::Help => print(USAGE),
        Command::Version => print(concat!("subway-collector ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(runtime)
}

/// The ledger. The embedded store tells itself how far it is: the spool's cursor follows, and not at all after a crash.
fn ledger(data_dir: &Path) -> Result<Ledger, Failure> {
    let spool = Reader::open(data_dir).map_err(runtime)?;
    let position = match StoredRows::open(data_dir).and_then(|store| store.position()) {
        Err(DbError::Absent(_)) => 0,
        position => position.map_err(|error| Failure::Runtime(format!("the embedded store: {error}")))?,
    };
    Ok(spool.ledger().map_err(runtime)?.reached(EMBEDDED, position))
}

/// Calls `visit` for every dead letter, page by page, sink by sink.
fn each(
    data_dir: &Path,
    sink: Option<&str>,
    mut visit: impl FnMut(DeadLetter) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let reader = Reader::open(data_dir).map_err(runtime)?;
    let ledger = reader.ledger().map_err(runtime)?;
    if let Some(sink) = sink.filter(|sink| !ledger.sinks.contains_key(*sink)) {
        return Err(Failure::Runtime(format!("no sink is named {sink}")));
    }
    for name in ledger.sinks.keys().filter(|name| sink.is_none_or(|sink| sink == name.as_str())) {
        let mut after = 0;
        loop {
            let page = reader.dead_letters(Some(name), after, PAGE).map_err(runtime)?;
            let Some(last) = page.last() else { break };
            after = last.position;
            page.into_iter().try_for_each(&mut visit)?;
        }
    }
    Ok(())
}

fn dead_letters(action: DeadLetters, data_dir: &Path, sink: Option<&str>) -> Result<(), Failure> {
    match action {
        DeadLetters::Show => {
            each(data_dir, sink, |letter| print(&format!("{}\n", serde_json::to_string(&letter).map_err(runtime)?)))
        }
        DeadLetters::Replay => replay(data_dir, sink),
        DeadLetters::List => {
            let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
            each(data_dir, sink, |letter| {
                *counts.entry((letter.sink, letter.reason)).or_default() += 1;
                Ok(())
            })?;
            counts.iter().try_for_each(|((sink, reason), count)| {
                let line = serde_json::json!({"sink": sink, "reason": reason, "events": count});
                print(&format!("{line}\n"))
            })
        }
    }
}

/// Delivers dead letters again, as far as there is a store that could take them: the embedded one, the only kind that is
/// built, refuses no event and takes each position once.
fn replay(data_dir: &Path, sink: Option<&str>) -> Result<(), Failure> {
    let mut waiting: BTreeMap<String, u64> = BTreeMap::new();
    each(data_dir, sink, |letter| {
        *waiting.entry(letter.sink).or_default() += 1;
        Ok(())
    })?;
    if waiting.is_empty() {
        return print("0 replayed\n");
    }
    let sinks: Vec<String> = waiting.iter().map(|(sink, events)| format!("{events} of the sink {sink}")).collect();
    Err(Failure::Runtime(format!(
        "nothing was replayed: there are dead letters ({}), but this collector has no kind of sink that could take them \
        again; they stay where they are",
        sinks.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spool::{Settings, Spool};

    #[test]
    fn dead_letters_that_no_sink_can_take_again_are_an_error_that_counts_them_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), &Settings::default(), Arc::default()).unwrap();
        spool.call(|tx| tx.append("{}", 3)).unwrap();
        spool.register(&["s", "t"]).unwrap();
        let letter = |position| DeadLetter {
            sink: "s".into(),
            position,
            app_key: "demo".into(),
            event_id: "e".into(),
            reason: "no".into(),
            dead_at: 1,
            event: "{}".into(),
        };
        spool.advance("s", 3, vec![letter(1), letter(3)]).unwrap();
        let before = spool.ledger().unwrap();
        for sink in [None, Some("s")] {
            let Err(Failure::Runtime(why)) = dead_letters(DeadLetters::Replay, dir.path(), sink) else {
                unreachable!("it must fail")
            };
            assert!(why.contains("2 of the sink s") && !why.contains("of the sink t"), "{why}");
        }
        assert!(dead_letters(DeadLetters::Replay, dir.path(), Some("t")).is_ok());
        assert_eq!(spool.ledger().unwrap(), before);
        assert_eq!(spool.dead_letters(None, 0, 9).unwrap().len(), 2);
    }
}
