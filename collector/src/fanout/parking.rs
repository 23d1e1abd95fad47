//! When parked events are tried, and how many things the store may create for them at once.

use std::collections::HashMap;

use super::plan::{Plan, Settings};

/// Things that the store may make for one delivery: with a tenth of a second for each, a busy one's second, nobody waits longer
/// than a few seconds behind them.
pub(super) const FEW: usize = 4;

/// What a worker knows of its parked events.
pub(super) struct Parking {
    /// When they are tried; a pause of theirs is none of the log's.
    pub(super) plan: Plan,
    /// How many there are.
    pub(super) events: u64,
    /// Things that the store may make at once: [`FEW`], or less while it is slow.
    pub(super) few: usize,
    /// The app whose turn was last.
    pub(super) app: String,
    /// While the log has events waiting, none is sent before this time.
    pub(super) turn: u64,
    /// How many events the store had taken when it refused those being sent together.
    pub(super) parted_at: Option<u64>,
    /// The same for those that it refused alone, without evidence that it takes others. Never more than are parked.
    pub(super) refused_at: HashMap<u64, u64>,
}

impl Parking {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            plan: Plan::new(settings.clone()),
            events: 0,
            few: FEW,
            app: String::new(),
            turn: 0,
            parted_at: None,
            refused_at: HashMap::new(),
        }
    }

    /// Whether some may be sent at `now`. `waits`: the log has events waiting.
    pub(super) fn is_due(&self, now: u64, waits: bool) -> bool {
        self.due(now, waits).is_some_and(|due| due <= now)
    }

    /// When some may be sent; `None` if nothing is parked.
    pub(super) fn due(&self, now: u64, waits: bool) -> Option<u64> {
        let pause = self.plan.pause_ends(now).unwrap_or(0);
        (self.events > 0).then(|| if waits { pause.max(self.turn) } else { pause })
    }
}
