//! Pauses between attempts to bring the rest of a bulk in.

use std::time::Duration;

use super::super::SinkError;

/// The first pause, milliseconds; each is twice the one before.
const FIRST_MS: u64 = 100;
/// Attempts after the first. With their pauses, 3 s in all, they outlast a burst; what lasts longer is the worker's to
/// wait for, who can see that the sink is down.
const ATTEMPTS: u32 = 5;

/// How often it has been tried.
#[derive(Default)]
pub(super) struct Pauses {
    taken: u32,
}

impl Pauses {
    /// Waits before the next attempt. `why`: what the store said.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] if there have been enough.
    pub(super) async fn next(&mut self, why: &str) -> Result<(), SinkError> {
        if self.taken >= ATTEMPTS {
            return Err(SinkError::retryable(format!("some events were not taken in {ATTEMPTS} attempts: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(FIRST_MS << self.taken)).await;
        self.taken += 1;
        Ok(())
    }
}
