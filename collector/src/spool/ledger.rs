//! Ledger: counts of events by outcome, and the age of the oldest pending event.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::Serialize;
use subway_protocol::RejectReason;

use super::sinks::SinkState;
use super::{SpoolCounters, SpoolError, SpoolReader, arrival, cursor, dead_letters, parked};

/// Counts of all events that ever arrived in an accepted request, by outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ledger {
    /// Events that arrived: stored + duplicate + all rejected.
    pub received: u64,
    /// Events stored.
    pub stored: u64,
    /// Events whose ID was seen before.
    pub duplicate: u64,
    /// Stored events that arrived too late to be compared with the dedup index. Left out of the JSON if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub unverified: u64,
    /// Rejected events by reason. Reasons that never occurred are absent.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Outcome of the stored events by sink.
    pub sinks: BTreeMap<String, SinkLedger>,
}

/// Counts of the stored events for one sink.
///
/// Delivered, discarded, pending and expired add up to `stored`, or for a retired sink to `stored` at its retirement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SinkLedger {
    /// Events delivered.
    pub delivered: u64,
    /// Events dead-lettered or dropped. Named `dead` in the JSON.
    #[serde(rename = "dead")]
    pub discarded: u64,
    /// Events to be delivered.
    pub pending: u64,
    /// Pending events that are parked (docs/adr/0013). Left out of the JSON if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub parked: u64,
    /// Discarded events that were dropped because the spool was full. Named `shed` in the JSON, and left out of it if
    /// zero.
    #[serde(rename = "shed", skip_serializing_if = "is_zero")]
    pub dropped_oldest: u64,
    /// Discarded events whose dead letters were deleted because all of them exceeded `dead_letter_bytes`. Named
    /// `dropped_letters` in the JSON, and left out of it if zero.
    #[serde(rename = "dropped_letters", skip_serializing_if = "is_zero")]
    pub dropped_dead_letters: u64,
    /// Events deleted before they were delivered, or not delivered because the sink is retired. Left out of the JSON
    /// if zero.
    #[serde(skip_serializing_if = "is_zero")]
    pub expired: u64,
    /// State of the sink. Left out of the JSON while it is active.
    #[serde(skip_serializing_if = "SinkState::is_active")]
    pub state: SinkState,
    /// Time of the retirement, milliseconds since the epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<i64>,
}

impl SinkLedger {
    /// Returns the position up to which the sink has processed all events but the parked ones.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.delivered + self.discarded + self.expired + self.parked
    }
}

/// Returns whether the count is zero.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Ledger {
    /// Replaces the delivered count of `sink` by the position that its store reports.
    ///
    /// The spool's own cursor lags behind the store and never leads. Read `position` before the ledger, so that the
    /// ledger contains every event of the store.
    #[must_use]
    pub fn with_delivered_position(mut self, sink: &str, position: u64) -> Self {
        if let Some(sink) = self.sinks.get_mut(sink).filter(|sink| sink.state.is_active()) {
            let lost = sink.discarded + sink.expired;
            let processed = (sink.delivered + lost).max(position.min(self.stored));
            (sink.delivered, sink.pending) = (processed - lost, self.stored - processed);
        }
        self
    }
}

/// Entry of a list of sinks: its ledger, and its state even if it is active.
#[derive(Debug, Serialize)]
pub struct SinkListEntry {
    name: String,
    state: &'static str,
    #[serde(flatten)]
    figures: SinkLedger,
}

impl SinkListEntry {
    /// Creates the entry of the sink `name`.
    #[must_use]
    pub fn new(name: String, mut figures: SinkLedger) -> Self {
        // Said once: the figures leave the usual one out.
        let state = std::mem::take(&mut figures.state).as_str();
        Self { name, state, figures }
    }
}

impl SpoolReader {
    /// Reads the ledger from one committed state.
    ///
    /// # Errors
    /// If the database fails.
    pub fn ledger(&self) -> Result<Ledger, SpoolError> {
        let snapshot = self.0.unchecked_transaction()?;
        Ok(ledger(&snapshot)?.0)
    }

    /// Reads the ledger and the arrival of each active sink's oldest pending event from one committed state.
    ///
    /// `sink` counts as being at `position` at least, see [`Ledger::with_delivered_position`]. Reads no record.
    ///
    /// # Errors
    /// If the database fails.
    pub fn status(&self, sink: &str, position: u64) -> Result<SpoolStatus, SpoolError> {
        let snapshot = self.0.unchecked_transaction()?;
        let (ledger, delivered_to) = ledger(&snapshot)?;
        let ledger = ledger.with_delivered_position(sink, position);
        let mut oldest_pending = BTreeMap::new();
        for (name, delivered_to) in delivered_to {
            let Some(figures) = ledger.sinks.get(&name).filter(|sink| sink.state.is_active()) else { continue };
            let delivered_to = if name == sink { delivered_to.max(position) } else { delivered_to };
            let log_pending = figures.pending > figures.parked;
            let in_log = log_pending.then(|| arrival::of(&snapshot, delivered_to + 1)).transpose()?.flatten();
            let oldest_parked = parked::oldest(&snapshot, &name)?;
            if let Some(arrived) = in_log.into_iter().chain(oldest_parked).min() {
                oldest_pending.insert(name, arrived);
            }
        }
        let dead_letters = dead_letters::totals(&snapshot)?;
        let dead_letter_bytes = dead_letters.into_iter().map(|(sink, (bytes, _))| (sink, bytes)).collect();
        Ok(SpoolStatus { ledger, oldest_pending, dead_letter_bytes })
    }
}

/// Ledger with the ages and sizes that the metrics show.
#[derive(Clone, Debug)]
pub struct SpoolStatus {
    /// Counts of events by outcome.
    pub ledger: Ledger,
    /// Arrival of the oldest pending event by sink, milliseconds since the epoch, exact to a second. Sinks without
    /// pending events are absent.
    pub oldest_pending: BTreeMap<String, i64>,
    /// Bytes of the dead letters by sink. Sinks that never had one are absent.
    pub dead_letter_bytes: BTreeMap<String, u64>,
}

/// Reads the ledger, and for each sink the position up to which it has every event.
fn ledger(snapshot: &Connection) -> Result<(Ledger, BTreeMap<String, u64>), SpoolError> {
    let counters = SpoolCounters::load(snapshot)?;
    let (mut sinks, mut delivered_to) = (BTreeMap::new(), BTreeMap::new());
    let (dead_letters, parked) = (dead_letters::totals(snapshot)?, parked::counts(snapshot)?);
    let mut statement = snapshot.prepare_cached("SELECT sink, state, retired_at, retired_to FROM cursor")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let state = SinkState::from_name(row.get_ref(1)?.as_str().unwrap_or_default());
        let (retired_at, retired_to): (Option<i64>, Option<u64>) = (row.get(2)?, row.get(3)?);
        let cursor = cursor::load(snapshot, &name)?;
        let (processed, discarded, dropped_oldest) = (cursor.processed(), cursor.discarded, cursor.dropped_oldest);
        let parked = parked.get(&name).copied().unwrap_or(0);
        let delivered = processed - discarded - cursor.expired - parked;
        let (pending, parked, expired) = match retired_to {
            Some(stored) => (0, 0, cursor.expired + stored.saturating_sub(processed) + parked),
            None => (counters.stored - processed + parked, parked, cursor.expired),
        };
        delivered_to.insert(name.clone(), cursor.delivered_to);
        let dropped_dead_letters = dead_letters.get(&name).map_or(0, |(_, dropped)| *dropped);
        let figures = SinkLedger {
            delivered,
            discarded,
            pending,
            parked,
            dropped_oldest,
            dropped_dead_letters,
            expired,
            state,
            retired_at,
        };
        sinks.insert(name, figures);
    }
    let rejected = RejectReason::ALL.iter().zip(counters.rejected);
    let rejected = rejected.filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.as_str(), n)).collect();
    let SpoolCounters { received, stored, duplicate, unverified, .. } = counters;
    Ok((Ledger { received, stored, duplicate, unverified, rejected, sinks }, delivered_to))
}
