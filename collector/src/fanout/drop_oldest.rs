//! Drops a sink's oldest events before clients are refused because the spool is full.

use std::time::Duration;

use super::blocking;
use crate::spool::{FREE_SPACE_MULTIPLE, Spool, SpoolError};

/// Percent of the cap at which events are dropped, and percent that is kept. The distance leaves space for events
/// that arrive meanwhile, and saves a search of the log for every batch.
const START_PERCENT: u64 = 80;
const KEEP_PERCENT: u64 = 70;

// An app with the whole log is refused at FREE_SPACE_MULTIPLE / (FREE_SPACE_MULTIPLE + 1) of the cap, others later. Events
// are dropped before that.
const _: () = assert!(START_PERCENT * (FREE_SPACE_MULTIPLE + 1) < 100 * FREE_SPACE_MULTIPLE);

/// Interval of attempts on a full spool while no event is stored. Other sinks may have delivered what they needed,
/// which the head does not show: it does not move while clients are refused.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Condition under which a sink drops its oldest events, and the events that it may drop.
#[derive(Clone, Debug)]
pub(super) struct DropPolicy {
    /// Sinks that drop nothing.
    pub(super) others: Vec<String>,
    /// Cap of the spool, bytes of JSON.
    pub(super) cap: u64,
}

impl DropPolicy {
    pub(super) fn is_due(&self, spool: &Spool) -> bool {
        spool.backlog_bytes().saturating_mul(100) >= self.cap.saturating_mul(START_PERCENT)
    }
}

/// Watches the spool and drops events whenever it is too full.
pub(super) async fn drop_when_full(spool: Spool, name: String, drop_policy: DropPolicy) {
    let mut head = spool.watch_head();
    loop {
        if drop_policy.is_due(&spool) {
            report(&name, &drop_oldest(&spool, &name, &drop_policy, false).await);
        }
        let still_due = drop_policy.is_due(&spool);
        tokio::select! {
            changed = head.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RETRY_INTERVAL), if still_due => {}
        }
    }
}

pub(super) fn report(sink: &str, dropped: &Result<u64, SpoolError>) {
    match dropped {
        Ok(0) => {}
        Ok(events) => tracing::warn!(sink, events, "the spool is full: the oldest events are given up"),
        Err(error) => tracing::warn!(sink, %error, "events could not be given up"),
    }
}

pub(super) async fn drop_oldest(
    spool: &Spool,
    name: &str,
    drop_policy: &DropPolicy,
    tracks_position: bool,
) -> Result<u64, SpoolError> {
    let (spool, name, others) = (spool.clone(), name.to_owned(), drop_policy.others.clone());
    let keep = drop_policy.cap / 100 * KEEP_PERCENT;
    blocking(move || {
        let events = spool.drop_oldest(&name, keep, others, tracks_position)?;
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
        let drop_policy = DropPolicy { others: vec!["other".into()], cap: spool.backlog_bytes() };
        let watcher = tokio::spawn(drop_when_full(spool.clone(), "sheds".into(), drop_policy.clone()));
        tokio::time::sleep(2 * RETRY_INTERVAL).await;
        assert_eq!(spool.ledger().unwrap().sinks["sheds"].dropped_oldest, 0, "the other lacks everything");
        let cursor = spool.clone();
        blocking(move || cursor.advance("other", 200, Vec::new(), false)).await.unwrap();
        let given_up = async {
            while drop_policy.is_due(&spool) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, given_up).await.unwrap();
        let sinks = spool.ledger().unwrap().sinks;
        assert!(sinks["sheds"].dropped_oldest > 0 && sinks["other"].dropped_oldest == 0, "{sinks:?}");
        watcher.abort();
    }
}
