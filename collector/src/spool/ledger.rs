//! The ledger: where every event is, and how old what waits is.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;
use subway_protocol::RejectReason;

use super::sinks::SinkState;
use super::{Counters, Reader, SpoolError, arrival, cursor, letters, parked};

/// The ledger: where every event is that ever arrived in an accepted request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// How many arrived; stored + duplicate + all rejected.
    pub received: u64,
    /// How many are stored.
    pub stored: u64,
    /// How many had been seen before.
    pub duplicate: u64,
    /// How many of the stored came so late that nobody knows whether they had been seen before; left out of the JSON if there
    /// are none.
    #[serde(skip_serializing_if = "none")]
    pub unverified: u64,
    /// How many were rejected, by reason; reasons that never occurred are absent.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Where the stored ones are, by sink.
    pub sinks: BTreeMap<String, SinkLedger>,
}

/// The stored events as one sink has them. Delivered, dead, pending and expired add up to `stored`; of a
/// retired sink to what was stored when it was retired.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkLedger {
    /// Delivered.
    pub delivered: u64,
    /// Refused by the store for good, or shed.
    pub dead: u64,
    /// Still to be delivered.
    pub pending: u64,
    /// Those of the pending that wait beside the log until the store has made what they need; left out of the JSON if there are none.
    #[serde(skip_serializing_if = "none")]
    pub parked: u64,
    /// Those of the dead that were given up because the spool was full; left out of the JSON if there are none.
    #[serde(skip_serializing_if = "none")]
    pub shed: u64,
    /// Those of the dead whose letters were dropped because they took too much room (`dead_letter_bytes`); left out of the JSON
    /// if there are none.
    #[serde(skip_serializing_if = "none")]
    pub dropped_letters: u64,
    /// Gone before they could be delivered, or never to be delivered because the sink is retired; left out of the JSON if
    /// there are none.
    #[serde(skip_serializing_if = "none")]
    pub expired: u64,
    /// What it is to the collector; left out of the JSON while it is active.
    #[serde(skip_serializing_if = "SinkState::is_active")]
    pub state: SinkState,
    /// When it was retired, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<i64>,
}

impl SinkLedger {
    /// The position up to which the sink is done, but for what is parked.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.delivered + self.dead + self.expired + self.parked
    }
}

/// Whether there are none.
fn none(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// Takes into account that `sink` says itself how far it is: every event up to `position` is in its store. The
    /// spool's own cursor may lag behind that, never the store behind what it has committed. `position` has to be asked
    /// for before the ledger, which then has every event that the store can have.
    #[must_use]
    pub fn reached(mut self, sink: &str, position: u64) -> Self {
        if let Some(sink) = self.sinks.get_mut(sink).filter(|sink| sink.state.is_active()) {
            let lost = sink.dead + sink.expired;
            let done = (sink.delivered + lost).max(position.min(self.stored));
            (sink.delivered, sink.pending) = (done - lost, self.stored - done);
        }
        self
    }
}

/// One sink of a list: its place in the ledger, and its state also where that is the usual one.
#[derive(Debug, Serialize)]
pub struct SinkLine {
    name: String,
    state: &'static str,
    #[serde(flatten)]
    figures: SinkLedger,
}

impl SinkLine {
    /// The line of the sink `name`.
    #[must_use]
    pub fn new(name: String, mut figures: SinkLedger) -> Self {
        // Said once: the figures leave the usual one out.
        let state = std::mem::take(&mut figures.state).as_str();
        Self { name, state, figures }
    }
}

impl Reader {
    /// The ledger, from one committed state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        let snapshot = self.0.unchecked_transaction()?;
        Ok(ledger(&snapshot)?.0)
    }

    /// The ledger, with `sink` being at least at `position` (see [`Ledger::reached`]), and when the oldest event arrived that
    /// each active sink still has to deliver, from one committed state. No record is read.
    ///
    /// # Errors
    /// If the database fails.
    pub fn status(&self, sink: &str, position: u64) -> Result<Status, SpoolError> {
        let snapshot = self.0.unchecked_transaction()?;
        let (ledger, delivered_to) = ledger(&snapshot)?;
        let ledger = ledger.reached(sink, position);
        let mut waiting = BTreeMap::new();
        for (name, delivered_to) in delivered_to {
            let Some(figures) = ledger.sinks.get(&name).filter(|sink| sink.state.is_active()) else { continue };
            let delivered_to = if name == sink { delivered_to.max(position) } else { delivered_to };
            let waits = figures.pending > figures.parked;
            let in_log = waits.then(|| arrival::of(&snapshot, delivered_to + 1)).transpose()?.flatten();
            let beside = parked::oldest(&snapshot, &name)?;
            if let Some(arrived) = in_log.into_iter().chain(beside).min() {
                waiting.insert(name, arrived);
            }
        }
        let letters = letters::totals(&snapshot)?;
        let letter_bytes = letters.into_iter().map(|(sink, (bytes, _))| (sink, bytes)).collect();
        Ok(Status { ledger, waiting, letter_bytes })
    }
}

/// The ledger, and how old what waits is.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where every event is.
    pub ledger: Ledger,
    /// When the oldest event arrived that a sink still has to deliver, milliseconds since the epoch, exact to a second; of
    /// sinks that have everything nothing is here.
    pub waiting: BTreeMap<String, i64>,
    /// Bytes that the dead letters of each sink take; of sinks that never had any nothing is here.
    pub letter_bytes: BTreeMap<String, u64>,
}

/// The ledger, and up to where each sink has everything.
fn ledger(snapshot: &Connection) -> Result<(Ledger, BTreeMap<String, u64>), SpoolError> {
    let counters = Counters::load(snapshot)?;
    let (mut sinks, mut delivered_to) = (BTreeMap::new(), BTreeMap::new());
    let (letters, parked) = (letters::totals(snapshot)?, parked::counts(snapshot)?);
    let mut statement = snapshot.prepare_cached("SELECT sink, state, retired_at, retired_to FROM cursor")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let state = SinkState::named(row.get_ref(1)?.as_str().unwrap_or_default());
        let (retired_at, retired_to): (Option<i64>, Option<u64>) = (row.get(2)?, row.get(3)?);
        let cursor = cursor::load(snapshot, &name)?;
        let (done, dead, shed) = (cursor.done(), cursor.dead, cursor.shed);
        let parked = parked.get(&name).copied().unwrap_or(0);
        let delivered = done - dead - cursor.expired - parked;
        let (pending, parked, expired) = match retired_to {
            Some(stored) => (0, 0, cursor.expired + stored.saturating_sub(done) + parked),
            None => (counters.stored - done + parked, parked, cursor.expired),
        };
        delivered_to.insert(name.clone(), cursor.delivered_to);
        let dropped_letters = letters.get(&name).map_or(0, |(_, dropped)| *dropped);
        let figures =
            SinkLedger { delivered, dead, pending, parked, shed, dropped_letters, expired, state, retired_at };
        sinks.insert(name, figures);
    }
    let rejected = RejectReason::ALL.iter().zip(counters.rejected);
    let rejected = rejected.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)).collect();
    let Counters { received, stored, duplicate, unverified, .. } = counters;
    Ok((Ledger { received, stored, duplicate, unverified, rejected, sinks }, delivered_to))
}
