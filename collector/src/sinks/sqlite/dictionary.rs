//! Numbers for texts that repeat: looked up in memory first, then in the store, then made.

use std::collections::HashMap;
use std::hash::Hash;

use rusqlite::types::{self, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ToSql, params};
use subway_protocol::Id;

use super::columns::CONTEXT;
use crate::record::{Context, Value};

/// Entries of one cache. At about 100 bytes each the caches together stay below 40 MB; beyond, a cache starts anew.
const CACHE_ENTRIES: usize = 65_536;

/// An identifier as it is stored: 16 bytes if it is a UUID in the usual lower-case form, else the text itself, so that
/// whatever was stored comes back exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ident<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> Ident<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        match Id::parse(text) {
            Some(id) if !text.bytes().any(|c| c.is_ascii_uppercase()) => Ident::Uuid(*id.as_bytes()),
            _ => Ident::Text(text),
        }
    }
}

impl ToSql for Ident<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Ident::Uuid(bytes) => ValueRef::Blob(bytes),
            Ident::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// The text of a stored identifier.
pub(super) fn ident_text(value: types::Value) -> String {
    match value {
        types::Value::Blob(bytes) => match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) => Id::from_bytes(bytes).text(),
            Err(other) => String::from_utf8_lossy(&other).into_owned(),
        },
        types::Value::Text(text) => text,
        types::Value::Integer(_) | types::Value::Real(_) | types::Value::Null => String::new(),
    }
}

/// What is known of an install.
#[derive(Clone, Copy, Debug)]
struct Install {
    number: i64,
    first_time: i64,
}

/// The writer's dictionaries. What they learnt in a transaction that did not commit is wrong: they are then thrown away.
#[derive(Default)]
pub(super) struct Dictionary {
    apps: HashMap<String, i64>,
    words: HashMap<String, i64>,
    contexts: HashMap<Vec<String>, i64>,
    installs: HashMap<(i64, String), Install>,
    users: HashMap<(i64, String), i64>,
    sessions: HashMap<(i64, [u8; 16]), i64>,
}

/// The number of `key`: from `cache`, or from `make`, which finds or makes it in the store.
fn cached<K: Eq + Hash>(
    cache: &mut HashMap<K, i64>,
    key: K,
    make: impl FnOnce(&K) -> rusqlite::Result<i64>,
) -> rusqlite::Result<i64> {
    if let Some(number) = cache.get(&key) {
        return Ok(*number);
    }
    let number = make(&key)?;
    if cache.len() >= CACHE_ENTRIES {
        cache.clear();
    }
    cache.insert(key, number);
    Ok(number)
}

/// Finds a row with `select`, or makes it with `insert`; both take the same parameters.
fn find_or_make(sql: &Connection, select: &str, insert: &str, params: &[&dyn ToSql]) -> rusqlite::Result<i64> {
    if let Some(number) = sql.prepare_cached(select)?.query_row(params, |row| row.get(0)).optional()? {
        return Ok(number);
    }
    sql.prepare_cached(insert)?.insert(params)
}

impl Dictionary {
    pub(super) fn app(&mut self, sql: &Connection, key: &str) -> rusqlite::Result<i64> {
        // Apps, words and users are looked up by `&str` first, so that a hit allocates nothing.
        if let Some(number) = self.apps.get(key) {
            return Ok(*number);
        }
        let (select, insert) = ("SELECT id FROM app WHERE key = ?1", "INSERT INTO app (key) VALUES (?1)");
        cached(&mut self.apps, key.to_owned(), |key| find_or_make(sql, select, insert, &[key]))
    }

    /// The number of a word; 0 for the empty text, which means unknown.
    pub(super) fn word(&mut self, sql: &Connection, text: &str) -> rusqlite::Result<i64> {
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.words.get(text) {
            return Ok(*number);
        }
        let (select, insert) = ("SELECT id FROM word WHERE text = ?1", "INSERT INTO word (text) VALUES (?1)");
        cached(&mut self.words, text.to_owned(), |text| find_or_make(sql, select, insert, &[text]))
    }

    pub(super) fn context(&mut self, sql: &Connection, context: &Context<'_>) -> rusqlite::Result<i64> {
        let values = context.values().into_iter();
        let text = |value| if let Value::Text(text) = value { text } else { "" };
        let key: Vec<String> = values.map(|value| text(value).to_owned()).collect();
        cached(&mut self.contexts, key, |values| {
            let values: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
            find_or_make(sql, &CONTEXT.0, &CONTEXT.1, &values)
        })
    }

    /// The number of an install of which events at `earliest` (and later) are being stored.
    pub(super) fn install(&mut self, sql: &Connection, app: i64, id: &str, earliest: i64) -> rusqlite::Result<i64> {
        let key = (app, id.to_owned());
        let known = match self.installs.get(&key) {
            Some(install) => Some(*install),
            None => sql
                .prepare_cached("SELECT id, first_time FROM install WHERE app = ?1 AND install_id = ?2")?
                .query_row(params![app, Ident::new(id)], |row| {
                    Ok(Install { number: row.get(0)?, first_time: row.get(1)? })
                })
                .optional()?,
        };
        let install = match known {
            Some(install) if install.first_time <= earliest => install,
            Some(install) => {
                let update = "UPDATE install SET first_time = ?2 WHERE id = ?1";
                sql.prepare_cached(update)?.execute(params![install.number, earliest])?;
                Install { first_time: earliest, ..install }
            }
            None => {
                let insert = "INSERT INTO install (app, install_id, first_time) VALUES (?1, ?2, ?3)";
                let number = sql.prepare_cached(insert)?.insert(params![app, Ident::new(id), earliest])?;
                Install { number, first_time: earliest }
            }
        };
        if self.installs.len() >= CACHE_ENTRIES {
            self.installs.clear();
        }
        self.installs.insert(key, install);
        Ok(install.number)
    }

    /// The number of a user; 0 for the empty text, which means none.
    pub(super) fn user(&mut self, sql: &Connection, app: i64, id: &str) -> rusqlite::Result<i64> {
        if id.is_empty() {
            return Ok(0);
        }
        let select = "SELECT id FROM user WHERE app = ?1 AND user_id = ?2";
        let insert = "INSERT INTO user (app, user_id) VALUES (?1, ?2)";
        cached(&mut self.users, (app, id.to_owned()), |(app, id)| find_or_make(sql, select, insert, &[app, id]))
    }

    /// The number of a session; 0 for the empty text, which means none.
    pub(super) fn session(&mut self, sql: &Connection, app: i64, id: &str) -> rusqlite::Result<i64> {
        if id.is_empty() {
            return Ok(0);
        }
        let select = "SELECT id FROM session WHERE app = ?1 AND session_id = ?2";
        let insert = "INSERT INTO session (app, session_id) VALUES (?1, ?2)";
        match Ident::new(id) {
            Ident::Uuid(bytes) => {
                let make =
                    |(app, bytes): &(i64, [u8; 16])| find_or_make(sql, select, insert, &[app, &Ident::Uuid(*bytes)]);
                cached(&mut self.sessions, (app, bytes), make)
            }
            text @ Ident::Text(_) => find_or_make(sql, select, insert, &[&app, &text]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_come_back_exactly() {
        for text in [
            "0198c0de-0000-7000-8000-000000000001",
            "0198C0DE-0000-7000-8000-000000000001",
            "",
            "x",
            "页",
            "0123456789abcdef",
        ] {
            let stored = match Ident::new(text).to_sql().unwrap() {
                ToSqlOutput::Borrowed(value) => value.try_into().unwrap(),
                ToSqlOutput::Owned(value) => value,
                _ => unreachable!(),
            };
            assert_eq!(ident_text(stored), text);
        }
    }
}
