//! `cargo xtask demo`: the whole path on real traffic, with everything it needs, compared with an oracle.

use std::fs::{self, File};
use std::num::NonZeroU64;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::replay::check::{Reader, compare};
use crate::replay::collector::Collector;
use crate::replay::{self, Found, Options, Share};
use crate::{test, tools, wasm};

/// One install in so many is played by the JavaScript SDK, the others by the native one.
const JAVASCRIPT_EVERY: NonZeroU64 = NonZeroU64::new(4).unwrap();

/// What `cargo xtask help` says about this command's options.
const HELP: &str = "\
cargo xtask demo [--exit]

  --exit   ends after the numbers are printed, instead of keeping the console open
";

/// Runs the demo.
///
/// # Errors
/// Something did not build or start, an event was lost, or a number differs from the oracle's.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let exit = match args {
        [] => false,
        [flag] if flag == "--exit" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            print!("{HELP}");
            return Ok(());
        }
        _ => bail!("demo takes --exit and nothing else\n\n{HELP}"),
    };
    let log = tools::root().join("examples/data/access.log");
    let folder = tools::target_dir().join("demo");
    step(1, "building the collector");
    let binary = test::build_collector()?;
    step(2, "building the npm package");
    let package = wasm::build()?;
    step(3, "starting the collector on the embedded default, with an empty data directory");
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot empty {}; does a demo still run?", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let collector_log = File::create(folder.join("collector.log"))?;
    let mut collector = Collector::start(&binary, &folder.join("data"), "127.0.0.1:0", collector_log.into())?;
    eprintln!("      {}", collector.address);
    let (javascript, native) = play(&log, &folder, &package, &collector)?;
    step(6, "asking the collector, and comparing every number with an independent count of the log");
    let token = collector.read_token()?;
    let reader = Reader { base: collector.address.clone(), app: "demo".to_owned(), token: token.clone() };
    let found = compare(&reader, &log)?;
    println!("\nTwo days of a real site, by day in Asia/Shanghai:\n\n{}", found.table);
    let sum = |part: fn(&Found) -> u64| part(&javascript) + part(&native);
    println!(
        "{} lines, {} views, {} installs ({} in JavaScript, {} native); {} numbers compared with the oracle, {} differ",
        sum(|found| found.lines),
        sum(|found| found.views),
        sum(|found| found.installs),
        javascript.installs,
        native.installs,
        found.compared,
        found.differences.len()
    );
    ensure!(found.differences.is_empty(), "the collector's numbers differ:\n{}", found.differences.join("\n"));
    if exit {
        return Ok(());
    }
    println!("\nThe console is open: {}/#token={token}", collector.address);
    println!("(the part after # is the read token, which {}/ asks for once)", collector.address);
    println!("Ctrl-C ends it. Everything is in {}.", folder.display());
    collector.wait()
}

fn step(number: u32, what: &str) {
    eprintln!("[{number}/6] {what}");
}

/// Plays the log: a share of its installs in JavaScript, then the rest natively. Returns what each share was.
fn play(log: &Path, folder: &Path, package: &wasm::Package, collector: &Collector) -> Result<(Found, Found)> {
    step(4, "playing every fourth install through the JavaScript SDK (the JD build) in simulated mini-program hosts");
    let begin = Instant::now();
    let events = folder.join("javascript.ndjson");
    let javascript = replay::split(log, Share::Every(JAVASCRIPT_EVERY), &events)?;
    let mut node = Command::new("node");
    node.arg(tools::root().join("sdk-wasm/js/replay-host.mjs"))
        .arg("--package")
        .arg(&package.dir)
        .args(["--to", &collector.address, "--key", "demo"])
        .stdin(File::open(&events)?)
        .stderr(Stdio::inherit());
    let output = node.output().context("cannot start node")?;
    let report: Value = serde_json::from_slice(&output.stdout).context("the JavaScript player printed no report")?;
    let number = |name: &str| report[name].as_u64().unwrap_or(0);
    eprintln!(
        "      {} installs, {} events, {} acknowledged, {:.1} s",
        number("installs"),
        number("events"),
        number("acked"),
        begin.elapsed().as_secs_f64()
    );
    ensure!(output.status.success(), "events were lost in JavaScript: {report}");
    ensure!(number("events") == javascript.lines + javascript.views, "not every event was played: {report}");
    step(5, "playing the other installs through the native SDK");
    let begin = Instant::now();
    let mut options = Options::new(log, &collector.address, "demo");
    options.share = Share::AllBut(JAVASCRIPT_EVERY);
    let summary = replay::run(&options)?;
    eprintln!("      {summary}, {:.1} s", begin.elapsed().as_secs_f64());
    ensure!(summary.played.lost == 0, "{} events were lost", summary.played.lost);
    Ok((javascript, summary.found))
}
