//! Dynamic threshold: how much of a shared cap one app may hold.

/// Returns how much of `cap` one app may hold while all apps together hold `taken`: `share` times what is free.
///
/// This is the dynamic threshold of A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds for Shared-Memory
/// Packet Switches", 1998. One app alone gets `share / (share + 1)` of the cap, two get `share / (2 * share + 1)` each,
/// so that a part is always left for the others. A smaller share leaves more of the cap unused; a larger one leaves
/// less to an app that comes late.
#[must_use]
pub(crate) fn dynamic_threshold(cap: u64, taken: u64, share: u64) -> u64 {
    cap.saturating_sub(taken).saturating_mul(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_alone_gets_the_share_and_leaves_a_part_free() {
        let fits = |held: &u64| *held <= dynamic_threshold(900, *held, 2);
        assert_eq!((0..=900).filter(fits).max(), Some(600));
        let fits = |held: &u64| *held <= dynamic_threshold(900, 2 * held, 2);
        assert_eq!((0..=450).filter(fits).max(), Some(360), "two apps that hold the same");
    }

    #[test]
    fn beyond_the_cap_nothing_is_left_and_nothing_overflows() {
        assert_eq!(dynamic_threshold(10, 11, 8), 0);
        assert_eq!(dynamic_threshold(u64::MAX, 0, 8), u64::MAX);
    }
}
