//! Whoever has an app's public key spreads events over everything that a store keeps apart: it costs nobody else anything.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::lab::{StoresFixture, row, stores};
use super::support::{READ, TestResponse, agent, gzip, id, try_post};

const ALL: [&str; 4] = ["embedded", "ch", "es", "kafka"];
const DAY_MS: i64 = 86_400_000;
/// Batches of the hostile app, of a thousand events each.
const BATCHES: i64 = 4;
/// Kills of the collector while events are parked.
const KILLS: u64 = 3;
/// How long events of another app may take into every store meanwhile: the stores make some hundred indices and parts, on
/// whatever this machine is.
const LAG: Duration = Duration::from_secs(120);

fn batch(events: Vec<Value>) -> Value {
    json!({"v": 1, "batch_id": id(), "install_id": id(), "sent_at": 1, "events": events})
}

/// A thousand events, each of another day of the last 19 years, with words and properties of its own.
fn spread(now: i64, batch_number: i64) -> Value {
    let events = (0..1000)
        .map(|n| {
            // Ten near days, and some of every year.
            let days = if n < 10 { n } else { 401 + (n * 7 + batch_number) % 6500 };
            let time = now - days * DAY_MS;
            let word = format!("{batch_number}_{n}");
            let props = json!({format!("key_{word}"): n, "big": 1, "half": "x"});
            json!({"id": id(), "seq": n + 1, "theme": "view", "code": format!("c{word}"), "ts": time, "true_ts": time,
                "page": {"path": format!("pages/{word}")}, "props": props})
        })
        .collect();
    batch(events)
}

/// How many events wait beside the log for Elasticsearch to make their indices.
fn parked(lab: &StoresFixture) -> u64 {
    lab.ledger()["sinks"]["es"]["parked"].as_u64().unwrap_or(0)
}

/// Kills the collector again and again while Elasticsearch makes indices for what is parked; returns how often.
fn kill_while_parked(lab: &mut StoresFixture) -> u64 {
    let (asked, mut kills) = (Instant::now(), 0);
    while parked(lab) == 0 {
        assert!(asked.elapsed() < LAG, "nothing is parked: {}", lab.ledger());
        std::thread::sleep(Duration::from_millis(5));
    }
    while parked(lab) > 0 && kills < KILLS {
        lab.kill_9();
        lab.start();
        kills += 1;
        std::thread::sleep(Duration::from_millis(400 * kills));
    }
    kills
}

#[test]
fn a_sender_of_twenty_years_of_days_words_and_names_holds_up_no_other_app() {
    let Some(stores) = stores() else { return };
    let other = "[[app]]\nkey = \"other\"\ntimezone = \"UTC\"\nread_token = \"other-read-token-0123456789abcdef\"\n";
    let quick = "linger_ms = 100
retry_initial_backoff_ms = 50
retry_max_backoff_ms = 500
request_timeout_ms = 60000";
    let mut lab = StoresFixture::new(&stores, "spread", quick, other);
    lab.start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let send = |lab: &StoresFixture, key: &str, body: &str| -> TestResponse {
        let answer = try_post(&agent(), &lab.url(), key, &[], &gzip(body.as_bytes())).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let (mut sent, mut slowest) = (0, Duration::ZERO);
    for number in 0..BATCHES {
        // Half a surrogate and 1e999 in every one, as only text can have them.
        let body = spread(now, number).to_string().replace("\"big\":1", "\"big\":1e999");
        send(&lab, "demo", &body.replace("\"half\":\"x\"", "\"half\":\"\\ud800\""));
        let event = json!({"id": id(), "seq": 1, "theme": "view", "code": "c", "ts": now, "true_ts": now});
        send(&lab, "other", &batch(vec![event]).to_string());
        if number == 0 {
            assert!(kill_while_parked(&mut lab) > 0, "{}", lab.ledger());
        }
        sent += 1001;
        let asked = Instant::now();
        lab.settled(&ALL);
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < LAG, "{slowest:?}");
    let outcome = lab.assert_exactly_once(sent);
    let names = stores.elastic.get(&format!("/_resolve/index/{}-*", lab.name)).unwrap().json().unwrap();
    let names: BTreeSet<String> =
        names["indices"].as_array().unwrap().iter().map(|index| index["name"].as_str().unwrap().to_owned()).collect();
    // Near days (and the days of the local clocks), 40 older ones, years; months and years of visitors; users, followers, layout.
    assert!(names.len() <= 11 + 40 + 20 + 23 + 3, "{}", names.len());
    let old = names.iter().filter(|name| name.contains("-ods-") && !name.contains('.')).count();
    assert!((15..=21).contains(&old), "{old}");
    for page in ["metrics/pv?from=2000-01-01&to=2100-01-01&interval=month", "events?limit=100"] {
        let answer = lab.collector.as_ref().unwrap().get(&format!("/v1/apps/demo/{page}"), Some(READ));
        assert_eq!(answer.status, 200, "{page}: {answer:?}");
    }
    let outcome = format!("{outcome}; {} indices, slowest {:.1} s", names.len(), slowest.as_secs_f64());
    row("events of 19 years, 4,000 words, 4,000 property names", BATCHES as u64, &outcome, slowest);
}
