//! Whether there is room in the spool for what an app sends.

use std::collections::BTreeMap;

use subway_protocol::codec::server::Problem;
use subway_protocol::outcome::Actual;

use super::{Acceptor, unavailable};
use crate::spool::Full;

const SPOOL: &str = "the spool is full because a sink takes nothing";
const SHARE: &str = "this app's share of the spool is used up because a sink takes nothing";

impl Acceptor {
    /// Whether the spool has room for more of this app.
    pub(super) fn room(&self, app: i64) -> Result<(), Problem> {
        self.spool.backlog(app).room(self.limits.load().spool_max_bytes).map_err(|full| self.full(full))
    }

    /// Counts a refusal for want of room and puts it into words.
    pub(super) fn full(&self, full: Full) -> Problem {
        let Full::Share { limit, got } = full else { return unavailable(SPOOL) };
        self.telemetry.requests_over_share.inc();
        let detail = format!("{SHARE}: it may have {limit} bytes there now and has {got}");
        unavailable(&detail).limit(limit, Actual::Number(i64::try_from(got).unwrap_or(i64::MAX)))
    }

    /// Whether a batch of at least one of `apps` could be accepted now.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub(crate) fn ready(&self, apps: impl Iterator<Item = i64>) -> Result<(), String> {
        let cap = self.limits.load().spool_max_bytes;
        let mut full = None;
        for app in apps {
            full = self.spool.backlog(app).room(cap).err();
            if full.is_none() {
                break;
            }
        }
        match full {
            Some(Full::Spool) => Err(SPOOL.into()),
            Some(Full::Share { .. }) => Err(format!("every app is refused: {SHARE}")),
            None => self.spool.health(),
        }
    }

    /// Bytes that wait in the spool.
    #[must_use]
    pub(crate) fn backlog_bytes(&self) -> u64 {
        self.spool.backlog_bytes()
    }

    /// Those of each app, by its number; an app that has none is absent.
    #[must_use]
    pub(crate) fn backlogs(&self) -> BTreeMap<i64, u64> {
        self.spool.backlogs()
    }

    /// How many bytes one app may have in the spool now.
    #[must_use]
    pub(crate) fn share_bytes(&self) -> u64 {
        self.spool.backlog(0).share(self.limits.load().spool_max_bytes)
    }
}
