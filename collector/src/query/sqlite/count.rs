//! Counts per bucket and over the whole range.

use std::collections::HashMap;

use rusqlite::{Connection, params_from_iter};

use super::condition::EventCondition;
use crate::query::{CountQuery, Counts, Measure};
use crate::sinks::sqlite::parts::{self, AppPart};

pub(super) fn count(sql: &Connection, query: &CountQuery) -> rusqlite::Result<Counts> {
    let buckets = query.bounds.len().saturating_sub(1);
    let Some(condition) = EventCondition::new(sql, &query.app, &query.filter)? else {
        return Ok(Counts { buckets: vec![0; buckets], total: 0 });
    };
    match query.measure {
        Measure::Events => events(sql, &condition, &query.bounds),
        Measure::NewInstalls => new_installs(sql, condition.app, &query.bounds),
        Measure::InstallsSeen => installs_seen(sql, condition.app, &query.bounds),
        Measure::Installs => distinct(sql, "install", condition, &query.bounds),
        Measure::Users => distinct(sql, "user", condition, &query.bounds),
        Measure::Sessions => distinct(sql, "session", condition, &query.bounds),
    }
}

/// Calls `visit` for every bucket and every part that has events of the app in it, bucket by bucket, with the bucket's
/// index and bounds, and the part.
fn each_bucket(
    sql: &Connection,
    app: i64,
    bounds: &[i64],
    mut visit: impl FnMut(usize, (i64, i64), &AppPart) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let (Some(from), Some(to)) = (bounds.first(), bounds.last()) else { return Ok(()) };
    let parts = parts::parts_of_app(sql, app, *from, *to)?;
    for (bucket, pair) in bounds.windows(2).enumerate() {
        let (begin, end) = (pair[0], pair[1]);
        for part in parts.iter().filter(|part| part.first_time < end && part.last_time >= begin) {
            visit(bucket, (begin, end), part)?;
        }
    }
    Ok(())
}

fn events(sql: &Connection, condition: &EventCondition, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let mut buckets = vec![0u64; bounds.len().saturating_sub(1)];
    each_bucket(sql, condition.app, bounds, |bucket, (begin, end), part| {
        let query = format!(
            "SELECT count(*) FROM {} WHERE {} AND event_time >= ? AND event_time < ?",
            part.metrics(),
            condition.sql
        );
        let values = condition.values.iter().cloned().chain([begin.into(), end.into()]);
        let count: i64 = sql.prepare_cached(&query)?.query_row(params_from_iter(values), |row| row.get(0))?;
        buckets[bucket] += count.unsigned_abs();
        Ok(())
    })?;
    let total = buckets.iter().sum();
    Ok(Counts { buckets, total })
}

fn new_installs(sql: &Connection, app: i64, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let query = "SELECT count(*) FROM install WHERE app = ?1 AND first_time >= ?2 AND first_time < ?3";
    let mut statement = sql.prepare_cached(query)?;
    let mut buckets = Vec::with_capacity(bounds.len());
    for pair in bounds.windows(2) {
        let count: i64 = statement.query_row([app, pair[0], pair[1]], |row| row.get(0))?;
        buckets.push(count.unsigned_abs());
    }
    let total = buckets.iter().sum();
    Ok(Counts { buckets, total })
}

fn installs_seen(sql: &Connection, app: i64, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let mut counts = new_installs(sql, app, bounds)?;
    let before = "SELECT count(*) FROM install WHERE app = ?1 AND first_time < ?2";
    let mut seen: i64 =
        sql.prepare_cached(before)?.query_row([app, bounds.first().copied().unwrap_or(i64::MIN)], |row| row.get(0))?;
    for bucket in &mut counts.buckets {
        seen += bucket.cast_signed();
        *bucket = seen.unsigned_abs();
    }
    counts.total = seen.unsigned_abs();
    Ok(counts)
}

/// Counts the distinct IDs of `table` per bucket and overall. Goes bucket by bucket and keeps for each ID the last
/// bucket that it was in.
fn distinct(sql: &Connection, table: &str, condition: EventCondition, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let ends = format!("SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM {table}");
    let (min, max) = sql.prepare_cached(&ends)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut last_buckets = LastBuckets::new(min, max);
    let (mut buckets, mut total) = (vec![0u64; bounds.len().saturating_sub(1)], 0);
    each_bucket(sql, condition.app, bounds, |bucket, (begin, end), part| {
        let query = format!(
            "SELECT {table} FROM {} WHERE {} AND event_time >= ? AND event_time < ? AND {table} <> 0",
            part.metrics(),
            condition.sql
        );
        let values = condition.values.iter().cloned().chain([begin.into(), end.into()]);
        let mut statement = sql.prepare_cached(&query)?;
        let mut rows = statement.query(params_from_iter(values))?;
        let here = u32::try_from(bucket).unwrap_or(u32::MAX - 1) + 1;
        while let Some(row) = rows.next()? {
            let before = last_buckets.replace(row.get(0)?, here)?;
            total += u64::from(before == 0);
            buckets[bucket] += u64::from(before != here);
        }
        Ok(())
    })?;
    Ok(Counts { buckets, total })
}

/// Maximum range of IDs for which an array is used: 64 MiB.
const MAX_DENSE_IDS: i64 = 16 * 1024 * 1024;

/// Maximum IDs that one query may keep in a map, used where an array would be too large, as in a store with a flood of
/// sessions: below 200 MB. A larger query fails and must be split.
const MAX_SPARSE_IDS: usize = 8 * 1024 * 1024;

/// Last bucket of each ID; 0 for none yet.
enum LastBuckets {
    Dense { min: i64, at: Vec<u32> },
    Sparse(HashMap<i64, u32>),
}

impl LastBuckets {
    fn new(min: i64, max: i64) -> Self {
        let numbers = max.saturating_sub(min).saturating_add(1);
        match usize::try_from(numbers) {
            Ok(size) if numbers <= MAX_DENSE_IDS => Self::Dense { min, at: vec![0; size] },
            _ => Self::Sparse(HashMap::new()),
        }
    }

    /// Sets the last bucket of `id` to `here` and returns the one before.
    fn replace(&mut self, id: i64, here: u32) -> rusqlite::Result<u32> {
        match self {
            Self::Dense { min, at } => {
                let location = usize::try_from(id - *min).ok().and_then(|location| at.get_mut(location));
                Ok(location.map_or(0, |location| std::mem::replace(location, here)))
            }
            Self::Sparse(at) => {
                let before = at.insert(id, here).unwrap_or(0);
                if at.len() > MAX_SPARSE_IDS {
                    let interrupted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                    return Err(rusqlite::Error::SqliteFailure(interrupted, None));
                }
                Ok(before)
            }
        }
    }
}
