//! Exports stored events, one JSON object per line, in the order in which they were stored. Works also beside a running
//! collector and after one was killed.
//!
//! The store has what the sink's worker delivered; the spool has at least everything after that. Stored events never
//! change and positions only grow, so the export reads both in small steps, each a short transaction: it delays no
//! checkpoint of the collector's write-ahead logs and needs little memory. It ends at the head that the spool had when
//! it began.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use jiff::tz::TimeZone;

use crate::db::DbError;
use crate::query::parse_time;
use crate::record::Record;
use crate::row::Row;
use crate::sinks::events_in_range;
use crate::sinks::sqlite::StoredRows;
use crate::spool::{SpoolError, SpoolReader, SpoolRecord};

/// Events read from the store in one step: some milliseconds, some megabytes.
const STORE_STEP: u64 = 5_000;

/// Events and bytes read from the spool in one step.
const SPOOL_STEP: (u64, u64) = (5_000, 4 * 1024 * 1024);

/// Reason why an export ended early.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{0}")]
    Argument(String),
    #[error("the embedded store: {0}")]
    Store(#[from] DbError),
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("{0} stored events are in records of the spool that cannot be read; everything else was written")]
    Unreadable(u64),
    #[error("{0} stored events are neither in the store nor in the spool; everything else was written")]
    Missing(u64),
    #[error(
        "there is no embedded store, and {0} stored events are no longer in the spool: the sinks have them; everything else was written"
    )]
    WithSinks(u64),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Writes the stored events of `app` (or all) with `from <= event_time < to` to `out`, and returns how many events are
/// missing because retention deleted them or the store never had them.
///
/// Dates are in each app's time zone. A closed pipe ends the export without an error.
///
/// # Errors
/// A sentence, if the arguments are wrong, or the data directory cannot be read.
pub(crate) fn run(
    data_dir: &Path,
    app: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
    out: &mut impl Write,
) -> Result<u64, String> {
    match export(data_dir, app, (from, to), out) {
        Err(ExportError::Output(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
        result => result.map_err(|error| error.to_string()),
    }
}

fn export(data_dir: &Path, app: Option<&str>, range: Range<'_>, out: &mut impl Write) -> Result<u64, ExportError> {
    let spool = SpoolReader::open(data_dir)?;
    let head = spool.ledger()?.stored;
    let store = open_store(data_dir)?;
    let zones = store.as_ref().map(StoredRows::timezones).transpose()?.unwrap_or_default();
    let mut lines = Lines::new(app, range, zones, out)?;
    let (mut position, mut missing) = (0, 0);
    while position < head {
        position = from_store(data_dir, position, head, &mut lines)?;
        let records = spool.read_after(position, SPOOL_STEP.0, SPOOL_STEP.1)?;
        let next = records.first().map_or(head + 1, |record| record.first);
        if next <= position + 1 {
            position = from_spool(&records, position, head, &mut lines)?;
            continue;
        }
        // The spool has deleted the next events: either the store took them since the last look, or they are lost.
        let again = from_store(data_dir, position, head, &mut lines)?;
        if again == position {
            missing += next - 1 - position;
        }
        position = again.max(next - 1);
    }
    lines.out.flush()?;
    let unreadable = lines.unreadable;
    let gone = match open_store(data_dir)? {
        Some(store) => store.missing(0, head)?,
        None => 0,
    };
    match missing {
        0 if unreadable > 0 => Err(ExportError::Unreadable(unreadable)),
        0 => Ok(gone),
        missing if store.is_none() => Err(ExportError::WithSinks(missing)),
        missing => Err(ExportError::Missing(missing)),
    }
}

/// Opens the store, if it exists.
fn open_store(data_dir: &Path) -> Result<Option<StoredRows>, DbError> {
    match StoredRows::open(data_dir) {
        Ok(store) => Ok(Some(store)),
        Err(DbError::Absent(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes what the store has after `position`, up to `head`, and returns the last position.
fn from_store(
    data_dir: &Path,
    mut position: u64,
    head: u64,
    lines: &mut Lines<'_, impl Write>,
) -> Result<u64, ExportError> {
    let Some(store) = open_store(data_dir)? else { return Ok(position) };
    while position < head {
        let limit = STORE_STEP.min(head - position);
        let next = store.read_after(position, limit, |row| lines.write(row))?;
        if next == position {
            break;
        }
        position = next;
    }
    Ok(position)
}

/// Writes what `records` contain after `position`, up to `head`, and returns the last position.
fn from_spool(
    records: &[SpoolRecord],
    position: u64,
    head: u64,
    lines: &mut Lines<'_, impl Write>,
) -> Result<u64, ExportError> {
    let mut last = position;
    for stored in records {
        last = stored.first + stored.events - 1;
        let Ok(record) = serde_json::from_str::<Record<'_>>(&stored.json) else {
            lines.unreadable += last.min(head) - position.max(stored.first - 1);
            continue;
        };
        for event in events_in_range(stored.first, &record.events, position + 1, head).1 {
            lines.write(&Row::new(&record, event))?;
        }
    }
    Ok(last)
}

/// `--from` and `--to` as the command line has them.
type Range<'a> = (Option<&'a str>, Option<&'a str>);

/// Filters events and writes them.
struct Lines<'a, W> {
    app: Option<&'a str>,
    range: Range<'a>,
    /// The range in milliseconds in the time zone of each app.
    ranges: HashMap<String, (i64, i64)>,
    /// Number of events in records that cannot be read.
    unreadable: u64,
    buffer: Vec<u8>,
    out: &'a mut W,
}

impl<'a, W: Write> Lines<'a, W> {
    fn new(
        app: Option<&'a str>,
        range: Range<'a>,
        zones: Vec<(String, String)>,
        out: &'a mut W,
    ) -> Result<Self, ExportError> {
        if let Some(app) = app.filter(|app| !zones.is_empty() && !zones.iter().any(|(key, _)| key == app)) {
            let known = zones.into_iter().map(|(key, _)| key).collect::<Vec<_>>().join(", ");
            return Err(ExportError::Argument(format!("no app has the key {app}; known are {known}")));
        }
        let mut ranges = HashMap::new();
        for (key, zone) in zones.into_iter().filter(|(key, _)| app.is_none_or(|app| app == key)) {
            let zone = TimeZone::get(&zone)
                .map_err(|error| ExportError::Argument(format!("the time zone of app {key}: {error}")))?;
            ranges.insert(key, millis(range, &zone)?);
        }
        // A wrong argument is an error even when no event needs it.
        let otherwise = millis(range, &TimeZone::UTC)?;
        // The same dates are other times in each zone, so a range is empty only if it is empty for every app.
        let mut all = ranges.values().chain(if ranges.is_empty() { Some(&otherwise) } else { None });
        if all.all(|(from, to)| from >= to) {
            return Err(ExportError::Argument("--to must be later than --from".into()));
        }
        Ok(Self { app, range, ranges, unreadable: 0, buffer: Vec::new(), out })
    }

    fn write(&mut self, row: &Row<'_>) -> Result<(), ExportError> {
        if self.app.is_some_and(|app| row.app_key != app) {
            return Ok(());
        }
        let (from, to) = match self.ranges.get(row.app_key.as_ref()) {
            Some(range) => *range,
            // The store lacks an app's time zone if its collector never served.
            None => millis(self.range, &TimeZone::UTC)?,
        };
        if row.event.event_time < from || row.event.event_time >= to {
            return Ok(());
        }
        self.buffer.clear();
        row.write_json(&mut self.buffer);
        self.buffer.push(b'\n');
        Ok(self.out.write_all(&self.buffer)?)
    }
}

/// Returns the range in milliseconds since the epoch; it may be empty.
fn millis((from, to): Range<'_>, zone: &TimeZone) -> Result<(i64, i64), ExportError> {
    let time = |name: &str, text: Option<&str>, otherwise: i64| {
        let wrong = |detail| ExportError::Argument(format!("--{name}: {detail}"));
        text.map_or(Ok(otherwise), |text| parse_time(text, zone).map_err(wrong))
    };
    Ok((time("from", from, i64::MIN)?, time("to", to, i64::MAX)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::sinks::sqlite::EmbeddedSink;
    use crate::sinks::{Sink, SinkBatch, StoredRecord};
    use crate::spool::{Spool, SpoolSettings};
    use crate::telemetry::Telemetry;

    fn record(first: u64, count: u64) -> String {
        let events: Vec<_> = (first..first + count)
            .map(|n| json!({"event_id": format!("e{n}"), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": n}))
            .collect();
        json!({"app_key": "demo", "batch_id": "b", "install_id": "i", "received_at": 1, "events": events}).to_string()
    }

    /// A spool that holds three records of four events.
    fn spool(dir: &Path) -> Spool {
        let spool = Spool::open(dir, &SpoolSettings::default(), Arc::new(Telemetry::default())).unwrap();
        for first in [1, 5, 9] {
            spool.call(move |tx| tx.append(1, &record(first, 4), 4)).unwrap();
        }
        spool
    }

    async fn deliver(dir: &Path, last: u64) -> EmbeddedSink {
        let sink = EmbeddedSink::open(dir).unwrap();
        let records = [1, 5, 9].map(|first| StoredRecord { first, json: record(first, 4) }).to_vec();
        sink.deliver(Arc::new(SinkBatch { first: 1, last, dedup_token: String::new(), records })).await.unwrap();
        sink
    }

    fn exported(dir: &Path) -> (Vec<u64>, Result<u64, String>) {
        let mut out = Vec::new();
        let result = run(dir, None, None, None, &mut out);
        let seq = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap();
        (String::from_utf8(out).unwrap().lines().map(seq).collect(), result)
    }

    fn all() -> (Vec<u64>, Result<u64, String>) {
        ((1..=12).collect(), Ok(0))
    }

    #[tokio::test]
    async fn the_spool_gives_what_the_store_lacks_wherever_the_store_stopped() {
        for stopped in [1, 4, 6, 12] {
            let dir = tempfile::tempdir().unwrap();
            let spool = spool(dir.path());
            deliver(dir.path(), stopped).await;
            assert_eq!(exported(dir.path()), all(), "{stopped}");
            spool.close();
            assert_eq!(exported(dir.path()), all(), "{stopped}");
        }
    }

    #[test]
    fn without_a_store_everything_comes_from_the_spool() {
        let dir = tempfile::tempdir().unwrap();
        let _spool = spool(dir.path());
        assert_eq!(exported(dir.path()), all());
    }

    #[tokio::test]
    async fn a_range_is_empty_only_if_it_is_so_in_the_zones_of_the_apps() {
        let dir = tempfile::tempdir().unwrap();
        let _spool = spool(dir.path());
        let sink = deliver(dir.path(), 12).await;
        let set =
            |zone: &str| sink.set_timezones(&[("demo".into(), zone.into()), ("other".into(), "UTC".into())]).unwrap();
        let run = |app, from, to| run(dir.path(), app, Some(from), Some(to), &mut Vec::new());
        set("America/New_York");
        let (from, to) = ("2024-01-01T03:00:00Z", "2024-01-01");
        assert_eq!(run(Some("demo"), from, to), Ok(0), "midnight there is 05:00 UTC");
        assert_eq!(run(None, from, to), Ok(0), "empty for one app only");
        assert!(run(Some("other"), from, to).is_err());
        set("Asia/Shanghai");
        assert!(run(None, from, to).is_err());
    }

    #[test]
    fn the_last_day_of_the_calendar_is_a_date() {
        let dir = tempfile::tempdir().unwrap();
        let _spool = spool(dir.path());
        for to in ["9999-12-31", "9999-12-31T23:59:59.999Z"] {
            let mut out = Vec::new();
            assert_eq!(run(dir.path(), None, None, Some(to), &mut out), Ok(0));
            assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 12);
        }
    }

    #[tokio::test]
    async fn what_is_lost_is_said_after_everything_else_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        spool.register(&["embedded"]).unwrap();
        spool.advance("embedded", 8, Vec::new(), false).unwrap();
        spool.trim().unwrap();
        // As if an operator had restored an old copy of the store.
        deliver(dir.path(), 3).await;
        let (lines, result) = exported(dir.path());
        assert_eq!(lines, [1, 2, 3, 9, 10, 11, 12]);
        assert!(result.unwrap_err().starts_with("5 stored events are neither"));
    }
}
