//! Parks events that would delay a delivery for long, because the store has to create too many resources for them
//! first, so that the other events are delivered (docs/adr/0013).
//!
//! The choice is frozen with the batch, so that every attempt sends the same events. They are parked in the commit
//! that moves the cursor over the batch. `deliver_parked` sends them later.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dead_letters::single_event_record;
use super::worker::Worker;
use super::{blocking, retryable};
use crate::record::{Event, Record};
use crate::sinks::{CorruptRecord, ResourceNeed, SinkBatch, SinkError};
use crate::spool::{DeadLetter, Parked};

/// Returns the events that need other resources than the `max_resources` most usual ones, each with its resource.
fn beyond_budget(needs: Vec<ResourceNeed>, max_resources: usize) -> BTreeMap<u64, String> {
    let mut resources: HashMap<&str, u64> = HashMap::new();
    for need in &needs {
        let distance = resources.entry(&need.resource).or_insert(need.distance);
        *distance = need.distance.min(*distance);
    }
    let mut ranked: Vec<(u64, &str)> = resources.into_iter().map(|(resource, distance)| (distance, resource)).collect();
    ranked.sort_unstable();
    let first: BTreeSet<String> =
        ranked.into_iter().take(max_resources).map(|(_, resource)| resource.to_owned()).collect();
    let others = needs.into_iter().filter(|need| !first.contains(&need.resource));
    others.map(|need| (need.position, need.resource)).collect()
}

/// Returns the events of `batch` at the positions in `resources` as parked events.
fn parked(batch: &SinkBatch, resources: &BTreeMap<u64, String>) -> Result<Vec<Parked>, CorruptRecord> {
    let mut parked = Vec::new();
    batch.for_each_record(|record: &Record<'_>, first, events: &[Event<'_>]| {
        for (event, position) in events.iter().zip(first..) {
            let Some(resource) = resources.get(&position) else { continue };
            parked.push(Parked {
                position,
                app_key: record.app_key.to_string(),
                event_id: event.event_id.to_string(),
                resource: resource.clone(),
                arrived: record.received_at,
                record: single_event_record(record, event),
            });
        }
        Ok::<(), CorruptRecord>(())
    })?;
    Ok(parked)
}

impl Worker {
    /// Selects the events of `batch` to be parked: those beyond the resources that the store may create for one
    /// delivery, as far as the quota allows. Events beyond the quota are delivered in their place.
    pub(super) async fn select_parked(&self, batch: &SinkBatch) -> Result<Vec<u64>, SinkError> {
        // A record that cannot be read is dealt with when it is sent.
        let max_resources = self.parked_queue.max_resources;
        let Ok(needs) = self.sink.needs(batch, max_resources) else { return Ok(Vec::new()) };
        let resources = beyond_budget(needs, max_resources);
        if resources.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(events) = parked(batch, &resources) else { return Ok(Vec::new()) };
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        let mut quota = blocking(move || spool.parked_quota(&name)).await.map_err(retryable)?;
        let fits = events.iter().filter(|event| quota.reserve(&event.app_key, event.bytes()));
        Ok(fits.map(|event| event.position).collect())
    }

    /// Returns the excluded events of the frozen batch up to `last`, except the `dead` ones, as parked events. Reads
    /// them again, because the log still has them.
    pub(super) async fn parked_events_to(&self, last: u64, dead: &[DeadLetter]) -> Result<Vec<Parked>, SinkError> {
        let Some(frozen) = self.cursor.frozen.as_ref() else { return Ok(Vec::new()) };
        let dead: BTreeSet<u64> = dead.iter().map(|letter| letter.position).collect();
        let excluded = frozen.excluded.iter().filter(|position| **position <= last && !dead.contains(position));
        let mut resources: BTreeMap<u64, String> = excluded.map(|position| (*position, String::new())).collect();
        let (Some((first, _)), Some((last, _))) = (resources.first_key_value(), resources.last_key_value()) else {
            return Ok(Vec::new());
        };
        let batch = self.batch(*first, *last, String::new()).await?;
        for need in self.sink.needs(&batch, 0)? {
            if let Some(resource) = resources.get_mut(&need.position) {
                *resource = need.resource;
            }
        }
        Ok(parked(&batch, &resources)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exclude::without;
    use super::*;
    use crate::sinks::StoredRecord;
    use serde_json::json;

    fn need(position: u64, resource: &str, distance: u64) -> ResourceNeed {
        ResourceNeed { position, resource: resource.into(), distance }
    }

    fn record(first: u64, count: u64) -> StoredRecord {
        let event = |n: u64| json!({"event_id": format!("e{n}"), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": n});
        let events: Vec<_> = (first..first + count).map(event).collect();
        let json = json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 7, "events": events});
        StoredRecord { first, json: json.to_string() }
    }

    fn batch() -> SinkBatch {
        SinkBatch {
            first: 3,
            last: 12,
            dedup_token: "t".into(),
            records: vec![record(1, 5), record(6, 5), record(11, 5)],
        }
    }

    fn positions(batch: &SinkBatch) -> Vec<u64> {
        let mut found = Vec::new();
        batch
            .for_each_record(|record: &Record<'_>, first, events: &[Event<'_>]| {
                assert_eq!(record.received_at, 7);
                for (event, position) in events.iter().zip(first..) {
                    assert_eq!(event.event_id, format!("e{position}").as_str());
                    found.push(position);
                }
                Ok::<(), CorruptRecord>(())
            })
            .unwrap();
        found
    }

    #[test]
    fn the_usual_things_are_made_at_once_and_the_others_wait() {
        let needs = || {
            vec![
                need(1, "far", 300),
                need(2, "today", 0),
                need(3, "near", 2),
                need(4, "far", 299),
                need(5, "last", 400),
            ]
        };
        assert_eq!(beyond_budget(needs(), 4), BTreeMap::new());
        assert_eq!(beyond_budget(needs(), 3), [(5, "last".to_owned())].into());
        let waiting = beyond_budget(needs(), 1);
        assert_eq!(waiting.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(beyond_budget(Vec::new(), 4), BTreeMap::new());
    }

    #[test]
    fn a_batch_without_some_events_has_all_others_at_their_positions() {
        assert_eq!(without(batch(), &[]).unwrap(), batch());
        assert_eq!(positions(&without(batch(), &[3, 5, 6, 12]).unwrap()), [4, 7, 8, 9, 10, 11]);
        assert_eq!(positions(&without(batch(), &[8]).unwrap()), [3, 4, 5, 6, 7, 9, 10, 11, 12]);
        let nothing = without(batch(), &(3..=12).collect::<Vec<_>>()).unwrap();
        assert!(nothing.records.is_empty());
        let untouched = without(batch(), &[8]).unwrap();
        assert_eq!(untouched.records[0], record(1, 5), "a record that keeps all its events stays as it is");
    }

    #[test]
    fn what_is_parked_is_a_record_of_its_own() {
        let resources = [(5, "x".to_owned()), (11, "y".to_owned()), (13, "not in the batch".to_owned())].into();
        let found = parked(&batch(), &resources).unwrap();
        let seen: Vec<_> =
            found.iter().map(|one| (one.position, &*one.event_id, &*one.resource, one.arrived)).collect();
        assert_eq!(seen, [(5, "e5", "x", 7), (11, "e11", "y", 7)]);
        let record: Record<'_> = serde_json::from_str(&found[1].record).unwrap();
        assert_eq!((record.events.len(), &*record.events[0].event_id), (1, "e11"));
    }
}
