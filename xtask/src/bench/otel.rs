//! Builds the OpenTelemetry Collector for a comparison: it does the same durable job with a queue on disk and its
//! ClickHouse exporter, built by its own builder from the Go module proxy.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::tools;

/// Name of the OpenTelemetry Collector in the table.
pub(super) const NAME: &str = "OpenTelemetry Collector 0.165";

/// The builder and what it builds from.
const BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.165.0";
const RECIPE: &str = "receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver v0.165.0
exporters:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/clickhouseexporter v0.165.1
extensions:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/extension/storage/filestorage v0.165.1
";

/// Builds the OpenTelemetry Collector into `target/tools/otel`, which takes some minutes the first time. Returns the
/// path of its program.
///
/// # Errors
/// If Go is missing, or what it builds from cannot be had.
pub(super) fn fetch() -> Result<PathBuf> {
    let _lock = tools::lock("otel")?;
    let dir = tools::tools_dir().join("otel");
    let (program, stamp, recipe) = (dir.join("dist/otelcol-subway"), dir.join("made-of"), dir.join("recipe.yaml"));
    let made_of = format!("{BUILDER}\n{RECIPE}");
    if program.exists() && fs::read_to_string(&stamp).is_ok_and(|have| have == made_of) {
        return Ok(program);
    }
    ensure!(
        Command::new("go").arg("version").output().is_ok_and(|out| out.status.success()),
        "go is missing; the OpenTelemetry Collector needs Go 1.26 or newer"
    );
    eprintln!("bench: building {NAME}, which takes some minutes");
    fs::create_dir_all(&dir)?;
    let dist =
        format!("dist:\n  name: otelcol-subway\n  version: 0.165.0\n  output_path: {}\n", dir.join("dist").display());
    fs::write(&recipe, format!("{dist}{RECIPE}"))?;
    // Modules and build cache stay under target/ too; without -modcacherw they could not be removed with it.
    let mut build = Command::new("go");
    build.args(["run", BUILDER, "--config"]).arg(&recipe).current_dir(&dir);
    build.env("GOPATH", dir.join("go")).env("GOCACHE", dir.join("cache")).env("GOFLAGS", "-modcacherw -buildvcs=false");
    tools::output(&mut build)?;
    ensure!(program.exists(), "the builder ended well, but {} is not there", program.display());
    fs::write(stamp, made_of)?;
    Ok(program)
}
