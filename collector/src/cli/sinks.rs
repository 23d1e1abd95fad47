//! Runs `sinks list | retire | forget`.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::ledger::ledger;
use super::output::{Failure, print, runtime};
use crate::serve::{DataDir, StartError, connect_control};
use crate::spool::{SinkListEntry, SinkRemoval, Spool, SpoolError, SpoolSettings};

pub(super) fn run(ending: Option<SinkRemoval>, data_dir: &Path, sink: Option<&str>) -> Result<(), Failure> {
    let Some((ending, sink)) = ending.zip(sink) else { return list(data_dir, sink) };
    // Checked first, so that a directory that has no ledger is not made a data directory.
    if !ledger(data_dir)?.sinks.contains_key(sink) {
        return Err(runtime(SpoolError::UnknownSink(sink.to_owned())));
    }
    match DataDir::lock(data_dir) {
        Err(StartError::InUse(_)) => end_online(data_dir, ending, sink)?,
        Err(error) => return Err(runtime(error)),
        Ok(data_dir_lock) => {
            let spool =
                Spool::open(data_dir_lock.path(), &SpoolSettings::default(), Arc::default()).map_err(runtime)?;
            let done = ending.apply(&spool, sink);
            spool.close();
            done.map_err(runtime)?;
        }
    }
    match ending {
        SinkRemoval::Retire => list(data_dir, Some(sink)),
        SinkRemoval::Forget => print(&format!("{}\n", json!({"name": sink, "forgotten": true}))),
    }
}

/// Prints one line for each sink, or for one.
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

fn end_online(data_dir: &Path, ending: SinkRemoval, sink: &str) -> Result<(), Failure> {
    let mut stream = connect_control(data_dir).map_err(|error| {
        Failure::Runtime(format!(
            "a collector runs on this data directory, but its control socket cannot be reached: {error}"
        ))
    })?;
    stream.write_all(format!("{} {sink}\n", ending.as_str()).as_bytes()).map_err(runtime)?;
    let mut response = String::new();
    BufReader::new(stream).read_line(&mut response).map_err(runtime)?;
    let response: Value = serde_json::from_str(&response)
        .map_err(|_| Failure::Runtime("the collector ended before it answered; ask it again".into()))?;
    match response["error"].as_str() {
        Some(error) => Err(Failure::Runtime(error.to_owned())),
        None => Ok(()),
    }
}
