//! Thousands of seeds of the simulation, in every test run. `SUBWAY_SEEDS=100000` runs more.

use subway_sdk_core::testing::simulation::{Report, run};

/// Seeds in a normal test run.
const SEEDS: u64 = 5_000;

#[test]
fn no_seed_loses_doubles_or_miscounts_an_event() {
    let seeds = std::env::var("SUBWAY_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS);
    let mut total = Report::default();
    for seed in 0..seeds {
        let report = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed} failed"));
        total.tracked += report.tracked;
        total.persisted += report.persisted;
        total.stored += report.stored;
        total.duplicates += report.duplicates;
        total.kills += report.kills;
        total.uploads += report.uploads;
    }
    println!("{seeds} seeds: {total:?}");
    assert!(total.kills > seeds && total.duplicates > seeds, "the simulation exercises what it claims to: {total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(42), run(42));
}
