//! Whole events out of the store.

use std::borrow::Cow;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, params};
use serde_json::value::RawValue;

use super::dictionary::ident_text;
use super::{FILE, MIGRATIONS};
use crate::db::{self, DbError};
use crate::record::{Context, Event, Text};
use crate::row::Row;

/// Selects whole events: `source` is a query that gives their positions in a column `position`. `CROSS JOIN` makes
/// SQLite take the positions first and look everything else up.
pub(crate) fn select(source: &str, order: &str) -> String {
    format!(
        "SELECT e.position, a.key, b.batch_id, i.install_id, b.received_at, b.common, e.event_id, e.seq, t.text, o.text, e.event_time,
            e.ts, e.mono, e.boot, u.user_id, s.session_id, e.session_index, e.session_event, e.page_path, e.page_title,
            e.page_referrer, e.page_enter_ts, e.props, c.app_version, c.sdk_name, c.sdk_version, c.platform, c.host_app,
            c.host_version, c.os, c.os_version, c.brand, c.model, c.screen, c.language, c.timezone, c.network
        FROM ({source}) p CROSS JOIN event e ON e.position = p.position CROSS JOIN batch b ON b.id = e.batch
            CROSS JOIN context c ON c.id = b.context CROSS JOIN app a ON a.id = e.app CROSS JOIN install i ON i.id = e.install
            CROSS JOIN word t ON t.id = e.theme CROSS JOIN word o ON o.id = e.code
            LEFT JOIN user u ON u.id = e.user LEFT JOIN session s ON s.id = e.session
        ORDER BY {order}"
    )
}

/// One result of [`select`]: its position and the event.
pub(crate) fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, Row<'static>)> {
    let text = |at: usize| {
        Ok::<Text<'static>, rusqlite::Error>(Cow::Owned(row.get::<_, Option<String>>(at)?.unwrap_or_default()))
    };
    let ident = |at: usize| Ok::<Text<'static>, rusqlite::Error>(Cow::Owned(ident_text(row.get::<_, Value>(at)?)));
    let number = |at: usize| Ok::<Option<u64>, rusqlite::Error>(row.get::<_, Option<i64>>(at)?.map(|n| n as u64));
    let object = |at: usize| {
        let Some(json) = row.get::<_, Option<String>>(at)? else { return Ok(None) };
        let raw = RawValue::from_string(json);
        raw.map(|raw| Some(Cow::Owned(raw))).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(at, rusqlite::types::Type::Text, Box::new(error))
        })
    };
    let event = Event {
        event_id: ident(6)?,
        seq: row.get::<_, i64>(7)? as u64,
        theme: text(8)?,
        code: text(9)?,
        event_time: row.get(10)?,
        ts: row.get(11)?,
        mono: number(12)?,
        boot: text(13)?,
        user_id: text(14)?,
        session_id: ident(15)?,
        session_index: number(16)?,
        session_event: number(17)?,
        page_path: text(18)?,
        page_title: text(19)?,
        page_referrer: text(20)?,
        page_enter_ts: row.get(21)?,
        props: None,
    };
    let context = Context {
        app_version: text(23)?,
        sdk_name: text(24)?,
        sdk_version: text(25)?,
        platform: text(26)?,
        host_app: text(27)?,
        host_version: text(28)?,
        os: text(29)?,
        os_version: text(30)?,
        brand: text(31)?,
        model: text(32)?,
        screen: text(33)?,
        language: text(34)?,
        timezone: text(35)?,
        network: text(36)?,
    };
    let position = row.get::<_, i64>(0)?.unsigned_abs();
    let (common, props) = (object(5)?, object(22)?);
    Ok((
        position,
        Row {
            app_key: text(1)?,
            batch_id: ident(2)?,
            install_id: ident(3)?,
            received_at: row.get(4)?,
            context,
            common,
            event,
            props,
        },
    ))
}

/// The store's events in the order of their positions, for `export`. Blocks; works beside a running collector.
pub struct StoredRows {
    connection: Connection,
}

impl StoredRows {
    /// Opens the store in the data directory `dir`.
    ///
    /// # Errors
    /// [`DbError::Absent`] if there is none yet; or it cannot be opened.
    pub fn open(dir: &Path) -> Result<Self, DbError> {
        Ok(Self { connection: db::open_reader(&dir.join(FILE), MIGRATIONS)? })
    }

    /// The time zones last noted for the apps, `(key, IANA name)`.
    ///
    /// # Errors
    /// If the database fails.
    pub fn timezones(&self) -> Result<Vec<(String, String)>, DbError> {
        let mut statement = self.connection.prepare("SELECT key, timezone FROM app WHERE timezone <> ''")?;
        let apps = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(apps.collect::<rusqlite::Result<_>>()?)
    }

    /// Up to which position the store has the events.
    ///
    /// # Errors
    /// If the database fails.
    pub fn position(&self) -> Result<u64, DbError> {
        let position: i64 = self.connection.query_row("SELECT position FROM cursor", [], |row| row.get(0))?;
        Ok(position.unsigned_abs())
    }

    /// Gives the events at the positions after `position`, at most `limit`, to `visit`; returns the position up to which
    /// the store has now been read.
    ///
    /// Stored events never change and positions only grow, so a walk in such steps sees every event once, without
    /// holding one long transaction that would keep a running collector's write-ahead log from being reset.
    ///
    /// # Errors
    /// If the database fails, or the first error of `visit`.
    pub fn after<E: From<DbError>>(
        &self,
        position: u64,
        limit: u64,
        mut visit: impl FnMut(&Row<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        let sql = |error: rusqlite::Error| E::from(DbError::from(error));
        let snapshot = self.connection.unchecked_transaction().map_err(sql)?;
        let cursor: i64 = snapshot.query_row("SELECT position FROM cursor", [], |row| row.get(0)).map_err(sql)?;
        let source = "SELECT position FROM event WHERE position > ?1 ORDER BY position LIMIT ?2";
        let mut statement = snapshot.prepare_cached(&select(source, "p.position")).map_err(sql)?;
        let mut rows = statement.query(params![position as i64, limit as i64]).map_err(sql)?;
        let (mut count, mut last) = (0, position);
        while let Some(row) = rows.next().map_err(sql)? {
            let (at, row) = read(row).map_err(sql)?;
            visit(&row)?;
            (count, last) = (count + 1, at);
        }
        // Fewer than asked for: the store has nothing more up to its cursor.
        Ok(if count < limit { last.max(cursor.unsigned_abs()) } else { last })
    }
}
