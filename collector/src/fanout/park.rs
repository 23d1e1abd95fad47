//! Parks events: what a delivery would wait long for, because the store has to make too much for it first, waits beside the log
//! instead, and everybody else's events go on.
//!
//! Which events of a batch those are is frozen with it, so that every attempt sends the same; they are parked in the commit that
//! moves the cursor behind it. `unpark` sends them later.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::letters::alone;
use super::worker::Worker;
use super::{blocking, fails};
use crate::record::{Event, Record};
use crate::sinks::{Need, SinkBatch, SinkError, Unreadable};
use crate::spool::{DeadLetter, Parked};

/// The events that need other things than the `few` most usual ones, each with what it needs; none if there are no others.
fn beyond(needs: Vec<Need>, few: usize) -> BTreeMap<u64, String> {
    let mut things: HashMap<&str, u64> = HashMap::new();
    for need in &needs {
        let distance = things.entry(&need.resource).or_insert(need.distance);
        *distance = need.distance.min(*distance);
    }
    let mut ranked: Vec<(u64, &str)> = things.into_iter().map(|(thing, distance)| (distance, thing)).collect();
    ranked.sort_unstable();
    let first: BTreeSet<String> = ranked.into_iter().take(few).map(|(_, thing)| thing.to_owned()).collect();
    let others = needs.into_iter().filter(|need| !first.contains(&need.resource));
    others.map(|need| (need.position, need.resource)).collect()
}

/// The events of `batch` at the positions of `things`, to be parked, each for what it needs.
fn parked(batch: &SinkBatch, things: &BTreeMap<u64, String>) -> Result<Vec<Parked>, Unreadable> {
    let mut parked = Vec::new();
    batch.for_each_record(|record: &Record<'_>, first, events: &[Event<'_>]| {
        for (event, position) in events.iter().zip(first..) {
            let Some(thing) = things.get(&position) else { continue };
            parked.push(Parked {
                position,
                app_key: record.app_key.to_string(),
                event_id: event.event_id.to_string(),
                resource: thing.clone(),
                arrived: record.received_at,
                record: alone(record, event),
            });
        }
        Ok::<(), Unreadable>(())
    })?;
    Ok(parked)
}

impl Worker {
    /// The positions of those events of `batch` that are to be parked instead of being sent with it: those beyond the few things
    /// that the store may make for one delivery, as far as there is room. What finds none is delivered in its turn.
    pub(super) async fn to_park(&self, batch: &SinkBatch) -> Result<Vec<u64>, SinkError> {
        // A record that cannot be read is dealt with when it is sent.
        let few = self.beside.few;
        let Ok(needs) = self.sink.needs(batch, few) else { return Ok(Vec::new()) };
        let things = beyond(needs, few);
        if things.is_empty() {
            return Ok(Vec::new());
        }
        let Ok(events) = parked(batch, &things) else { return Ok(Vec::new()) };
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        let mut quota = blocking(move || spool.parked_quota(&name)).await.map_err(fails)?;
        let fits = events.iter().filter(|event| quota.reserve(&event.app_key, event.bytes()));
        Ok(fits.map(|event| event.position).collect())
    }

    /// Those events of the frozen batch up to `last` that are parked when the cursor passes them, but for the `dead`. They are read
    /// again: the log has them until then.
    pub(super) async fn parked_up_to(&self, last: u64, dead: &[DeadLetter]) -> Result<Vec<Parked>, SinkError> {
        let Some(frozen) = self.cursor.frozen.as_ref() else { return Ok(Vec::new()) };
        let dead: BTreeSet<u64> = dead.iter().map(|letter| letter.position).collect();
        let left_out = frozen.excluded.iter().filter(|position| **position <= last && !dead.contains(position));
        let mut things: BTreeMap<u64, String> = left_out.map(|position| (*position, String::new())).collect();
        let (Some((first, _)), Some((last, _))) = (things.first_key_value(), things.last_key_value()) else {
            return Ok(Vec::new());
        };
        let batch = self.batch(*first, *last, String::new()).await?;
        for need in self.sink.needs(&batch, 0)? {
            if let Some(thing) = things.get_mut(&need.position) {
                *thing = need.resource;
            }
        }
        Ok(parked(&batch, &things)?)
    }
}

#[cfg(test)]
mod tests {
    use super::super::exclude::without;
    use super::*;
    use crate::sinks::StoredRecord;
    use serde_json::json;

    fn need(position: u64, thing: &str, distance: u64) -> Need {
        Need { position, resource: thing.into(), distance }
    }

    fn record(first: u64, count: u64) -> StoredRecord {
        let event = |n: u64| json!({"event_id": format!("e{n}"), "seq": n, "theme": "view", "code": "c", "event_time": n, "ts": n});
        let events: Vec<_> = (first..first + count).map(event).collect();
        let json = json!({"app_key": "a", "batch_id": "b", "install_id": "i", "received_at": 7, "events": events});
        StoredRecord { first, json: json.to_string() }
    }

    fn batch() -> SinkBatch {
        SinkBatch { first: 3, last: 12, token: "t".into(), records: vec![record(1, 5), record(6, 5), record(11, 5)] }
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
                Ok::<(), Unreadable>(())
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
        assert_eq!(beyond(needs(), 4), BTreeMap::new());
        assert_eq!(beyond(needs(), 3), [(5, "last".to_owned())].into());
        let waits = beyond(needs(), 1);
        assert_eq!(waits.keys().copied().collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert_eq!(beyond(Vec::new(), 4), BTreeMap::new());
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
        let things = [(5, "x".to_owned()), (11, "y".to_owned()), (13, "not in the batch".to_owned())].into();
        let found = parked(&batch(), &things).unwrap();
        let seen: Vec<_> =
            found.iter().map(|one| (one.position, &*one.event_id, &*one.resource, one.arrived)).collect();
        assert_eq!(seen, [(5, "e5", "x", 7), (11, "e11", "y", 7)]);
        let record: Record<'_> = serde_json::from_str(&found[1].record).unwrap();
        assert_eq!((record.events.len(), &*record.events[0].event_id), (1, "e11"));
    }
}
