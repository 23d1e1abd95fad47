//! What the index forgets, and when the clock is believed that decides it.

use rusqlite::{Connection, OptionalExtension, params};

use super::part::Meta;
use super::upkeep::{save_app, unname};
use super::{Change, Dedup, plan};
use crate::clock::{self, ClockGuard, MAX_DRIFT_MS};
use crate::spool::SpoolError;

/// The time at which the clock was last believed: noted, so that a start has something to compare the clock with.
const NOTED: &str = "SELECT value FROM counter WHERE name = 'clock'";
const NOTE: &str = "INSERT OR REPLACE INTO counter VALUES ('clock', ?1)";

/// When the newest ID was seen.
const NEWEST: &str = "SELECT max(at) FROM (SELECT max(at) AS at FROM fresh UNION ALL SELECT max(seen_to) FROM part)";

/// The guard of a collector that starts at `now`.
pub(super) fn guard(sql: &Connection, now: i64) -> Result<ClockGuard, SpoolError> {
    let noted: Option<i64> = sql.query_row(NOTED, [], |row| row.get(0)).optional()?;
    let believed = match noted {
        Some(noted) => noted,
        // Of a data directory from before it was noted: what lies in the future was seen by a clock that was wrong.
        None => sql.query_row(NEWEST, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or(now).min(now),
    };
    Ok(ClockGuard::new(believed, clock::monotonic()))
}

impl Dedup {
    /// Whether anything may be forgotten for its age at `now`.
    fn believes(&mut self, sql: &Connection, now: i64) -> Result<bool, SpoolError> {
        let doubted = self.guard.doubts();
        let believed = self.guard.believes(now, clock::monotonic());
        if believed {
            sql.prepare_cached(NOTE)?.execute([now])?;
        } else if !doubted {
            tracing::warn!(
                now,
                "the clock is weeks from where it was: no event ID is forgotten for its age until it is right again, or has gone on \
                 for hours"
            );
        }
        Ok(believed)
    }

    /// Takes the parts out of the database that lie beyond their app's horizon.
    pub(super) fn expire(&mut self, sql: &Connection, now: i64) -> Result<(), SpoolError> {
        let Some(horizons) = self.horizons.clone() else { return Ok(()) };
        let believed = self.believes(sql, now)?;
        for (app, index) in &self.apps {
            let mut metas: Vec<Meta> = index.parts.iter().map(|part| part.meta).collect();
            let mut known = index.forgotten_to;
            if believed && date(sql, &mut metas, &mut known, now)? {
                save_app(sql, *app, index.sealed_to, known)?;
                self.changes.push(Change::Dated { app: *app, parts: metas.clone(), forgotten_to: known });
            }
            let at = believed.then_some(now);
            let count = plan::expired(&metas, index.loose_ids() * 16, horizons.of(*app), at);
            let Some(to) = metas[..count].iter().map(|part| part.to).max() else { continue };
            let to = if believed { to.min(now) } else { to };
            let forgotten_to = known.map_or(to, |known| known.max(to));
            for part in &metas[..count] {
                unname(sql, part.no)?;
            }
            save_app(sql, *app, index.sealed_to, Some(forgotten_to))?;
            let parts = metas[..count].iter().map(|part| part.no).collect();
            self.changes.push(Change::Expired { app: *app, parts, forgotten_to });
        }
        Ok(())
    }
}

/// Times far in the future are those of a clock that was wrong. They become `now`, so that what was seen then can expire.
/// Returns whether there were any.
fn date(sql: &Connection, parts: &mut [Meta], forgotten_to: &mut Option<i64>, now: i64) -> Result<bool, SpoolError> {
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
