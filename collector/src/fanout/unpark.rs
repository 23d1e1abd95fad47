//! Delivers what is parked: a few things for the store to make at a time, between the deliveries of the log and while it has
//! nothing, every app in its turn. What the store refuses ends in the dead letters, with the same evidence as anything else.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::parking::FEW;
use super::plan::{Place, Step};
use super::replay::digest;
use super::worker::{OWN_DISK_MS, Worker, random};
use super::{blocking, fails};
use crate::sinks::{SinkBatch, SinkError, StoredRecord, refusal_of_one};
use crate::spool::{DeadLetter, Group, GroupCap, Parked};

/// While the log has events waiting, parked ones get one part of the worker's time and the log so many.
const LOG_PARTS: u64 = 3;
/// A round that takes longer makes the next ones smaller, milliseconds: a cluster that is busy makes an index in a second.
const LONG_MS: u64 = 1000;
/// Events and bytes sent together, if the settings do not say less.
const GROUP_EVENTS: u64 = 1000;
const GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// Events sent by themselves in one go, so that the log waits no longer for them than for a few things that are made.
const ALONE: usize = 20;

impl Worker {
    /// Sends some parked events, if the store is not known to take nothing.
    pub(super) async fn unpark(&mut self) {
        let began = self.now();
        let place = Place { delivered_to: 0, frozen: true, head: self.beside.events };
        match self.beside.plan.next(began, place, true) {
            Step::Probe => match self.sink.health().await {
                Ok(()) => self.beside.plan.found_well(),
                Err(error) => self.parked_failed(&error),
            },
            Step::Again if !self.prepared => match self.sink.prepare().await {
                Ok(()) => self.prepared = true,
                Err(error) => self.parked_failed(&error),
            },
            Step::Again => {
                if let Err(error) = self.send_parked().await {
                    self.parked_failed(&error);
                }
            }
            Step::Idle | Step::WaitUntil(_) | Step::Next => {}
        }
        let (now, took) = (self.now(), self.now() - began);
        self.beside.turn = now + LOG_PARTS * took;
        self.beside.few = match self.beside.few {
            _ if self.beside.events == 0 => FEW,
            few if took > LONG_MS => (few / 2).max(1),
            few => (few + 1).min(FEW),
        };
        self.channels.parked_sender.send_replace(self.beside.events);
    }

    async fn send_parked(&mut self) -> Result<(), SinkError> {
        let (spool, name, app) = (self.source.spool.clone(), self.name.clone(), self.beside.app.clone());
        let cap = GroupCap {
            things: self.beside.few,
            events: self.most_events.min(GROUP_EVENTS),
            bytes: self.plan.settings().max_bytes.min(GROUP_BYTES),
        };
        let group = blocking(move || spool.parked_group(&name, &app, cap)).await.map_err(fails)?;
        let Some(group) = group else {
            self.beside.events = 0;
            return Ok(());
        };
        self.beside.app.clone_from(&group.app_key);
        if group.alone || group.events.len() == 1 { self.send_each(group).await } else { self.send_group(group).await }
    }

    /// Sends a group at once. If nothing of it is taken, its events are sent one by one the next time.
    async fn send_group(&mut self, group: Group) -> Result<(), SinkError> {
        let events = group.events;
        let (first, last) = (events[0].position, events[events.len() - 1].position);
        let (spool, digest) = (self.source.spool.clone(), digest(events.iter().map(|event| event.position)));
        let token = blocking(move || spool.token(first, last)).await.map_err(fails)?;
        match self.send(batch(&events, format!("{token}-parked-{digest}"))).await {
            Ok(delivered) if delivered.refused.len() < events.len() => {
                let reasons: HashMap<u64, String> =
                    delivered.refused.into_iter().map(|refusal| (refusal.position, refusal.reason)).collect();
                let taken = events.iter().map(|event| event.position).filter(|at| !reasons.contains_key(at)).collect();
                let dead = events.iter().filter_map(|event| Some(self.letter(event, reasons.get(&event.position)?)));
                let dead = dead.collect();
                self.settle_parked(taken, dead).await
            }
            Ok(_) | Err(SinkError::Refused { .. } | SinkError::TooLarge { .. } | SinkError::Unreadable(_)) => {
                self.beside.parted_at = Some(self.taken);
                self.part(events.iter().map(|event| event.position).collect()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Sends some of a group one by one, each under the token that it would have as a batch. Those that are refused are dead if the
    /// store has taken others since it refused them before; if not, they wait for their next turn.
    async fn send_each(&mut self, group: Group) -> Result<(), SinkError> {
        let (mut taken, mut refused, mut failure) = (Vec::new(), Vec::new(), None);
        let (some, rest) = group.events.split_at(group.events.len().min(ALONE));
        for event in some {
            let (spool, position) = (self.source.spool.clone(), event.position);
            let token = blocking(move || spool.token(position, position)).await.map_err(fails)?;
            match refusal_of_one(self.send(batch(std::slice::from_ref(event), token)).await) {
                Ok(None) => taken.push(position),
                Ok(Some(reason)) => refused.push((event, reason)),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let total = self.taken + taken.len() as u64;
        let parted_at = *self.beside.parted_at.get_or_insert(self.taken);
        let (mut dead, mut waiting) = (Vec::new(), None);
        for (event, reason) in refused {
            let before = self.beside.refused_at.get(&event.position).copied().unwrap_or(total);
            if total > before.min(parted_at) {
                dead.push(self.letter(event, &reason));
            } else {
                self.beside.refused_at.insert(event.position, total);
                waiting = Some(reason);
            }
        }
        let none = taken.is_empty() && dead.is_empty();
        self.settle_parked(taken, dead).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let rest: Vec<u64> = rest.iter().map(|event| event.position).collect();
        let ends = rest.is_empty();
        self.part(rest).await?;
        match waiting {
            Some(reason) if ends && none => {
                Err(SinkError::refused(format!("the store refuses every event, so none is given up: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// Goes on with the events at `positions` one by one, or with the next group if there are none.
    async fn part(&mut self, positions: Vec<u64>) -> Result<(), SinkError> {
        if positions.is_empty() {
            self.beside.parted_at = None;
        }
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        blocking(move || spool.part_group(&name, positions)).await.map_err(fails)
    }

    async fn settle_parked(&mut self, taken: Vec<u64>, dead: Vec<DeadLetter>) -> Result<(), SinkError> {
        let (delivered, refused) = (taken.len() as u64, dead.len() as u64);
        if delivered + refused == 0 {
            return Ok(());
        }
        let gone: HashSet<u64> = taken.iter().copied().chain(dead.iter().map(|letter| letter.position)).collect();
        let (spool, name) = (self.source.spool.clone(), self.name.clone());
        blocking(move || spool.settle_parked(&name, taken, dead)).await.map_err(fails)?;
        self.beside.refused_at.retain(|position, _| !gone.contains(position));
        self.beside.events = self.beside.events.saturating_sub(delivered + refused);
        self.beside.plan.succeeded();
        self.taken += delivered;
        self.metrics.delivered_events.inc_by(delivered);
        self.metrics.dead_lettered_events.inc_by(refused);
        Ok(())
    }

    fn letter(&self, event: &Parked, reason: &str) -> DeadLetter {
        let Parked { position, app_key, event_id, record, .. } = event.clone();
        tracing::warn!(sink = self.name, position, event_id, reason, "a parked event is refused for good");
        let (sink, dead_at) = (self.name.clone(), crate::clock::now());
        DeadLetter { sink, position, app_key, event_id, reason: reason.to_owned(), dead_at, record }
    }

    /// Nothing was taken; the same is tried again after a pause, which the log does not share: a cluster that makes no more indices
    /// takes events of those that it has, so that the sink is not down.
    fn parked_failed(&mut self, error: &SinkError) {
        if self.source.spool.health().is_err() {
            self.beside.plan.failed_ourselves(self.now(), OWN_DISK_MS);
            return tracing::warn!(sink = self.name, %error, "a delivery of parked events failed while the spool cannot be written");
        }
        let asked = self.pause_asked(error);
        let (now, waiting) = (self.now(), self.beside.events);
        let pause_ms = self.beside.plan.failed(now, asked, random());
        self.metrics.delivery_errors.inc();
        self.prepared &= !self.beside.plan.is_down();
        tracing::warn!(sink = self.name, %error, pause_ms, waiting, "a delivery of parked events failed");
    }
}

/// The events as one batch; their positions need not follow each other.
fn batch(events: &[Parked], token: String) -> Arc<SinkBatch> {
    let record = |event: &Parked| StoredRecord { first: event.position, json: event.record.clone() };
    let (first, last) = (events[0].position, events[events.len() - 1].position);
    Arc::new(SinkBatch { first, last, token, records: events.iter().map(record).collect() })
}
