//! `sinks list | retire | forget`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ledger::ledger;
use super::output::{Failure, print, runtime};
use crate::serve::{DataDir, StartError, connect};
use crate::spool::{SinkListEntry, SinkRemoval, Spool, SpoolError, SpoolSettings};

pub(super) fn run(ending: Option<SinkRemoval>, data_dir: &Path, sink: Option<&str>) -> Result<(), Failure> {
    let Some((how, sink)) = ending.zip(sink) else { return list(data_dir, sink) };
    // Asked first: a directory that is not a collector's is not made one.
    if !ledger(data_dir)?.sinks.contains_key(sink) {
        return Err(runtime(SpoolError::UnknownSink(sink.to_owned())));
    }
    match DataDir::take(data_dir) {
        Err(StartError::InUse(_)) => through_the_collector(data_dir, how, sink)?,
        Err(error) => return Err(runtime(error)),
        Ok(taken) => {
            let spool = Spool::open(taken.path(), &SpoolSettings::default(), Arc::default()).map_err(runtime)?;
            let done = how.apply(&spool, sink);
            spool.close();
            done.map_err(runtime)?;
        }
    }
    match how {
        SinkRemoval::Retire => list(data_dir, Some(sink)),
        SinkRemoval::Forget => print(&format!("{}\n", json!({"name": sink, "forgotten": true}))),
    }
}

/// One line for each sink, or for one.
fn list(data_dir: &Path, only: Option<&str>) -> Result<(), Failure> {
    let sinks = ledger(data_dir)?.sinks;
    if let Some(sink) = only.filter(|sink| !sinks.contains_key(*sink)) {
        return Err(runtime(SpoolError::UnknownSink(sink.to_owned())));
    }
    for (name, figures) in sinks.into_iter().filter(|(name, _)| only.is_none_or(|only| only == name)) {
        let line = serde_json::to_string(&SinkListEntry::new(name, figures)).map_err(runtime)?;
        print(&format!("{line}\n"))?;
    }
    Ok(())
}

fn through_the_collector(data_dir: &Path, how: SinkRemoval, sink: &str) -> Result<(), Failure> {
    let mut stream = connect(data_dir).map_err(|error| {
        Failure::Runtime(format!(
            "a collector runs on this data directory, but its control socket cannot be reached: {error}"
        ))
    })?;
    stream.write_all(format!("{} {sink}\n", how.as_str()).as_bytes()).map_err(runtime)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).map_err(runtime)?;
    let answer: Value = serde_json::from_str(&answer)
        .map_err(|_| Failure::Runtime("the collector ended before it answered; ask it again".into()))?;
    match answer["error"].as_str() {
        Some(error) => Err(Failure::Runtime(error.to_owned())),
        None => Ok(()),
    }
}
