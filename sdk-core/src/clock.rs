//! Time, as an argument.

/// The host's two clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, milliseconds since the Unix epoch. May jump in either direction.
    pub wall: i64,
    /// Monotonic clock, milliseconds since any zero that stays the same while this client lives. Never goes back.
    pub mono: u64,
}
