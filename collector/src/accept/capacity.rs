//! Capacity of the spool for what an app sends, as a check, a problem and figures for metrics.

use std::collections::BTreeMap;

use subway_protocol::codec::server::Problem;
use subway_protocol::outcome::Actual;

use super::{Ingestor, unavailable};
use crate::spool::CapacityExceeded;

const SPOOL_FULL: &str = "the spool is full because a sink takes nothing";
const SHARE_USED_UP: &str = "this app's share of the spool is used up because a sink takes nothing";

/// Reason why the collector could not store a batch now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReady {
    /// The collector drains.
    #[error("the collector is shutting down")]
    ShuttingDown,
    /// The whole spool is full.
    #[error("{SPOOL_FULL}")]
    SpoolFull,
    /// No app has anything left of its share.
    #[error("every app is refused: {SHARE_USED_UP}")]
    SharesUsedUp,
    /// The spool cannot commit.
    #[error("{0}")]
    Spool(String),
}

impl Ingestor {
    /// Checks whether the spool has room for more of this app.
    pub(super) fn check_capacity(&self, app: i64) -> Result<(), Problem> {
        self.spool
            .backlog(app)
            .check_capacity(self.limits.load().spool_max_bytes)
            .map_err(|full| self.full_problem(full))
    }

    /// Counts a refusal for lack of room, and returns its problem.
    pub(super) fn full_problem(&self, full: CapacityExceeded) -> Problem {
        let CapacityExceeded::Share { limit, got } = full else { return unavailable(SPOOL_FULL) };
        self.telemetry.requests_over_share.inc();
        let detail = format!("{SHARE_USED_UP}: it may have {limit} bytes there now and has {got}");
        unavailable(&detail).limit(limit, Actual::Number(i64::try_from(got).unwrap_or(i64::MAX)))
    }

    /// Checks whether a batch of at least one of `apps` could be stored now.
    ///
    /// # Errors
    /// The reason why not.
    pub(crate) fn ready(&self, apps: impl Iterator<Item = i64>) -> Result<(), NotReady> {
        let cap = self.limits.load().spool_max_bytes;
        let mut full = None;
        for app in apps {
            full = self.spool.backlog(app).check_capacity(cap).err();
            if full.is_none() {
                break;
            }
        }
        match full {
            Some(CapacityExceeded::Spool) => Err(NotReady::SpoolFull),
            Some(CapacityExceeded::Share { .. }) => Err(NotReady::SharesUsedUp),
            None => self.spool.health().map_err(|why| NotReady::Spool(why.to_string())),
        }
    }

    /// Returns the bytes of JSON in the spool.
    #[must_use]
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.spool.backlog_bytes()
    }

    /// Returns the bytes of each app in the spool, by its number. An app without any is absent.
    #[must_use]
    pub(crate) fn backlogs(&self) -> BTreeMap<i64, u64> {
        self.spool.backlogs()
    }

    /// Returns how many bytes one app may have in the spool now.
    #[must_use]
    pub(crate) fn share_bytes(&self) -> u64 {
        self.spool.backlog(0).share(self.limits.load().spool_max_bytes)
    }
}
