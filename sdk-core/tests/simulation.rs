//! Thousands of seeds of the simulation, in every test run. `SUBWAY_SEEDS=100000` runs more.

use subway_sdk_core::testing::simulation::{Defect, Report, run, run_with};

/// Seeds of a normal test run.
const SEEDS: u64 = 5_000;
/// A planted defect must be detected within this many seeds.
const FEW: u64 = 50;

#[test]
fn no_seed_loses_doubles_or_miscounts_an_event() {
    let setting = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let (first, seeds) = (setting("SUBWAY_FIRST_SEED").unwrap_or(0), setting("SUBWAY_SEEDS").unwrap_or(SEEDS));
    let mut total = Report::default();
    for seed in first..first + seeds {
        total += std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
    println!("{seeds} seeds: {total:?}");
    let busy = [total.kills, total.duplicates, total.faults, total.from_memory].iter().all(|count| *count > seeds / 2);
    let rare = [total.withdrawals, total.damaged, total.power_cuts].into_iter().chain(total.dropped);
    let varied = rare.into_iter().all(|count| count > seeds / 20) && total.ambiguous > 0 && total.unknown_to_client > 0;
    assert!(seeds < 1_000 || (busy && varied), "the simulation exercises what it claims to: {total:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(42), run(42));
}

#[test]
fn a_planted_defect_shows_within_few_seeds() {
    for defect in Defect::ALL {
        let found = (0..FEW).find(|seed| std::panic::catch_unwind(|| run_with(*seed, defect)).is_err());
        assert!(found.is_some(), "{defect:?} was not noticed");
        println!("{defect:?}: seed {found:?}");
    }
}
