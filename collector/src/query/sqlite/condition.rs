//! Translates the filter of a query to the store's IDs.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, ToSql};

use crate::query::Filter;
use crate::sinks::sqlite::{SELECT_WORD, SHARED_APP};

pub(super) fn select_id(sql: &Connection, query: &str, params: &[&dyn ToSql]) -> rusqlite::Result<Option<i64>> {
    sql.prepare_cached(query)?.query_row(params, |row| row.get(0)).optional()
}

/// Selects the ID of an app.
pub(super) const SELECT_APP: &str = "SELECT id FROM app WHERE key = ?1";

/// Condition on events of one app, in the store's IDs.
pub(super) struct EventCondition {
    pub(super) app: i64,
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl EventCondition {
    /// Creates the condition; `None` if no event can meet it, because the store has never seen the app, the theme or
    /// the code.
    pub(super) fn new(sql: &Connection, app: &str, filter: &Filter) -> rusqlite::Result<Option<Self>> {
        let query = "SELECT id, codes_in_rows FROM app WHERE key = ?1";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let Some((app, codes_in_rows)) = sql.prepare_cached(query)?.query_row([app], read).optional()? else {
            return Ok(None);
        };
        let mut condition = Self { app, sql: "app = ?".to_owned(), values: vec![app.into()] };
        if let Some(theme) = filter.theme {
            let Some(theme) = select_id(sql, SELECT_WORD, &[&SHARED_APP, &theme.as_str()])? else { return Ok(None) };
            condition.and("theme = ?", theme);
        }
        if let Some(code) = &filter.code {
            match (select_id(sql, SELECT_WORD, &[&app, code])?, codes_in_rows > 0) {
                (None, false) => return Ok(None),
                (Some(code), false) => condition.and("code = ?", code),
                // The app has so many codes that some are stored with their events, so those rows are searched.
                (number, true) => {
                    condition.and("(code = ?", number.unwrap_or(-1));
                    condition.sql.push_str(" OR (code = 0 AND code_text = ?))");
                    condition.values.push(code.clone().into());
                }
            }
        }
        Ok(Some(condition))
    }

    pub(super) fn and(&mut self, sql: &str, value: impl Into<Value>) {
        self.sql.push_str(" AND ");
        self.sql.push_str(sql);
        self.values.push(value.into());
    }
}
