//! Lets a sink give up its oldest events before clients have to be told that the spool is full.

use super::worker::blocking;
use crate::spool::{Spool, SpoolError};

/// The part of the cap at which events are given up, and the part that is kept then, percent. The distance is room for
/// what clients send meanwhile, and spares them a search of the log for every batch.
const BEGIN_PERCENT: u64 = 90;
const KEEP_PERCENT: u64 = 80;

/// Watches the spool for ever. `others`: the sinks that give up nothing. `cap`: bytes of JSON.
pub(super) async fn when_full(spool: Spool, name: String, others: Vec<String>, cap: u64) {
    let mut head = spool.watch_head();
    while head.changed().await.is_ok() {
        if spool.backlog_bytes().saturating_mul(100) < cap.saturating_mul(BEGIN_PERCENT) {
            continue;
        }
        match shed(&spool, &name, &others, cap / 100 * KEEP_PERCENT).await {
            Ok(0) => {}
            Ok(events) => tracing::warn!(sink = name, events, "the spool is full: the oldest events are given up"),
            Err(error) => tracing::warn!(sink = name, %error, "events could not be given up"),
        }
    }
}

async fn shed(spool: &Spool, name: &str, others: &[String], keep: u64) -> Result<u64, SpoolError> {
    let (spool, name, others) = (spool.clone(), name.to_owned(), others.to_vec());
    blocking(move || {
        let events = spool.shed(&name, keep, others)?;
        spool.trim()?;
        Ok(events)
    })
    .await
}
