//! Changes to a sink's cursor: freezing the next batch, shrinking it, and advancing over delivered, parked, discarded
//! and expired events.

use rusqlite::params;

use super::backlog::AppLookup;
use super::cursor::{Cursor, freeze_range, load, save};
use super::dead_letters::{self, DeadLetter};
use super::parked::{self, Parked};
use super::{Spool, SpoolError, SpoolRecord, Tx};

fn bad_range(sink: &str, verb: &'static str, (first, last): (u64, u64), why: String) -> SpoolError {
    SpoolError::BadRange { sink: sink.to_owned(), verb, first, last, why }
}

/// Freezes a batch. Copies `history`, the batch's events that are no longer in the log, back into it, because their
/// source may delete them before the batch is sent again.
fn freeze(
    tx: &mut Tx<'_>,
    sink: &str,
    (first, last): (u64, u64),
    history: &[SpoolRecord],
    excluded: Vec<u64>,
) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let why = match (&cursor.frozen, cursor.bisect_to) {
        (Some(frozen), _) => format!("{}..={} is frozen already", frozen.first, frozen.last),
        _ if first != cursor.delivered_to + 1 || last < first || last > tx.counters.stored => {
            format!("the cursor is at {}, the head at {}", cursor.delivered_to, tx.counters.stored)
        }
        (None, Some(to)) if last > to => format!("the refused batch ends at {to}"),
        _ if excluded.iter().any(|position| !(first..=last).contains(position)) => "without what is not in it".into(),
        _ => String::new(),
    };
    if !why.is_empty() {
        return Err(bad_range(sink, "freeze", (first, last), why));
    }
    let mut app_lookup = AppLookup::default();
    for SpoolRecord { first, events, json } in history {
        let app = app_lookup.of(tx.sql, json)?;
        let insert = "INSERT OR IGNORE INTO record (first, events, json, app) VALUES (?1, ?2, ?3, ?4)";
        if tx.sql.prepare_cached(insert)?.execute(params![first, events, json, app])? > 0 {
            tx.grow_backlog(app, json.len() as u64);
        }
    }
    cursor.frozen = freeze_range(tx.sql, first, last, excluded)?;
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// Moves the cursor over events up to `to` that no longer exist.
fn expire(tx: &mut Tx<'_>, sink: &str, to: u64, arrived_before: i64) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if to <= cursor.delivered_to {
        return Ok(cursor);
    }
    if to > tx.counters.stored {
        let why = format!("the head is at {}", tx.counters.stored);
        return Err(bad_range(sink, "expire", (cursor.delivered_to + 1, to), why));
    }
    // What was given up because the spool was full counts as that already.
    let processed = cursor.processed();
    cursor.expired += to.saturating_sub(processed);
    cursor.complete_from = cursor.complete_from.max(Some(arrived_before));
    cursor.delivered_to = to.max(processed);
    (cursor.frozen, cursor.bisect_to, cursor.dropped_to) = (None, None, None);
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// Discards the events after the cursor up to `to` of a sink that tracks its position.
fn discard_to(tx: &mut Tx<'_>, sink: &str, to: u64, dead_letters: &[DeadLetter]) -> Result<(), SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if to > tx.counters.stored {
        let why = format!("the head is at {}", tx.counters.stored);
        return Err(bad_range(sink, "give up", (cursor.delivered_to + 1, to), why));
    }
    // What the cursor has passed counts as delivered already: the store had it, and has lost it.
    let dead_letters = dead_letters.iter().filter(|letter| letter.position > cursor.processed());
    for letter in dead_letters.clone() {
        dead_letters::insert(tx.sql, letter)?;
    }
    cursor.discarded += dead_letters.count() as u64;
    cursor.dropped_to = cursor.dropped_to.max(Some(to));
    save(tx.sql, sink, &cursor)
}

/// Moves the cursor over the discarded events after the store has skipped them.
fn resume(tx: &mut Tx<'_>, sink: &str) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    if let Some(to) = cursor.dropped_to.take() {
        cursor.delivered_to = cursor.delivered_to.max(to);
        save(tx.sql, sink, &cursor)?;
    }
    Ok(cursor)
}

fn shrink_frozen(tx: &mut Tx<'_>, sink: &str, last: u64, bisect: bool) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    let Some(before) = cursor.frozen.take().filter(|frozen| (frozen.first..frozen.last).contains(&last)) else {
        return Err(bad_range(
            sink,
            "narrow",
            (cursor.delivered_to + 1, last),
            "no frozen batch goes beyond it".into(),
        ));
    };
    if bisect {
        cursor.bisect_to = Some(before.last);
    }
    // What is cut off is looked at anew when its turn comes.
    let excluded = before.excluded.into_iter().filter(|position| *position <= last).collect();
    cursor.frozen = freeze_range(tx.sql, before.first, last, excluded)?;
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

/// Outcome of the events that a cursor passes without delivery.
#[derive(Clone, Debug, Default)]
pub struct Undelivered {
    /// Events that the store refused permanently.
    pub dead_letters: Vec<DeadLetter>,
    /// Events that are parked.
    pub parked: Vec<Parked>,
    /// Whether the rest of a refused batch leaves the bisect range.
    pub end_bisect: bool,
}

/// Checks that the cursor can move to `last`.
fn check_advance(
    cursor: &Cursor,
    sink: &str,
    last: u64,
    head: u64,
    undelivered: &Undelivered,
) -> Result<(), SpoolError> {
    let first = cursor.delivered_to + 1;
    let end = if cursor.dropped_to.is_some() { cursor.pinned_to() } else { head };
    let why = match &cursor.frozen {
        Some(frozen) if last < frozen.last => format!("{}..={} is frozen", frozen.first, frozen.last),
        _ if last < first || last > end => format!("the end is at {end}"),
        _ if undelivered
            .dead_letters
            .iter()
            .any(|letter| letter.sink != sink || !(first..=last).contains(&letter.position)) =>
        {
            "a dead letter is of another sink or range".into()
        }
        _ if undelivered.parked.iter().any(|parked| !(first..=last).contains(&parked.position)) => {
            "a parked event is of another range".into()
        }
        _ => return Ok(()),
    };
    Err(bad_range(sink, "advance", (first, last), why))
}

fn advance(tx: &mut Tx<'_>, sink: &str, last: u64, undelivered: &Undelivered) -> Result<Cursor, SpoolError> {
    let mut cursor = load(tx.sql, sink)?;
    check_advance(&cursor, sink, last, tx.counters.stored, undelivered)?;
    for letter in &undelivered.dead_letters {
        dead_letters::insert(tx.sql, letter)?;
    }
    for event in &undelivered.parked {
        parked::insert(tx.sql, sink, event)?;
    }
    let pinned = cursor.pinned_to();
    cursor.delivered_to = last;
    cursor.discarded += undelivered.dead_letters.len() as u64;
    cursor.frozen = None;
    cursor.bisect_to = cursor.bisect_to.filter(|to| last < *to && !undelivered.end_bisect);
    if let Some(to) = cursor.dropped_to {
        if cursor.bisect_to.is_none() && last >= pinned {
            (cursor.delivered_to, cursor.dropped_to) = (to, None);
        } else {
            // What was suspect and is so no longer stays pinned until it is delivered.
            cursor.bisect_to = Some(pinned);
        }
    }
    save(tx.sql, sink, &cursor)?;
    Ok(cursor)
}

impl Spool {
    /// Returns the cursor of a sink.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn cursor(&self, sink: &str) -> Result<Cursor, SpoolError> {
        self.read(|reader| reader.cursor(sink))
    }

    /// Fixes the bounds of a sink's next batch, which begins right after the cursor. Returns the cursor after the
    /// commit.
    ///
    /// # Errors
    /// If the range does not follow the cursor, passes the head or the end of a refused batch, or another batch is
    /// frozen; or the database fails.
    pub fn freeze(&self, sink: &str, first: u64, last: u64) -> Result<Cursor, SpoolError> {
        self.freeze_with(sink, (first, last), Vec::new(), Vec::new())
    }

    /// Freezes a batch like [`Spool::freeze`], with events that are no longer in the log: the log keeps `history`
    /// until the batch is processed.
    ///
    /// `excluded` are the positions of events, in order, that are parked after the batch instead of sent with it.
    ///
    /// # Errors
    /// As [`Spool::freeze`].
    pub fn freeze_with(
        &self,
        sink: &str,
        range: (u64, u64),
        history: Vec<SpoolRecord>,
        excluded: Vec<u64>,
    ) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| freeze(tx, &sink, range, &history, excluded))
    }

    /// Moves the cursor of a sink to `to`, because the events up to there no longer exist.
    ///
    /// Those that were neither delivered nor discarded count as expired. No batch is frozen afterwards. A cursor
    /// beyond `to` stays. The events arrived before `arrived_before`, milliseconds since the epoch.
    ///
    /// # Errors
    /// If `to` lies after the head, the sink is not registered, or the database fails.
    pub fn expire(&self, sink: &str, to: u64, arrived_before: i64) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| expire(tx, &sink, to, arrived_before))
    }

    /// Stores the dead letters for all events after the cursor up to `to`, for a sink that tracks its position.
    ///
    /// The sink's store must skip the events before the cursor passes them. Call [`Spool::resume`] after that.
    ///
    /// # Errors
    /// If `to` lies after the head, the sink is not registered, or the database fails.
    pub fn discard_to(&self, sink: &str, to: u64, dead_letters: Vec<DeadLetter>) -> Result<(), SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| discard_to(tx, &sink, to, &dead_letters))
    }

    /// Moves the cursor over the events that were dropped or discarded, for a sink that tracks its position and whose
    /// store has skipped them.
    ///
    /// # Errors
    /// If the sink is not registered, or the database fails.
    pub fn resume(&self, sink: &str) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| resume(tx, &sink))
    }

    /// Shrinks the frozen batch of a sink, of which the store took nothing, to its events up to `last`.
    ///
    /// `bisect` says that the batch was refused because of its content: all of it becomes the bisect range.
    ///
    /// # Errors
    /// If no batch is frozen that begins at or before `last` and ends after it; or the database fails.
    pub fn shrink_frozen(&self, sink: &str, last: u64, bisect: bool) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| shrink_frozen(tx, &sink, last, bisect))
    }

    /// Moves the cursor of a sink to `last` and stores the dead letters of the range, in one commit. No batch is
    /// frozen afterwards.
    ///
    /// `end_bisect` takes the rest of a refused batch out of the bisect range.
    ///
    /// # Errors
    /// If `last` lies before the end of the frozen batch, before the cursor or after the head; or the database fails.
    pub fn advance(
        &self,
        sink: &str,
        last: u64,
        dead_letters: Vec<DeadLetter>,
        end_bisect: bool,
    ) -> Result<Cursor, SpoolError> {
        self.advance_with(sink, last, Undelivered { dead_letters, end_bisect, ..Undelivered::default() })
    }

    /// Advances the cursor like [`Spool::advance`], and parks events in the same commit.
    ///
    /// # Errors
    /// As [`Spool::advance`].
    pub fn advance_with(&self, sink: &str, last: u64, undelivered: Undelivered) -> Result<Cursor, SpoolError> {
        let sink = sink.to_owned();
        self.call(move |tx| advance(tx, &sink, last, &undelivered))
    }

    /// Returns the dedup token of the batch `first..=last`, as [`Spool::freeze`] assigns it.
    ///
    /// # Errors
    /// If the database fails.
    pub fn dedup_token(&self, first: u64, last: u64) -> Result<String, SpoolError> {
        self.read(|reader| reader.dedup_token(first, last))
    }
}
