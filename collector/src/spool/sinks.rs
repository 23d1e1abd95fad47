//! Which sinks there are, and what each is to the collector: in the configuration, no longer in it, or retired.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use super::{Spool, SpoolError, Tx, letters, lock, parked};

/// What a sink is to the collector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkState {
    /// The configuration has it: events are delivered to it, and the log keeps what it lacks.
    #[default]
    Active,
    /// The configuration has it no longer. Nothing is delivered, and the log keeps nothing for it; it may come back.
    Unconfigured,
    /// Somebody has said that it will not come back: its figures stay as they were then.
    Retired,
}

impl SinkState {
    /// Every state.
    pub const ALL: [Self; 3] = [Self::Active, Self::Unconfigured, Self::Retired];

    /// The name in the ledger, the metrics and the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Unconfigured => "unconfigured",
            Self::Retired => "retired",
        }
    }

    /// The state of this name; one that is unknown says nothing, as `active` does.
    pub(super) fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|state| state.as_str() == name).unwrap_or_default()
    }

    /// Whether it is in the configuration.
    #[must_use]
    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// What can be done to a sink that the configuration no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// [`Spool::retire`].
    Retire,
    /// [`Spool::forget`].
    Forget,
}

impl Ending {
    /// The word for it in commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retire => "retire",
            Self::Forget => "forget",
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// As [`Spool::retire`] and [`Spool::forget`].
    pub fn apply(self, spool: &Spool, sink: &str) -> Result<(), SpoolError> {
        match self {
            Self::Retire => spool.retire(sink),
            Self::Forget => spool.forget(sink),
        }?;
        tracing::info!(sink, done = self.as_str(), "a sink that is not in the configuration");
        Ok(())
    }
}

/// Brings the states in line with the configuration. Returns the retired ones that are in it again, with their positions.
fn register(tx: &mut Tx<'_>, sinks: &[String]) -> Result<Vec<(String, u64)>, SpoolError> {
    tx.sql.execute("UPDATE cursor SET state = 'unconfigured' WHERE state = 'active'", [])?;
    let mut again = Vec::new();
    for sink in sinks {
        let query = "SELECT delivered_to FROM cursor WHERE sink = ?1 AND state = 'retired'";
        let retired = tx.sql.query_row(query, [sink], |row| row.get(0)).optional()?;
        again.extend(retired.map(|position| (sink.clone(), position)));
        let query = "INSERT INTO cursor (sink) VALUES (?1)
            ON CONFLICT DO UPDATE SET state = 'active', retired_at = NULL, retired_to = NULL";
        tx.sql.execute(query, [sink])?;
    }
    Ok(again)
}

fn state(tx: &Tx<'_>, sink: &str) -> Result<SinkState, SpoolError> {
    let query = "SELECT state FROM cursor WHERE sink = ?1";
    let name: Option<String> = tx.sql.prepare_cached(query)?.query_row([sink], |row| row.get(0)).optional()?;
    name.map(|name| SinkState::named(&name)).ok_or_else(|| SpoolError::UnknownSink(sink.to_owned()))
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

/// Forgets some of a sink. `false` if nothing is left of it.
fn forget(tx: &mut Tx<'_>, sink: &str) -> Result<bool, SpoolError> {
    if state(tx, sink)? != SinkState::Retired {
        return Err(SpoolError::NotRetired(sink.to_owned()));
    }
    if letters::drop_oldest(tx, sink, 0)? > 0 || parked::drop_some(tx, sink)? > 0 {
        return Ok(true);
    }
    for table in ["dead_letter", "letters", "parked_group", "cursor"] {
        tx.sql.execute(&format!("DELETE FROM {table} WHERE sink = ?1"), [sink])?;
    }
    Ok(false)
}

impl Spool {
    /// Says which sinks the log is kept for: those that the configuration has. New ones begin at the first event ever
    /// stored, one that was away goes on where it left off; what the log no longer has of that they have to get elsewhere.
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

    /// Notes that `sink`, which the configuration no longer has, will not come back. Twice is once.
    ///
    /// # Errors
    /// [`SpoolError::UnknownSink`], [`SpoolError::SinkInUse`], or the database fails.
    pub fn retire(&self, sink: &str) -> Result<(), SpoolError> {
        let (sink, now) = (sink.to_owned(), crate::clock::now());
        self.call(move |tx| retire(tx, &sink, now))
    }

    /// Forgets a retired sink: its cursor, its figures, its dead letters and what is parked. Under the same name a new one may begin.
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
