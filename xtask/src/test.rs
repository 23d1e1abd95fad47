//! `cargo xtask test`: formatting, lints, rooms, documentation, every test. CI runs just this.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::{architecture, console, tools, wasm};

/// One step: what it is called and what it does.
type Step = (&'static str, fn() -> Result<()>);

/// Every feature but the collector's `kafka-ssl`, which would make OpenSSL a condition for working on the project.
const FEATURES: &str = "--features=subway-protocol/server";

const STEPS: &[Step] = &[
    ("formatting", || cargo(&["fmt", "--all", "--check"], &[])),
    ("rooms and arrows", || architecture::check(&tools::root())),
    ("clippy", clippy),
    ("documentation", documentation),
    ("the collector", || build_collector().map(drop)),
    ("Rust tests", || cargo(&["test", "--workspace", FEATURES, "--locked"], &[])),
    ("the npm package and its tests", || wasm::run_tests(&wasm::build()?)),
    ("the console in a browser", || console::test(&build_collector()?)),
];

/// Runs every step, or those whose names contain one of `only`; stops at the first that fails.
///
/// # Errors
/// The first step that failed.
pub(crate) fn run(only: &[String]) -> Result<()> {
    let chosen: Vec<&Step> = STEPS
        .iter()
        .filter(|(name, _)| only.is_empty() || only.iter().any(|word| name.contains(word.as_str())))
        .collect();
    if chosen.is_empty() {
        let names: Vec<&str> = STEPS.iter().map(|(name, _)| *name).collect();
        anyhow::bail!("no step is called so; there are: {}", names.join(", "));
    }
    let mut table = String::new();
    for (name, step) in &chosen {
        eprintln!("\n=== {name}");
        let begin = Instant::now();
        step().with_context(|| format!("`cargo xtask test` failed at: {name}"))?;
        table.push_str(&format!("  ok  {:>6.1} s  {name}\n", begin.elapsed().as_secs_f64()));
    }
    println!("\n{table}\n{} of {} checks passed", chosen.len(), STEPS.len());
    Ok(())
}

fn cargo(args: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).envs(environment.iter().copied()).current_dir(tools::root());
    tools::run(&mut command)
}

fn clippy() -> Result<()> {
    cargo(&["clippy", "--workspace", "--all-targets", FEATURES, "--locked", "--", "-D", "warnings"], &[])
}

fn documentation() -> Result<()> {
    cargo(&["doc", "--workspace", "--no-deps", FEATURES, "--locked", "--quiet"], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// Builds the collector as tests use it; returns the binary.
///
/// # Errors
/// If it does not build.
pub(crate) fn build_collector() -> Result<PathBuf> {
    cargo(&["build", "--locked", "--package", "subway-collector"], &[])?;
    Ok(tools::target_dir().join("debug/subway-collector"))
}
