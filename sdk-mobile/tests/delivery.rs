//! Outcomes of events when the network, the collector or the clocks misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use subway_mobile::clock::SystemClock;
use subway_mobile::transport::{Reply, Transport};
use subway_mobile::{Config, Settings, Subway, Theme, TrackEvent};
use support::collector::{Collector, export, free_address};
use support::fakes::{FakeTransport, TestClock};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn event(number: u64) -> TrackEvent {
    TrackEvent::new(Theme::Custom, "numbered").with_props(&json!({"n": number}))
}

fn open(transport: &Arc<FakeTransport>) -> Arc<Subway> {
    let config = Config::new("http://127.0.0.1:1", "demo");
    Subway::open_with(&config, transport.clone(), Arc::new(SystemClock::new())).unwrap()
}

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["props"]["n"].as_u64().unwrap()).collect()
}

fn answer(status: u16, body: &str) -> Reply {
    Reply::Answer { status, retry_after_ms: None, body: body.to_owned() }
}

#[test]
fn what_was_tracked_offline_arrives_when_the_collector_is_there() {
    let dir = TempDir::new().unwrap();
    let address = free_address();
    let config = || Config {
        data_dir: Some(dir.path().join("sdk").to_str().unwrap().to_owned()),
        ..Config::new(&address, "demo")
    };
    let subway = Subway::open(config()).unwrap();
    let install = subway.install_id();
    for number in 0..250 {
        subway.track(event(number)).unwrap();
    }
    assert!(!subway.close(Duration::from_millis(200)), "nobody is there");
    assert_eq!((subway.ledger().queued, subway.last_upload().unwrap().status), (250, None));

    let subway = Subway::open(config()).unwrap();
    assert_eq!((subway.install_id(), subway.ledger().queued), (install, 250));
    subway.track(event(250)).unwrap();
    let store = dir.path().join("collector");
    let collector = Collector::start(&store, Some(&address));
    assert!(subway.flush_and_wait(LONG), "{:?}", subway.ledger());
    let ledger = subway.ledger();
    assert_eq!((ledger.generated, ledger.acked), (251, 251));
    drop(collector);
    let mut events = export(&store);
    events.sort_by_key(|event| event["seq"].as_u64());
    assert_eq!(numbers(&events), (0..=250).collect::<Vec<_>>());
}

#[test]
fn a_captive_portal_is_a_failed_network() {
    let portal = "<html><a href=/login>Welcome to the airport</a></html>";
    let script = [answer(200, portal), answer(302, ""), answer(200, "{}")];
    let transport = FakeTransport::scripted(script);
    let subway = open(&transport);
    subway.track(event(1)).unwrap();
    assert!(subway.flush_and_wait(LONG));
    let sent = transport.sent();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|batch| batch["batch_id"] == sent[0]["batch_id"] && batch["events"] == sent[0]["events"]));
    assert_eq!((subway.ledger().acked, subway.ledger().dropped_total()), (1, 0));
}

#[test]
fn a_poison_event_is_found_by_halving_and_the_others_arrive() {
    const PROBLEM: &str = r#"{"type":"urn:subway:problem:invalid_field","title":"t","status":400,"detail":"not a batch","code":"invalid_field"}"#;
    struct Picky(Arc<FakeTransport>);
    impl Transport for Picky {
        fn send(&self, upload: &subway_mobile::core::UploadRequest) -> Reply {
            if upload.body.contains(r#""n":7}"#) { answer(400, PROBLEM) } else { self.0.send(upload) }
        }
    }
    let transport = Arc::new(FakeTransport::default());
    let config = Config::new("http://127.0.0.1:1", "demo");
    let picky = Arc::new(Picky(transport.clone()));
    let subway = Subway::open_with(&config, picky, Arc::new(SystemClock::new())).unwrap();
    for number in 0..20 {
        subway.track(event(number)).unwrap();
    }
    assert!(subway.flush_and_wait(LONG));
    let mut arrived = numbers(&transport.events());
    arrived.sort_unstable();
    assert_eq!(arrived, (0..20).filter(|number| *number != 7).collect::<Vec<_>>());
    let ledger = subway.ledger();
    assert_eq!((ledger.acked, ledger.dropped.get("poison")), (19, Some(&1)));
    assert!(
        subway.take_notices().iter().any(|notice| notice.contains("status 400: {") && notice.contains("not a batch"))
    );
}

#[test]
fn a_wrong_key_is_told_and_costs_nothing() {
    let transport = FakeTransport::scripted([answer(401, "unknown key")]);
    let subway = open(&transport);
    subway.track(event(1)).unwrap();
    transport.gate.close();
    subway.flush();
    transport.gate.wait_for_somebody();
    transport.gate.open();
    while subway.last_upload().is_none() {
        std::thread::yield_now();
    }
    assert_eq!(subway.last_upload().unwrap().status, Some(401));
    assert!(subway.take_notices().iter().any(|notice| notice.contains("unknown key")));
    assert_eq!(subway.ledger().queued, 1);
}

#[test]
fn a_collector_with_signatures_accepts_signed_batches_only() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("subway.toml");
    std::fs::write(
        &file,
        "[[app]]\nkey = \"signed\"\ntimezone = \"UTC\"\nread_token = \"r\"\nsecret = \"the app's own secret\"\n",
    )
    .unwrap();
    let store = dir.path().join("collector");
    let collector = Collector::start_with(&store, &["--config", file.to_str().unwrap()]);
    let status = |secret: Option<&str>| {
        let secret = secret.map(str::to_owned);
        let subway = Subway::open(Config { secret, ..Config::new(&collector.address, "signed") }).unwrap();
        for number in 0..20 {
            subway.track(event(number)).unwrap();
        }
        subway.flush();
        while subway.last_upload().is_none() {
            std::thread::yield_now();
        }
        subway.last_upload().unwrap().status
    };
    assert_eq!(status(None), Some(401));
    assert_eq!(status(Some("another secret")), Some(401));
    assert_eq!(status(Some("the app's own secret")), Some(200));
    drop(collector);
    assert_eq!(export(&store).len(), 20);
}

#[test]
fn jumps_of_the_wall_clock_change_neither_order_nor_count() {
    let dir = TempDir::new().unwrap();
    let collector = Collector::start(&dir.path().join("collector"), None);
    let clock = Arc::new(TestClock::default());
    let config = Config::new(&collector.address, "demo");
    let transport = Arc::new(subway_mobile::transport::HttpTransport::new(&config).unwrap());
    let subway = Subway::open_with(&config, transport, clock.clone()).unwrap();
    const YEAR: i64 = 365 * 86_400_000;
    for (number, jump) in [0, -YEAR, 3 * YEAR, -60 * YEAR, 60 * YEAR, -2 * YEAR].into_iter().enumerate() {
        clock.jump(jump);
        subway.track(event(number as u64)).unwrap();
        assert!(subway.flush_and_wait(LONG), "{:?} {:?}", subway.ledger(), subway.take_notices());
    }
    drop(collector);
    let mut events = export(&dir.path().join("collector"));
    events.sort_by_key(|event| event["seq"].as_u64());
    assert_eq!(numbers(&events), (0..6).collect::<Vec<_>>());
    let mono: Vec<u64> = events.iter().map(|event| event["mono"].as_u64().unwrap()).collect();
    assert!(mono.is_sorted(), "{mono:?}");
    let sessions: std::collections::BTreeSet<&str> =
        events.iter().map(|event| event["session_id"].as_str().unwrap()).collect();
    assert_eq!(sessions.len(), 1, "a jump is no absence");
    assert_eq!(subway.ledger().acked, 6);
}

#[test]
fn the_collector_is_told_who_and_where() {
    let transport = Arc::new(FakeTransport::default());
    let config = Config {
        app_version: "1.2.3".into(),
        device: subway_mobile::DeviceInfo { os: "Linux".into(), ..Default::default() },
        network: "wifi".into(),
        settings: Settings { flush_events: 1, ..Settings::default() },
        ..Config::new("http://127.0.0.1:1", "demo")
    };
    let subway = Subway::open_with(&config, transport.clone(), Arc::new(SystemClock::new())).unwrap();
    subway.identify("u1".into()).unwrap();
    subway.register(r#"{"channel":"qr"}"#.into()).unwrap();
    subway.set_page(Some(subway_mobile::Page { path: "home".into(), ..Default::default() }));
    subway.timer_start("t".into());
    subway.timer_end("t".into(), event(1)).unwrap();
    assert!(subway.flush_and_wait(LONG));
    subway.logout();
    subway.clear_registered();
    subway.set_network("4g".into());
    subway.set_device(subway_mobile::DeviceInfo { os: "Linux".into(), language: "zh-CN".into(), ..Default::default() });
    subway.track(event(2).with_true_ts(1_431_857_103_000)).unwrap();
    assert!(subway.flush_and_wait(LONG));
    let sent = transport.sent();
    let (first, second) = (&sent[0], &sent[1]);
    assert_eq!(first["app"]["version"], "1.2.3");
    assert_eq!(first["sdk"]["name"], "subway-mobile");
    assert_eq!(first["host"]["platform"], "rust");
    assert_eq!((&first["device"]["os"], &first["network"]), (&json!("Linux"), &json!("wifi")));
    assert_eq!(first["common"], json!({"channel": "qr"}));
    assert_eq!(first["install_id"], json!(subway.install_id()));
    let event = &first["events"][0];
    assert_eq!((&event["user_id"], &event["page"]["path"]), (&json!("u1"), &json!("home")));
    assert!(event["props"]["duration_ms"].as_u64().unwrap() < 60_000);
    assert_eq!((&second["network"], &second["device"]["language"]), (&json!("4g"), &json!("zh-CN")));
    assert_eq!((second.get("common"), second["events"][0].get("user_id")), (None, None));
    assert_eq!(second["events"][0]["true_ts"], json!(1_431_857_103_000_i64));
}
