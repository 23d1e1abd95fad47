//! What all requests share, each thing under one cap: the memory for what is being worked on, the places before the disk.
//!
//! An app may hold [`SHARE`] times what is then still free (the dynamic threshold of A. K. Choudhury and E. L. Hahne, "Dynamic
//! Queue Length Thresholds for Shared-Memory Packet Switches", 1998). So one app alone gets two thirds, and whatever it
//! does, there is room left for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use subway_protocol::codec::server::Problem;

use super::unavailable;

/// How many times what is free an app may hold.
const SHARE: u64 = 2;

/// A cap, and how much of it is taken.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What is taken, for the refusal.
    what: &'static str,
    cap: AtomicU64,
    taken: AtomicU64,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    budget: Arc<Budget>,
    /// What the app holds in all.
    by_app: Arc<AtomicU64>,
    amount: u64,
}

impl Budget {
    /// A budget of `cap` of `what`.
    #[must_use]
    pub(crate) fn new(what: &'static str, cap: u64) -> Arc<Self> {
        Arc::new(Self { what, cap: AtomicU64::new(cap), taken: AtomicU64::new(0) })
    }

    /// Changes the cap. What is held beyond a smaller one comes back in its time.
    pub(crate) fn set_cap(&self, cap: u64) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// How much is taken now.
    #[must_use]
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// An empty part for a request of an app, `by_app` being what the app holds in all.
    #[must_use]
    pub(crate) fn hold(self: &Arc<Self>, by_app: &Arc<AtomicU64>) -> Held {
        Held { budget: Arc::clone(self), by_app: Arc::clone(by_app), amount: 0 }
    }
}

impl Held {
    /// A part that may be as large as it likes, for what runs alone.
    pub(crate) fn boundless() -> Self {
        Budget::new("bytes", u64::MAX / 4).hold(&Arc::default())
    }

    /// Makes this part `amount` large.
    ///
    /// # Errors
    /// `unavailable` if the budget does not have that much, or not for this app; the part stays as it was.
    pub(crate) fn resize(&mut self, amount: u64) -> Result<(), Problem> {
        if amount <= self.amount {
            self.give_back(self.amount - amount);
        } else {
            self.take(amount - self.amount)?;
        }
        self.amount = amount;
        Ok(())
    }

    /// Makes this part larger by `more`.
    ///
    /// # Errors
    /// As [`Held::resize`].
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), Problem> {
        self.resize(self.amount.saturating_add(more))
    }

    fn take(&self, more: u64) -> Result<(), Problem> {
        let cap = self.budget.cap.load(Ordering::Relaxed);
        let taken = self.budget.taken.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let by_app = self.by_app.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let who = if taken > cap {
            "all apps together"
        } else if by_app > (cap - taken).saturating_mul(SHARE) {
            "this app"
        } else {
            return Ok(());
        };
        self.give_back(more);
        Err(unavailable(&format!("{} of {who} are too many: there is room for {cap} in all", self.budget.what)))
    }

    fn give_back(&self, amount: u64) {
        self.budget.taken.fetch_sub(amount, Ordering::Relaxed);
        self.by_app.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give_back(self.amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app() -> Arc<AtomicU64> {
        Arc::default()
    }

    #[test]
    fn what_is_held_never_passes_the_cap_and_all_comes_back() {
        let budget = Budget::new("bytes", 12);
        let (mut a, mut b, mut c) = (budget.hold(&app()), budget.hold(&app()), budget.hold(&app()));
        a.grow(8).unwrap();
        assert!(b.grow(5).unwrap_err().detail.contains("all apps"));
        b.grow(2).unwrap();
        a.resize(1).unwrap();
        b.grow(4).unwrap();
        c.grow(3).unwrap();
        assert_eq!(budget.taken(), 10);
        budget.set_cap(9);
        assert!(a.grow(0).is_ok() && a.grow(1).is_err());
        drop((a, b, c));
        assert_eq!(budget.taken(), 0);
    }

    #[test]
    fn one_app_gets_two_thirds_and_leaves_room_for_the_next() {
        let budget = Budget::new("bytes", 900);
        let (greedy, other) = (app(), app());
        let mut held: Vec<Held> = Vec::new();
        let refused = loop {
            let mut one = budget.hold(&greedy);
            match one.grow(10) {
                Ok(()) => held.push(one),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.detail, "bytes of this app are too many: there is room for 900 in all");
        assert_eq!((budget.taken(), greedy.load(Ordering::Relaxed)), (600, 600));
        let mut one = budget.hold(&other);
        one.grow(200).unwrap();
        assert!(one.grow(1).is_err());
        drop(held);
        assert_eq!(greedy.load(Ordering::Relaxed), 0);
        one.grow(400).unwrap();
    }
}
