//! Logs: one line per event, and never a secret.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

use super::files::ConfigFixture;
use super::support::{BINARY, Collector, agent, batch, events, try_post};

const READ: &str = "hush-read-token-0123456789";
const ADMIN: &str = "hush-admin-token-0123456789";
const SECRET: &str = "hush app secret";
const PASSWORD: &str = "hush-sink-password";
const KEY: &str = "hush-key-in-an-address";
const EVENT: &str = "hush-property-of-an-event";
const ALL: [&str; 6] = [READ, ADMIN, SECRET, PASSWORD, KEY, EVENT];

/// The table of a sink whose store is not there and whose password is a secret.
fn sink(kind: &str, url: &str) -> String {
    format!(
        "[[sink]]\nname = \"{kind}\"\nkind = \"{kind}\"\nurl = \"{url}\"\nuser = \"u\"\npassword = \"{PASSWORD}\"\n"
    )
}

/// A configuration in which everything that is secret has a value of its own, with every kind of sink.
fn config(more: &str) -> String {
    let apps = format!(
        "admin_token = \"{ADMIN}\"\n[[app]]\nkey = \"{KEY}\"\ntimezone = \"UTC\"\nread_token = \"{READ}\"\n\
         [[app]]\nkey = \"signed\"\ntimezone = \"UTC\"\nread_token = \"{READ}\"\nsecret = \"{SECRET}\"\n{more}"
    );
    let address = "http://127.0.0.1:9";
    [apps, sink("kafka", "127.0.0.1:9"), sink("clickhouse", address), sink("elasticsearch", address)].concat()
}

/// Everything that could bring a secret into the log: right and wrong keys, tokens and signatures, in headers and
/// addresses; broken requests; a reload of a broken file.
fn everything(site: &ConfigFixture, collector: &Collector) {
    let mut batch = batch(events(2));
    batch["events"][0]["props"]["k"] = EVENT.into();
    let body = batch.to_string();
    let url = &collector.url;
    for (address, key, token) in [
        (format!("{url}/v1/events?key={KEY}"), "", ""),
        (format!("{url}/v1/events?key={KEY}-wrong"), "", ""),
        (format!("{url}/v1/events"), KEY, READ),
        (format!("{url}/v1/events"), "signed", ADMIN),
    ] {
        let mut request = agent().post(address).header("x-subway-signature", format!("t=1,v1={SECRET}"));
        if !key.is_empty() {
            request = request.header("x-subway-key", key).header("authorization", format!("Bearer {token}"));
        }
        request.send(body.as_bytes()).unwrap();
    }
    try_post(&agent(), url, KEY, &[], &body.as_bytes()[..100]).unwrap();
    for token in [READ, ADMIN, "wrong-token"] {
        for path in ["/v1/apps/signed/range", "/v1/admin/ledger", "/v1/apps/signed/events?x=hush-key-in-an-address"] {
            collector.get(path, Some(token));
        }
    }
    let mut stream = TcpStream::connect(collector.address()).unwrap();
    write!(stream, "BROKEN {KEY} {READ}\r\nauthorization: Bearer {ADMIN}\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    let good = config("");
    for (from, to) in [
        ("admin_token", "admin_tokken"),
        ("read_token = \"hush-read-token-0123456789\"", "read_token = \"hush-read-token-0123456789"),
        ("secret = \"hush app secret\"", "secret = \"hush app secret\" x"),
        ("password = \"hush-sink-password\"", "password = hush-sink-password"),
        ("password = \"hush-sink-password\"", "passwort = \"hush-sink-password\""),
        ("read_token = \"hush", "read_token = \" hush"),
    ] {
        site.configure(&good.replace(from, to));
        let log = site.reload(collector);
        assert!(log.contains("everything stays as it was"), "{to}: {log}");
    }
    site.configure(&good);
    site.reload(collector);
}

fn assert_silent(log: &str) {
    for secret in ALL {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret}");
    }
}

#[test]
fn no_secret_is_ever_logged_even_at_the_level_trace() {
    for level in ["info", "trace"] {
        let site = ConfigFixture::new(&config(""));
        let collector = site.start_with(&[("RUST_LOG", level)]);
        everything(&site, &collector);
        assert!(collector.terminate().success());
        let log = site.log();
        assert!(log.contains("stopped"), "{log}");
        for sink in ["kafka", "clickhouse", "elasticsearch"] {
            let says =
                |line: &&str| line.contains(&format!("sink=\"{sink}\"")) || line.contains(&format!("sink={sink}"));
            assert!(log.lines().find(says).is_some(), "the sink {sink} says that its store is not there: {log}");
        }
        assert_eq!(log.contains("/v1/apps/signed/range"), level == "trace", "requests are logged at debug only");
        assert_silent(&log);
    }
}

#[test]
fn no_command_shows_a_secret_of_a_broken_file() {
    let site = ConfigFixture::new(&config(""));
    for broken in
        [config("x").replace("password", "passwort"), config("").replace(READ, "hush-read-token-0123456789\n")]
    {
        site.configure(&broken);
        for command in ["check", "serve"] {
            let output =
                Command::new(BINARY).arg(command).arg("--config").arg(site.path("config.toml")).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            assert_silent(&String::from_utf8(output.stderr).unwrap());
        }
    }
}

#[test]
fn json_logs_are_one_object_a_line() {
    let site = ConfigFixture::new(&config("[log]\nformat = \"json\"\nlevel = \"debug\"\n"));
    let collector = site.start();
    collector.get("/v1/apps/signed/range?x=1", Some(READ));
    site.configure("broken\n[\n");
    site.reload(&collector);
    assert!(collector.terminate().success());
    let log = site.log();
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect();
    assert!(lines.iter().all(|line| line["timestamp"].is_string() && line["level"].is_string()));
    let request = lines.iter().find(|line| line["message"] == "request").unwrap();
    assert_eq!((&request["method"], &request["path"]), (&"GET".into(), &"/v1/apps/signed/range".into()));
    assert_eq!((&request["status"], &request["peer"]), (&200.into(), &"127.0.0.1".into()));
    assert_silent(&log);
}

#[test]
fn text_logs_are_one_event_a_line_and_the_level_is_configured() {
    let site = ConfigFixture::new(&config("[log]\nlevel = \"warn\"\n"));
    let collector = site.start();
    site.configure("broken\n[\n");
    site.reload(&collector);
    assert!(collector.terminate().success());
    let log = site.log();
    assert!(!log.contains(" INFO ") && log.contains("ERROR"), "{log}");
    for line in log.lines() {
        assert!(line.starts_with("20") && line.contains('T'), "every line begins with its time: {line}");
    }
}

#[test]
fn wrong_settings_of_the_log_are_named() {
    let site = ConfigFixture::new("");
    for (table, key) in [
        ("format = \"xml\"", "log.format"),
        ("level = \"inof\"", "log.level"),
        ("level = \"info,x=loud\"", "log.level"),
    ] {
        site.configure(&config(&format!("[log]\n{table}\n")));
        let output = Command::new(BINARY).args(["check", "--config"]).arg(site.path("config.toml")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && said.contains(key) && said.contains("line "), "{said}");
    }
}
