//! What a worker does whose sink remembers its position: it gives up the oldest events itself, and tells the store.

use super::blocking;
use super::fails;
use super::shed::{Shedding, report, shed};
use super::worker::Worker;

impl Worker {
    /// Gives up the oldest events of a sink that remembers its position. Here and not beside the worker, because what the
    /// store has taken, and what it is taking, must not be given up.
    pub(super) async fn shed(&mut self, shedding: &Shedding) {
        if let Err(error) = self.tell_spool().await {
            return report(&self.name, &Err(error));
        }
        let shed = shed(&self.source.spool, &self.name, shedding, true).await;
        report(&self.name, &shed);
        if shed.is_ok_and(|events| events > 0) {
            let (spool, name) = (self.source.spool.clone(), self.name.clone());
            if let Ok(cursor) = blocking(move || spool.cursor(&name)).await {
                self.skip_to = cursor.dropped_to;
            }
        }
    }

    /// Tells the store that what was given up will not come, and then the spool that the store knows.
    pub(super) async fn skip(&mut self) {
        let Some(to) = self.skip_to else { return };
        if let Err(error) = self.sink.skip(to).await {
            return self.failed(&error);
        }
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        match blocking(move || spool.resume(&name)).await {
            Ok(cursor) => {
                self.skip_to = None;
                let reached = self.cursor.delivered_to.max(to);
                self.follow(cursor);
                self.reach(reached);
                self.plan.succeeded();
            }
            Err(error) => self.failed(&fails(error)),
        }
    }
}
