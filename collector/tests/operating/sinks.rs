//! A sink that is taken out of the configuration: said once, shown as what it is, retired by a command or a request.

use std::process::Command;

use serde_json::{Value, json};

use super::files::{ConfigFixture, demo};
use super::support::{ADMIN, BINARY, Collector, TestResponse, agent, batch, events, eventually};

/// A store that is not there: what is to be delivered to it waits.
const CH: &str = "[[sink]]\nname = \"ch\"\nkind = \"clickhouse\"\nurl = \"http://127.0.0.1:9\"\n";

/// A site on which the sink `ch` was once configured, with events that it never got.
fn once_configured(count: usize) -> ConfigFixture {
    let site = ConfigFixture::new(&demo("", "", CH));
    let collector = site.start();
    assert_eq!(collector.send(&batch(events(count))).counts().0, count as u64);
    assert_eq!(collector.metric("subway_sink_state{sink=\"ch\",state=\"active\"}"), 1);
    assert_eq!(collector.metric("subway_sink_pending_events{sink=\"ch\"}"), count as u64);
    assert!(collector.terminate().success());
    site.configure(&demo("", "", ""));
    site
}

/// A command of the binary on the data directory: its output if it succeeds, else what it says.
fn sinks(site: &ConfigFixture, words: &[&str]) -> Result<Vec<Value>, String> {
    let output =
        Command::new(BINARY).arg("sinks").args(words).arg("--data-dir").arg(site.site.data()).output().unwrap();
    if !output.status.success() {
        assert_eq!(output.status.code(), Some(1));
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let lines = String::from_utf8(output.stdout).unwrap();
    Ok(lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

fn request(collector: &Collector, method: &str, path: &str, token: &str) -> (u16, Value) {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", collector.url))
        .header("authorization", format!("Bearer {token}"))
        .body(())
        .unwrap();
    let answer = TestResponse::new(agent().run(request).unwrap());
    (answer.status, answer.json())
}

#[test]
fn a_sink_that_is_gone_is_warned_of_once_and_alarms_nobody() {
    let site = once_configured(3);
    let collector = site.start();
    let warned = site.log().lines().filter(|line| line.contains("not in the configuration any more")).count();
    assert_eq!(warned, 1, "{}", site.log());
    let ch = json!({"delivered": 0, "dead": 0, "pending": 3, "state": "unconfigured"});
    assert_eq!(collector.ledger()["sinks"]["ch"], ch);
    assert!(collector.ledger()["sinks"]["embedded"].get("state").is_none(), "one that is in use looks as ever");
    assert_eq!(collector.metric("subway_sink_state{sink=\"ch\",state=\"unconfigured\"}"), 1);
    assert_eq!(collector.metric("subway_sink_state{sink=\"embedded\",state=\"active\"}"), 1);
    let page = collector.get("/metrics", None).text;
    assert!(!page.lines().any(|line| line.contains("sink=\"ch\"") && !line.starts_with("subway_sink_state")), "{page}");
    eventually("the embedded store has them", || {
        collector.metric("subway_sink_pending_events{sink=\"embedded\"}") == 0
    });
    eventually("and the spool forgets them", || collector.metric("subway_spool_bytes") == 0);
}

#[test]
fn a_command_retires_it_beside_the_running_collector_and_its_figures_stay() {
    let site = once_configured(3);
    let collector = site.start();
    assert!(sinks(&site, &["retire", "--sink", "embedded"]).unwrap_err().contains("is in the configuration"));
    assert!(sinks(&site, &["retire", "--sink", "nobody"]).unwrap_err().contains("no sink is named nobody"));
    assert!(sinks(&site, &["forget", "--sink", "ch"]).unwrap_err().contains("not retired"));
    let retired = sinks(&site, &["retire", "--sink", "ch"]).unwrap();
    let at = retired[0]["retired_at"].clone();
    assert!(at.as_i64().is_some_and(|at| at > 1_700_000_000_000), "{retired:?}");
    let expected = json!({"name": "ch", "state": "retired", "delivered": 0, "dead": 0, "pending": 0, "expired": 3, "retired_at": at});
    assert_eq!(retired, std::slice::from_ref(&expected));
    collector.send(&batch(events(4)));
    let listed = sinks(&site, &["list", "--sink", "ch"]).unwrap();
    assert_eq!(listed, std::slice::from_ref(&expected), "whatever comes later");
    assert_eq!(collector.metric("subway_sink_state{sink=\"ch\",state=\"retired\"}"), 1);
    assert!(collector.terminate().success());
    let collector = site.start();
    assert_eq!(site.log().matches("not in the configuration any more").count(), 1, "nobody is warned again");
    assert!(collector.terminate().success());
    assert_eq!(
        sinks(&site, &["list"]).unwrap(),
        [expected, sinks(&site, &["list", "--sink", "embedded"]).unwrap()[0].clone()]
    );
    site.configure(&demo("", "", CH));
    let collector = site.start();
    let back = json!({"delivered": 0, "dead": 0, "pending": 7});
    assert_eq!(collector.ledger()["sinks"]["ch"], back, "configured again, it goes on where it left off");
    assert!(site.log().contains("goes on where it left off"));
}

#[test]
fn without_a_collector_the_commands_work_too() {
    let site = once_configured(2);
    assert!(
        sinks(&site, &["retire", "--sink", "ch"]).unwrap_err().contains("restart"),
        "nobody knows yet that it is gone"
    );
    assert!(site.start().terminate().success());
    assert_eq!(sinks(&site, &["retire", "--sink", "ch"]).unwrap()[0]["expired"], 2);
    assert_eq!(sinks(&site, &["forget", "--sink", "ch"]).unwrap(), [json!({"name": "ch", "forgotten": true})]);
    let left: Vec<Value> = sinks(&site, &["list"]).unwrap();
    assert_eq!(left.iter().map(|sink| &sink["name"]).collect::<Vec<_>>(), ["embedded"]);
    assert!(sinks(&site, &["list", "--sink", "ch"]).unwrap_err().contains("no sink is named ch"));
    site.configure(&demo("", "", CH));
    let collector = site.start();
    assert_eq!(collector.ledger()["sinks"]["ch"]["pending"], 2, "a new one begins with the first event");
}

#[test]
fn requests_with_the_admin_token_do_the_same() {
    let site = once_configured(2);
    let collector = site.start();
    let (status, listed) = request(&collector, "GET", "/v1/admin/sinks", ADMIN);
    let states = |listed: &Value| {
        let sinks = listed["sinks"].as_array().unwrap().iter();
        sinks.map(|sink| format!("{} {}", sink["name"], sink["state"]).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!((status, states(&listed)), (200, vec!["ch unconfigured".to_owned(), "embedded active".to_owned()]));
    assert_eq!(listed["next"], Value::Null);
    for (method, path) in
        [("GET", "/v1/admin/sinks"), ("POST", "/v1/admin/sinks/ch/retire"), ("DELETE", "/v1/admin/sinks/ch")]
    {
        assert_eq!(request(&collector, method, path, "wrong").1["code"], "bad_token", "{method} {path}");
    }
    for (method, path, status, code) in [
        ("POST", "/v1/admin/sinks/embedded/retire", 409, "conflict"),
        ("DELETE", "/v1/admin/sinks/ch", 409, "conflict"),
        ("POST", "/v1/admin/sinks/nobody/retire", 404, "not_found"),
    ] {
        let (found, problem) = request(&collector, method, path, ADMIN);
        assert_eq!((found, problem["code"].as_str()), (status, Some(code)), "{problem}");
    }
    for _ in 0..2 {
        let (status, listed) = request(&collector, "POST", "/v1/admin/sinks/ch/retire", ADMIN);
        assert_eq!((status, &states(&listed)[0]), (200, &"ch retired".to_owned()));
    }
    let (status, listed) = request(&collector, "DELETE", "/v1/admin/sinks/ch", ADMIN);
    assert_eq!((status, states(&listed)), (200, vec!["embedded active".to_owned()]));
    assert_eq!(request(&collector, "DELETE", "/v1/admin/sinks/ch", ADMIN).0, 404);
}
