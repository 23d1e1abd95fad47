//! Expiry of event IDs, and the check that the clock is right before an ID expires by age.

use rusqlite::{Connection, OptionalExtension, params};

use super::maintenance::{delete_part_row, save_app};
use super::part::PartMeta;
use super::{Change, Dedup, plan};
use crate::clock::{self, ClockGuard, MAX_DRIFT_MS};
use crate::spool::SpoolError;

/// SQL for the last time at which the clock was trusted. It is stored so that the next start can compare the clock
/// with it.
const NOTED: &str = "SELECT value FROM counter WHERE name = 'clock'";
const NOTE: &str = "INSERT OR REPLACE INTO counter VALUES ('clock', ?1)";

/// SQL for the time at which the newest ID was seen.
const NEWEST: &str = "SELECT max(at) FROM (SELECT max(at) AS at FROM fresh UNION ALL SELECT max(seen_to) FROM part)";

/// Creates the clock guard of a collector that starts at `now`.
pub(super) fn clock_guard(sql: &Connection, now: i64) -> Result<ClockGuard, SpoolError> {
    let stored: Option<i64> = sql.query_row(NOTED, [], |row| row.get(0)).optional()?;
    let trusted = match stored {
        Some(stored) => stored,
        // Of a data directory from before it was noted: what lies in the future was seen by a clock that was wrong.
        None => sql.query_row(NEWEST, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(now).min(now),
    };
    Ok(ClockGuard::new(trusted, clock::monotonic()))
}

impl Dedup {
    /// Returns whether the clock is trusted at `now`, so that IDs can expire by age.
    fn trust_clock(&mut self, sql: &Connection, now: i64) -> Result<bool, SpoolError> {
        let was_doubted = self.clock_guard.doubts();
        let trusted = self.clock_guard.believes(now, clock::monotonic());
        if trusted {
            sql.prepare_cached(NOTE)?.execute([now])?;
        } else if !was_doubted {
            tracing::warn!(
                now,
                "the clock is weeks from where it was: no event ID is forgotten for its age until it is right again, or has gone on \
                 for hours"
            );
        }
        Ok(trusted)
    }

    /// Deletes the parts beyond their app's horizon from the database.
    pub(super) fn expire(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        let Some(horizons) = self.horizons.clone() else { return Ok(()) };
        let trusted = self.trust_clock(sql, now)?;
        for (app, index) in &self.apps {
            let mut metas: Vec<PartMeta> = index.parts.iter().map(|part| part.meta).collect();
            let mut known = index.forgotten_to;
            if trusted && clamp_future(sql, &mut metas, &mut known, now)? {
                save_app(sql, *app, index.sealed_to, known)?;
                self.changes.push(Change::Redated { app: *app, parts: metas.clone(), forgotten_to: known });
            }
            let at = trusted.then_some(now);
            let count = plan::count_expired(&metas, index.unsealed_ids() * 16, horizons.of(*app), at);
            let Some(to) = metas[..count].iter().map(|part| part.to).max() else { continue };
            let to = if trusted { to.min(now) } else { to };
            let forgotten_to = known.map_or(to, |known| known.max(to));
            for part in &metas[..count] {
                delete_part_row(sql, part.no)?;
            }
            save_app(sql, *app, index.sealed_to, Some(forgotten_to))?;
            let parts = metas[..count].iter().map(|part| part.no).collect();
            self.changes.push(Change::Expired { app: *app, parts, forgotten_to });
        }
        Ok(())
    }
}

/// Replaces times far in the future, which a wrong clock wrote, by `now`, so that those IDs can expire. Returns
/// whether there were any.
fn clamp_future(
    sql: &Connection,
    parts: &mut [PartMeta],
    forgotten_to: &mut Option<i64>,
    now: i64,
) -> Result<bool, SpoolError> {
    let latest = now.saturating_add(MAX_DRIFT_MS);
    let mut dated = false;
    for part in parts.iter_mut().filter(|part| part.to > latest) {
        (part.from, part.to) = (part.from.min(now), now);
        let query = "UPDATE part SET seen_from = ?2, seen_to = ?3 WHERE no = ?1";
        sql.prepare_cached(query)?.execute(params![part.no, part.from, part.to])?;
        dated = true;
    }
    if forgotten_to.is_some_and(|to| to > latest) {
        *forgotten_to = Some(now);
        dated = true;
    }
    Ok(dated)
}
