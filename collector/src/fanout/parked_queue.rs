//! Schedule of parked events, and the number of resources that the store may create for them at once.

use std::collections::HashMap;

use super::scheduler::{DeliverySettings, Scheduler};

/// Resources that the store may create for one delivery. At a tenth of a second for each, or a second in a busy
/// cluster, other events wait at most a few seconds.
pub(super) const MAX_NEW_RESOURCES: usize = 4;

/// Worker's state of its parked events.
pub(super) struct ParkedQueue {
    /// Scheduler of its own, so that a delay of parked events does not delay the log.
    pub(super) scheduler: Scheduler,
    /// Number of parked events.
    pub(super) events: u64,
    /// Resources that the store may create at once: [`MAX_NEW_RESOURCES`], or less while it is slow.
    pub(super) max_resources: usize,
    /// App that had the last turn.
    pub(super) app: String,
    /// Time before which no parked event is sent while the log has pending events.
    pub(super) next_turn: u64,
    /// Number of events that the store had taken when it refused the current group.
    pub(super) split_at: Option<u64>,
    /// Number of events that the store had taken when it refused an event singly without evidence that it takes
    /// others. Has at most the parked events.
    pub(super) refused_at: HashMap<u64, u64>,
}

impl ParkedQueue {
    pub(super) fn new(settings: &DeliverySettings) -> Self {
        Self {
            scheduler: Scheduler::new(settings.clone()),
            events: 0,
            max_resources: MAX_NEW_RESOURCES,
            app: String::new(),
            next_turn: 0,
            split_at: None,
            refused_at: HashMap::new(),
        }
    }

    /// Returns whether some may be sent at `now`. `log_pending` says that the log has pending events.
    pub(super) fn is_due(&self, now: u64, log_pending: bool) -> bool {
        self.due(now, log_pending).is_some_and(|due| due <= now)
    }

    /// Returns when some may be sent, or `None` if nothing is parked.
    pub(super) fn due(&self, now: u64, log_pending: bool) -> Option<u64> {
        let pause = self.scheduler.backoff_until(now).unwrap_or(0);
        (self.events > 0).then(|| if log_pending { pause.max(self.next_turn) } else { pause })
    }
}
