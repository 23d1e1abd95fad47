//! Answers by going through every event for every number: too slow to be used, too simple to be wrong.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::{CountQuery, Counts, EventsQuery, Extent, Filter, Measure};

/// One event as the queries see it.
#[derive(Clone, Debug, Default)]
pub struct Fact {
    /// Key of its app.
    pub app: String,
    /// Event time, milliseconds since the epoch.
    pub time: i64,
    /// Its theme.
    pub theme: String,
    /// Its code.
    pub code: String,
    /// Its install.
    pub install: String,
    /// Its user; empty: none.
    pub user: String,
    /// Its session; empty: none.
    pub session: String,
    /// Its position in the order of arrival.
    pub position: u64,
}

impl Fact {
    fn passes(&self, filter: &Filter) -> bool {
        filter.theme.is_none_or(|theme| theme.as_str() == self.theme)
            && filter.code.as_ref().is_none_or(|code| *code == self.code)
    }
}

/// Everything that happened, in memory.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    facts: Vec<Fact>,
}

impl Oracle {
    /// Takes note of an event.
    pub fn add(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    fn of_app(&self, app: &str) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(move |fact| fact.app == app)
    }

    /// Counts per bucket and over the whole range.
    #[must_use]
    pub fn count(&self, query: &CountQuery) -> Counts {
        let buckets = query.bounds.windows(2).map(|pair| self.measure(query, pair[0], pair[1])).collect();
        let ends = query.bounds.first().zip(query.bounds.last());
        Counts { buckets, total: ends.map_or(0, |(from, to)| self.measure(query, *from, *to)) }
    }

    fn measure(&self, query: &CountQuery, from: i64, to: i64) -> u64 {
        let inside =
            || self.of_app(&query.app).filter(|fact| fact.passes(&query.filter) && fact.time >= from && fact.time < to);
        let distinct = |value: fn(&Fact) -> &String| {
            inside().map(value).filter(|value| !value.is_empty()).collect::<HashSet<_>>().len()
        };
        let firsts = || {
            let mut firsts = HashMap::new();
            for fact in self.of_app(&query.app) {
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

    /// The newest events by event time; of events at the same millisecond the later arrived comes first.
    #[must_use]
    pub fn newest(&self, query: &EventsQuery) -> Vec<&Fact> {
        let mut facts: Vec<&Fact> = self.of_app(&query.app).collect();
        facts.retain(|fact| {
            fact.passes(&query.filter)
                && query.from.is_none_or(|from| fact.time >= from)
                && query.to.is_none_or(|to| fact.time < to)
                && query.install_id.as_ref().is_none_or(|id| *id == fact.install)
                && query.user_id.as_ref().is_none_or(|id| *id == fact.user)
                && query.after.is_none_or(|mark| (fact.time, fact.position) < (mark.event_time, mark.position))
        });
        facts.sort_by_key(|fact| Reverse((fact.time, fact.position)));
        facts.truncate(query.limit);
        facts
    }

    /// When the app's first and last event happened; `None` without events.
    #[must_use]
    pub fn extent(&self, app: &str) -> Option<Extent> {
        let times = || self.of_app(app).map(|fact| fact.time);
        times().min().zip(times().max()).map(|(first, last)| Extent { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(position: u64, time: i64, install: &str) -> Fact {
        let (app, install) = ("a".to_owned(), install.to_owned());
        Fact { app, install, time, position, theme: "view".into(), code: "c".into(), ..Fact::default() }
    }

    #[test]
    fn a_late_event_moves_the_first_time_of_its_install() {
        let mut oracle = Oracle::default();
        [fact(1, 15, "x"), fact(2, 15, "y"), fact(3, 5, "x")].into_iter().for_each(|fact| oracle.add(fact));
        let count = |measure| {
            let query = CountQuery { app: "a".into(), measure, filter: Filter::default(), bounds: vec![0, 10, 20] };
            oracle.count(&query)
        };
        assert_eq!(count(Measure::NewInstalls), Counts { buckets: vec![1, 1], total: 2 });
        assert_eq!(count(Measure::InstallsSeen), Counts { buckets: vec![1, 2], total: 2 });
        assert_eq!(count(Measure::Installs), Counts { buckets: vec![1, 2], total: 2 });
        assert_eq!(count(Measure::Users), Counts { buckets: vec![0, 0], total: 0 });
        assert_eq!(oracle.extent("a"), Some(Extent { first: 5, last: 15 }));
        assert_eq!(oracle.extent("b"), None);
    }

    #[test]
    fn the_newest_come_first_and_go_on_after_a_mark() {
        let mut oracle = Oracle::default();
        [fact(1, 15, "x"), fact(2, 15, "y"), fact(3, 5, "x")].into_iter().for_each(|fact| oracle.add(fact));
        let positions = |after| {
            let query = EventsQuery { app: "a".into(), after, limit: 2, ..EventsQuery::default() };
            oracle.newest(&query).iter().map(|fact| fact.position).collect::<Vec<u64>>()
        };
        assert_eq!(positions(None), [2, 1]);
        assert_eq!(positions("15.1".parse().ok()), [3]);
    }
}
