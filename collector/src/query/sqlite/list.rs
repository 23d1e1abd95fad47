//! Lists events, the newest first.

use std::ops::ControlFlow;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::condition::{EventCondition, select_id};
use crate::query::{EventsQuery, ListedEvent};
use crate::sinks::sqlite::parts;
use crate::sinks::sqlite::{Ident, rows};

pub(super) fn newest(sql: &Connection, query: &EventsQuery) -> rusqlite::Result<Vec<ListedEvent>> {
    let Some(mut condition) = EventCondition::new(sql, &query.app, &query.filter)? else { return Ok(Vec::new()) };
    let app = condition.app;
    if let Some(id) = &query.install_id {
        let found =
            select_id(sql, "SELECT id FROM install WHERE app = ?1 AND install_id = ?2", &[&app, &Ident::new(id)])?;
        let Some(install) = found else { return Ok(Vec::new()) };
        condition.and("install = ?", install);
    }
    if let Some(id) = &query.user_id {
        let found = select_id(sql, "SELECT id FROM user WHERE app = ?1 AND user_id = ?2", &[&app, id])?;
        let Some(user) = found else { return Ok(Vec::new()) };
        condition.and("user = ?", user);
    }
    let (from, to) = (query.from.unwrap_or(i64::MIN), query.to.unwrap_or(i64::MAX));
    condition.and("event_time >= ?", from);
    condition.and("event_time < ?", to);
    if let Some(sort_key) = query.after {
        // Redundant with the next condition; the index is searched by this one.
        condition.and("event_time <= ?", sort_key.event_time);
        condition.and("(event_time < ?", sort_key.event_time);
        condition.sql.push_str(" OR position < ?)");
        condition.values.push(i64::try_from(sort_key.position).unwrap_or(i64::MAX).into());
    }
    newest_locations(sql, &condition, (from, to), query.limit)?
        .into_iter()
        .map(|location| read_event(sql, location))
        .collect()
}

/// Location of an event of the list: its time, its position, and its part.
type EventLocation = (i64, i64, i64);

/// Returns the locations of the newest events that meet the condition. Reads parts in the order of their latest event,
/// and stops when no other can add to the result.
fn newest_locations(
    sql: &Connection,
    condition: &EventCondition,
    (from, to): (i64, i64),
    limit: usize,
) -> rusqlite::Result<Vec<EventLocation>> {
    let mut parts = parts::parts_of_app(sql, condition.app, from, to)?;
    parts.sort_by_key(|part| std::cmp::Reverse(part.last_time));
    let mut found: Vec<EventLocation> = Vec::new();
    for app_part in parts {
        if found.len() >= limit && found.last().is_some_and(|(time, ..)| *time > app_part.last_time) {
            break;
        }
        let query = format!(
            "SELECT event_time, position FROM {} WHERE {} ORDER BY event_time DESC, position DESC LIMIT ?",
            app_part.metrics(),
            condition.sql
        );
        let row_limit = Value::from(i64::try_from(limit).unwrap_or(i64::MAX));
        let values = condition.values.iter().cloned().chain([row_limit]);
        let mut statement = sql.prepare_cached(&query)?;
        let locations =
            statement.query_map(params_from_iter(values), |row| Ok((row.get(0)?, row.get(1)?, app_part.part)))?;
        found.extend(locations.collect::<rusqlite::Result<Vec<EventLocation>>>()?);
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.truncate(limit);
    }
    Ok(found)
}

/// Reads the whole event at a location.
fn read_event(sql: &Connection, (_, position, part): EventLocation) -> rusqlite::Result<ListedEvent> {
    let mut found = None;
    rows::for_each_row(sql, part, (position - 1, position, 1), |position, row| {
        found = Some(ListedEvent { position, row });
        Ok(ControlFlow::Break(()))
    })?;
    found.ok_or(rusqlite::Error::QueryReturnedNoRows)
}
