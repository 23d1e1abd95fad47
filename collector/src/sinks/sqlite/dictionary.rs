//! Dictionaries: IDs for texts that repeat. They are looked up in memory, then in the store, and created if absent.
//!
//! Every row has the latest part that refers to it. Rows that only deleted parts refer to are deleted (see
//! [`super::retention`]). Codes and contexts are limited for each app. Beyond the limit they are stored with the events
//! themselves, which slows down that app and no other.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, ToSql, params};

use super::cache::Cache;
use super::columns::CONTEXT_SQL;
use super::ident::Ident;
use crate::record::{Context, Value};

/// App ID of the words that all apps share: themes and their kind, which are few.
pub(crate) const SHARED_APP: i64 = 0;

/// Cached row: its ID, and the latest part that refers to it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    number: i64,
    part: i64,
}

/// Statements of one dictionary.
struct Table {
    /// Selects `id, part`.
    select: &'static str,
    /// Takes the parameters of `select` and the part.
    insert: &'static str,
    /// Takes `id, part`.
    touch: &'static str,
}

/// Selects the ID and the part of a word. App -1 is from before codes were counted by app.
pub(crate) const SELECT_WORD: &str =
    "SELECT id, part FROM word WHERE app IN (-1, ?1) AND text = ?2 ORDER BY app LIMIT 1";

const WORD: Table = Table {
    select: SELECT_WORD,
    insert: "INSERT INTO word (app, text, part) VALUES (?1, ?2, ?3)",
    touch: "UPDATE word SET part = ?2 WHERE id = ?1",
};

const USER: Table = Table {
    select: "SELECT id, part FROM user WHERE app = ?1 AND user_id = ?2",
    insert: "INSERT INTO user (app, user_id, part) VALUES (?1, ?2, ?3)",
    touch: "UPDATE user SET part = ?2 WHERE id = ?1",
};

const SESSION: Table = Table {
    select: "SELECT id, part FROM session WHERE app = ?1 AND session_id = ?2",
    insert: "INSERT INTO session (app, session_id, part) VALUES (?1, ?2, ?3)",
    touch: "UPDATE session SET part = ?2 WHERE id = ?1",
};

const TOUCH_CONTEXT: &str = "UPDATE context SET part = ?2 WHERE id = ?1";

/// Cached install.
#[derive(Clone, Copy, Debug)]
struct Install {
    entry: Entry,
    first_time: i64,
}

/// Maximum rows of one app in a dictionary.
#[derive(Clone, Copy, Debug)]
pub(super) struct DictionaryLimits {
    pub(super) codes: u64,
    pub(super) contexts: u64,
}

/// Changed counters of one app, written before the commit.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    installs: i64,
    codes_in_rows: i64,
    contexts_in_rows: i64,
}

/// Dictionaries of the writer. They are invalid after a transaction that did not commit, and are then dropped.
pub(super) struct Dictionary {
    limits: DictionaryLimits,
    /// The part that is written, and the oldest. A row last referred to before the oldest may be deleted.
    part: i64,
    oldest: i64,
    apps: HashMap<String, i64>,
    words: Cache<Entry>,
    contexts: Cache<Entry>,
    installs: Cache<Install>,
    users: Cache<Entry>,
    sessions: Cache<Entry>,
    /// Number of codes and contexts of each app.
    code_counts: HashMap<i64, u64>,
    context_counts: HashMap<i64, u64>,
    changes: HashMap<i64, Changes>,
    key: String,
}

/// Finds the row of `text` with `table`: in the cache, then in the store; `None` if there is none. Records that the
/// current part refers to it.
fn find(
    sql: &Connection,
    (cache, table): (&mut Cache<Entry>, &Table),
    (app, text, stored): (i64, &str, &dyn ToSql),
    (part, oldest): (i64, i64),
) -> rusqlite::Result<Option<i64>> {
    let known = match cache.get(app, text) {
        Some(entry) if entry.part == part => return Ok(Some(entry.number)),
        Some(entry) if entry.part >= oldest => Some(entry),
        _ => sql
            .prepare_cached(table.select)?
            .query_row(params![app, stored], |row| Ok(Entry { number: row.get(0)?, part: row.get(1)? }))
            .optional()?,
    };
    let Some(entry) = known else { return Ok(None) };
    if entry.part < part {
        sql.prepare_cached(table.touch)?.execute([entry.number, part])?;
    }
    cache.put(app, text, Entry { number: entry.number, part });
    Ok(Some(entry.number))
}

/// Inserts a row for `text` with `table`.
fn insert(
    sql: &Connection,
    (cache, table): (&mut Cache<Entry>, &Table),
    (app, text, stored): (i64, &str, &dyn ToSql),
    part: i64,
) -> rusqlite::Result<i64> {
    let number = sql.prepare_cached(table.insert)?.insert(params![app, stored, part])?;
    cache.put(app, text, Entry { number, part });
    Ok(number)
}

/// Reserves one more row of a dictionary for `app`, if its limit allows it. `count_query` counts the rows.
fn reserve_entry(
    sql: &Connection,
    counts: &mut HashMap<i64, u64>,
    (app, max_entries, count_query): (i64, u64, &str),
) -> rusqlite::Result<bool> {
    let count = match counts.get(&app) {
        Some(count) => *count,
        None => sql.prepare_cached(count_query)?.query_row([app], |row| row.get(0))?,
    };
    counts.insert(app, if count < max_entries { count + 1 } else { count });
    Ok(count < max_entries)
}

impl Dictionary {
    pub(super) fn new(limits: DictionaryLimits) -> Self {
        Self {
            limits,
            part: 0,
            oldest: 0,
            apps: HashMap::new(),
            words: Cache::default(),
            contexts: Cache::default(),
            installs: Cache::default(),
            users: Cache::default(),
            sessions: Cache::default(),
            code_counts: HashMap::new(),
            context_counts: HashMap::new(),
            changes: HashMap::new(),
            key: String::new(),
        }
    }

    pub(super) fn limits(&self) -> DictionaryLimits {
        self.limits
    }

    /// Sets the part that refers to what is looked up from now on, and the oldest part.
    pub(super) fn set_parts(&mut self, (part, oldest): (i64, i64)) {
        (self.part, self.oldest) = (part, oldest);
    }

    /// Forgets the counts of codes and contexts after some were deleted.
    pub(super) fn reset_counts(&mut self) {
        self.code_counts.clear();
        self.context_counts.clear();
    }

    pub(super) fn app(&mut self, sql: &Connection, key: &str) -> rusqlite::Result<i64> {
        if let Some(number) = self.apps.get(key) {
            return Ok(*number);
        }
        let select = "SELECT id FROM app WHERE key = ?1";
        let found = sql.prepare_cached(select)?.query_row([key], |row| row.get(0)).optional()?;
        let number = match found {
            Some(number) => number,
            None => sql.prepare_cached("INSERT INTO app (key) VALUES (?1)")?.insert([key])?,
        };
        self.apps.insert(key.to_owned(), number);
        Ok(number)
    }

    /// Returns the ID of a word that all apps share, such as a theme; 0 for the empty text, which means unknown.
    pub(super) fn word(&mut self, sql: &Connection, text: &str) -> rusqlite::Result<i64> {
        if text.is_empty() {
            return Ok(0);
        }
        let (parts, key) = ((self.part, self.oldest), (SHARED_APP, text, &text as &dyn ToSql));
        match find(sql, (&mut self.words, &WORD), key, parts)? {
            Some(number) => Ok(number),
            None => insert(sql, (&mut self.words, &WORD), key, self.part),
        }
    }

    /// Returns the ID of an app's event code; 0 beyond the app's limit, where the text is stored with the event.
    pub(super) fn code(&mut self, sql: &Connection, app: i64, text: &str) -> rusqlite::Result<i64> {
        let (parts, key) = ((self.part, self.oldest), (app, text, &text as &dyn ToSql));
        if let Some(number) = find(sql, (&mut self.words, &WORD), key, parts)? {
            return Ok(number);
        }
        let count_query = "SELECT count(*) FROM word WHERE app = ?1";
        if reserve_entry(sql, &mut self.code_counts, (app, self.limits.codes, count_query))? {
            return insert(sql, (&mut self.words, &WORD), key, self.part);
        }
        self.changes.entry(app).or_default().codes_in_rows += 1;
        Ok(0)
    }

    /// Returns the ID of an app's context; 0 beyond the app's limit, where it is stored with the batch.
    pub(super) fn context(&mut self, sql: &Connection, app: i64, context: &Context<'_>) -> rusqlite::Result<i64> {
        let values = context.values().map(|value| if let Value::Text(text) = value { text } else { "" });
        let mut key = std::mem::take(&mut self.key);
        key.clear();
        for value in values {
            // With the length before it, one text cannot look like two.
            key.push_str(&value.len().to_string());
            key.push(':');
            key.push_str(value);
        }
        let number = self.context_by_key(sql, app, &key, &values);
        self.key = key;
        number
    }

    fn context_by_key(&mut self, sql: &Connection, app: i64, key: &str, values: &[&str]) -> rusqlite::Result<i64> {
        let part = self.part;
        let known = match self.contexts.get(app, key) {
            Some(entry) if entry.part == part => return Ok(entry.number),
            Some(entry) if entry.part >= self.oldest => Some(entry),
            _ => {
                let params = std::iter::once(&app as &dyn ToSql).chain(values.iter().map(|value| value as &dyn ToSql));
                let params: Vec<&dyn ToSql> = params.collect();
                let read = |row: &rusqlite::Row<'_>| Ok(Entry { number: row.get(0)?, part: row.get(1)? });
                sql.prepare_cached(&CONTEXT_SQL.0)?.query_row(&params[..], read).optional()?
            }
        };
        let number = match known {
            Some(entry) => {
                if entry.part < part {
                    sql.prepare_cached(TOUCH_CONTEXT)?.execute([entry.number, part])?;
                }
                entry.number
            }
            None => {
                let count_query = "SELECT count(*) FROM context WHERE app = ?1";
                if !reserve_entry(sql, &mut self.context_counts, (app, self.limits.contexts, count_query))? {
                    self.changes.entry(app).or_default().contexts_in_rows += 1;
                    return Ok(0);
                }
                let params =
                    [&app as &dyn ToSql, &part].into_iter().chain(values.iter().map(|value| value as &dyn ToSql));
                let params: Vec<&dyn ToSql> = params.collect();
                sql.prepare_cached(&CONTEXT_SQL.1)?.insert(&params[..])?
            }
        };
        self.contexts.put(app, key, Entry { number, part });
        Ok(number)
    }

    /// Returns the ID of an install, and lowers its first time to `earliest` if that is earlier.
    pub(super) fn install(&mut self, sql: &Connection, app: i64, id: &str, earliest: i64) -> rusqlite::Result<i64> {
        let part = self.part;
        let known = match self.installs.get(app, id) {
            // Retention may delete an install that no part refers to.
            Some(install) if install.entry.part >= self.oldest => Some(install),
            _ => sql
                .prepare_cached("SELECT id, part, first_time FROM install WHERE app = ?1 AND install_id = ?2")?
                .query_row(params![app, Ident::new(id)], |row| {
                    Ok(Install { entry: Entry { number: row.get(0)?, part: row.get(1)? }, first_time: row.get(2)? })
                })
                .optional()?,
        };
        let Some(install) = known else {
            let insert = "INSERT INTO install (app, install_id, first_time, part) VALUES (?1, ?2, ?3, ?4)";
            let number = sql.prepare_cached(insert)?.insert(params![app, Ident::new(id), earliest, part])?;
            self.changes.entry(app).or_default().installs += 1;
            self.installs.put(app, id, Install { entry: Entry { number, part }, first_time: earliest });
            return Ok(number);
        };
        let number = install.entry.number;
        if install.first_time > earliest || install.entry.part < part {
            let first_time = install.first_time.min(earliest);
            let update = "UPDATE install SET first_time = ?2, part = ?3 WHERE id = ?1";
            sql.prepare_cached(update)?.execute([number, first_time, part])?;
            self.installs.put(app, id, Install { entry: Entry { number, part }, first_time });
        } else if self.installs.get(app, id).is_none() {
            self.installs.put(app, id, install);
        }
        Ok(number)
    }

    /// Returns the ID of a user; 0 for the empty text, which means none.
    pub(super) fn user(&mut self, sql: &Connection, app: i64, id: &str) -> rusqlite::Result<i64> {
        if id.is_empty() {
            return Ok(0);
        }
        let (parts, key) = ((self.part, self.oldest), (app, id, &id as &dyn ToSql));
        match find(sql, (&mut self.users, &USER), key, parts)? {
            Some(number) => Ok(number),
            None => insert(sql, (&mut self.users, &USER), key, self.part),
        }
    }

    /// Returns the ID of a session; 0 for the empty text, which means none.
    pub(super) fn session(&mut self, sql: &Connection, app: i64, id: &str) -> rusqlite::Result<i64> {
        if id.is_empty() {
            return Ok(0);
        }
        let stored = Ident::new(id);
        let (parts, key) = ((self.part, self.oldest), (app, id, &stored as &dyn ToSql));
        match find(sql, (&mut self.sessions, &SESSION), key, parts)? {
            Some(number) => Ok(number),
            None => insert(sql, (&mut self.sessions, &SESSION), key, self.part),
        }
    }

    /// Writes the changed counters. Call it before the commit. Returns how many codes and contexts were stored in rows.
    pub(super) fn flush(&mut self, sql: &Connection) -> rusqlite::Result<(u64, u64)> {
        let query = "UPDATE app SET installs = installs + ?2, codes_in_rows = codes_in_rows + ?3,
            contexts_in_rows = contexts_in_rows + ?4 WHERE id = ?1";
        let (mut codes, mut contexts) = (0, 0);
        for (app, changes) in self.changes.drain() {
            let Changes { installs, codes_in_rows, contexts_in_rows } = changes;
            sql.prepare_cached(query)?.execute([app, installs, codes_in_rows, contexts_in_rows])?;
            codes += codes_in_rows.unsigned_abs();
            contexts += contexts_in_rows.unsigned_abs();
        }
        Ok((codes, contexts))
    }
}
