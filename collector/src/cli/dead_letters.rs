//! Runs `dead-letters list | show | replay`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use super::output::{Failure, print, runtime};
use super::parse::DeadLettersAction;
use crate::config::Config;
use crate::fanout::{ReplayReport, Replayer};
use crate::record::Record;
use crate::row::Row;
use crate::serve::{CONFIG_PATH, DataDir, StartError, connect_control};
use crate::sinks::{self, EMBEDDED};
use crate::spool::{DeadLetter, Spool, SpoolReader, SpoolSettings};
use crate::telemetry::SinkMetrics;

/// Dead letters that are read at once.
const PAGE_LETTERS: u64 = 500;

/// The reason that `list` gives for dropped events.
const DROPPED_EVENTS: &str =
    "dropped because the spool was full (when_full = \"drop_oldest\"); sinks that drop nothing have them";

/// The reason that `list` gives for events whose dead letters were dropped.
const DROPPED_LETTERS: &str =
    "dropped because the dead letters took too much room (dead_letter_bytes); they cannot be replayed";

pub(super) fn run(
    action: DeadLettersAction,
    data_dir: &Path,
    sink: Option<&str>,
    config: Option<&Path>,
) -> Result<(), Failure> {
    let reader = SpoolReader::open(data_dir).map_err(runtime)?;
    let ledger = reader.ledger().map_err(runtime)?;
    if let Some(sink) = sink.filter(|sink| !ledger.sinks.contains_key(*sink)) {
        return Err(Failure::Runtime(format!("no sink is named {sink}")));
    }
    let names = ledger.sinks.keys().filter(|name| sink.is_none_or(|sink| sink == name.as_str()));
    let names: Vec<String> = names.cloned().collect();
    let dropped = ledger.sinks.iter().map(|(name, sink)| (name.clone(), sink.dropped_dead_letters));
    let dropped: Vec<(String, u64)> = dropped.filter(|(name, letters)| names.contains(name) && *letters > 0).collect();
    match action {
        DeadLettersAction::Show => for_each_letter(&reader, &names, |letter| print(&format!("{}\n", to_json(&letter)))),
        DeadLettersAction::List => {
            let mut counts: BTreeMap<(String, String), u64> = BTreeMap::new();
            for (name, sink) in
                ledger.sinks.iter().filter(|(name, sink)| names.contains(name) && sink.dropped_oldest > 0)
            {
                counts.insert((name.clone(), DROPPED_EVENTS.to_owned()), sink.dropped_oldest);
            }
            for (name, letters) in &dropped {
                counts.insert((name.clone(), DROPPED_LETTERS.to_owned()), *letters);
            }
            for_each_letter(&reader, &names, |letter| {
                *counts.entry((letter.sink, letter.reason)).or_default() += 1;
                Ok(())
            })?;
            counts.iter().try_for_each(|((sink, reason), count)| {
                print(&format!("{}\n", json!({"sink": sink, "reason": reason, "events": count})))
            })
        }
        DeadLettersAction::Replay => {
            let mut sinks_with_letters = Vec::new();
            for name in names {
                if reader.count_dead_letters(&name).map_err(runtime)? == 0 {
                    continue;
                }
                if name == EMBEDDED {
                    // The embedded store takes events in order only, and its letters are records that cannot be read.
                    eprintln!("{name}: not replayed: what it refused cannot be read");
                } else {
                    sinks_with_letters.push(name);
                }
            }
            replay(data_dir, &sinks_with_letters, config)?;
            dropped.iter().try_for_each(|(name, letters)| print(&format!("{name}: {letters} were {DROPPED_LETTERS}\n")))
        }
    }
}

/// Calls `visit` for every dead letter, page by page, sink by sink.
fn for_each_letter(
    reader: &SpoolReader,
    names: &[String],
    mut visit: impl FnMut(DeadLetter) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for name in names {
        let mut after = 0;
        loop {
            let page = reader.dead_letters(Some(name), after, PAGE_LETTERS).map_err(runtime)?;
            let Some(last) = page.last() else { break };
            after = last.position;
            page.into_iter().try_for_each(&mut visit)?;
        }
    }
    Ok(())
}

/// Returns a letter as JSON: with the event as `export` prints it, or the damaged record as text.
fn to_json(letter: &DeadLetter) -> Value {
    let event = serde_json::from_str::<Record<'_>>(&letter.record).ok().and_then(|record| {
        let event = record.events.first()?;
        serde_json::to_value(Row::new(&record, event)).ok()
    });
    json!({"sink": letter.sink, "position": letter.position, "app_key": letter.app_key, "event_id": letter.event_id,
        "reason": letter.reason, "dead_at": letter.dead_at, "event": event.unwrap_or_else(|| letter.record.as_str().into())})
}

/// Replays the letters: through the running collector if there is one, else in this process with the configuration that
/// the collector last ran with.
fn replay(data_dir: &Path, names: &[String], config: Option<&Path>) -> Result<(), Failure> {
    if names.is_empty() {
        return print("0 replayed\n");
    }
    match DataDir::lock(data_dir) {
        Err(StartError::InUse(_)) => names.iter().try_for_each(|name| replay_online(data_dir, name)),
        Err(error) => Err(runtime(error)),
        Ok(locked) => replay_offline(&locked, names, config),
    }
}

fn print_report(replayed: &ReplayReport) -> Result<(), Failure> {
    print(&format!("{}: {} replayed, {} refused again\n", replayed.sink, replayed.replayed, replayed.refused))
}

fn print_progress(replayed: &ReplayReport) {
    let done = replayed.replayed + replayed.refused;
    eprintln!("{}: {done} of {} dead letters", replayed.sink, replayed.total);
}

fn replay_offline(data_dir: &DataDir, names: &[String], config: Option<&Path>) -> Result<(), Failure> {
    let saved_path =
        || std::fs::read_to_string(data_dir.path().join(CONFIG_PATH)).ok().map(|path| PathBuf::from(path.trim()));
    let path = config.map(Path::to_owned).or_else(saved_path);
    let path = path.ok_or_else(|| Failure::Runtime("no collector runs on this data directory, and it is not known with which configuration one did; give it with --config FILE".into()))?;
    let config = Config::read(&path)?;
    let mut opened_sinks = Vec::new();
    for name in names {
        let sink = config.sinks.iter().find(|sink| sink.name == *name);
        let sink = sink.ok_or_else(|| Failure::Runtime(format!("{}: no sink is named {name}", path.display())))?;
        opened_sinks.push(sinks::open(sink, &config.zones(), SinkMetrics::default()).map_err(runtime)?);
    }
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(runtime)?;
    let spool = Spool::open(data_dir.path(), &SpoolSettings::default(), Arc::default()).map_err(runtime)?;
    let replayer = Replayer::new(spool.clone(), opened_sinks);
    let result = tokio.block_on(async {
        for name in names {
            let replayed = replayer.replay(name, print_progress).await.map_err(runtime)?;
            print_report(&replayed)?;
        }
        Ok(())
    });
    spool.close();
    result
}

fn replay_online(data_dir: &Path, name: &str) -> Result<(), Failure> {
    let mut stream = connect_control(data_dir).map_err(|error| {
        Failure::Runtime(format!(
            "a collector runs on this data directory, but its control socket cannot be reached: {error}"
        ))
    })?;
    stream.write_all(format!("replay {name}\n").as_bytes()).map_err(runtime)?;
    let number = |line: &Value, key: &str| line[key].as_u64().unwrap_or_default();
    for line in BufReader::new(stream).lines() {
        let line: Value = serde_json::from_str(&line.map_err(runtime)?).map_err(runtime)?;
        if let Some(error) = line["error"].as_str() {
            return Err(Failure::Runtime(format!("{name}: {error}")));
        }
        let replayed = ReplayReport {
            sink: name.to_owned(),
            total: number(&line, "total"),
            replayed: number(&line, "replayed"),
            refused: number(&line, "refused"),
        };
        if line["done"] == true {
            return print_report(&replayed);
        }
        print_progress(&replayed);
    }
    Err(Failure::Runtime(format!("{name}: the collector ended before the replay did; what it had replayed is settled")))
}
