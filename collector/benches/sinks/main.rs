//! Sinks on real servers: how fast they deliver against what the same server takes from a plain bulk loader, what they
//! cost ingest, how far they are behind, and the OpenTelemetry Collector with the same durable job. Everything that is
//! compared is measured in one run. Prints one JSON object; `cargo xtask bench` makes a table of it.
//!
//! A part whose server cannot be had is left out, with the reason in its place. `SUBWAY_BENCH` chooses parts by name;
//! `SUBWAY_OTEL` is the program of the OpenTelemetry Collector, without which there is no such part.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bulk;
mod clickhouse;
mod collector;
mod elasticsearch;
mod everything;
#[path = "../common/http.rs"]
mod http;
#[path = "../common/load.rs"]
mod load;
mod otel;
mod otlp;

use serde_json::{Map, Value, json};

/// A part: its name, and what measures it.
type Part = (&'static str, fn() -> anyhow::Result<Value>);

const PARTS: [Part; 4] = [
    ("clickhouse", clickhouse::run),
    ("elasticsearch", elasticsearch::run),
    ("everything", everything::run),
    ("otel", otel::run),
];

fn main() {
    let chosen = std::env::var("SUBWAY_BENCH").unwrap_or_default();
    let mut report = Map::new();
    for (name, part) in PARTS {
        if chosen.is_empty() || chosen.split(',').any(|word| word == name) {
            eprintln!("bench: {name}");
            let figures = part().unwrap_or_else(|error| json!({"missing": format!("{error:#}")}));
            eprintln!("bench: {name}: {figures}");
            report.insert(name.to_owned(), figures);
        }
    }
    println!("{}", Value::Object(report));
}
