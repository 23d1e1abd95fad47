//! `cargo xtask bench`: one table. Ratios inside one run; goals beside the figures, met or not.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{tools, wasm};

mod dedup;
mod otel;
mod sinks;

/// A part of the table: its name, and what makes its rows.
type Part = (&'static str, fn(bool) -> Result<Vec<Row>>);

const PARTS: [Part; 6] = [
    ("ingest", |_| ingest()),
    ("dedup", |_| dedup::rows()),
    ("idle", |_| Ok(vec![idle()?])),
    ("native", |_| native()),
    ("javascript", |_| javascript()),
    ("sinks", sinks::rows),
];

/// One row of the table.
struct Row {
    what: String,
    figure: String,
    goal: String,
    met: Option<bool>,
}

impl Row {
    fn plain(what: &str, figure: String) -> Self {
        Self { what: what.into(), figure, goal: String::new(), met: None }
    }

    fn goal(what: &str, figure: String, goal: &str, met: bool) -> Self {
        Self { what: what.into(), figure, goal: goal.into(), met: Some(met) }
    }
}

/// Runs the benchmarks, or those whose names are among `args`, and prints the table. `--compare-otel` adds a comparison
/// with the OpenTelemetry Collector.
///
/// # Errors
/// If an argument is unknown, or something does not build or run. A missed goal is shown, and is no error: machines are
/// noisy.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let (options, names): (Vec<&String>, Vec<&String>) = args.iter().partition(|arg| arg.starts_with("--"));
    ensure!(options.iter().all(|option| *option == "--compare-otel"), "the only option is --compare-otel");
    let known: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
    ensure!(names.iter().all(|name| known.contains(&name.as_str())), "the parts are {}", known.join(", "));
    let mut rows = Vec::new();
    for (name, part) in PARTS {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            rows.extend(part(!options.is_empty())?);
        }
    }
    let width = |cell: fn(&Row) -> &str| rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0);
    let (what, figure, goal) = (width(|row| &row.what), width(|row| &row.figure), width(|row| &row.goal));
    println!("| {:what$} | {:>figure$} | {:goal$} | met |", "what", "figure", "goal");
    println!("| {:-<what$} | {:->figure$} | {:-<goal$} | --- |", "", ":", "");
    for row in &rows {
        let met = row.met.map_or("", |met| if met { "yes" } else { "NO" });
        println!("| {:what$} | {:>figure$} | {:goal$} | {met:3} |", row.what, row.figure, row.goal);
    }
    Ok(())
}

/// Runs a command of cargo whose last line of output is one JSON object.
fn json(args: &[&str]) -> Result<Value> {
    json_with(args, &[])
}

/// The same with environment variables.
fn json_with(args: &[&str], environment: &[(&str, String)]) -> Result<Value> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).envs(environment.iter().map(|(name, value)| (name, value))).current_dir(tools::root());
    let output = tools::output(&mut command)?;
    let line = output.lines().rfind(|line| line.starts_with('{')).context("the benchmark printed no figures")?;
    Ok(serde_json::from_str(line)?)
}

fn number(report: &Value, name: &str) -> Result<f64> {
    report[name].as_f64().with_context(|| format!("the benchmark did not report {name}"))
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn ingest() -> Result<Vec<Row>> {
    eprintln!("bench: durable ingest");
    let report = json(&["bench", "--locked", "--package", "subway-collector", "--bench", "ingest"])?;
    let get = |name| number(&report, name);
    let serial = get("serial_per_cpu_second")?;
    let path = get("ingest_path_per_cpu_second")?;
    let all = get("ingest_per_cpu_second")?;
    Ok(vec![
        Row::plain("serial limit: inflate + parse + commit, events per CPU second", thousands(serial)),
        Row::goal(
            "durable ingest over HTTP, events per CPU second",
            format!("{} = {:.2} of the limit", thousands(path), path / serial),
            ">= 0.60 of the limit",
            path / serial >= 0.6,
        ),
        Row::goal(
            "the same with the embedded store's work, events per CPU second",
            format!("{} = {:.2} of the limit", thousands(all), all / serial),
            ">= 0.45 of the limit",
            all / serial >= 0.45,
        ),
        Row::plain(
            "disk per stored event, once every sink has it",
            format!(
                "spool {:.0}, dedup {:.0}, embedded store {:.0} bytes",
                get("spool_bytes_per_event")?,
                get("dedup_bytes_per_event")?,
                get("store_bytes_per_event")?
            ),
        ),
        Row::plain("durable ingest, events per second on this machine", thousands(get("ingest_per_second")?)),
        Row::plain("events per fsync (group commit)", thousands(get("events")? / get("commits")?.max(1.0))),
    ])
}

/// What the collector holds in memory at most with 10,000 idle connections, MiB.
const IDLE_MIB: f64 = 256.0;

fn idle() -> Result<Row> {
    eprintln!("bench: idle connections");
    let report = json(&["bench", "--locked", "--package", "subway-collector", "--bench", "idle"])?;
    let mib = |name| Ok::<_, anyhow::Error>(number(&report, name)? / 1024.0 / 1024.0);
    let (rss, before) = (mib("rss_bytes")?, mib("rss_bytes_before")?);
    let what = format!("memory with {} idle connections", thousands(number(&report, "connections")?));
    Ok(Row::goal(&what, format!("{rss:.0} MiB ({before:.0} before)"), "<= 256 MiB", rss <= IDLE_MIB))
}

fn native() -> Result<Vec<Row>> {
    eprintln!("bench: track(), native");
    let report = json(&["run", "--release", "--locked", "--package", "subway-mobile", "--example", "bench_track"])?;
    let (p50, p99) = (number(&report, "p50_ns")? / 1000.0, number(&report, "p99_ns")? / 1000.0);
    Ok(vec![
        Row::plain("track() native, p50", format!("{p50:.2} us")),
        Row::goal("track() native, p99", format!("{p99:.2} us"), "<= 10 us", p99 <= 10.0),
    ])
}

fn javascript() -> Result<Vec<Row>> {
    eprintln!("bench: track(), JavaScript");
    let package = wasm::build()?;
    let report: Value = serde_json::from_str(wasm::bench(&package)?.trim())?;
    let mut rows = Vec::new();
    for build in ["wasm", "jd"] {
        let (p50, p99) = (number(&report[build], "p50_us")?, number(&report[build], "p99_us")?);
        rows.push(Row::plain(&format!("track() JavaScript, {build} build, p50"), format!("{p50:.1} us")));
        let what = format!("track() JavaScript, {build} build, p99");
        rows.push(Row::goal(&what, format!("{p99:.1} us"), "<= 50 us", p99 <= 50.0));
    }
    for size in wasm::sizes(&package)? {
        let figure = format!("{:.1} KB, {:.1} KB gz", size.min as f64 / 1000.0, size.gzip as f64 / 1000.0);
        let what = format!("size of {}, minified", size.file);
        rows.push(if size.file == "jd.js" {
            Row::goal(&what, figure, "<= 20 KB gz", size.gzip <= 20_000)
        } else {
            Row::plain(&what, figure)
        });
    }
    Ok(rows)
}
