//! Budgets that all requests share, each with one cap: memory for requests in progress, slots in the queue of the
//! spool's writer.
//!
//! An app may hold [`SHARE`] times what is still free ([`dynamic_threshold`]). One app alone gets two thirds, and
//! always leaves a part for the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use subway_protocol::codec::server::Problem;

use super::unavailable;
use crate::limit::dynamic_threshold;

/// Share of an app, as a multiple of what is free. A larger one would let a single app take nearly everything.
const SHARE: u64 = 2;

/// Amount with a cap, of which requests reserve parts.
#[derive(Debug)]
pub(crate) struct SharedBudget {
    /// What is counted, for the text of a refusal.
    what: &'static str,
    cap: AtomicU64,
    reserved: AtomicU64,
}

/// Part of a budget, released when dropped.
#[derive(Debug)]
pub(crate) struct BudgetReservation {
    budget: Arc<SharedBudget>,
    /// Total that the app holds.
    held_by_app: Arc<AtomicU64>,
    amount: u64,
}

impl SharedBudget {
    /// Creates a budget of `cap`. `what` names the amount in a refusal.
    #[must_use]
    pub(crate) fn new(what: &'static str, cap: u64) -> Arc<Self> {
        Arc::new(Self { what, cap: AtomicU64::new(cap), reserved: AtomicU64::new(0) })
    }

    /// Changes the cap. Reservations beyond a smaller cap stay until they are released.
    pub(crate) fn set_cap(&self, cap: u64) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// Returns how much is reserved now.
    #[must_use]
    pub(crate) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Creates an empty reservation for a request of an app. `held_by_app` is the total that the app holds.
    #[must_use]
    pub(crate) fn reservation_for(self: &Arc<Self>, held_by_app: &Arc<AtomicU64>) -> BudgetReservation {
        BudgetReservation { budget: Arc::clone(self), held_by_app: Arc::clone(held_by_app), amount: 0 }
    }
}

impl BudgetReservation {
    /// Creates a reservation without a cap, for tests and the fuzzer.
    pub(crate) fn unbounded() -> Self {
        SharedBudget::new("bytes", u64::MAX / 4).reservation_for(&Arc::default())
    }

    /// Changes the reservation to `amount`.
    ///
    /// # Errors
    /// `unavailable` if the budget, or the share of this app, is too small; then the reservation is unchanged.
    pub(crate) fn resize(&mut self, amount: u64) -> Result<(), Problem> {
        if amount <= self.amount {
            self.release(self.amount - amount);
        } else {
            self.reserve(amount - self.amount)?;
        }
        self.amount = amount;
        Ok(())
    }

    /// Enlarges the reservation by `more`.
    ///
    /// # Errors
    /// See [`BudgetReservation::resize`].
    pub(crate) fn grow(&mut self, more: u64) -> Result<(), Problem> {
        self.resize(self.amount.saturating_add(more))
    }

    fn reserve(&self, more: u64) -> Result<(), Problem> {
        let cap = self.budget.cap.load(Ordering::Relaxed);
        let reserved = self.budget.reserved.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let held_by_app = self.held_by_app.fetch_add(more, Ordering::Relaxed).saturating_add(more);
        let who = if reserved > cap {
            "all apps together"
        } else if held_by_app > dynamic_threshold(cap, reserved, SHARE) {
            "this app"
        } else {
            return Ok(());
        };
        self.release(more);
        Err(unavailable(&format!("{} of {who} are too many: there is room for {cap} in all", self.budget.what)))
    }

    fn release(&self, amount: u64) {
        self.budget.reserved.fetch_sub(amount, Ordering::Relaxed);
        self.held_by_app.fetch_sub(amount, Ordering::Relaxed);
    }
}

impl Drop for BudgetReservation {
    fn drop(&mut self) {
        self.release(self.amount);
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
        let budget = SharedBudget::new("bytes", 12);
        let (mut a, mut b, mut c) =
            (budget.reservation_for(&app()), budget.reservation_for(&app()), budget.reservation_for(&app()));
        a.grow(8).unwrap();
        assert!(b.grow(5).unwrap_err().detail.contains("all apps"));
        b.grow(2).unwrap();
        a.resize(1).unwrap();
        b.grow(4).unwrap();
        c.grow(3).unwrap();
        assert_eq!(budget.reserved(), 10);
        budget.set_cap(9);
        assert!(a.grow(0).is_ok() && a.grow(1).is_err());
        drop((a, b, c));
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn one_app_gets_two_thirds_and_leaves_room_for_the_next() {
        let budget = SharedBudget::new("bytes", 900);
        let (greedy, other) = (app(), app());
        let mut reservation: Vec<BudgetReservation> = Vec::new();
        let refused = loop {
            let mut one = budget.reservation_for(&greedy);
            match one.grow(10) {
                Ok(()) => reservation.push(one),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.detail, "bytes of this app are too many: there is room for 900 in all");
        assert_eq!((budget.reserved(), greedy.load(Ordering::Relaxed)), (600, 600));
        let mut one = budget.reservation_for(&other);
        one.grow(200).unwrap();
        assert!(one.grow(1).is_err());
        drop(reservation);
        assert_eq!(greedy.load(Ordering::Relaxed), 0);
        one.grow(400).unwrap();
    }
}
