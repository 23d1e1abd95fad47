//! Decides how many new indices a batch creates: bounds a delivery, and selects the events to be parked. PURE.

use std::collections::HashSet;

use super::super::days::{self, day_of};
use super::super::{CorruptRecord, ResourceNeed, SinkBatch};
use super::layout::{EventIndex, Layout, LayoutRequest};

/// Indices that one delivery may create for events that could not be parked. Each takes the cluster tens of
/// milliseconds, a busy one a second.
pub(super) const MAX_NEW_INDICES: usize = 20;

/// Returns the decisions needed before the events of `batch` can be delivered.
pub(super) fn undecided(batch: &SinkBatch, layout: &Layout) -> Result<LayoutRequest, CorruptRecord> {
    let mut undecided = LayoutRequest::default();
    if !days::scan_is_near(batch, usize::MAX) {
        days::for_each_event(batch, |when| {
            if layout.decided_index(&when).is_none() {
                undecided.days.push((when.app_key.to_owned(), day_of(when.event_time)));
            }
            true
        })?;
    }
    Ok(undecided)
}

/// Returns the last position of `batch` up to which it creates no more than [`MAX_NEW_INDICES`].
pub(super) fn delivery_end(
    batch: &SinkBatch,
    layout: &Layout,
    known: &HashSet<EventIndex>,
) -> Result<u64, CorruptRecord> {
    if days::scan_is_near(batch, MAX_NEW_INDICES) {
        return Ok(batch.last);
    }
    let (mut new, mut last) = (HashSet::new(), batch.last);
    days::for_each_event(batch, |when| {
        // What is not decided may get its day.
        let index = layout.decided_index(&when).unwrap_or(EventIndex::Day(day_of(when.event_time)));
        let full = !known.contains(&index) && new.insert(index) && new.len() > MAX_NEW_INDICES;
        if full {
            last = when.position - 1;
        }
        !full
    })?;
    Ok(last)
}

/// Returns the events of `batch` whose index does not exist, or none if these are certainly at most `max_resources`
/// indices.
pub(super) fn needs(
    batch: &SinkBatch,
    layout: &Layout,
    known: &HashSet<EventIndex>,
    (max_resources, prefix): (usize, &str),
) -> Result<Vec<ResourceNeed>, CorruptRecord> {
    if days::scan_is_near(batch, max_resources) {
        return Ok(Vec::new());
    }
    // As it will be decided if nothing else is decided before.
    let mut expected = layout.clone();
    expected.decide(&undecided(batch, layout)?);
    let mut needs = Vec::new();
    days::for_each_event(batch, |when| {
        let index = expected.event_index(&when);
        if !known.contains(&index) {
            let distance = day_of(when.event_time).abs_diff(day_of(when.received_at));
            needs.push(ResourceNeed { position: when.position, resource: index.name(prefix), distance });
        }
        true
    })?;
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::super::super::StoredRecord;
    use super::super::super::days::DAY_MS;
    use super::super::layout::MAX_OLD_DAYS;
    use super::*;

    const TODAY: i64 = 20_000;

    /// Creates one event for each of `days` days, from today backwards.
    fn days(days: i64) -> SinkBatch {
        let event = |n: i64| json!({"event_id": n.to_string(), "seq": n, "theme": "view", "code": "c", "event_time": (TODAY - n) * DAY_MS, "ts": 0});
        let events: Vec<_> = (0..days).map(event).collect();
        let json = json!({"app_key": "a", "received_at": TODAY * DAY_MS, "batch_id": "b", "install_id": "i", "events": events});
        let records = vec![StoredRecord { first: 1, json: json.to_string() }];
        SinkBatch { first: 1, last: days.cast_unsigned(), dedup_token: "t".into(), records }
    }

    fn resources(needs: &[ResourceNeed]) -> BTreeSet<&str> {
        needs.iter().map(|need| &*need.resource).collect()
    }

    #[test]
    fn a_thousand_days_need_an_index_for_each_near_one_forty_older_and_the_years() {
        let (batch, layout) = (days(1000), Layout::default());
        let found = needs(&batch, &layout, &HashSet::new(), (4, "p")).unwrap();
        assert_eq!(found.len(), 1000);
        let indices = resources(&found);
        assert_eq!(indices.iter().filter(|resource| resource.matches('.').count() == 2).count(), 401 + MAX_OLD_DAYS);
        assert!(indices.len() <= 401 + MAX_OLD_DAYS + 3, "{}", indices.len());
        assert_eq!((found[0].distance, found[999].distance), (0, 999), "today comes first");
    }

    #[test]
    fn what_is_made_is_not_needed_and_what_is_few_is_not_looked_at() {
        let (batch, layout) = (days(1000), Layout::default());
        let known: HashSet<EventIndex> =
            (TODAY - 400..=TODAY).filter(|day| day % 2 == 0).map(EventIndex::Day).collect();
        let found = needs(&batch, &layout, &known, (4, "p")).unwrap();
        assert_eq!(found.len(), 1000 - known.len());
        assert_eq!(needs(&days(4), &layout, &HashSet::new(), (4, "p")).unwrap(), []);
        assert_eq!(resources(&needs(&days(4), &layout, &HashSet::new(), (0, "p")).unwrap()).len(), 4);
        assert_eq!(delivery_end(&batch, &layout, &HashSet::new()).unwrap(), MAX_NEW_INDICES as u64);
        assert_eq!(delivery_end(&batch, &layout, &known).unwrap(), 2 * MAX_NEW_INDICES as u64 + 1);
    }
}
