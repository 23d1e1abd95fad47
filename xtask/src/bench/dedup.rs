//! The rows of the dedup index: how fast it takes IDs with 1, 10 and 100 million seen, ordered and random.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Row, json, json_with, number, thousands};

/// What an index with 100 million IDs keeps of the speed of an empty one.
const KEPT: f64 = 0.8;

/// Seen IDs for which there is a goal.
const GOAL_AT: f64 = 1e8;

pub(super) fn rows() -> Result<Vec<Row>> {
    eprintln!("bench: the dedup index");
    let report = json(&["bench", "--locked", "--package", "subway-collector", "--bench", "dedup"])?;
    let mut rows = pattern(&report["ordered"], "ordered (UUIDv7)")?;
    rows.extend(pattern(&report["random"], "random (UUIDv4)")?);
    rows.push(ingest()?);
    Ok(rows)
}

/// What senders notice of it: durable ingest, embedded store and all, by an app with 100 million IDs and by a new one.
fn ingest() -> Result<Row> {
    let run = |seen: f64| -> Result<(f64, f64)> {
        let arguments = ["bench", "--locked", "--package", "subway-collector", "--bench", "ingest"];
        let report = json_with(&arguments, &[("SUBWAY_SEEN_IDS", seen.to_string())])?;
        Ok((number(&report, "ingest_path_per_cpu_second")?, number(&report, "ingest_per_second")?))
    };
    let (empty, full) = (run(0.0)?, run(GOAL_AT)?);
    let figure = format!(
        "{} = {:.2} of empty; {} per second = {:.2}",
        thousands(full.0),
        full.0 / empty.0,
        thousands(full.1),
        full.1 / empty.1
    );
    let what = "durable ingest with 100,000,000 random IDs seen: events per CPU second, the embedded store apart";
    Ok(Row::goal(what, figure, ">= 0.80 of empty", full.0 / empty.0 >= KEPT))
}

fn pattern(report: &Value, name: &str) -> Result<Vec<Row>> {
    let measured = report["rows"].as_array().context("the benchmark has no rows")?;
    let empty = number(measured.first().context("the benchmark has no rows")?, "ids_per_second")?;
    let mut rows = Vec::new();
    for row in measured {
        let (seen, rate) = (number(row, "seen")?, number(row, "ids_per_second")?);
        let what = format!("dedup, {name} IDs, {} seen: IDs per second, 5,000 a commit", thousands(seen));
        let figure = format!(
            "{} = {:.2} of empty; {} per CPU second; commit p50 {:.1}, p99 {:.1} ms; {:.1} bytes/ID; {:.0} MiB",
            thousands(rate),
            rate / empty,
            thousands(number(row, "ids_per_cpu_second")?),
            number(row, "p50_ms")?,
            number(row, "p99_ms")?,
            number(row, "disk_bytes_per_id")?,
            number(row, "rss_bytes")? / 1024.0 / 1024.0,
        );
        let is_goal = (seen - GOAL_AT).abs() < 1.0;
        rows.push(if is_goal {
            Row::goal(&what, figure, ">= 0.80 of empty", rate / empty >= KEPT)
        } else {
            Row::plain(&what, figure)
        });
    }
    let (p99, max) = (number(report, "between_p99_ms")?, number(report, "between_max_ms")?);
    let what = format!("dedup, {name} IDs: commits while parts are sealed and merged");
    rows.push(Row::plain(&what, format!("p99 {p99:.1} ms, longest {max:.0} ms")));
    let what = format!("dedup, {name} IDs: duplicates per second");
    rows.push(Row::plain(&what, thousands(number(&report["again"], "ids_per_second")?)));
    Ok(rows)
}
