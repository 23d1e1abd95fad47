//! Reader of a collector without a store that can be queried. Its error says what to configure.

use async_trait::async_trait;

use super::{CountQuery, Counts, EventsQuery, ListedEvent, ReadError, Reader, TimeRange};

/// Fails every query.
pub(super) struct NoStoreReader;

fn refuse<T>() -> Result<T, ReadError> {
    Err(ReadError::NoStore(
        "no store can be queried: the embedded store is off ([embedded] enabled = false) and no [[sink]] is of kind \
         clickhouse or elasticsearch; configure one of these, or switch the embedded store on"
            .into(),
    ))
}

#[async_trait]
impl Reader for NoStoreReader {
    async fn count(&self, _: CountQuery) -> Result<Counts, ReadError> {
        refuse()
    }

    async fn newest(&self, _: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        refuse()
    }

    async fn time_range(&self, _: &str) -> Result<Option<TimeRange>, ReadError> {
        refuse()
    }
}
