//! Lets a sink give up its oldest events before clients have to be told that the spool is full.

use std::time::Duration;

use super::blocking;
use crate::spool::{FREE_SPACE_MULTIPLE, Spool, SpoolError};

/// The part of the cap at which events are given up, and the part that is kept then, percent. The distance is room for
/// what clients send meanwhile, and spares them a search of the log for every batch.
const BEGIN_PERCENT: u64 = 80;
const KEEP_PERCENT: u64 = 70;

// Whoever has the whole log is refused at SHARE / (SHARE + 1) of the cap, everybody else later: nobody before events are
// given up.
const _: () = assert!(BEGIN_PERCENT * (FREE_SPACE_MULTIPLE + 1) < 100 * FREE_SPACE_MULTIPLE);

/// How often a spool that is too full is tried again while nothing new is stored. What others waited for may have been
/// delivered meanwhile, which no head tells: while clients are refused the head does not move.
pub(super) const AGAIN: Duration = Duration::from_secs(1);

/// When a sink gives up its oldest events, and which may be given up.
#[derive(Clone, Debug)]
pub(super) struct Shedding {
    /// The sinks that give up nothing.
    pub(super) others: Vec<String>,
    /// The cap of the spool, bytes of JSON.
    pub(super) cap: u64,
}

impl Shedding {
    pub(super) fn is_due(&self, spool: &Spool) -> bool {
        spool.backlog_bytes().saturating_mul(100) >= self.cap.saturating_mul(BEGIN_PERCENT)
    }
}

/// Watches the spool for ever.
pub(super) async fn when_full(spool: Spool, name: String, shedding: Shedding) {
    let mut head = spool.watch_head();
    loop {
        if shedding.is_due(&spool) {
            report(&name, &shed(&spool, &name, &shedding, false).await);
        }
        let still_due = shedding.is_due(&spool);
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN), if still_due => {}
        }
    }
}

pub(super) fn report(sink: &str, shed: &Result<u64, SpoolError>) {
    match shed {
        Ok(0) => {}
        Ok(events) => tracing::warn!(sink, events, "the spool is full: the oldest events are given up"),
        Err(error) => tracing::warn!(sink, %error, "events could not be given up"),
    }
}

pub(super) async fn shed(spool: &Spool, name: &str, shedding: &Shedding, remembers: bool) -> Result<u64, SpoolError> {
    let (spool, name, others) = (spool.clone(), name.to_owned(), shedding.others.clone());
    let keep = shedding.cap / 100 * KEEP_PERCENT;
    blocking(move || {
        let events = spool.drop_oldest(&name, keep, others, remembers)?;
        spool.trim()?;
        Ok(events)
    })
    .await
}

#[cfg(test)]
mod tests {
    use crate::fanout::tests::{PATIENCE, spool, store};

    use super::*;

    #[tokio::test]
    async fn what_another_sink_waited_for_is_given_up_once_it_has_it_though_nothing_more_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let spool = spool(dir.path());
        let registrar = spool.clone();
        blocking(move || registrar.register(&["sheds", "other"])).await.unwrap();
        for _ in 0..20 {
            store(&spool, 10).await;
        }
        let shedding = Shedding { others: vec!["other".into()], cap: spool.backlog_bytes() };
        let watcher = tokio::spawn(when_full(spool.clone(), "sheds".into(), shedding.clone()));
        tokio::time::sleep(2 * AGAIN).await;
        assert_eq!(spool.ledger().unwrap().sinks["sheds"].dropped_oldest, 0, "the other lacks everything");
        let cursor = spool.clone();
        blocking(move || cursor.advance("other", 200, Vec::new(), false)).await.unwrap();
        let given_up = async {
            while shedding.is_due(&spool) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.unwrap();
        let sinks = spool.ledger().unwrap().sinks;
        assert!(sinks["sheds"].dropped_oldest > 0 && sinks["other"].dropped_oldest == 0, "{sinks:?}");
        watcher.abort();
    }
}
