//! What moves a sink's cursor: freezing the next batch, cutting it, going on after it or after what is gone.

use rusqlite::params;

use super::backlog::Owners;
use super::cursor::{Cursor, frozen, load, save};
use super::letters::{self, DeadLetter};
use super::parked::{self, Parked};
use super::{Spool, SpoolError, Stored, Tx};

fn bad(sink: &str, verb: &'static str, (first, last): (u64, u64), why: String) -> SpoolError {
    SpoolError::BadRange { sink: sink.to_owned(), verb, first, last, why }
}

/// `history`: those of the batch's events that the log no longer has, so that it can be sent again whatever happens to the
/// place that they came from.
fn freeze(
    tx: &mut Tx<'_>,
    sink: &str,
    (first, last): (u64, u64),
    history: &[Stored],
    without: Vec<u64>,
) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let why = match (&cursor.frozen, cursor.suspect_to) {
        (Some(frozen), _) => format!("{}..={} is frozen already", frozen.first, frozen.last),
        _ if first != cursor.delivered_to + 1 || last < first || last > tx.counters.stored => {
            format!("the cursor is at {}, the head at {}", cursor.delivered_to, tx.counters.stored)
        }
        (None, Some(to)) if last > to => format!("the refused batch ends at {to}"),
        _ if without.iter().any(|position| !(first..=last).contains(position)) => "without what is not in it".into(),
        _ => String::new(),
    };
    if !why.is_empty() {
        return Err(bad(sink, "freeze", (first, last), why));
    }
    let mut owners = Owners::default();
    for Stored { first, events, json } in history {
        let app = owners.of(tx.sql, json)?;
        let insert = "INSERT OR IGNORE INTO record (first, events, json, app) VALUES (?1, ?2, ?3, ?4)";
        if tx.sql.prepare_cached(insert)?.execute(params![first, events, json, app])? > 0 {
            tx.grow(app, json.len() as u64);
        }
    }
    cursor.frozen = frozen(tx.sql, first, last, without)?;
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// The events up to `to` that the sink lacks are nowhere any more.
fn expire(tx: &mut Tx<'_>, sink: &str, to: u64, arrived_before: i64) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if to <= cursor.delivered_to {
        return Ok(cursor);
    }
    if to > tx.counters.stored {
        let why = format!("the head is at {}", tx.counters.stored);
        return Err(bad(sink, "expire", (cursor.delivered_to + 1, to), why));
    }
    // What was given up because the spool was full counts as that already.
    let done = cursor.done();
    cursor.expired += to.saturating_sub(done);
    cursor.complete_from = cursor.complete_from.max(Some(arrived_before));
    cursor.delivered_to = to.max(done);
    (cursor.frozen, cursor.suspect_to, cursor.shed_to) = (None, None, None);
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// The events after the cursor of a sink that remembers its position, up to `to`, are dead.
fn give_up(tx: &mut Tx<'_>, sink: &str, to: u64, dead: &[DeadLetter]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if to > tx.counters.stored {
        let why = format!("the head is at {}", tx.counters.stored);
        return Err(bad(sink, "give up", (cursor.delivered_to + 1, to), why));
    }
    // What the cursor has passed counts as delivered already: the store had it, and has lost it.
    let dead = dead.iter().filter(|letter| letter.position > cursor.done());
    for letter in dead.clone() {
        letters::insert(tx.sql, letter)?;
    }
    cursor.dead += dead.count() as u64;
    cursor.shed_to = cursor.shed_to.max(Some(to));
    save(tx.sql, sink, &cursor)
}

/// The sink has gone on after what it gave up.
fn resume(tx: &mut Tx<'_>, sink: &str) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if let Some(to) = cursor.shed_to.take() {
        cursor.delivered_to = cursor.delivered_to.max(to);
        save(tx.sql, sink, &cursor)?;
    }
    Ok(cursor)
}

fn narrow(tx: &mut Tx<'_>, sink: &str, last: u64, suspect: bool) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let Some(before) = cursor.frozen.take().filter(|frozen| (frozen.first..frozen.last).contains(&last)) else {
        return Err(bad(sink, "narrow", (cursor.delivered_to + 1, last), "no frozen batch goes beyond it".into()));
    };
    if suspect {
        cursor.suspect_to = Some(before.last);
    }
    // What is cut off is looked at anew when its turn comes.
    let without = before.without.into_iter().filter(|position| *position <= last).collect();
    cursor.frozen = frozen(tx.sql, before.first, last, without)?;
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// What becomes of the events that a cursor passes, but for those delivered.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Those that the store refused for good.
    pub dead: Vec<DeadLetter>,
    /// Those that wait beside the log.
    pub parked: Vec<Parked>,
    /// What is left of a refused batch is suspect no longer.
    pub clear: bool,
}

/// What speaks against moving the cursor to `last`.
fn obstacle(cursor: &Cursor, sink: &str, last: u64, head: u64, passed: &Passed) -> Option<String> {
    let first = cursor.delivered_to + 1;
    let end = if cursor.shed_to.is_some() { cursor.pinned_to() } else { head };
    match &cursor.frozen {
        Some(frozen) if last < frozen.last => Some(format!("{}..={} is frozen", frozen.first, frozen.last)),
        _ if last < first || last > end => Some(format!("the end is at {end}")),
        _ if passed.dead.iter().any(|letter| letter.sink != sink || !(first..=last).contains(&letter.position)) => {
            Some("a dead letter is of another sink or range".into())
        }
        _ if passed.parked.iter().any(|parked| !(first..=last).contains(&parked.position)) => {
            Some("a parked event is of another range".into())
        }
        _ => None,
    }
}

fn advance(tx: &mut Tx<'_>, sink: &str, last: u64, passed: &Passed) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if let Some(why) = obstacle(&cursor, sink, last, tx.counters.stored, passed) {
        return Err(bad(sink, "advance", (cursor.delivered_to + 1, last), why));
    }
    for letter in &passed.dead {
        letters::insert(tx.sql, letter)?;
    }
    for event in &passed.parked {
        parked::insert(tx.sql, sink, event)?;
    }
    let pinned = cursor.pinned_to();
    cursor.delivered_to = last;
    cursor.dead += passed.dead.len() as u64;
    cursor.frozen = None;
    cursor.suspect_to = cursor.suspect_to.filter(|to| last < *to && !passed.clear);
    if let Some(to) = cursor.shed_to {
        if cursor.suspect_to.is_none() && last >= pinned {
            (cursor.delivered_to, cursor.shed_to) = (to, None);
        } else {
            // What was suspect and is so no longer stays pinned until it is delivered.
            cursor.suspect_to = Some(pinned);
        }
    }
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

impl Spool {
    /// How far a sink is.
    ///
    /// # Errors
    /// If it is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        self.read(|reader| reader.cursor(sink))
    }

    /// Fixes the bounds of the next batch of a sink: it begins right after the cursor. Returns the cursor after the commit.
    ///
    /// # Errors
    /// If the range does not follow the cursor, passes the head or the end of a refused batch, or another batch is
    /// frozen; or the database fails.
    pub fn freeze(&self, sink: &str, first: u64, last: u64) -> Result<Cursor, SpoolError> {
        self.freeze_with(sink, (first, last), Vec::new(), Vec::new())
    }

    /// [`Spool::freeze`] of a batch with events that the log no longer has: it takes them back until the batch is through. `without`:
    /// positions of those, in order, that are not sent with it but parked once it is through.
    ///
    /// # Errors
    /// As [`Spool::freeze`].
    pub fn freeze_with(
        &self,
        sink: &str,
        range: (u64, u64),
        history: Vec<Stored>,
        without: Vec<u64>,
    ) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| freeze(tx, &sink, range, &history, without))
    }

    /// Moves the cursor of a sink to `to`, because the events up to there are nowhere any more; those that it neither
    /// took nor gave up count as expired. Nothing is frozen afterwards. A cursor that is further stays where it is.
    /// `arrived_before`: they arrived before this time, milliseconds since the epoch.
    ///
    /// # Errors
    /// If `to` lies after the head, the sink is not registered, or the database fails.
    pub fn expire(&self, sink: &str, to: u64, arrived_before: i64) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| expire(tx, &sink, to, arrived_before))
    }

    /// Keeps the dead letters of a sink that remembers its position, for all events after its cursor up to `to`. Its store
    /// has to be told before the cursor may pass them; then comes [`Spool::resume`].
    ///
    /// # Errors
    /// If `to` lies after the head, the sink is not registered, or the database fails.
    pub fn give_up(&self, sink: &str, to: u64, dead: Vec<DeadLetter>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| give_up(tx, &sink, to, &dead))
    }

    /// Moves the cursor of a sink that remembers its position behind what was shed or given up, which its store has been told.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn resume(&self, sink: &str) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| resume(tx, &sink))
    }

    /// Cuts the frozen batch of a sink, of which the store took nothing, down to its events up to `last`. `suspect`: it
    /// was refused because of what is in it, so that all of it is suspect.
    ///
    /// # Errors
    /// If no batch is frozen that begins at or before `last` and ends after it; or the database fails.
    pub fn narrow(&self, sink: &str, last: u64, suspect: bool) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| narrow(tx, &sink, last, suspect))
    }

    /// Moves the cursor of a sink to `last` and keeps the dead letters of the range, in one commit. Nothing is frozen
    /// afterwards. `clear`: what is left of a refused batch is suspect no longer.
    ///
    /// # Errors
    /// If `last` lies before the end of the frozen batch, before the cursor or after the head; or the database fails.
    pub fn advance(&self, sink: &str, last: u64, dead: Vec<DeadLetter>, clear: bool) -> Result<Cursor, SpoolError> {
        self.pass(sink, last, Passed { dead, clear, ..Passed::default() })
    }

    /// [`Spool::advance`], with events that are parked in the same commit.
    ///
    /// # Errors
    /// As [`Spool::advance`].
    pub fn pass(&self, sink: &str, last: u64, passed: Passed) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| advance(tx, &sink, last, &passed))
    }

    /// The token of the batch `first..=last`, as [`Spool::freeze`] would give it.
    ///
    /// # Errors
    /// If the database fails.
    pub fn token(&self, first: u64, last: u64) -> Result<String, SpoolError> {
        self.read(|reader| reader.token(first, last))
    }
}
