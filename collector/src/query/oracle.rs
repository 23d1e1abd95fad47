//! The brute-force oracle of `subway_analytics` as a [`Reader`]. It keeps the records that the events came from.

use std::sync::Mutex;

use async_trait::async_trait;
use subway_analytics::testing::{Oracle as Facts, OracleEvent};

use super::{CountQuery, Counts, EventsQuery, ListedEvent, ReadError, Reader, TimeRange};
use crate::record::Record;
use crate::row::Row;
use crate::sinks::StoredRecord;

/// All events in memory, in the order of positions.
#[derive(Default)]
pub(crate) struct Oracle {
    state: Mutex<(Facts, Vec<StoredRecord>)>,
}

impl Oracle {
    pub(crate) fn add(&self, stored: &StoredRecord) {
        let record: Record<'_> = serde_json::from_str(&stored.json).unwrap();
        let mut state = self.state.lock().unwrap();
        for (event, position) in record.events.iter().zip(stored.first..) {
            state.0.add(OracleEvent {
                app: record.app_key.to_string(),
                time: event.event_time,
                theme: event.theme.to_string(),
                code: event.code.to_string(),
                install: record.install_id.to_string(),
                user: event.user_id.to_string(),
                session: event.session_id.to_string(),
                position,
            });
        }
        state.1.push(stored.clone());
    }
}

#[async_trait]
impl Reader for Oracle {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        Ok(self.state.lock().unwrap().0.count(&query))
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        let state = self.state.lock().unwrap();
        let listed = |event: &OracleEvent| {
            let holding = state.1.iter().rfind(|stored| stored.first <= event.position).unwrap();
            let index = usize::try_from(event.position - holding.first).unwrap();
            ListedEvent { position: event.position, row: row(holding, index) }
        };
        Ok(state.0.newest(&query).into_iter().map(listed).collect())
    }

    async fn time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError> {
        Ok(self.state.lock().unwrap().0.time_range(app))
    }
}

/// Returns the row of one event. What it borrows is leaked for the rest of the test.
fn row(stored: &StoredRecord, index: usize) -> Row<'static> {
    let json: &'static str = Box::leak(stored.json.clone().into_boxed_str());
    let record: &'static Record<'static> = Box::leak(Box::new(serde_json::from_str(json).unwrap()));
    Row::new(record, &record.events[index])
}
