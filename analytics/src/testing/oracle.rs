//! Brute-force oracle: scans every event for every number. Too slow for use, too simple to be wrong.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use crate::{CountQuery, Counts, EventsQuery, Filter, Measure, TimeRange};

/// Event as the queries see it.
#[derive(Clone, Debug, Default)]
pub struct OracleEvent {
    /// Key of the app.
    pub app: String,
    /// Event time, milliseconds since the epoch.
    pub time: i64,
    /// Theme.
    pub theme: String,
    /// Code.
    pub code: String,
    /// Install.
    pub install: String,
    /// User; empty for none.
    pub user: String,
    /// Session; empty for none.
    pub session: String,
    /// Position in the order of arrival.
    pub position: u64,
}

impl OracleEvent {
    fn passes(&self, filter: &Filter) -> bool {
        filter.theme.is_none_or(|theme| theme.as_str() == self.theme)
            && filter.code.as_ref().is_none_or(|code| *code == self.code)
    }
}

/// All events, in memory.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    events: Vec<OracleEvent>,
}

impl Oracle {
    /// Adds an event.
    pub fn add(&mut self, event: OracleEvent) {
        self.events.push(event);
    }

    fn of_app(&self, app: &str) -> impl Iterator<Item = &OracleEvent> {
        self.events.iter().filter(move |event| event.app == app)
    }

    /// Counts per bucket and over the whole range.
    #[must_use]
    pub fn count(&self, query: &CountQuery) -> Counts {
        let buckets = query.bounds.windows(2).map(|pair| self.measure(query, pair[0], pair[1])).collect();
        let ends = query.bounds.first().zip(query.bounds.last());
        Counts { buckets, total: ends.map_or(0, |(from, to)| self.measure(query, *from, *to)) }
    }

    fn measure(&self, query: &CountQuery, from: i64, to: i64) -> u64 {
        let inside = || {
            self.of_app(&query.app).filter(|event| event.passes(&query.filter) && event.time >= from && event.time < to)
        };
        let distinct = |value: fn(&OracleEvent) -> &String| {
            inside().map(value).filter(|value| !value.is_empty()).collect::<HashSet<_>>().len()
        };
        let firsts = || {
            let mut firsts = HashMap::new();
            for event in self.of_app(&query.app) {
                let first = firsts.entry(&event.install).or_insert(event.time);
                *first = event.time.min(*first);
            }
            firsts.into_values()
        };
        let count = match query.measure {
            Measure::Events => inside().count(),
            Measure::Installs => distinct(|event| &event.install),
            Measure::Users => distinct(|event| &event.user),
            Measure::Sessions => distinct(|event| &event.session),
            Measure::NewInstalls => firsts().filter(|first| *first >= from && *first < to).count(),
            Measure::InstallsSeen => firsts().filter(|first| *first < to).count(),
        };
        count as u64
    }

    /// Returns the newest events by event time. Among events of the same millisecond the later arrived comes first.
    #[must_use]
    pub fn newest(&self, query: &EventsQuery) -> Vec<&OracleEvent> {
        let mut events: Vec<&OracleEvent> = self.of_app(&query.app).collect();
        events.retain(|event| {
            event.passes(&query.filter)
                && query.from.is_none_or(|from| event.time >= from)
                && query.to.is_none_or(|to| event.time < to)
                && query.install_id.as_ref().is_none_or(|id| *id == event.install)
                && query.user_id.as_ref().is_none_or(|id| *id == event.user)
                && query
                    .after
                    .is_none_or(|sort_key| (event.time, event.position) < (sort_key.event_time, sort_key.position))
        });
        events.sort_by_key(|event| Reverse((event.time, event.position)));
        events.truncate(query.limit);
        events
    }

    /// Returns the times of the app's first and last event; `None` without events.
    #[must_use]
    pub fn time_range(&self, app: &str) -> Option<TimeRange> {
        let times = || self.of_app(app).map(|event| event.time);
        times().min().zip(times().max()).map(|(first, last)| TimeRange { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(position: u64, time: i64, install: &str) -> OracleEvent {
        let (app, install) = ("a".to_owned(), install.to_owned());
        OracleEvent { app, install, time, position, theme: "view".into(), code: "c".into(), ..OracleEvent::default() }
    }

    #[test]
    fn a_late_event_moves_the_first_time_of_its_install() {
        let mut oracle = Oracle::default();
        [event(1, 15, "x"), event(2, 15, "y"), event(3, 5, "x")].into_iter().for_each(|event| oracle.add(event));
        let count = |measure| {
            let query = CountQuery { app: "a".into(), measure, filter: Filter::default(), bounds: vec![0, 10, 20] };
            oracle.count(&query)
        };
        assert_eq!(count(Measure::NewInstalls), Counts { buckets: vec![1, 1], total: 2 });
        assert_eq!(count(Measure::InstallsSeen), Counts { buckets: vec![1, 2], total: 2 });
        assert_eq!(count(Measure::Installs), Counts { buckets: vec![1, 2], total: 2 });
        assert_eq!(count(Measure::Users), Counts { buckets: vec![0, 0], total: 0 });
        assert_eq!(oracle.time_range("a"), Some(TimeRange { first: 5, last: 15 }));
        assert_eq!(oracle.time_range("b"), None);
    }

    #[test]
    fn the_newest_come_first_and_go_on_after_a_mark() {
        let mut oracle = Oracle::default();
        [event(1, 15, "x"), event(2, 15, "y"), event(3, 5, "x")].into_iter().for_each(|event| oracle.add(event));
        let positions = |after| {
            let query = EventsQuery { app: "a".into(), after, limit: 2, ..EventsQuery::default() };
            oracle.newest(&query).iter().map(|event| event.position).collect::<Vec<u64>>()
        };
        assert_eq!(positions(None), [2, 1]);
        assert_eq!(positions("15.1".parse().ok()), [3]);
    }
}
