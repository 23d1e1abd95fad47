//! The rows of the bench target `sinks`: delivery on real servers.

use anyhow::{Context, Result};
use serde_json::Value;

use super::otel;
use super::{Row, json_with, number, thousands};

/// The least part of a plain bulk loader's rate that a sink is to reach.
const DELIVERY_GOAL: f64 = 0.8;
/// The longest that an event is to be on its way to a store, for 99 of 100 events, milliseconds.
const LAG_GOAL_MS: f64 = 2000.0;
/// The least part of ingest's speed that is to be left while a sink is dead.
const DEAD_GOAL: f64 = 0.95;

/// Makes the rows of one part of the report.
type Part = fn(&Value) -> Result<Vec<Row>>;

/// Runs the benchmark; with the OpenTelemetry Collector if wanted.
pub(super) fn rows(with_otel: bool) -> Result<Vec<Row>> {
    let otel = if with_otel { Some(otel::fetch()?) } else { None };
    eprintln!("bench: sinks on real servers");
    let environment: Vec<(&str, String)> =
        otel.iter().map(|path| ("SUBWAY_OTEL", path.display().to_string())).collect();
    let args = ["bench", "--locked", "--package", "subway-collector", "--bench", "sinks"];
    let report = json_with(&args, &environment)?;
    let mut rows = Vec::new();
    let parts: [(&str, Part); 4] = [
        ("clickhouse", clickhouse),
        ("elasticsearch", elasticsearch),
        ("everything", everything),
        ("otel", side_by_side),
    ];
    for (name, part) in parts {
        match report[name]["missing"].as_str() {
            Some(_) if name == "otel" && !with_otel => {}
            Some(why) => rows.push(Row::plain(&format!("{name}: not run"), why.chars().take(60).collect())),
            None => rows.extend(part(&report[name]).with_context(|| format!("the part {name}"))?),
        }
    }
    Ok(rows)
}

fn clickhouse(report: &Value) -> Result<Vec<Row>> {
    let loader = &report["loader"];
    let rate = number(&loader["RowBinary"], "per_second")?;
    Ok(vec![
        Row::plain("ClickHouse, plain loader of ready-made RowBinary, rows per second", thousands(rate)),
        Row::plain(
            "ClickHouse, plain loader of ready-made JSONEachRow, rows per second",
            thousands(number(&loader["JSONEachRow"], "per_second")?),
        ),
        against("ClickHouse sink, draining a backlog, events per second", &report["sink"], &loader["RowBinary"])?,
        store_cpu("ClickHouse", &report["sink"], &loader["RowBinary"])?,
    ])
}

fn elasticsearch(report: &Value) -> Result<Vec<Row>> {
    let (sink, loader) = (&report["sink"], &report["loader"]);
    let rate = number(loader, "per_second")?;
    let counting = number(&sink["with_exact_counts"], "per_second")?;
    Ok(vec![
        Row::plain("Elasticsearch, plain loader of ready-made bulks, documents per second", thousands(rate)),
        against("Elasticsearch sink, draining a backlog, events per second", &sink["events_only"], loader)?,
        store_cpu("Elasticsearch", &sink["events_only"], loader)?,
        Row::plain(
            "the sink with the documents that count exactly (the default)",
            format!("{} = {:.2} of the loader", thousands(counting), counting / rate),
        ),
    ])
}

fn against(what: &str, sink: &Value, loader: &Value) -> Result<Row> {
    let (sink, loader) = (number(sink, "per_second")?, number(loader, "per_second")?);
    let figure = format!("{} = {:.2} of the loader", thousands(sink), sink / loader);
    Ok(Row::goal(what, figure, &format!(">= {DELIVERY_GOAL:.2} of the loader"), sink / loader >= DELIVERY_GOAL))
}

/// The same in CPU seconds of the store, which a noisy machine disturbs less.
fn store_cpu(store: &str, sink: &Value, loader: &Value) -> Result<Row> {
    let (sink, loader) = (number(sink, "per_store_cpu_second")?, number(loader, "per_store_cpu_second")?);
    let figure = format!("{} = {:.2} of the loader", thousands(sink), sink / loader);
    Ok(Row::plain(&format!("the same, events per CPU second of {store}"), figure))
}

fn everything(report: &Value) -> Result<Vec<Row>> {
    let ingest = |name: &str, figure: &str| number(&report["ingest"][name], figure);
    let (alone, dead, all) =
        (ingest("embedded", "per_second")?, ingest("dead", "per_second")?, ingest("all", "per_second")?);
    let part = |rate: f64| format!("{} = {:.2} of embedded only", thousands(rate), rate / alone);
    let mut rows = vec![
        Row::plain("ingest with the embedded store only, events per second", thousands(alone)),
        Row::goal(
            "ingest with a dead sink, events per second",
            part(dead),
            &format!(">= {DEAD_GOAL:.2} of embedded only"),
            dead / alone >= DEAD_GOAL,
        ),
        Row::plain("ingest with ClickHouse, Elasticsearch and Kafka on the same two cores", part(all)),
        Row::plain("the same, events per CPU second of the collector", thousands(ingest("all", "per_cpu_second")?)),
    ];
    let pace = thousands(number(report, "pace")?);
    for (sink, name) in [("embedded", "embedded"), ("ch", "ClickHouse"), ("es", "Elasticsearch"), ("kafka", "Kafka")] {
        let lag = &report["lag_ms"][sink];
        let what = format!("receipt to {name} at {pace} events per second, p50 and p99");
        // What never arrived has no number.
        let figure = match (lag["p50"].as_f64(), lag["p99"].as_f64()) {
            (Some(p50), Some(p99)) => format!("{p50:.0} ms, {p99:.0} ms"),
            _ => "not all arrived".to_owned(),
        };
        let met = lag["p99"].as_f64().is_some_and(|p99| p99 <= LAG_GOAL_MS);
        rows.push(Row::goal(&what, figure, &format!("p99 <= {LAG_GOAL_MS:.0} ms"), met));
    }
    Ok(rows)
}

fn side_by_side(report: &Value) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (figure, what) in [
        ("acknowledged_per_second", "durable receipts, events per second"),
        ("delivered_per_second", "from HTTP to rows in ClickHouse, events per second"),
        ("delivered_per_cpu_second", "the same, events per CPU second of the collector"),
    ] {
        let (ours, theirs) = (number(&report["ours"], figure)?, number(&report["theirs"], figure)?);
        rows.push(Row::goal(
            &format!("{what}: this, {}", otel::NAME),
            format!("{}, {}", thousands(ours), thousands(theirs)),
            "more than OpenTelemetry",
            ours > theirs,
        ));
    }
    for side in ["ours", "theirs"] {
        let (taken, there) = (number(&report[side], "acknowledged")?, number(&report[side], "delivered")?);
        if taken > there {
            let what = format!("{side}: acknowledged, but not in ClickHouse when the time was over");
            rows.push(Row::plain(&what, thousands(taken - there)));
        }
    }
    Ok(rows)
}
