//! The reader of a collector whose stores cannot be asked: it says what to configure.

use async_trait::async_trait;

use super::{CountQuery, Counts, EventsQuery, Extent, Listed, ReadError, Reader};

/// Answers nothing.
pub(super) struct Nowhere;

fn refuse<T>() -> Result<T, ReadError> {
    Err(ReadError::Nowhere(
        "This collector has no store that can be asked: the embedded store is off ([embedded] enabled = false) and no [[sink]] is of kind \
         clickhouse or elasticsearch. Configure one of these, or switch the embedded store on."
            .into(),
    ))
}

#[async_trait]
impl Reader for Nowhere {
    async fn count(&self, _: CountQuery) -> Result<Counts, ReadError> {
        refuse()
    }

    async fn newest(&self, _: EventsQuery) -> Result<Vec<Listed>, ReadError> {
        refuse()
    }

    async fn extent(&self, _: &str) -> Result<Option<Extent>, ReadError> {
        refuse()
    }
}
