//! A reader that answers by going through every event for every number: too slow to be used, too simple to be wrong.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use async_trait::async_trait;

use super::{CountQuery, Counts, EventsQuery, Extent, Filter, Listed, Mark, Measure, ReadError, Reader};
use crate::record::Record;
use crate::row::Row;
use crate::sinks::StoredRecord;

/// One event as the questions see it.
#[derive(Clone, Debug)]
struct Fact {
    app: String,
    time: i64,
    theme: String,
    code: String,
    install: String,
    user: String,
    session: String,
    position: u64,
    /// The record that holds it and its index there.
    source: (usize, usize),
}

/// Everything in memory, in the order of positions.
#[derive(Default)]
pub(crate) struct Oracle {
    state: Mutex<(Vec<Fact>, Vec<StoredRecord>)>,
}

impl Oracle {
    pub(crate) fn add(&self, stored: &StoredRecord) {
        let record: Record<'_> = serde_json::from_str(&stored.json).unwrap();
        let mut state = self.state.lock().unwrap();
        let at = state.1.len();
        for (index, event) in record.events.iter().enumerate() {
            state.0.push(Fact {
                app: record.app_key.to_string(),
                time: event.event_time,
                theme: event.theme.to_string(),
                code: event.code.to_string(),
                install: record.install_id.to_string(),
                user: event.user_id.to_string(),
                session: event.session_id.to_string(),
                position: stored.first + index as u64,
                source: (at, index),
            });
        }
        state.1.push(stored.clone());
    }

    fn of_app(&self, app: &str) -> Vec<Fact> {
        self.state.lock().unwrap().0.iter().filter(|fact| fact.app == app).cloned().collect()
    }
}

fn passes(fact: &Fact, filter: &Filter) -> bool {
    filter.theme.is_none_or(|theme| theme.as_str() == fact.theme)
        && filter.code.as_ref().is_none_or(|code| *code == fact.code)
}

fn measure(facts: &[Fact], query: &CountQuery, from: i64, to: i64) -> u64 {
    let inside = || facts.iter().filter(|fact| passes(fact, &query.filter) && fact.time >= from && fact.time < to);
    let distinct = |value: fn(&Fact) -> &String| {
        inside().map(value).filter(|value| !value.is_empty()).collect::<HashSet<_>>().len()
    };
    let firsts = || {
        let mut firsts = HashMap::new();
        for fact in facts {
            let first = firsts.entry(&fact.install).or_insert(fact.time);
            *first = fact.time.min(*first);
        }
        firsts.into_values()
    };
    let count = match query.measure {
        Measure::Events => inside().count(),
        Measure::Installs => distinct(|fact| &fact.install),
        Measure::Users => distinct(|fact| &fact.user),
        Measure::Sessions => distinct(|fact| &fact.session),
        Measure::NewInstalls => firsts().filter(|first| *first >= from && *first < to).count(),
        Measure::InstallsSeen => firsts().filter(|first| *first < to).count(),
    };
    count as u64
}

#[async_trait]
impl Reader for Oracle {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        let facts = self.of_app(&query.app);
        let buckets = query.bounds.windows(2).map(|pair| measure(&facts, &query, pair[0], pair[1])).collect();
        let total = measure(&facts, &query, query.bounds[0], *query.bounds.last().unwrap());
        Ok(Counts { buckets, total })
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<Listed>, ReadError> {
        let mut facts = self.of_app(&query.app);
        facts.retain(|fact| {
            passes(fact, &query.filter)
                && query.from.is_none_or(|from| fact.time >= from)
                && query.to.is_none_or(|to| fact.time < to)
                && query.install_id.as_ref().is_none_or(|id| *id == fact.install)
                && query.user_id.as_ref().is_none_or(|id| *id == fact.user)
                && query
                    .after
                    .is_none_or(|Mark { event_time, position }| (fact.time, fact.position) < (event_time, position))
        });
        facts.sort_by_key(|fact| std::cmp::Reverse((fact.time, fact.position)));
        facts.truncate(query.limit);
        let state = self.state.lock().unwrap();
        let listed = |fact: &Fact| Listed { position: fact.position, row: row(&state.1[fact.source.0], fact.source.1) };
        Ok(facts.iter().map(listed).collect())
    }

    async fn extent(&self, app: &str) -> Result<Option<Extent>, ReadError> {
        let times: Vec<i64> = self.of_app(app).iter().map(|fact| fact.time).collect();
        Ok(times.iter().min().zip(times.iter().max()).map(|(first, last)| Extent { first: *first, last: *last }))
    }
}

/// The row of one event, for the rest of the test's life: what it borrows is leaked.
fn row(stored: &StoredRecord, index: usize) -> Row<'static> {
    let json: &'static str = Box::leak(stored.json.clone().into_boxed_str());
    let record: &'static Record<'static> = Box::leak(Box::new(serde_json::from_str(json).unwrap()));
    Row::new(record, &record.events[index])
}
