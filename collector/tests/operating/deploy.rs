//! The files in `deploy/` say what is true. There is no container engine in the tests: the image and compose.yaml are
//! read, not run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::files::{ConfigFixture, demo};
use super::support::{BINARY, batch, events};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn text(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Every word of `text` that looks like the name of a metric of ours.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("subway_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

/// The names of all series of a running collector, as a query names them, with the labels of each.
fn series() -> Vec<(String, String)> {
    let site = ConfigFixture::new(&demo("", "", ""));
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(1))).status, 200);
    let page = collector.get("/metrics", None).text;
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let series = line.rsplit_once(' ').unwrap().0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            (name.to_owned(), labels.to_owned())
        })
        .collect()
}

fn names() -> BTreeSet<String> {
    series().into_iter().map(|(name, _)| name).collect()
}

/// The expressions of all alerts: what stands after `expr:`, also over several lines.
fn expressions(alerts: &str) -> Vec<String> {
    let blocks = alerts.split("- alert: ").skip(1);
    blocks
        .map(|block| {
            let after = block.split_once("expr:").unwrap_or_else(|| panic!("no expr in {block}")).1;
            let end = after.find("\n        for:").or_else(|| after.find("\n        labels:")).unwrap();
            after[..end].trim_start_matches(" >-").trim().to_owned()
        })
        .collect()
}

#[test]
fn alerts_ask_for_metrics_and_labels_that_exist() {
    let real = series();
    let alerts = text("alerts.yaml");
    let all = expressions(&alerts);
    assert!(all.len() > 15, "{all:?}");
    for expression in all {
        let asked = metrics(&expression);
        assert!(!asked.is_empty() || expression.starts_with("up{"), "{expression}");
        for name in &asked {
            assert!(real.iter().any(|(known, _)| known == name), "{name} in {expression}");
        }
        // name{label="value"}: such a series is on the page.
        for (at, _) in expression.match_indices('{') {
            let name = expression[..at].rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            let labels = expression[at + 1..].split('}').next().unwrap();
            for value in label_values(labels).filter(|_| name.starts_with("subway_")) {
                assert!(
                    real.iter().any(|(known, labels)| known == name && labels.contains(&value)),
                    "{name} with {value} in {expression}"
                );
            }
        }
    }
}

/// `label="value"` of every alternative in a selector.
fn label_values(labels: &str) -> impl Iterator<Item = String> {
    let pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.flat_map(|(label, values)| {
        let values = values.trim_start_matches('~').trim_matches('"').to_owned();
        values.split('|').map(|value| format!("{label}=\"{value}\"")).collect::<Vec<_>>()
    })
}

#[test]
fn every_alert_has_a_severity_a_summary_and_a_description() {
    let alerts = text("alerts.yaml");
    let mut seen = BTreeSet::new();
    for block in alerts.split("- alert: ").skip(1) {
        let name = block.lines().next().unwrap();
        assert!(seen.insert(name), "{name} is there twice");
        assert!(block.contains("severity: page") || block.contains("severity: ticket"), "{name}");
        assert!(block.contains("summary: \"") && block.contains("description: \""), "{name}");
    }
}

/// All strings below a member of this name.
fn strings<'a>(value: &'a Value, member: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == member => found.push(text),
            other => strings(other, member, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| strings(item, member, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_none_that_does_not_exist() {
    let dashboard: Value = serde_json::from_str(&text("grafana-dashboard.json")).unwrap();
    let mut queries = Vec::new();
    strings(&dashboard, "expr", &mut queries);
    let shown: BTreeSet<String> = queries.iter().flat_map(|query| metrics(query)).collect();
    let real = names();
    let unknown: Vec<&String> = shown.difference(&real).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let family =
        |name: &str| name.trim_end_matches("_bucket").trim_end_matches("_sum").trim_end_matches("_count").to_owned();
    let families = |names: &BTreeSet<String>| names.iter().map(|name| family(name)).collect::<BTreeSet<_>>();
    let missing: Vec<String> = families(&real).difference(&families(&shown)).cloned().collect();
    assert!(missing.is_empty(), "not on the dashboard: {missing:?}");
}

#[test]
fn the_dashboard_is_one_that_grafana_can_import() {
    let dashboard: Value = serde_json::from_str(&text("grafana-dashboard.json")).unwrap();
    assert!(dashboard["uid"].is_string() && dashboard["title"].is_string() && dashboard["schemaVersion"].is_u64());
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(
        variables.iter().any(|v| v["type"] == "datasource" && v["query"] == "prometheus" && v["name"] == "datasource")
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let cells = |panel: &Value| {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
        assert!(x + w <= 24, "{panel}");
        (y..y + h).flat_map(move |row| (x..x + w).map(move |column| (row, column))).collect::<Vec<_>>()
    };
    let all: Vec<(u64, u64)> = panels.iter().flat_map(cells).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "no panel lies on another");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{panel}");
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && targets.iter().all(|target| target["expr"].is_string()));
    }
}

fn check(config: &Path) -> std::process::Output {
    let mut command = Command::new(BINARY);
    command.args(["check", "--config"]).arg(config);
    for name in text("env.example").lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name) {
        command.env(name, "a-value");
    }
    command.output().unwrap()
}

#[test]
fn the_configurations_are_valid() {
    for name in ["collector.toml", "container.toml"] {
        let output = check(&folder().join(name));
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn compose_gives_the_collector_what_its_configuration_asks_for() {
    let (compose, config, example) = (text("compose.yaml"), text("collector.toml"), text("env.example"));
    let wanted = config.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let variables = wanted.split("${").skip(1).map(|rest| rest.split('}').next().unwrap());
    let variables: BTreeSet<&str> = variables.collect();
    assert_eq!(variables.len(), 4, "{variables:?}");
    for name in variables {
        assert!(compose.contains(&format!("      {name}: ${{{name}:?")), "compose.yaml does not pass {name}");
        assert!(example.contains(&format!("\n{name}=")), "env.example does not have {name}");
    }
    for kind in ["clickhouse", "elasticsearch", "kafka"] {
        assert!(compose.contains(&format!("\n  {kind}:\n")), "compose.yaml has no service {kind}");
        assert!(config.contains(&format!("kind = \"{kind}\"")), "collector.toml has no sink of kind {kind}");
    }
    assert!(config.contains("data_dir = \"/var/lib/subway\"") && compose.contains("collector:/var/lib/subway"));
    let published = compose.lines().filter(|line| line.trim_start().starts_with("ports:"));
    assert!(published.clone().count() > 3);
    assert!(published.clone().all(|line| line.contains("\"127.0.0.1:")), "loopback only");
}

#[test]
fn the_image_runs_without_root_and_without_a_shell() {
    let image = text("Dockerfile");
    let last = image.rsplit_once("\nFROM ").unwrap().1;
    assert!(last.starts_with("gcr.io/distroless/") && last.contains("\nUSER 65532:65532\n"), "{last}");
    assert!(!last.contains("\nRUN "), "nothing runs in it while it is built");
    assert!(image.contains("cargo build --release --locked --package subway-collector"));
    assert!(last.contains("ENTRYPOINT [\"/usr/local/bin/subway-collector\"]"));
}

#[test]
fn the_unit_is_accepted_and_hardened() {
    let unit = text("subway-collector.service");
    for needed in ["NoNewPrivileges=yes", "ProtectSystem=strict", "StateDirectory=subway", "Restart=on-failure"] {
        assert!(unit.contains(&format!("\n{needed}\n")), "{needed}");
    }
    assert!(unit.contains("ExecReload=/bin/kill -HUP $MAINPID"));
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("systemd-analyze is not here: the unit is not verified");
        return;
    };
    assert!(version.status.success());
    // Verified with the binary that was built, because the one it names need not be installed here.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("subway-collector.service");
    std::fs::write(&path, unit.replace("/usr/local/bin/subway-collector", BINARY)).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("subway-collector")).collect();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
    let rated =
        Command::new("systemd-analyze").args(["security", "--offline=true", "--threshold=20"]).arg(&path).output();
    let rated = rated.unwrap();
    assert!(rated.status.success(), "its exposure is above 2.0: {}", String::from_utf8_lossy(&rated.stdout));
}
