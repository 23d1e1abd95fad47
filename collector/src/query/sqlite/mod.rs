//! Reader of the embedded store, `store.db`.

mod condition;
mod count;
mod list;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};
use tokio::sync::Semaphore;

use self::condition::{SELECT_APP, select_id};
use self::count::count;
use self::list::newest;
use super::{CountQuery, Counts, EventsQuery, ListedEvent, ReadError, Reader, TimeRange};
use crate::db;
use crate::sinks::sqlite::{FILE, MIGRATIONS};

/// Maximum concurrent queries. The console sends eight at once; more than this would only take turns on the processor
/// and slow down the writers.
const MAX_CONCURRENT_QUERIES: usize = 4;

/// Limit for waiting and working on one query. A range that takes longer should be split, because users do not wait
/// longer for a page.
const DEADLINE: Duration = Duration::from_secs(10);

/// Steps of SQLite's virtual machine between two checks of the deadline: well below a millisecond.
const STEPS_PER_DEADLINE_CHECK: i32 = 20_000;

/// SQLite's page cache of one reading connection, KiB.
const CACHE_KIB: i64 = 8 * 1024;

/// Reads `store.db`, with a few concurrent queries, each with a deadline.
#[derive(Clone)]
pub(crate) struct StoreReader {
    pool: Arc<ConnectionPool>,
    permits: Arc<Semaphore>,
}

struct ConnectionPool {
    path: PathBuf,
    deadline: Duration,
    idle: Mutex<Vec<Connection>>,
}

/// Drop guard: stops the working thread when the caller no longer waits.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl StoreReader {
    /// Creates a reader of the store in the data directory `dir`, which must exist at the first query.
    #[must_use]
    pub(crate) fn new(dir: &Path) -> Self {
        Self::with_deadline(dir, DEADLINE)
    }

    pub(crate) fn with_deadline(dir: &Path, deadline: Duration) -> Self {
        let pool = ConnectionPool { path: dir.join(FILE), deadline, idle: Mutex::default() };
        Self { pool: Arc::new(pool), permits: Arc::new(Semaphore::new(MAX_CONCURRENT_QUERIES)) }
    }

    /// Runs `work` in a read transaction on a thread that may block.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, ReadError> {
        let deadline = Instant::now() + self.pool.deadline;
        let permit = tokio::time::timeout_at(deadline.into(), Arc::clone(&self.permits).acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(ReadError::Busy("too many queries are running; try again later".into()));
        };
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = CancelOnDrop(Arc::clone(&cancelled));
        let pool = Arc::clone(&self.pool);
        let task = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            pool.with_connection(move || cancelled.load(Ordering::Relaxed) || Instant::now() >= deadline, work)
        });
        task.await.map_err(|error| ReadError::Failed(error.to_string()))?
    }
}

impl ConnectionPool {
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
        let result = run_read(&mut connection, stop, work);
        // A connection that failed for any reason but the deadline is not used again.
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

fn run_read<T>(
    connection: &mut Connection,
    stop: impl FnMut() -> bool + Send + 'static,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T, ReadError> {
    connection.progress_handler(STEPS_PER_DEADLINE_CHECK, Some(stop)).map_err(read_error)?;
    let result = connection.unchecked_transaction().and_then(|transaction| work(&transaction)).map_err(read_error);
    connection.progress_handler(0, None::<fn() -> bool>).map_err(read_error)?;
    result
}

fn read_error(error: rusqlite::Error) -> ReadError {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => {
            ReadError::Busy("the query takes too long; use a shorter range or wider buckets".into())
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            ReadError::Busy("the store is locked; try again later".into())
        }
        _ => ReadError::Failed(format!("{FILE}: {error}")),
    }
}

#[async_trait]
impl Reader for StoreReader {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        self.run(move |sql| count(sql, &query)).await
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        self.run(move |sql| newest(sql, &query)).await
    }

    async fn time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError> {
        let app = app.to_owned();
        self.run(move |sql| {
            let Some(app) = select_id(sql, SELECT_APP, &[&app])? else { return Ok(None) };
            let query = "SELECT min(first_time), max(last_time) FROM part_app WHERE app = ?1";
            let ends = sql.prepare_cached(query)?.query_row([app], |row| Ok((row.get(0)?, row.get(1)?)));
            let (first, last): (Option<i64>, Option<i64>) = ends?;
            Ok(first.zip(last).map(|(first, last)| TimeRange { first, last }))
        })
        .await
    }

    async fn complete_from(&self, app: &str, installs: bool) -> Result<Option<i64>, ReadError> {
        let app = app.to_owned();
        self.run(move |sql| {
            let column = if installs { "installs_complete_from" } else { "complete_from" };
            let query = format!("SELECT {column} FROM app WHERE key = ?1");
            Ok(sql.prepare_cached(&query)?.query_row([app], |row| row.get(0)).optional()?.flatten())
        })
        .await
    }
}
