//! Creates dead letters from a batch.

use std::collections::BTreeMap;

use crate::record::{Event, Record};
use crate::sinks::{PermanentFailure, SinkBatch, events_in_range};
use crate::spool::DeadLetter;

/// Returns the JSON of a record with one event of `record`.
pub(super) fn single_event_record(record: &Record<'_>, event: &Event<'_>) -> String {
    let single_event_record = Record { events: vec![event.clone()], ..record.clone() };
    serde_json::to_string(&single_event_record).unwrap_or_default()
}

/// Creates the dead letters for the events of `batch` that the store refused.
///
/// Of an unreadable record the first dead letter keeps the whole text, and the others nothing, because copies of it
/// would fill the disk.
pub(super) fn dead_letters(sink: &str, batch: &SinkBatch, refused: &[PermanentFailure]) -> Vec<DeadLetter> {
    let mut missing: BTreeMap<u64, &PermanentFailure> =
        refused.iter().map(|refusal| (refusal.position, refusal)).collect();
    let mut letters = Vec::new();
    let letter = |position: u64, reason: &str, (app, id, record): (&str, &str, String)| DeadLetter {
        sink: sink.to_owned(),
        position,
        app_key: app.to_owned(),
        event_id: id.to_owned(),
        reason: reason.to_owned(),
        dead_at: crate::clock::now(),
        record,
    };
    for stored in &batch.records {
        let Ok(record) = serde_json::from_str::<Record<'_>>(&stored.json) else { continue };
        let (at, events) = events_in_range(stored.first, &record.events, batch.first, batch.last);
        for (position, event) in (at..).zip(events) {
            let Some(refusal) = missing.remove(&position) else { continue };
            let parts = (&*record.app_key, &*event.event_id, single_event_record(&record, event));
            letters.push(letter(position, &refusal.reason, parts));
        }
    }
    let mut kept = None;
    for (position, refusal) in missing {
        let holder = batch.records.iter().rfind(|stored| stored.first <= position);
        let holder = holder.filter(|stored| kept.replace(stored.first) != Some(stored.first));
        let text = holder.map(|stored| stored.json.clone()).unwrap_or_default();
        letters.push(letter(position, &refusal.reason, ("", "", text)));
    }
    letters
}
