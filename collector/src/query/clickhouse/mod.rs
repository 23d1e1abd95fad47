//! Reader of ClickHouse, with one statement per query.
//!
//! A repetition that the server did not recognise exists until its parts are merged. It does not change distinct counts
//! and first times. Events are counted with FINAL, which leaves it out, and lists take one event per ID.

pub(crate) mod decode;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use super::{CountQuery, Counts, EventsQuery, Filter, ListedEvent, Measure, ReadError, Reader, TimeRange};
use crate::config::{ClickHouse as Settings, Delivery};
use crate::sinks::SinkError;
use crate::sinks::clickhouse::{Client, StatementError, UrlParameters, column_names, local_table, parse_ttl_days};
use crate::sinks::days::{DAY_MS, day_of};

/// Limit for one query. A range that takes longer should be split, because users do not wait longer for a page.
const DEADLINE: Duration = Duration::from_secs(10);
/// Additional time for the response to arrive.
const RESPONSE_GRACE: Duration = Duration::from_secs(5);
/// Maximum concurrent queries. The console sends eight at once.
const MAX_CONCURRENT_QUERIES: usize = 8;

/// Error codes of a server that stops a query: took too long, too many rows, too many queries, memory, cancelled.
const BUSY_ERRORS: [u32; 8] = [158, 159, 160, 202, 241, 307, 394, 396];

/// External table with the boundaries of the buckets.
const BOUNDS_TABLE: &str = "bounds";

/// Returns the expression of a time's bucket: the last boundary that is not after it.
fn bucket(time: &str) -> String {
    format!("roundDown(toUnixTimestamp64Milli({time}), (SELECT groupArray(value) FROM {BOUNDS_TABLE})) AS bucket")
}

struct ClickHouseReader {
    client: Client,
    table: String,
    /// Database and name of the table that holds the events.
    local_table_name: (String, String),
    deadline: Duration,
    permits: tokio::sync::Semaphore,
}

/// Opens a reader without sending anything.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the settings cannot be used.
pub(crate) fn open(settings: &Settings, _delivery: &Delivery) -> Result<Arc<dyn Reader>, SinkError> {
    Ok(Arc::new(ClickHouseReader::new(settings, DEADLINE)?))
}

/// Response to a count: bucket and number, and the number over all buckets.
#[derive(Deserialize)]
struct CountResponse {
    data: Vec<(i64, u64)>,
    totals: Option<(i64, u64)>,
}

impl ClickHouseReader {
    fn new(settings: &Settings, deadline: Duration) -> Result<Self, SinkError> {
        Ok(Self {
            client: Client::new(settings, deadline + RESPONSE_GRACE)?,
            table: format!("{}.{}", settings.database(), settings.table()),
            local_table_name: (settings.database().to_owned(), local_table(settings)),
            deadline,
            permits: tokio::sync::Semaphore::new(MAX_CONCURRENT_QUERIES),
        })
    }

    /// Returns the settings of every query.
    fn parameters(&self) -> UrlParameters {
        UrlParameters::default()
            // Read-only, except for settings.
            .with("readonly", "2")
            .with("max_execution_time", &format!("{:.3}", self.deadline.as_secs_f64()))
            .with("timeout_overflow_mode", "throw")
            .with("cancel_http_readonly_queries_on_client_close", "1")
            .with("output_format_json_quote_64bit_integers", "0")
            // The same event has the same time, so its repetitions are in the same partition.
            .with("do_not_merge_across_partitions_select_final", "1")
    }

    async fn permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, ReadError> {
        let permit = tokio::time::timeout(self.deadline, self.permits.acquire()).await;
        permit
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| ReadError::Busy("too many queries are running; try again later".into()))
    }
}

fn read_error(failure: StatementError) -> ReadError {
    match failure {
        StatementError::Server(code, _) if BUSY_ERRORS.contains(&code) => {
            ReadError::Busy("the query takes too long; use a shorter range or wider buckets".into())
        }
        failure => ReadError::Failed(failure.retryable().to_string()),
    }
}

fn decode_error(error: impl std::fmt::Display) -> ReadError {
    ReadError::Failed(format!("the response of ClickHouse cannot be decoded: {error}"))
}

/// Conditions of a query, with the values of their parameters.
struct Conditions {
    sql: String,
    parameters: UrlParameters,
}

impl Conditions {
    fn new(parameters: UrlParameters, app: &str, filter: &Filter) -> Self {
        let mut conditions =
            Self { sql: "app_key = {app:String}".to_owned(), parameters: parameters.with_value("app", app) };
        if let Some(theme) = filter.theme {
            conditions.and("theme = {theme:String}", "theme", theme.as_str());
        }
        if let Some(code) = &filter.code {
            conditions.and("code = {code:String}", "code", code);
        }
        conditions
    }

    fn and(&mut self, sql: &str, name: &str, value: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.parameters = std::mem::take(&mut self.parameters).with_value(name, value);
    }

    fn from(&mut self, time: i64) {
        self.and("event_time >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')", "from", &time.to_string());
    }

    fn to(&mut self, time: i64) {
        self.and("event_time < fromUnixTimestamp64Milli({to:Int64}, 'UTC')", "to", &time.to_string());
    }
}

/// Returns the statement that counts `query` in the events of `table` that meet `conditions`.
fn count_statement(table: &str, query: &CountQuery, conditions: &mut Conditions) -> String {
    let (Some(from), Some(to)) = (query.bounds.first(), query.bounds.last()) else { return String::new() };
    conditions.to(*to);
    let distinct = |conditions: &mut Conditions, column: &str| {
        conditions.from(*from);
        let condition = &conditions.sql;
        let bucket = bucket("event_time");
        format!("SELECT {bucket}, uniqExact({column}) FROM {table} WHERE {condition} AND {column} != ''")
    };
    let statement = match query.measure {
        Measure::Events => {
            conditions.from(*from);
            format!("SELECT {}, count() FROM {table} FINAL WHERE {}", bucket("event_time"), conditions.sql)
        }
        Measure::Installs => distinct(conditions, "install_id"),
        Measure::Users => distinct(conditions, "user_id"),
        Measure::Sessions => distinct(conditions, "session_id"),
        Measure::NewInstalls | Measure::InstallsSeen => {
            // Events after the end do not change which installs were first seen before it.
            let firsts =
                format!("SELECT min(event_time) AS first FROM {table} WHERE {} GROUP BY install_id", conditions.sql);
            let all = format!("SELECT {}, count() FROM ({firsts})", bucket("first"));
            if query.measure == Measure::InstallsSeen {
                all
            } else {
                let parameters = std::mem::take(&mut conditions.parameters);
                conditions.parameters = parameters.with_value("from", &from.to_string());
                format!("{all} WHERE first >= fromUnixTimestamp64Milli({{from:Int64}}, 'UTC')")
            }
        }
    };
    format!("{statement} GROUP BY bucket WITH TOTALS FORMAT JSONCompact")
}

/// Sorts the response into buckets. Of installs seen, those before the first boundary are under the first.
fn counts(query: &CountQuery, answer: &CountResponse) -> Result<Counts, ReadError> {
    let mut buckets = vec![0u64; query.bounds.len().saturating_sub(1)];
    for (bound, number) in &answer.data {
        let at = query.bounds.binary_search(bound).map_err(|_| decode_error(format!("{bound} is no boundary")))?;
        *buckets.get_mut(at).ok_or_else(|| decode_error(format!("{bound} is the last boundary")))? += number;
    }
    if query.measure == Measure::InstallsSeen {
        let mut seen = 0;
        for bucket in &mut buckets {
            seen += *bucket;
            *bucket = seen;
        }
    }
    Ok(Counts { buckets, total: answer.totals.map_or(0, |(_, total)| total) })
}

#[async_trait]
impl Reader for ClickHouseReader {
    async fn count(&self, query: CountQuery) -> Result<Counts, ReadError> {
        let _permit = self.permit().await?;
        let mut conditions = Conditions::new(self.parameters(), &query.app, &query.filter);
        let statement = count_statement(&self.table, &query, &mut conditions);
        let answer =
            self.client.run_with_external_table(&statement, conditions.parameters, BOUNDS_TABLE, &query.bounds).await;
        let answer: CountResponse = serde_json::from_slice(&answer.map_err(read_error)?).map_err(decode_error)?;
        counts(&query, &answer)
    }

    async fn newest(&self, query: EventsQuery) -> Result<Vec<ListedEvent>, ReadError> {
        let _permit = self.permit().await?;
        let mut conditions = Conditions::new(self.parameters(), &query.app, &query.filter);
        query.from.into_iter().for_each(|from| conditions.from(from));
        query.to.into_iter().for_each(|to| conditions.to(to));
        if let Some(install) = &query.install_id {
            conditions.and("install_id = {install:String}", "install", install);
        }
        if let Some(user) = &query.user_id {
            conditions.and("user_id = {user:String}", "user", user);
        }
        if let Some(sort_key) = query.after {
            conditions.and(
                "event_time <= fromUnixTimestamp64Milli({after:Int64}, 'UTC')",
                "after",
                &sort_key.event_time.to_string(),
            );
            conditions.and(
                "(event_time < fromUnixTimestamp64Milli({after:Int64}, 'UTC') OR position < {place:UInt64})",
                "place",
                &sort_key.position.to_string(),
            );
        }
        // Reads from the end of the key, and no more than the limit.
        let statement = format!(
            "SELECT {} FROM {} WHERE {} ORDER BY event_time DESC, position DESC LIMIT 1 BY event_id LIMIT {} FORMAT RowBinary",
            column_names(),
            self.table,
            conditions.sql,
            query.limit
        );
        // With buffering the server fills a buffer from every part before the first row: a hundred times the work.
        let parameters = conditions.parameters.with("read_in_order_use_buffering", "0");
        let answer = self.client.run(&statement, parameters).await.map_err(read_error)?;
        decode::rows(&answer).map_err(decode_error)
    }

    async fn time_range(&self, app: &str) -> Result<Option<TimeRange>, ReadError> {
        let _permit = self.permit().await?;
        let conditions = Conditions::new(self.parameters(), app, &Filter::default());
        let statement = format!(
            "SELECT toUnixTimestamp64Milli(min(event_time)), toUnixTimestamp64Milli(max(event_time)), count() \
             FROM {} WHERE {} FORMAT JSONCompact",
            self.table, conditions.sql
        );
        #[derive(Deserialize)]
        struct Ends {
            data: Vec<(i64, i64, u64)>,
        }
        let answer = self.client.run(&statement, conditions.parameters).await.map_err(read_error)?;
        let ends: Ends = serde_json::from_slice(&answer).map_err(decode_error)?;
        let ends = ends.data.first().filter(|(_, _, count)| *count > 0);
        Ok(ends.map(|(first, last, _)| TimeRange { first: *first, last: *last }))
    }

    /// Returns the first day (UTC) of which no event is older than the time to live.
    ///
    /// Older events may still exist until the next merge. First times of installs are computed from the events, so they
    /// expire with them.
    async fn complete_from(&self, _app: &str, _installs: bool) -> Result<Option<i64>, ReadError> {
        let _permit = self.permit().await?;
        let (database, table) = &self.local_table_name;
        let parameters = self.parameters().with_value("database", database).with_value("table", table);
        // The server deletes by its own clock.
        let statement = "SELECT engine_full, toUnixTimestamp64Milli(now64(3)) FROM system.tables \
                         WHERE database = {database:String} AND name = {table:String} FORMAT JSONCompact";
        #[derive(Deserialize)]
        struct Tables {
            data: Vec<(String, i64)>,
        }
        let answer = self.client.run(statement, parameters).await.map_err(read_error)?;
        let tables: Tables = serde_json::from_slice(&answer).map_err(decode_error)?;
        let found = tables.data.first().and_then(|(engine, now)| Some((day_of(*now), parse_ttl_days(engine)?)));
        Ok(found.map(|(today, days)| (today - days + 1) * DAY_MS))
    }
}

#[cfg(test)]
mod tests;
