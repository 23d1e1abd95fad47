//! Layout of the indices: decided once, stored in the cluster, never revised.
//!
//! An event's index must be the same in every attempt and after every crash, because the store does not detect the
//! same ID in two indices.
//!
//! Most indices follow from the event alone: a day near its arrival has an index of its own. The first
//! [`MAX_OLD_DAYS`] older days of an app have indices too, and the rest goes to indices of years. A month of visitors
//! has an index of its own if its first event was near its arrival.
//!
//! Which days come first is not in the event, so it is stored before anything is delivered, with a condition that
//! detects concurrent writes. A full set of days never changes, and neither does the decision for a month, so every
//! process gets the same answer at every time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::SinkError;
use super::super::days::{EventTimes, day_of, is_near};
use super::names;
use super::server::{Server, parse};

/// Older days of an app that have indices of their own. An import of a month gets its days, and a sender with only an
/// app's public key cannot create more indices than these.
pub(super) const MAX_OLD_DAYS: usize = 40;
/// ID of the only document.
const DOCUMENT_ID: &str = "layout";
/// Concurrent writes in a row before a decision fails.
const MAX_WRITE_CONFLICTS: usize = 20;

/// Index of an event, without the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum EventIndex {
    /// Index of one day since the epoch.
    Day(i64),
    /// Index of a year, for events whose day has none.
    Year(i64),
}

impl EventIndex {
    pub(super) fn name(self, prefix: &str) -> String {
        match self {
            EventIndex::Day(day) => names::ods(prefix, day),
            EventIndex::Year(year) => names::ods_of_year(prefix, year),
        }
    }

    /// Returns the index with this name.
    pub(super) fn from_name(prefix: &str, name: &str) -> Option<Self> {
        let last = names::last_day(prefix, name)?;
        [Self::Day(last), Self::Year(names::year_of(last))].into_iter().find(|index| index.name(prefix) == name)
    }
}

/// Decisions made so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Layout {
    /// Older days that have indices of their own, by app.
    old_days: Vec<OldDays>,
    /// Months whose visitors have an index of their own, and months whose visitors are in the index of the year.
    own_months: BTreeSet<String>,
    year_months: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OldDays {
    app_key: String,
    days: BTreeSet<i64>,
}

impl Layout {
    fn old_days(&self, app: &str) -> Option<&BTreeSet<i64>> {
        self.old_days.iter().find(|old_days| old_days.app_key == app).map(|old_days| &old_days.days)
    }

    /// Returns the index of an event if it is decided.
    pub(super) fn decided_index(&self, when: &EventTimes<'_>) -> Option<EventIndex> {
        let day = day_of(when.event_time);
        if is_near(when.event_time, when.received_at) {
            return Some(EventIndex::Day(day));
        }
        let year = EventIndex::Year(names::year_of(day));
        if when.event_time > when.received_at {
            return Some(year);
        }
        match self.old_days(when.app_key) {
            Some(days) if days.contains(&day) => Some(EventIndex::Day(day)),
            Some(days) if days.len() >= MAX_OLD_DAYS => Some(year),
            _ => None,
        }
    }

    /// Returns the index of an event, which must be decided.
    pub(super) fn event_index(&self, when: &EventTimes<'_>) -> EventIndex {
        self.decided_index(when).unwrap_or_else(|| EventIndex::Year(names::year_of(day_of(when.event_time))))
    }

    /// Returns the index of the visitors of a local day.
    pub(super) fn visitor_index(&self, prefix: &str, day: i64) -> String {
        if self.own_months.contains(&names::month_of(day)) {
            names::uv(prefix, day)
        } else {
            names::uv_of_year(prefix, names::year_of(day))
        }
    }

    /// Returns the number of indices of older days.
    pub(super) fn old_index_count(&self) -> usize {
        self.old_days.iter().flat_map(|old_days| &old_days.days).collect::<BTreeSet<_>>().len()
    }

    /// Decides what is undecided in `request`. Returns whether the layout changed.
    pub(super) fn decide(&mut self, request: &LayoutRequest) -> bool {
        let before = self.clone();
        for (app, day) in &request.days {
            let at = match self.old_days.iter().position(|old_days| old_days.app_key == *app) {
                Some(at) => at,
                None => {
                    self.old_days.push(OldDays { app_key: app.clone(), days: BTreeSet::new() });
                    self.old_days.len() - 1
                }
            };
            let days = &mut self.old_days[at].days;
            if days.len() < MAX_OLD_DAYS {
                days.insert(*day);
            }
        }
        for (month, near) in &request.months {
            if !self.own_months.contains(month) && !self.year_months.contains(month) {
                let months = if *near { &mut self.own_months } else { &mut self.year_months };
                months.insert(month.clone());
            }
        }
        *self != before
    }
}

/// Decisions needed before a delivery.
#[derive(Clone, Debug, Default)]
pub(super) struct LayoutRequest {
    /// Older days by app, in the order of their events.
    pub(super) days: Vec<(String, i64)>,
    /// Months that have visitors, and whether any visit is near its arrival.
    pub(super) months: BTreeMap<String, bool>,
}

/// Layout as stored in the cluster, with a copy in memory.
pub(super) struct LayoutStore {
    prefix: String,
    /// Settings for creating the index of the layout. `None` if the operator creates indices.
    index_settings: Option<Value>,
    known: RwLock<Arc<Layout>>,
}

impl LayoutStore {
    pub(super) fn new(settings: &crate::config::Elasticsearch) -> Self {
        let copies = match settings.replicas {
            Some(replicas) => json!({"number_of_shards": 1, "number_of_replicas": replicas}),
            None => json!({"number_of_shards": 1, "auto_expand_replicas": "0-1"}),
        };
        let index_settings = json!({"settings": {"index": copies}, "mappings": {"dynamic": false}});
        Self {
            prefix: settings.index_prefix().to_owned(),
            index_settings: settings.manage_schema.then_some(index_settings),
            known: RwLock::default(),
        }
    }

    /// Returns the decisions known so far. None of them changes later.
    pub(super) fn known(&self) -> Arc<Layout> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_known(&self, layout: Layout) -> Arc<Layout> {
        let layout = Arc::new(layout);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&layout);
        layout
    }

    /// Loads the decisions of other processes and of earlier runs.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    pub(super) async fn load(&self, server: &Server) -> Result<(), SinkError> {
        let (layout, _) = self.read(server).await?;
        self.set_known(layout);
        Ok(())
    }

    /// Decides everything in `request` and returns the layout.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if a new decision could not be stored.
    pub(super) async fn decide(&self, server: &Server, request: &LayoutRequest) -> Result<Arc<Layout>, SinkError> {
        let known = self.known();
        if !Layout::clone(&known).decide(request) {
            return Ok(known);
        }
        for _ in 0..MAX_WRITE_CONFLICTS {
            let (mut layout, version) = self.read(server).await?;
            if !layout.decide(request) || self.write(server, &layout, &version).await? {
                return Ok(self.set_known(layout));
            }
        }
        Err(SinkError::retryable("others keep changing the layout of the indices"))
    }

    /// Reads the stored layout, and the parameters with which a write replaces only that version.
    async fn read(&self, server: &Server) -> Result<(Layout, String), SinkError> {
        let path = format!("/{}/_doc/{DOCUMENT_ID}", names::layout(&self.prefix));
        let answer = server.ask(Method::GET, &path, None).await?;
        match answer.status {
            200 => {
                let value = parse(&answer)?;
                let unreadable =
                    |error| SinkError::misconfigured(format!("the layout of the indices cannot be read: {error}"));
                let layout = Layout::deserialize(&value["_source"]).map_err(unreadable)?;
                Ok((layout, format!("if_seq_no={}&if_primary_term={}", value["_seq_no"], value["_primary_term"])))
            }
            404 => Ok((Layout::default(), "op_type=create".into())),
            _ => Err(answer.retryable()),
        }
    }

    /// Writes the layout. Returns `false` if another process wrote first.
    async fn write(&self, server: &Server, layout: &Layout, version: &str) -> Result<bool, SinkError> {
        let index = names::layout(&self.prefix);
        if let Some(index_settings) = self.index_settings.as_ref().filter(|_| version.starts_with("op_type")) {
            let answer = server.ask(Method::PUT, &format!("/{index}"), Some(index_settings)).await?;
            if !answer.is_ok() && !answer.message().contains("resource_already_exists_exception") {
                return Err(answer.retryable());
            }
        }
        let body = serde_json::to_value(layout).map_err(|error| SinkError::retryable(error.to_string()))?;
        let answer = server.ask(Method::PUT, &format!("/{index}/_doc/{DOCUMENT_ID}?{version}"), Some(&body)).await?;
        match answer.status {
            200 | 201 => Ok(true),
            409 => Ok(false),
            _ => Err(answer.retryable()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::days::DAY_MS;

    const TODAY: i64 = 20_000;

    fn when(app_key: &str, day: i64) -> EventTimes<'_> {
        EventTimes { app_key, position: 1, event_time: day * DAY_MS + 7, received_at: TODAY * DAY_MS }
    }

    #[test]
    fn near_days_need_no_decision_and_older_ones_go_by_days_until_an_app_has_forty() {
        let mut layout = Layout::default();
        for day in [TODAY + 1, TODAY, TODAY - 400, TODAY + 400] {
            assert_eq!(layout.decided_index(&when("a", day)), Some(EventIndex::Day(day)));
        }
        assert_eq!(layout.decided_index(&when("a", TODAY + 401)), Some(EventIndex::Year(2025)));
        for n in 0..MAX_OLD_DAYS as i64 {
            let day = TODAY - 401 - 3 * n;
            assert_eq!(layout.decided_index(&when("a", day)), None);
            assert!(layout.decide(&LayoutRequest { days: vec![("a".into(), day)], ..LayoutRequest::default() }));
            assert_eq!(layout.decided_index(&when("a", day)), Some(EventIndex::Day(day)));
        }
        let full = layout.clone();
        assert!(!layout.decide(&LayoutRequest { days: vec![("a".into(), TODAY - 402)], ..LayoutRequest::default() }));
        assert_eq!(layout, full);
        assert_eq!(layout.decided_index(&when("a", TODAY - 402)), Some(EventIndex::Year(2023)));
        assert_eq!(layout.decided_index(&when("b", TODAY - 402)), None, "another app has its own");
        assert_eq!(layout.old_index_count(), MAX_OLD_DAYS);
    }

    #[test]
    fn an_index_is_known_by_its_name() {
        for index in [EventIndex::Day(TODAY), EventIndex::Day(-1), EventIndex::Year(2024), EventIndex::Year(1969)] {
            assert_eq!(EventIndex::from_name("p-q", &index.name("p-q")), Some(index));
        }
        for name in
            ["p-q-uv-2024.10", "p-q-uv-2024", "p-q-ods-2024.10", "p-q-ods-2024.10.04-000001", "p-ods-2024", "p-q-users"]
        {
            assert_eq!(EventIndex::from_name("p-q", name), None, "{name}");
        }
    }

    #[test]
    fn a_month_never_changes_its_mind() {
        let mut layout = Layout::default();
        let request =
            |month: &str, near| LayoutRequest { months: [(month.to_owned(), near)].into(), ..LayoutRequest::default() };
        assert!(layout.decide(&request("2015.05", false)));
        assert!(layout.decide(&request("2024.10", true)));
        assert!(!layout.decide(&request("2015.05", true)));
        assert!(!layout.decide(&request("2024.10", false)));
        assert_eq!(layout.visitor_index("p", 16_572), "p-uv-2015");
        assert_eq!(layout.visitor_index("p", TODAY), "p-uv-2024.10");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let mut layout = Layout::default();
        layout.decide(&LayoutRequest {
            days: vec![("a.b".into(), 5), ("".into(), -7)],
            months: [("2015.05".into(), true)].into(),
        });
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
        assert_eq!(serde_json::from_str::<Layout>("{}").unwrap(), Layout::default());
    }
}
