//! Text form of sets of positions in the database, such as `5-9,12`. Parked events are mostly consecutive.

use std::fmt::Write;

/// Formats `positions`, which are in order.
pub(super) fn write(positions: &[u64]) -> String {
    let mut out = String::new();
    for run in positions.chunk_by(|one, next| one + 1 == *next) {
        let comma = if out.is_empty() { "" } else { "," };
        // Writing to a text cannot fail.
        let _ = match run {
            [first, .., last] => write!(out, "{comma}{first}-{last}"),
            [one] => write!(out, "{comma}{one}"),
            [] => Ok(()),
        };
    }
    out
}

/// Parses a set of positions and skips what is not a position.
pub(super) fn read(text: &str) -> Vec<u64> {
    let run = |run: &str| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        Some(first.parse::<u64>().ok()?..=last.parse::<u64>().ok()?)
    };
    text.split(',').filter_map(run).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for (positions, text) in [
            (vec![], ""),
            (vec![7], "7"),
            (vec![5, 6, 7, 8, 9, 12], "5-9,12"),
            (vec![1, 3, 4], "1,3-4"),
            (vec![u64::MAX - 1, u64::MAX], "18446744073709551614-18446744073709551615"),
        ] {
            assert_eq!(write(&positions), text);
            assert_eq!(read(text), positions);
        }
    }
}
