//! Delivers parked events: those of a few resources at a time, between the deliveries of the log and while it is
//! idle. Apps take turns. Refused events become dead letters with the same evidence as others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::parked_queue::MAX_NEW_RESOURCES;
use super::replay::{batch_of_singles, digest};
use super::scheduler::{Action, SinkPosition};
use super::worker::{SPOOL_RETRY_MS, Worker, random};
use super::{blocking, retryable};
use crate::sinks::{Delivered, SinkBatch, SinkError, permanent_failure_of_one};
use crate::spool::{DeadLetter, Parked, ParkedGroup, ParkedGroupLimits};

/// Time for the log per time for parked events, while the log has pending events.
const LOG_TIME_SHARE: u64 = 3;
/// Duration of a round, milliseconds, beyond which the next rounds are smaller. A busy cluster takes a second to
/// create an index.
const SLOW_ROUND_MS: u64 = 1000;
/// Events and bytes sent together, unless the settings allow less.
const MAX_GROUP_EVENTS: u64 = 1000;
const MAX_GROUP_BYTES: u64 = 4 * 1024 * 1024;
/// Events sent singly in one round, so that the log waits no longer for them than for the creation of a few
/// resources.
const MAX_SINGLE_SENDS: usize = 20;

/// Time for a round. The log waits for it, so it is far below the request timeout of a sink. What the store creates
/// after that is found by the next attempt.
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);

/// Parked event that was refused: why, and how many events the store had taken by then.
struct RefusedEvent<'a> {
    event: &'a Parked,
    reason: String,
    taken_before: u64,
}

impl Worker {
    /// Sends some parked events, unless the store is known to be down.
    pub(super) async fn deliver_parked(&mut self) {
        let began = self.now();
        let position = SinkPosition { delivered_to: 0, frozen: true, head: self.parked_queue.events };
        match self.parked_queue.scheduler.next(began, position, true) {
            Action::CheckHealth => match self.sink.health().await {
                Ok(()) => self.parked_queue.scheduler.probe_succeeded(),
                Err(error) => self.parked_failed(&error),
            },
            Action::Resend if !self.prepared => match self.sink.prepare().await {
                Ok(()) => self.prepared = true,
                Err(error) => self.parked_failed(&error),
            },
            Action::Resend => {
                if let Err(error) = self.send_parked().await {
                    self.parked_failed(&error);
                }
            }
            Action::Idle | Action::WaitUntil(_) | Action::SendNext => {}
        }
        let (now, took) = (self.now(), self.now() - began);
        self.parked_queue.next_turn = now + LOG_TIME_SHARE * took;
        self.parked_queue.max_resources = match self.parked_queue.max_resources {
            _ if self.parked_queue.events == 0 => MAX_NEW_RESOURCES,
            max_resources if took > SLOW_ROUND_MS => (max_resources / 2).max(1),
            max_resources => (max_resources + 1).min(MAX_NEW_RESOURCES),
        };
        self.channels.parked_sender.send_replace(self.parked_queue.events);
    }

    async fn send_parked(&mut self) -> Result<(), SinkError> {
        let (spool, name, app) = (self.reader.spool.clone(), self.name.clone(), self.parked_queue.app.clone());
        let limits = ParkedGroupLimits {
            max_resources: self.parked_queue.max_resources,
            max_events: self.max_events.min(MAX_GROUP_EVENTS),
            max_bytes: self.scheduler.settings().max_bytes.min(MAX_GROUP_BYTES),
        };
        let group = blocking(move || spool.parked_group(&name, &app, limits)).await.map_err(retryable)?;
        let Some(group) = group else {
            self.parked_queue.events = 0;
            return Ok(());
        };
        self.parked_queue.app.clone_from(&group.app_key);
        if group.singly || group.events.len() == 1 {
            self.send_singly(group).await
        } else {
            self.send_group(group).await
        }
    }

    /// Sends a group in one batch. If all of it is refused, its events are sent singly in the next round.
    async fn send_group(&mut self, group: ParkedGroup) -> Result<(), SinkError> {
        let events = group.events;
        let (first, last) = (events[0].position, events[events.len() - 1].position);
        let (spool, digest) = (self.reader.spool.clone(), digest(events.iter().map(|event| event.position)));
        let token = blocking(move || spool.dedup_token(first, last)).await.map_err(retryable)?;
        match self.send_within(batch(&events, format!("{token}-parked-{digest}")), ROUND_TIMEOUT).await {
            Ok(delivered) if delivered.refused.len() < events.len() => {
                let reasons: HashMap<u64, String> =
                    delivered.refused.into_iter().map(|refusal| (refusal.position, refusal.reason)).collect();
                let taken = events.iter().map(|event| event.position).filter(|at| !reasons.contains_key(at)).collect();
                let dead =
                    events.iter().filter_map(|event| Some(self.dead_letter(event, reasons.get(&event.position)?)));
                let dead = dead.collect();
                self.record_parked_outcome(taken, dead).await
            }
            Ok(_) | Err(SinkError::Permanent { .. } | SinkError::TooLarge { .. } | SinkError::CorruptRecord(_)) => {
                self.parked_queue.split_at = Some(self.taken);
                self.split_group(events.iter().map(|event| event.position).collect()).await
            }
            Err(error) => Err(error),
        }
    }

    /// Sends some events of a group singly, each with the dedup token that it has as a batch of its own.
    ///
    /// A refused event becomes a dead letter if the store has taken others since it refused it before. Otherwise it
    /// waits for its next turn.
    async fn send_singly(&mut self, group: ParkedGroup) -> Result<(), SinkError> {
        let (mut taken, mut refused, mut dead, mut failure) = (Vec::new(), Vec::new(), Vec::new(), None);
        let (some, rest) = group.events.split_at(group.events.len().min(MAX_SINGLE_SENDS));
        let began = tokio::time::Instant::now();
        for event in some {
            let (spool, position) = (self.reader.spool.clone(), event.position);
            let token = blocking(move || spool.dedup_token(position, position)).await.map_err(retryable)?;
            let left = ROUND_TIMEOUT.saturating_sub(began.elapsed());
            match self.send_within(batch(std::slice::from_ref(event), token), left).await {
                // No store has to prove that it takes others: this record cannot be read anywhere.
                Err(SinkError::CorruptRecord(record)) => dead.push(self.dead_letter(event, &record.to_string())),
                result => match permanent_failure_of_one(result) {
                    Ok(None) => taken.push(position),
                    Ok(Some(reason)) => {
                        let taken_before = self.taken + taken.len() as u64;
                        refused.push(RefusedEvent { event, reason, taken_before });
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                },
            }
        }
        let waiting = self.judge_refused(refused, &mut dead);
        let none = taken.is_empty() && dead.is_empty();
        self.record_parked_outcome(taken, dead).await?;
        if let Some(error) = failure {
            return Err(error);
        }
        let rest: Vec<u64> = rest.iter().map(|event| event.position).collect();
        let ends = rest.is_empty();
        self.split_group(rest).await?;
        match waiting {
            Some(reason) if ends && none => {
                Err(SinkError::permanent(format!("the store refuses every event, so none is given up: {reason}")))
            }
            _ => Ok(()),
        }
    }

    /// Adds the refused events for which there is evidence to `dead`: the store has taken others since it refused them, or
    /// their group, before. Returns the reason of one without evidence, which waits.
    fn judge_refused(&mut self, refused: Vec<RefusedEvent<'_>>, dead: &mut Vec<DeadLetter>) -> Option<String> {
        let split_at = *self.parked_queue.split_at.get_or_insert(self.taken);
        let mut waiting = None;
        for RefusedEvent { event, reason, taken_before } in refused {
            let before = self.parked_queue.refused_at.get(&event.position).copied().unwrap_or(taken_before);
            if taken_before > before.min(split_at) {
                dead.push(self.dead_letter(event, &reason));
            } else {
                self.parked_queue.refused_at.insert(event.position, taken_before);
                waiting = Some(reason);
            }
        }
        waiting
    }

    /// Sends a batch; a retryable error once `timeout` is over.
    async fn send_within(&self, batch: Arc<SinkBatch>, timeout: Duration) -> Result<Delivered, SinkError> {
        let over = |_| SinkError::Retryable { message: format!("not done within {timeout:?}"), after_ms: None };
        tokio::time::timeout(timeout, self.send(batch)).await.map_err(over)?
    }

    /// Continues with the events at `positions` singly, or with the next group if there are none.
    async fn split_group(&mut self, positions: Vec<u64>) -> Result<(), SinkError> {
        if positions.is_empty() {
            self.parked_queue.split_at = None;
        }
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        blocking(move || spool.send_parked_singly(&name, positions)).await.map_err(retryable)
    }

    async fn record_parked_outcome(&mut self, taken: Vec<u64>, dead: Vec<DeadLetter>) -> Result<(), SinkError> {
        let (delivered, refused) = (taken.len() as u64, dead.len() as u64);
        if delivered + refused == 0 {
            return Ok(());
        }
        let finished: HashSet<u64> = taken.iter().copied().chain(dead.iter().map(|letter| letter.position)).collect();
        let (spool, name) = (self.reader.spool.clone(), self.name.clone());
        blocking(move || spool.record_parked_outcome(&name, taken, dead)).await.map_err(retryable)?;
        self.parked_queue.refused_at.retain(|position, _| !finished.contains(position));
        self.parked_queue.events = self.parked_queue.events.saturating_sub(delivered + refused);
        self.parked_queue.scheduler.succeeded();
        self.taken += delivered;
        self.metrics.delivered_events.inc_by(delivered);
        self.metrics.dead_lettered_events.inc_by(refused);
        Ok(())
    }

    fn dead_letter(&self, event: &Parked, reason: &str) -> DeadLetter {
        let Parked { position, app_key, event_id, record, .. } = event.clone();
        tracing::warn!(sink = self.name, position, event_id, reason, "a parked event is refused for good");
        let (sink, dead_at) = (self.name.clone(), crate::clock::now());
        DeadLetter { sink, position, app_key, event_id, reason: reason.to_owned(), dead_at, record }
    }

    /// Schedules the next attempt after a failure. The log does not share the delay: a cluster that creates no more
    /// indices still takes events of existing ones, so the sink is not down.
    fn parked_failed(&mut self, error: &SinkError) {
        if self.reader.spool.health().is_err() {
            self.parked_queue.scheduler.local_failure(self.now(), SPOOL_RETRY_MS);
            return tracing::warn!(sink = self.name, %error, "a delivery of parked events failed while the spool cannot be written");
        }
        let asked = self.min_retry_delay(error);
        let (now, waiting) = (self.now(), self.parked_queue.events);
        let pause_ms = self.parked_queue.scheduler.failed(now, asked, random());
        self.metrics.delivery_errors.inc();
        self.prepared &= !self.parked_queue.scheduler.is_down();
        tracing::warn!(sink = self.name, %error, pause_ms, waiting, "a delivery of parked events failed");
    }
}

fn batch(events: &[Parked], dedup_token: String) -> Arc<SinkBatch> {
    batch_of_singles(events.iter().map(|event| (event.position, event.record.clone())), dedup_token)
}
