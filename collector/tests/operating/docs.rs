//! docs/operations/ has every key of the configuration and every alert, and no other.

use std::collections::BTreeSet;
use std::process::Command;

use subway_collector::config::Config;

use super::files::{ConfigFixture, demo};
use super::support::BINARY;

const REFERENCE: &str = include_str!("../../../docs/operations/12-reference.md");
const ALERTS: &str = include_str!("../../../docs/operations/08-alerts.md");

/// The keys that `table` of a configuration may have, as the binary itself says when it meets another one.
fn known(config: &str) -> BTreeSet<String> {
    let site = ConfigFixture::new(config);
    let output = Command::new(BINARY).args(["check", "--config"]).arg(site.path("config.toml")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let (_, expected) = said.split_once("expected ").unwrap_or_else(|| panic!("{config}\n{said}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The keys in the first cell of the rows that begin with `prefix`.
fn documented(prefix: &str) -> BTreeSet<String> {
    let rows = REFERENCE.lines().skip_while(|line| !line.starts_with("| key | default | meaning |")).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|')).filter_map(|line| line.strip_prefix(prefix));
    rows.flat_map(|rest| rest.split(" | ").next().unwrap().split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

#[test]
fn every_key_is_documented() {
    let unknown = "no_such_key = 1\n";
    assert_eq!(documented("| `[[app]]`"), known(&demo("", unknown, "")), "[[app]]");
    for table in ["admin", "embedded", "tls", "log", "query"] {
        let config = demo("", "", &format!("[{table}]\n{unknown}"));
        assert_eq!(documented(&format!("| `[{table}]`")), known(&config), "[{table}]");
    }
    let mut top = known(&demo(unknown, "", ""));
    for table in ["admin", "app", "embedded", "limits", "tls", "log", "sink", "query"] {
        assert!(top.remove(table), "{table} is a table");
    }
    let plain: BTreeSet<String> = documented("|").into_iter().filter(|key| top.contains(key)).collect();
    assert_eq!(plain, top);
}

#[test]
fn what_only_a_restart_changes_is_documented() {
    let rows = REFERENCE.lines().skip_while(|line| !line.starts_with("| only a restart changes |")).skip(2);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|line| line.split(" | ").next().unwrap());
    let keys = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let stated: BTreeSet<&str> = keys.map(|key| key.trim_matches(['[', ']'])).collect();
    let keys = Config::parse("[[app]]\nkey = \"a\"\ntimezone = \"UTC\"\n").unwrap().keys_needing_restart();
    // Of a table the first cell names the whole, except for `[limits]`; of apps the guide speaks.
    let real: BTreeSet<&str> = keys
        .into_iter()
        .filter(|key| !key.starts_with("app."))
        .map(|key| if key.starts_with("limits.") { key } else { key.split(['.', ' ']).next().unwrap() })
        .collect();
    assert_eq!(stated, real);
}

#[test]
fn every_alert_is_documented() {
    let alerts = include_str!("../../../deploy/alerts.yaml");
    let real: BTreeSet<&str> = alerts.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect();
    let heads = ALERTS.lines().filter_map(|line| line.strip_prefix("### `"));
    let stated: BTreeSet<&str> = heads.map(|line| line.trim_end_matches('`')).collect();
    assert_eq!(stated, real);
}

#[test]
fn every_request_that_can_be_held_back_says_so() {
    let text = include_str!("../../../docs/openapi.yaml");
    let (_, paths) = text.split_once("\npaths:\n").unwrap();
    let (paths, _) = paths.split_once("\ncomponents:\n").unwrap();
    let mut seen = 0;
    for block in paths.split("\n  /").map(|block| block.trim_start_matches("  /")) {
        let path = block.split(':').next().unwrap();
        assert_eq!(block.contains("'429':"), path.starts_with("v1/"), "{path}");
        seen += 1;
    }
    assert!(seen >= 11, "{seen}");
}
