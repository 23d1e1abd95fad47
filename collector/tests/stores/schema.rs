//! `schema show` and `schema apply` of the built binary.

use std::process::{Command, Output};

use subway_servers::{ClickHouse, available};

use crate::support::BINARY;

fn run(words: &[&str], config: &str, sink: &str) -> Output {
    Command::new(BINARY).arg("schema").args(words).args(["--config", config, "--sink", sink]).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_schema_is_printed_as_statements_applied_once_and_then_there_is_nothing_to_do() {
    let Some(server) = available(ClickHouse::shared()) else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.toml");
    let config = format!(
        "[[app]]\nkey = \"a\"\ntimezone = \"UTC\"\n[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"{}\"\ndatabase = \"of_schema\"\n\
         manage_schema = false\nttl_days = 9\n[[sink]]\nname = \"k\"\nkind = \"kafka\"\nurl = \"127.0.0.1:1\"\n",
        server.url()
    );
    std::fs::write(&path, config).unwrap();
    let path = path.to_str().unwrap();
    let shown = run(&["show"], path, "ch");
    assert!(shown.status.success());
    assert!(text(&shown.stdout).contains("CREATE TABLE IF NOT EXISTS of_schema.ods_event"), "{shown:?}");
    assert_eq!(server.query("SELECT count() FROM system.databases WHERE name = 'of_schema'").unwrap(), "0\n");
    let applied = run(&["apply"], path, "ch");
    assert!(applied.status.success(), "{applied:?}");
    for step in ["ch: migration 1 (ods)", "ch: migration 2 (dwd)", "ch: time to live of 9 days"] {
        assert!(text(&applied.stdout).contains(step), "{applied:?}");
    }
    assert_eq!(text(&run(&["apply"], path, "ch").stdout), "ch: nothing to do\n");
    // What is printed can be run as it is, over what is there.
    for statement in text(&shown.stdout).split(";\n").filter(|statement| !statement.trim().is_empty()) {
        server.query(statement).unwrap();
    }
    assert_eq!(text(&run(&["apply"], path, "ch").stdout), "ch: nothing to do\n");
    assert!(text(&run(&["show"], path, "k").stdout).contains("topic subway-events: 12 partitions"));
    let unknown = run(&["show"], path, "nope");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("ch, k"), "{unknown:?}");
}
