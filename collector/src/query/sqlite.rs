//! Questions answered from the embedded store, `store.db`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, ToSql, Transaction, params};
use tokio::sync::Semaphore;

use super::{CountQuery, Counts, EventsQuery, Extent, Filter, Listed, Measure, ReadError, Reader};
use crate::db;
use crate::sinks::sqlite::{FILE, Ident, MIGRATIONS, rows};

/// Questions answered at the same time. The console asks for eight numbers at once; more would only take turns on the
/// processor and take it from those who write.
const CONNECTIONS: usize = 4;

/// How long one question may wait and work. A range that takes longer should be asked in pieces, and nobody waits longer
/// in front of a page.
const DEADLINE: Duration = Duration::from_secs(10);

/// Steps of SQLite's machine between two looks at the clock: well below a millisecond.
const STEPS_PER_LOOK: i32 = 20_000;

/// SQLite's page cache of one reading connection, KiB.
const CACHE_KIB: i64 = 8 * 1024;

/// Answers questions from `store.db`, a few at a time, each within a deadline.
#[derive(Clone)]
pub struct StoreReader {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    path: PathBuf,
    deadline: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// Tells the working thread to stop when the one who asked has gone.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl StoreReader {
    /// A reader of the store in the data directory `dir`, which must exist when the first question comes.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self::with_deadline(dir, DEADLINE)
    }

    pub(crate) fn with_deadline(dir: &Path, deadline: Duration) -> Self {
        let shared = Shared { path: dir.join(FILE), deadline, idle: Mutex::default() };
        Self { shared: Arc::new(shared), permits: Arc::new(Semaphore::new(CONNECTIONS)) }
    }

    /// Runs `work` in a read transaction on a thread where it may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + self.shared.deadline;
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ReadError::Busy("Too many questions are being answered.".into()));
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&cancelled));
        let shared = Arc::clone(&self.shared);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            shared.with_connection(move || cancelled.load(Ordering::Relaxed) || Instant::now() >= deadline, work)
        });
        task.await.map_err(|error| ReadError::Failed(error.to_string()))?
    }
}

impl Shared {
    fn with_connection<T>(
        &self,
        stop: impl FnMut() -> bool + Send + 'static,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => self.connect()?,
        };
        let result = answer(&mut connection, stop, work);
        // A connection that failed for any other reason than the deadline is not used again.
        if matches!(result, Ok(_) | Err(ReadError::Busy(_))) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
        result
    }

    fn connect(&self) -> Result<Connection, ReadError> {
        let connection =
            db::open_reader(&self.path, MIGRATIONS).map_err(|error| ReadError::Failed(error.to_string()))?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB).map_err(read_error)?;
        Ok(connection)
    }
}

fn answer<T>(
    connection: &mut Connection,
    stop: impl FnMut() -> bool + Send + 'static,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, ReadError> {
    connection.progress_handler(STEPS_PER_LOOK, Some(stop)).map_err(read_error)?;
    let result = connection.unchecked_transaction().and_then(|transaction| work(&transaction)).map_err(read_error);
    connection.progress_handler(0, None::<fn() -> bool>).map_err(read_error)?;
    result
}

fn read_error(error: rusqlite::Error) -> ReadError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            ReadError::Busy("The question takes too long; ask for a shorter range or wider buckets.".into())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => ReadError::Busy("The store is locked.".into()),
        _ => ReadError::Failed(format!("{FILE}: {error}")),
    }
}

#[async_trait]
impl Reader for StoreReader {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        self.run(move |sql| count(sql, &query)).await
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<Listed>, ReadError> {
        self.run(move |sql| newest(sql, &query)).await
    }

    async fn extent(&self, app: &str) -> Result<Option<Extent>, ReadError> {
        let app = app.to_owned();
        self.run(move |sql| {
            let Some(app) = number(sql, "SELECT id FROM app WHERE key = ?1", &[&app])? else { return Ok(None) };
            // Two statements: SQLite answers each from one end of the index, but both in one by reading all of it.
            let end = |which: &str| {
                let query = format!("SELECT {which}(event_time) FROM event WHERE app = ?1");
                sql.prepare_cached(&query)?.query_row([app], |row| row.get::<_, Option<i64>>(0))
            };
            Ok(end("min")?.zip(end("max")?).map(|(first, last)| Extent { first, last }))
        })
        .await
    }
}

fn number(sql: &Connection, query: &str, params: &[&dyn ToSql]) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached(query)?.query_row(params, |row| row.get(0)).optional()
}

/// A condition on events of one app, in the store's numbers.
struct Condition {
    sql: String,
    values: Vec<i64>,
}

impl Condition {
    /// `None` if nothing can meet it, because the store has never seen the app, the code or the identifier.
    fn new(sql: &Connection, app: &str, filter: &Filter) -> rusqlite::Result<Option<Self>> {
        let Some(app) = number(sql, "SELECT id FROM app WHERE key = ?1", &[&app])? else { return Ok(None) };
        let mut condition = Self { sql: "app = ?".to_owned(), values: vec![app] };
        let words = [("theme", filter.theme.map(|theme| theme.as_str())), ("code", filter.code.as_deref())];
        for (column, word) in words {
            let Some(word) = word else { continue };
            let Some(word) = number(sql, "SELECT id FROM word WHERE text = ?1", &[&word])? else { return Ok(None) };
            condition.and(&format!("{column} = ?"), word);
        }
        Ok(Some(condition))
    }

    fn and(&mut self, sql: &str, value: i64) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.push(value);
    }

    fn app(&self) -> i64 {
        self.values[0]
    }
}

fn count(sql: &Connection, query: &CountQuery) -> rusqlite::Result<Counts> {
    let buckets = query.bounds.len().saturating_sub(1);
    let Some(condition) = Condition::new(sql, &query.app, &query.filter)? else {
        return Ok(Counts { buckets: vec![0; buckets], total: 0 });
    };
    match query.measure {
        Measure::Events => {
            let statement = format!(
                "SELECT count(*) FROM event INDEXED BY event_metrics WHERE {} AND event_time >= ? AND event_time < ?",
                condition.sql
            );
            per_bucket(sql, &statement, &condition.values, &query.bounds)
        }
        Measure::NewInstalls => per_bucket(sql, FIRST_IN, &[condition.app()], &query.bounds),
        Measure::InstallsSeen => installs_seen(sql, condition.app(), &query.bounds),
        Measure::Installs => distinct(sql, "install", condition, &query.bounds),
        Measure::Users => distinct(sql, "user", condition, &query.bounds),
        Measure::Sessions => distinct(sql, "session", condition, &query.bounds),
    }
}

const FIRST_IN: &str = "SELECT count(*) FROM install WHERE app = ? AND first_time >= ? AND first_time < ?";

/// What `statement` counts in each bucket, given `values` and the bucket's two boundaries. Only for what can be added up.
fn per_bucket(sql: &Connection, statement: &str, values: &[i64], bounds: &[i64]) -> rusqlite::Result<Counts> {
    let mut statement = sql.prepare_cached(statement)?;
    let mut buckets = Vec::with_capacity(bounds.len());
    for pair in bounds.windows(2) {
        let params = values.iter().chain(pair);
        let count: i64 = statement.query_row(rusqlite::params_from_iter(params), |row| row.get(0))?;
        buckets.push(count.unsigned_abs());
    }
    let total = buckets.iter().sum();
    Ok(Counts { buckets, total })
}

fn installs_seen(sql: &Connection, app: i64, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let mut counts = per_bucket(sql, FIRST_IN, &[app], bounds)?;
    let before = "SELECT count(*) FROM install WHERE app = ?1 AND first_time < ?2";
    let mut seen: i64 = sql
        .prepare_cached(before)?
        .query_row(params![app, bounds.first().copied().unwrap_or(i64::MIN)], |row| row.get(0))?;
    for bucket in &mut counts.buckets {
        seen += *bucket as i64;
        *bucket = seen.unsigned_abs();
    }
    counts.total = seen.unsigned_abs();
    Ok(counts)
}

/// Distinct numbers of `table` per bucket and overall, in one walk along the index in the order of time: for each number
/// the bucket where it was last seen is noted. The numbers are dense, so an array is the smallest set.
fn distinct(sql: &Connection, table: &str, mut condition: Condition, bounds: &[i64]) -> rusqlite::Result<Counts> {
    let (Some(from), Some(to)) = (bounds.first(), bounds.last()) else {
        return Ok(Counts { buckets: Vec::new(), total: 0 });
    };
    condition.and("event_time >= ?", *from);
    condition.and("event_time < ?", *to);
    let most = number(sql, &format!("SELECT coalesce(max(id), 0) FROM {table}"), &[])?.unwrap_or(0);
    let mut last_seen = vec![0u32; usize::try_from(most).unwrap_or(0) + 1];
    let query = format!(
        "SELECT event_time, {table} FROM event INDEXED BY event_metrics WHERE {} AND {table} <> 0 ORDER BY event_time",
        condition.sql
    );
    let mut statement = sql.prepare_cached(&query)?;
    let mut rows = statement.query(rusqlite::params_from_iter(&condition.values))?;
    let (mut buckets, mut total, mut current) = (vec![0u64; bounds.len() - 1], 0, 0);
    while let Some(row) = rows.next()? {
        let (time, number): (i64, i64) = (row.get(0)?, row.get(1)?);
        while bounds[current + 1] <= time {
            current += 1;
        }
        let Some(seen) = usize::try_from(number).ok().and_then(|number| last_seen.get_mut(number)) else { continue };
        let here = current as u32 + 1;
        total += u64::from(*seen == 0);
        buckets[current] += u64::from(*seen != here);
        *seen = here;
    }
    Ok(Counts { buckets, total })
}

fn newest(sql: &Connection, query: &EventsQuery) -> rusqlite::Result<Vec<Listed>> {
    let Some(mut condition) = Condition::new(sql, &query.app, &query.filter)? else { return Ok(Vec::new()) };
    let app = condition.app();
    if let Some(id) = &query.install_id {
        let found = number(sql, "SELECT id FROM install WHERE app = ?1 AND install_id = ?2", &[&app, &Ident::new(id)])?;
        let Some(install) = found else { return Ok(Vec::new()) };
        condition.and("install = ?", install);
    }
    if let Some(id) = &query.user_id {
        let found = number(sql, "SELECT id FROM user WHERE app = ?1 AND user_id = ?2", &[&app, id])?;
        let Some(user) = found else { return Ok(Vec::new()) };
        condition.and("user = ?", user);
    }
    condition.and("event_time >= ?", query.from.unwrap_or(i64::MIN));
    condition.and("event_time < ?", query.to.unwrap_or(i64::MAX));
    if let Some(mark) = query.after {
        // Said twice: the first is what the index is searched by.
        condition.and("event_time <= ?", mark.event_time);
        condition.and("(event_time < ?", mark.event_time);
        condition.sql.push_str(" OR position < ?)");
        condition.values.push(i64::try_from(mark.position).unwrap_or(i64::MAX));
    }
    condition.values.push(i64::try_from(query.limit).unwrap_or(i64::MAX));
    let source = format!(
        "SELECT position FROM event INDEXED BY event_metrics WHERE {} ORDER BY event_time DESC, position DESC LIMIT ?",
        condition.sql
    );
    let mut statement = sql.prepare_cached(&rows::select(&source, "e.event_time DESC, e.position DESC"))?;
    let found = statement.query_map(rusqlite::params_from_iter(&condition.values), |row| {
        let (position, row) = rows::read(row)?;
        Ok(Listed { position, row })
    })?;
    found.collect()
}
