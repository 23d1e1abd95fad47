//! The bytes of all requests being worked on, under one cap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use subway_protocol::codec::server::Problem;

use super::unavailable;

/// The cap, and how much of it is taken.
#[derive(Debug)]
pub struct Budget {
    cap: AtomicU64,
    taken: AtomicU64,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub struct Held {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `cap` bytes.
    #[must_use]
    pub fn new(cap: u64) -> Arc<Self> {
        Arc::new(Self { cap: AtomicU64::new(cap), taken: AtomicU64::new(0) })
    }

    /// Changes the cap. What is held beyond a smaller one comes back in its time.
    pub fn set_cap(&self, cap: u64) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    /// Bytes taken now.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// An empty part.
    #[must_use]
    pub fn hold(self: &Arc<Self>) -> Held {
        Held { budget: Arc::clone(self), bytes: 0 }
    }
}

impl Held {
    /// Makes this part `bytes` large.
    ///
    /// # Errors
    /// `unavailable` if the budget does not have them; the part stays as it was.
    pub fn resize(&mut self, bytes: u64) -> Result<(), Problem> {
        if bytes <= self.bytes {
            self.budget.taken.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        } else {
            let more = bytes - self.bytes;
            let before = self.budget.taken.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.budget.cap.load(Ordering::Relaxed) {
                self.budget.taken.fetch_sub(more, Ordering::Relaxed);
                return Err(unavailable("too many bytes are being worked on"));
            }
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Makes this part larger by `bytes`.
    ///
    /// # Errors
    /// As [`Held::resize`].
    pub fn grow(&mut self, bytes: u64) -> Result<(), Problem> {
        self.resize(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_never_passes_the_cap_and_all_comes_back() {
        let budget = Budget::new(10);
        let (mut a, mut b) = (budget.hold(), budget.hold());
        a.grow(6).unwrap();
        assert!(b.grow(5).is_err());
        b.grow(4).unwrap();
        a.resize(1).unwrap();
        b.grow(5).unwrap();
        assert_eq!(budget.taken(), 10);
        budget.set_cap(9);
        assert!(a.grow(0).is_ok() && a.grow(1).is_err());
        drop((a, b));
        assert_eq!(budget.taken(), 0);
    }
}
