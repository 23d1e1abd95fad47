//! Delays between attempts to send the rest of a bulk request.

use std::time::Duration;

use super::super::SinkError;

/// First delay, milliseconds. Each is twice the one before.
const FIRST_MS: u64 = 100;
/// Attempts after the first. With their delays, 3 s in all, they outlast a burst. Longer faults are left to the
/// worker, which knows whether the sink is down.
const ATTEMPTS: u32 = 5;

/// Delays of one delivery.
#[derive(Default)]
pub(super) struct RetryDelays {
    taken: u32,
}

impl RetryDelays {
    /// Waits before the next attempt. `why` is the error of the last one.
    ///
    /// # Errors
    /// [`SinkError::Retryable`] after the last attempt.
    pub(super) async fn next(&mut self, why: &str) -> Result<(), SinkError> {
        if self.taken >= ATTEMPTS {
            return Err(SinkError::retryable(format!("some events were not taken in {ATTEMPTS} attempts: {why}")));
        }
        tokio::time::sleep(Duration::from_millis(FIRST_MS << self.taken)).await;
        self.taken += 1;
        Ok(())
    }
}
