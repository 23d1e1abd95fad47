//! Which indices there are: decided once, kept in the store, never taken back.
//!
//! An event's index must be the same in every attempt and after every crash, because the same ID in two indices is not caught.
//! Most follow from the event alone: a day near its arrival has an index of its own. Of older days an app gets the first
//! [`OLD_DAYS`], and the rest goes by years; a month of visitors has an index of its own if the first event of it was near.
//! What is first is not in the event, so it is written down before anything is delivered by it, with a condition that nobody
//! else wrote meanwhile. A set that is full never changes, and a month never changes its mind: whatever is asked again, by
//! whichever process, is answered the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::SinkError;
use super::super::days::{EventTimes, day_of, is_near};
use super::names;
use super::server::{Server, parse};

/// Days longer ago than those that are near, of which an app's events go by days: an import of a month has its days, and
/// whoever only has an app's public key makes no more indices than these.
pub(super) const OLD_DAYS: usize = 40;
/// The one document.
const ID: &str = "layout";
/// Times that somebody else may be faster in a row.
const RACES: usize = 20;

/// The index of an event, without the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// Of one day since the epoch.
    Day(i64),
    /// Of what has no index of its day in a year.
    Year(i64),
}

impl Place {
    pub(super) fn index(self, prefix: &str) -> String {
        match self {
            Place::Day(day) => names::ods(prefix, day),
            Place::Year(year) => names::ods_of_year(prefix, year),
        }
    }
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Layout {
    /// The older days of each app that have indices of their own.
    old_days: Vec<OldDays>,
    /// Months whose visitors have an index of their own, and those whose visitors go by the year.
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
        self.old_days.iter().find(|one| one.app_key == app).map(|one| &one.days)
    }

    /// Where an event goes, if that is decided.
    pub(super) fn decided(&self, when: &EventTimes<'_>) -> Option<Place> {
        let day = day_of(when.event_time);
        if is_near(when.event_time, when.received_at) {
            return Some(Place::Day(day));
        }
        let year = Place::Year(names::year_of(day));
        if when.event_time > when.received_at {
            return Some(year);
        }
        match self.old_days(when.app_key) {
            Some(days) if days.contains(&day) => Some(Place::Day(day)),
            Some(days) if days.len() >= OLD_DAYS => Some(year),
            _ => None,
        }
    }

    /// Where an event goes. Everything must be decided.
    pub(super) fn place(&self, when: &EventTimes<'_>) -> Place {
        self.decided(when).unwrap_or_else(|| Place::Year(names::year_of(day_of(when.event_time))))
    }

    /// The index of the visitors of a local day.
    pub(super) fn visitors(&self, prefix: &str, day: i64) -> String {
        if self.own_months.contains(&names::month_of(day)) {
            names::uv(prefix, day)
        } else {
            names::uv_of_year(prefix, names::year_of(day))
        }
    }

    /// How many indices there can be of older days.
    pub(super) fn old_indices(&self) -> usize {
        self.old_days.iter().flat_map(|one| &one.days).collect::<BTreeSet<_>>().len()
    }

    /// Decides what is not decided yet; says whether there was anything.
    fn decide(&mut self, wanted: &Wanted) -> bool {
        let before = self.clone();
        for (app, day) in &wanted.days {
            let at = match self.old_days.iter().position(|one| one.app_key == *app) {
                Some(at) => at,
                None => {
                    self.old_days.push(OldDays { app_key: app.clone(), days: BTreeSet::new() });
                    self.old_days.len() - 1
                }
            };
            let days = &mut self.old_days[at].days;
            if days.len() < OLD_DAYS {
                days.insert(*day);
            }
        }
        for (month, near) in &wanted.months {
            if !self.own_months.contains(month) && !self.year_months.contains(month) {
                let months = if *near { &mut self.own_months } else { &mut self.year_months };
                months.insert(month.clone());
            }
        }
        *self != before
    }
}

/// What has to be decided.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Older days of an app, in the order of their events.
    pub(super) days: Vec<(String, i64)>,
    /// Months that have visitors, and whether any of these is near its arrival.
    pub(super) months: BTreeMap<String, bool>,
}

/// The layout as the store has it.
pub(super) struct Layouts {
    prefix: String,
    /// How an index of one document is made; `None` if making is the operator's.
    settings: Option<Value>,
    known: RwLock<Arc<Layout>>,
}

impl Layouts {
    pub(super) fn new(settings: &crate::config::Elasticsearch) -> Self {
        let copies = match settings.replicas {
            Some(replicas) => json!({"number_of_shards": 1, "number_of_replicas": replicas}),
            None => json!({"number_of_shards": 1, "auto_expand_replicas": "0-1"}),
        };
        let settings_of_index = json!({"settings": {"index": copies}, "mappings": {"dynamic": false}});
        Self {
            prefix: settings.index_prefix().to_owned(),
            settings: settings.manage_schema.then_some(settings_of_index),
            known: RwLock::default(),
        }
    }

    /// What is known to be decided. Nothing that was decided is ever decided otherwise.
    pub(super) fn known(&self) -> Arc<Layout> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn learn(&self, layout: Layout) -> Arc<Layout> {
        let layout = Arc::new(layout);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&layout);
        layout
    }

    /// Reads what was decided by others, or before a restart.
    ///
    /// # Errors
    /// [`SinkError::Retryable`].
    pub(super) async fn load(&self, server: &Server) -> Result<(), SinkError> {
        let (layout, _) = self.read(server).await?;
        self.learn(layout);
        Ok(())
    }

    /// The layout with everything decided that is `wanted`.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if what is new could not be written down.
    pub(super) async fn decide(&self, server: &Server, wanted: &Wanted) -> Result<Arc<Layout>, SinkError> {
        let known = self.known();
        if !Layout::clone(&known).decide(wanted) {
            return Ok(known);
        }
        for _ in 0..RACES {
            let (mut layout, version) = self.read(server).await?;
            if !layout.decide(wanted) || self.write(server, &layout, &version).await? {
                return Ok(self.learn(layout));
            }
        }
        Err(SinkError::retryable("others keep changing the layout of the indices"))
    }

    /// What the store has, and what a write must say so that it replaces nothing else.
    async fn read(&self, server: &Server) -> Result<(Layout, String), SinkError> {
        let path = format!("/{}/_doc/{ID}", names::layout(&self.prefix));
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

    /// Writes it down; `false` if somebody else was faster.
    async fn write(&self, server: &Server, layout: &Layout, version: &str) -> Result<bool, SinkError> {
        let index = names::layout(&self.prefix);
        if let Some(settings) = self.settings.as_ref().filter(|_| version.starts_with("op_type")) {
            let answer = server.ask(Method::PUT, &format!("/{index}"), Some(settings)).await?;
            if !answer.is_ok() && !answer.message().contains("resource_already_exists_exception") {
                return Err(answer.retryable());
            }
        }
        let body = serde_json::to_value(layout).map_err(|error| SinkError::retryable(error.to_string()))?;
        let answer = server.ask(Method::PUT, &format!("/{index}/_doc/{ID}?{version}"), Some(&body)).await?;
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
            assert_eq!(layout.decided(&when("a", day)), Some(Place::Day(day)));
        }
        assert_eq!(layout.decided(&when("a", TODAY + 401)), Some(Place::Year(2025)));
        for n in 0..OLD_DAYS as i64 {
            let day = TODAY - 401 - 3 * n;
            assert_eq!(layout.decided(&when("a", day)), None);
            assert!(layout.decide(&Wanted { days: vec![("a".into(), day)], ..Wanted::default() }));
            assert_eq!(layout.decided(&when("a", day)), Some(Place::Day(day)));
        }
        let full = layout.clone();
        assert!(!layout.decide(&Wanted { days: vec![("a".into(), TODAY - 402)], ..Wanted::default() }));
        assert_eq!(layout, full);
        assert_eq!(layout.decided(&when("a", TODAY - 402)), Some(Place::Year(2023)));
        assert_eq!(layout.decided(&when("b", TODAY - 402)), None, "another app has its own");
        assert_eq!(layout.old_indices(), OLD_DAYS);
    }

    #[test]
    fn a_month_never_changes_its_mind() {
        let mut layout = Layout::default();
        let wanted = |month: &str, near| Wanted { months: [(month.to_owned(), near)].into(), ..Wanted::default() };
        assert!(layout.decide(&wanted("2015.05", false)));
        assert!(layout.decide(&wanted("2024.10", true)));
        assert!(!layout.decide(&wanted("2015.05", true)));
        assert!(!layout.decide(&wanted("2024.10", false)));
        assert_eq!(layout.visitors("p", 16_572), "p-uv-2015");
        assert_eq!(layout.visitors("p", TODAY), "p-uv-2024.10");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let mut layout = Layout::default();
        layout.decide(&Wanted {
            days: vec![("a.b".into(), 5), ("".into(), -7)],
            months: [("2015.05".into(), true)].into(),
        });
        let text = serde_json::to_string(&layout).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), layout);
        assert_eq!(serde_json::from_str::<Layout>("{}").unwrap(), Layout::default());
    }
}
