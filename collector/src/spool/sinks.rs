//! Registered sinks and their states: in the configuration, removed from it, or retired.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::{Spool, SpoolError, Tx, dead_letters, lock, parked};

subway_protocol::named_enum! {
    /// State of a sink.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "lowercase")]
    pub enum SinkState {
        /// The sink is in the configuration: events are delivered to it, and the log keeps what it lacks.
        #[default]
        Active = "active",
        /// The sink is no longer in the configuration. Nothing is delivered and the log keeps nothing for it. It can
        /// return.
        Unconfigured = "unconfigured",
        /// An operator has declared that the sink will not return. Its counts stay as they were then.
        Retired = "retired",
    }
}

impl SinkState {
    /// Returns the state of this name, or `active` if the name is unknown.
    pub(super) fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or_default()
    }

    /// Returns whether the sink is in the configuration.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// Ways to remove a sink that is no longer in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkRemoval {
    /// Keeps its counts, see [`Spool::retire`].
    Retire,
    /// Deletes it, see [`Spool::forget`].
    Forget,
}

impl SinkRemoval {
    /// Returns the word used in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Forget => "forget",
        }
    }

    /// Removes the sink.
    ///
    /// # Errors
    /// As [`Spool::retire`] and [`Spool::forget`].
    pub fn apply(self, spool: &Spool, sink: &str) -> Result<(), SpoolError> {
        match self {
            Self::Retire => spool.retire(sink),
            Self::Forget => spool.forget(sink),
        }?;
        tracing::info!(sink, done = self.as_str(), "a sink was retired or forgotten");
        Ok(())
    }
}

/// Updates the states to match the configuration. Returns the retired sinks that are in it again, with their
/// positions.
fn register(tx: &mut Tx<'_>, sinks: &[String]) -> Result<Vec<(String, u64)>, SpoolError> {
    tx.sql.execute("UPDATE cursor SET state = 'unconfigured' WHERE state = 'active'", [])?;
    let mut returned = Vec::new();
    for sink in sinks {
        let query = "SELECT delivered_to FROM cursor WHERE sink = ?1 AND state = 'retired'";
        let retired = tx.sql.query_row(query, [sink], |row| row.get(0)).optional()?;
        returned.extend(retired.map(|position| (sink.clone(), position)));
        let query = "INSERT INTO cursor (sink) VALUES (?1)
            ON CONFLICT DO UPDATE SET state = 'active', retired_at = NULL, retired_to = NULL";
        tx.sql.execute(query, [sink])?;
    }
    Ok(returned)
}

fn state(tx: &Tx<'_>, sink: &str) -> Result<SinkState, SpoolError> {
    let query = "SELECT state FROM cursor WHERE sink = ?1";
    let name: Option<String> = tx.sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?;
    name.map(|name| SinkState::from_name(&name)).ok_or_else(|| SpoolError::UnknownSink(sink.to_owned()))
}

fn retire(tx: &mut Tx<'_>, sink: &str, now: i64) -> Result<(), SpoolError> {
    match state(tx, sink)? {
        SinkState::Active => Err(SpoolError::SinkInUse(sink.to_owned())),
        SinkState::Retired => Ok(()),
        SinkState::Unconfigured => {
            let query = "UPDATE cursor SET state = 'retired', retired_at = ?2, retired_to = ?3 WHERE sink = ?1";
            tx.sql.execute(query, params![sink, now, tx.counters.stored])?;
            Ok(())
        }
    }
}

/// Deletes some rows of a sink. Returns `false` when none are left.
pub(super) fn forget(tx: &mut Tx<'_>, sink: &str) -> Result<bool, SpoolError> {
    if state(tx, sink)? != SinkState::Retired {
        return Err(SpoolError::NotRetired(sink.to_owned()));
    }
    let deleted_parked = parked::delete_chunk(tx, sink)?;
    if deleted_parked > 0 {
        // A crash can leave the rest, and the sink can return: what is gone must not count as delivered then.
        let query = "UPDATE cursor SET expired = expired + ?2 WHERE sink = ?1";
        tx.sql.execute(query, params![sink, deleted_parked])?;
    }
    if deleted_parked > 0 || dead_letters::delete_oldest(tx, sink, 0)? > 0 {
        return Ok(true);
    }
    for table in ["dead_letter", "letters", "parked_group", "cursor"] {
        tx.sql.execute(&format!("DELETE FROM {table} WHERE sink = ?1"), [sink])?;
    }
    Ok(false)
}

impl Spool {
    /// Registers the sinks of the configuration, for which the log is kept.
    ///
    /// New ones begin at the first event ever stored. One that was removed continues at its cursor. Both get events
    /// that are no longer in the log from elsewhere.
    ///
    /// # Errors
    /// If the database fails.
    pub fn register(&self, sinks: &[&str]) -> Result<(), SpoolError> {
        let sinks: Vec<String> = sinks.iter().map(|sink| (*sink).to_owned()).collect();
        let names = sinks.clone();
        for (sink, position) in self.call(move |tx| register(tx, &names))? {
            tracing::info!(
                sink,
                position,
                "a retired sink is in the configuration again; it goes on where it left off"
            );
        }
        *lock(&self.inner.active) = sinks;
        Ok(())
    }

    /// Retires `sink`, which is no longer in the configuration. A second call has no effect.
    ///
    /// # Errors
    /// [`SpoolError::UnknownSink`], [`SpoolError::SinkInUse`], or the database fails.
    pub fn retire(&self, sink: &str) -> Result<(), SpoolError> {
        let (sink, now) = (sink.to_owned(), crate::clock::now());
        self.call(move |tx| retire(tx, &sink, now))
    }

    /// Deletes a retired sink with its cursor, counts, dead letters and parked events. A new sink can use the name.
    ///
    /// # Errors
    /// [`SpoolError::UnknownSink`], [`SpoolError::NotRetired`], or the database fails.
    pub fn forget(&self, sink: &str) -> Result<(), SpoolError> {
        // In steps, so that the letters of a long fault do not hold up the answers to clients.
        loop {
            let sink = sink.to_owned();
            if !self.call(move |tx| forget(tx, &sink))? {
                return Ok(());
            }
        }
    }
}
