//! Migration of data directories from before parts existed: every event ID is a row of the table `seen`.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::hash::HashKey;
use super::part::{Part, PartWriter};
use crate::spool::SpoolError;

/// IDs of one part made from the table. The table is in order of IDs, so each part is a range of them.
const PART_IDS: u64 = 16 * 1024 * 1024;

fn io(error: std::io::Error) -> SpoolError {
    SpoolError::io("the dedup index cannot be brought to its new form", error)
}

/// Writes the table's IDs to parts and drops it, in one transaction.
///
/// The table has no times, so the IDs count as seen at `now`. None expires earlier than it would have.
pub(super) fn migrate_seen_table(
    sql: &mut Connection,
    folder: &Path,
    key: HashKey,
    now: i64,
) -> Result<(), SpoolError> {
    let there = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'seen'";
    if sql.query_row(there, [], |_| Ok(())).optional()?.is_none() {
        return Ok(());
    }
    let transaction = sql.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let apps: Vec<(i64, u64)> = transaction
        .prepare("SELECT app, count(*) FROM seen GROUP BY app")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut no = transaction.query_row("SELECT coalesce(max(no), 0) FROM part", [], |row| row.get::<_, u64>(0))?;
    for (app, count) in apps {
        tracing::info!(app, ids = count, "bringing the dedup index to its new form");
        let mut statement = transaction.prepare("SELECT id FROM seen WHERE app = ?1 ORDER BY id")?;
        let mut rows = statement.query([app])?;
        let mut left = count;
        while left > 0 {
            let ids = left.min(PART_IDS);
            no += 1;
            let mut writer = PartWriter::new(folder, no, ids, key).map_err(io)?;
            for _ in 0..ids {
                let Some(row) = rows.next()? else { break };
                writer.push(u128::from_be_bytes(row.get(0)?)).map_err(io)?;
            }
            insert_part_row(&transaction, &writer.finish(no, app, now, now).map_err(io)?)?;
            left -= ids;
        }
    }
    transaction.execute_batch("DROP TABLE seen")?;
    transaction.commit()?;
    Ok(())
}

/// Inserts the row of a part into the database.
pub(super) fn insert_part_row(sql: &Connection, part: &Part) -> Result<(), SpoolError> {
    let meta = &part.meta;
    sql.prepare_cached("INSERT INTO part (no, app, ids, seen_from, seen_to) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![meta.no, meta.app, meta.ids, meta.from, meta.to])?;
    Ok(())
}
