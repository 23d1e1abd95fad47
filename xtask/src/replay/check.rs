//! Compares what a collector says with what the oracle computed, bucket by bucket, through the reading API.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::oracle::{self, Metric, Oracle, Series};

/// Sinks work a moment after the acknowledgement; longer than this is a fault.
const SETTLE: Duration = Duration::from_secs(60);

/// How to ask a collector.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    /// Its address, such as `http://127.0.0.1:8080`.
    pub(crate) base: String,
    /// The app's key and its read token.
    pub(crate) app: String,
    pub(crate) token: String,
}

/// One answer: values by bucket start (milliseconds since the epoch), and the total.
struct Answer {
    series: Series,
    total: u64,
}

impl Reader {
    fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}/v1/apps/{}/{path}", self.base.trim_end_matches('/'), self.app);
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(60))).proxy(None).build();
        let mut answer = ureq::Agent::new_with_config(config)
            .get(&url)
            .header("authorization", format!("Bearer {}", self.token))
            .call()
            .with_context(|| format!("GET {url}"))?;
        let text = answer.body_mut().read_to_string().with_context(|| format!("GET {url}"))?;
        serde_json::from_str(&text).with_context(|| format!("GET {url}: {text}"))
    }

    fn metric(&self, metric: &str, interval: &str, span: (i64, i64)) -> Result<Answer> {
        let (from, to) = (oracle::date(span.0), oracle::date(oracle::next_day(span.1)));
        let answer = self.get(&format!("metrics/{metric}?from={from}&to={to}&interval={interval}"))?;
        let mut series = Series::new();
        for point in answer["series"].as_array().context("an answer without a series")? {
            let start: Timestamp = point["start"].as_str().context("a bucket without start")?.parse()?;
            let value = point["value"].as_u64().context("a bucket without value")?;
            ensure!(series.insert(start.as_millisecond(), value).is_none(), "bucket {start} came twice");
        }
        Ok(Answer { series, total: answer["total"].as_u64().context("an answer without total")? })
    }

    /// How many events the collector's store holds, of any time.
    #[cfg(test)]
    pub(crate) fn events_so_far(&self) -> Result<u64> {
        Ok(self.metric("events", "total", (1_431_800_000_000, 1_432_000_000_000))?.total)
    }

    /// Waits until as many events as the oracle knows have reached the store.
    fn settle(&self, oracle: &Oracle) -> Result<()> {
        let start = Instant::now();
        loop {
            let events = self.metric("events", "total", oracle.span)?.total;
            if events >= oracle.events.total || start.elapsed() > SETTLE {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    /// A table of page views, visitors and new users by day, ready to be printed.
    pub(crate) table: String,
    /// Buckets and totals that were compared.
    pub(crate) compared: usize,
    /// What differs, one line each; empty is what everybody hopes for.
    pub(crate) differences: Vec<String>,
}

/// Reads a log, asks the collector and compares. The collector's app must be in Asia/Shanghai and hold this log only.
pub(crate) fn compare(reader: &Reader, log: &Path) -> Result<Comparison> {
    let mut bytes = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        let mut plain = Vec::new();
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut plain)?;
        bytes = plain;
    }
    let oracle = oracle::compute(&String::from_utf8_lossy(&bytes));
    reader.settle(&oracle)?;
    let mut found = Comparison { table: String::new(), compared: 0, differences: Vec::new() };
    let metrics =
        [("pv", &oracle.pv), ("uv", &oracle.uv), ("new_users", &oracle.new_users), ("events", &oracle.events)];
    let mut days = BTreeMap::new();
    for (name, expected) in metrics {
        found.metric(reader, name, expected, oracle.span)?;
        days.insert(name, reader.metric(name, "day", oracle.span)?);
    }
    let sessions = reader.metric("sessions", "total", oracle.span)?.total;
    found.compared += 1;
    if sessions < oracle.installs {
        found.differences.push(format!("sessions: {sessions} is less than the {} installs", oracle.installs));
    }
    found.table = table(&days, sessions, &oracle)?;
    Ok(found)
}

impl Comparison {
    fn metric(&mut self, reader: &Reader, name: &str, expected: &Metric, span: (i64, i64)) -> Result<()> {
        let whole = Series::from([(oracle::start(span.0, 86_400_000), expected.total)]);
        for (interval, series, buckets) in [
            ("hour", &expected.hours, oracle::buckets(span, false)),
            ("day", &expected.days, oracle::buckets(span, true)),
            ("total", &whole, whole.keys().copied().collect()),
        ] {
            let got = reader.metric(name, interval, span)?;
            let wanted: Series =
                buckets.into_iter().map(|start| (start, series.get(&start).copied().unwrap_or(0))).collect();
            self.series(&format!("{name} by {interval}"), &wanted, &got.series);
            self.compared += 1;
            if got.total != expected.total {
                self.differences
                    .push(format!("{name} by {interval}: total {} should be {}", got.total, expected.total));
            }
        }
        Ok(())
    }

    fn series(&mut self, what: &str, wanted: &Series, got: &Series) {
        let starts: std::collections::BTreeSet<i64> = wanted.keys().chain(got.keys()).copied().collect();
        for start in starts {
            self.compared += 1;
            let (wanted, got) = (wanted.get(&start), got.get(&start));
            if wanted != got {
                let at = Timestamp::from_millisecond(start).map_or_else(|_| start.to_string(), |at| at.to_string());
                let show = |value: Option<&u64>| value.map_or_else(|| "no bucket".to_owned(), u64::to_string);
                self.differences.push(format!("{what} at {at}: {} should be {}", show(got), show(wanted)));
            }
        }
    }
}

fn table(days: &BTreeMap<&str, Answer>, sessions: u64, oracle: &Oracle) -> Result<String> {
    let mut out = String::new();
    let mut row = |cells: [String; 5]| {
        let [day, pv, uv, new, events] = cells;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{day:<12}{pv:>12}{uv:>12}{new:>12}{events:>12}");
    };
    let names = ["pv", "uv", "new_users", "events"];
    row(["day", "page views", "visitors", "new users", "events"].map(str::to_owned));
    for start in oracle::buckets(oracle.span, true) {
        let value = |name: &str| days.get(name).and_then(|answer| answer.series.get(&start)).copied().unwrap_or(0);
        let [pv, uv, new, events] = names.map(|name| thousands(value(name)));
        row([oracle::date(start), pv, uv, new, events]);
    }
    let [pv, uv, new, events] = names.map(|name| thousands(days.get(name).map_or(0, |answer| answer.total)));
    row(["in all".to_owned(), pv, uv, new, events]);
    writeln!(out, "sessions: {}", thousands(sessions))?;
    Ok(out)
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_a_wrong_and_a_superfluous_bucket_are_told_apart() {
        let mut found = Comparison { table: String::new(), compared: 0, differences: Vec::new() };
        let series = |pairs: &[(i64, u64)]| pairs.iter().copied().collect::<Series>();
        found.series("pv", &series(&[(0, 1), (1000, 2), (2000, 0)]), &series(&[(0, 1), (1000, 3), (3000, 0)]));
        assert_eq!(
            found.differences,
            [
                "pv at 1970-01-01T00:00:01Z: 3 should be 2",
                "pv at 1970-01-01T00:00:02Z: no bucket should be 0",
                "pv at 1970-01-01T00:00:03Z: 0 should be no bucket",
            ]
        );
        assert_eq!(found.compared, 4);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
