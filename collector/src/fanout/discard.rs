//! Drops and discards events of a sink that tracks its position: its worker does both, and makes the store skip the
//! events.

use super::blocking;
use super::drop_oldest::{DropPolicy, drop_oldest, report};
use super::retryable;
use super::worker::Worker;

impl Worker {
    /// Drops the oldest events of a sink that tracks its position. The worker does it, because events that the store
    /// has taken or is taking must not be dropped.
    pub(super) async fn drop_oldest(&mut self, drop_policy: &DropPolicy) {
        if let Err(error) = self.advance_spool().await {
            return report(&self.name, &Err(error));
        }
        let dropped = drop_oldest(&self.reader.spool, &self.name, drop_policy, true).await;
        report(&self.name, &dropped);
        if dropped.is_ok_and(|events| events > 0) {
            let (spool, name) = (self.reader.spool.clone(), self.name.clone());
            if let Ok(cursor) = blocking(move || spool.cursor(&name)).await {
                self.skip_to = cursor.dropped_to;
            }
        }
    }

    /// Makes the store skip the discarded events, and moves the spool's cursor over them after that.
    pub(super) async fn skip(&mut self) {
        let Some(to) = self.skip_to else { return };
        if let Err(error) = self.sink.skip(to).await {
            return self.failed(&error);
        }
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        match blocking(move || spool.resume(&name)).await {
            Ok(cursor) => {
                self.skip_to = None;
                let reached = self.cursor.delivered_to.max(to);
                self.adopt_cursor(cursor);
                self.set_position(reached);
                self.scheduler.succeeded();
            }
            Err(error) => self.failed(&retryable(error)),
        }
    }
}
