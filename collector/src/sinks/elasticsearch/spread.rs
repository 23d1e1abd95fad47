//! How many indices a batch would make: what bounds a delivery, and what may be delivered beside the log. PURE.

use std::collections::HashSet;

use super::super::days::{self, day_of};
use super::super::{Need, SinkBatch, Unreadable};
use super::layout::{Layout, Place, Wanted};

/// Most indices that one delivery may make, of what could not be parked: each takes the cluster tens of milliseconds, a busy one a
/// second.
pub(super) const NEW_INDICES: usize = 20;

/// What has to be decided before the events of `batch` can be delivered.
pub(super) fn wanted(batch: &SinkBatch, layout: &Layout) -> Result<Wanted, Unreadable> {
    let mut wanted = Wanted::default();
    if !days::surely_near(batch, usize::MAX) {
        days::each(batch, |when| {
            if layout.decided(&when).is_none() {
                wanted.days.push((when.app_key.to_owned(), day_of(when.event_time)));
            }
            true
        })?;
    }
    Ok(wanted)
}

/// The last position of `batch` up to which it makes no more indices than one delivery may.
pub(super) fn cut(batch: &SinkBatch, layout: &Layout, made: &HashSet<Place>) -> Result<u64, Unreadable> {
    if days::surely_near(batch, NEW_INDICES) {
        return Ok(batch.last);
    }
    let (mut new, mut last) = (HashSet::new(), batch.last);
    days::each(batch, |when| {
        // What is not decided may get its day.
        let place = layout.decided(&when).unwrap_or(Place::Day(day_of(when.event_time)));
        let full = !made.contains(&place) && new.insert(place) && new.len() > NEW_INDICES;
        if full {
            last = when.position - 1;
        }
        !full
    })?;
    Ok(last)
}

/// The events of `batch` whose index is not there, unless these are surely at most `few` indices.
pub(super) fn needs(
    batch: &SinkBatch,
    layout: &Layout,
    made: &HashSet<Place>,
    (few, prefix): (usize, &str),
) -> Result<Vec<Need>, Unreadable> {
    if days::surely_near(batch, few) {
        return Ok(Vec::new());
    }
    // As it will be decided if nothing else is decided before.
    let mut expected = layout.clone();
    expected.decide(&wanted(batch, layout)?);
    let mut needs = Vec::new();
    days::each(batch, |when| {
        let place = expected.place(&when);
        if !made.contains(&place) {
            let distance = day_of(when.event_time).abs_diff(day_of(when.received_at));
            needs.push(Need { position: when.position, thing: place.index(prefix), distance });
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
    use super::super::layout::OLD_DAYS;
    use super::*;

    const TODAY: i64 = 20_000;

    /// One event of each of so many days, from today backwards.
    fn days(days: i64) -> SinkBatch {
        let event = |n: i64| json!({"event_id": n.to_string(), "seq": n, "theme": "view", "code": "c", "event_time": (TODAY - n) * DAY_MS, "ts": 0});
        let events: Vec<_> = (0..days).map(event).collect();
        let json = json!({"app_key": "a", "received_at": TODAY * DAY_MS, "batch_id": "b", "install_id": "i", "events": events});
        let records = vec![StoredRecord { first: 1, json: json.to_string() }];
        SinkBatch { first: 1, last: days.cast_unsigned(), token: "t".into(), records }
    }

    fn named(needs: &[Need]) -> BTreeSet<&str> {
        needs.iter().map(|need| &*need.thing).collect()
    }

    #[test]
    fn a_thousand_days_need_an_index_for_each_near_one_forty_older_and_the_years() {
        let (batch, layout) = (days(1000), Layout::default());
        let found = needs(&batch, &layout, &HashSet::new(), (4, "p")).unwrap();
        assert_eq!(found.len(), 1000);
        let things = named(&found);
        assert_eq!(things.iter().filter(|thing| thing.matches('.').count() == 2).count(), 401 + OLD_DAYS);
        assert!(things.len() <= 401 + OLD_DAYS + 3, "{}", things.len());
        assert_eq!((found[0].distance, found[999].distance), (0, 999), "today comes first");
    }

    #[test]
    fn what_is_made_is_not_needed_and_what_is_few_is_not_looked_at() {
        let (batch, layout) = (days(1000), Layout::default());
        let made: HashSet<Place> = (TODAY - 400..=TODAY).filter(|day| day % 2 == 0).map(Place::Day).collect();
        let found = needs(&batch, &layout, &made, (4, "p")).unwrap();
        assert_eq!(found.len(), 1000 - made.len());
        assert_eq!(needs(&days(4), &layout, &HashSet::new(), (4, "p")).unwrap(), []);
        assert_eq!(named(&needs(&days(4), &layout, &HashSet::new(), (0, "p")).unwrap()).len(), 4);
        assert_eq!(cut(&batch, &layout, &HashSet::new()).unwrap(), NEW_INDICES as u64);
        assert_eq!(cut(&batch, &layout, &made).unwrap(), 2 * NEW_INDICES as u64 + 1);
    }
}
