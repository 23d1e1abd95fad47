//! Guarantees for the host's threads: no call waits for disk or network, and every event is in the ledger at any time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use subway_mobile::clock::SystemClock;
use subway_mobile::{Config, Consent, OpenError, Settings, Subway, Theme, TrackError, TrackEvent};
use support::fakes::{FakeTransport, TestClock};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

fn event() -> TrackEvent {
    TrackEvent::new(Theme::View, "page_view")
}

fn config(dir: &TempDir) -> Config {
    Config { data_dir: Some(dir.path().to_str().unwrap().to_owned()), ..Config::new("http://127.0.0.1:1", "demo") }
}

fn open(config: &Config, transport: &Arc<FakeTransport>) -> Result<Arc<Subway>, OpenError> {
    Subway::open_with(config, transport.clone(), Arc::new(SystemClock::new()))
}

#[test]
fn events_are_taken_and_persisted_while_an_upload_is_stuck() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let subway = open(&config(&dir), &transport).unwrap();
    transport.gate.close();
    subway.track(event()).unwrap();
    subway.flush();
    transport.gate.wait_for_somebody();
    for _ in 0..1000 {
        subway.track(event()).unwrap();
    }
    assert!(subway.persist_and_wait(LONG), "the disk does not wait for the network");
    assert!(!subway.flush_and_wait(Duration::ZERO));
    assert_eq!(subway.ledger().queued, 1001);
    transport.gate.open();
    assert!(subway.flush_and_wait(LONG));
    assert_eq!(subway.ledger().acked, 1001);
}

#[test]
fn a_stuck_driver_makes_track_refuse_and_count_but_never_wait() {
    let (transport, clock) = (Arc::new(FakeTransport::default()), Arc::new(TestClock::default()));
    let config = Config::new("http://127.0.0.1:1", "demo");
    let subway = Subway::open_with(&config, transport, clock.clone()).unwrap();
    clock.driver_gate.close();
    subway.flush();
    clock.driver_gate.wait_for_somebody();
    // Returning at all is what is tested: the driver, which alone frees space, is blocked.
    let results: Vec<Result<(), TrackError>> = (0..20_000).map(|_| subway.track(event())).collect();
    let refused = results.iter().filter(|result| **result == Err(TrackError::QueueFull)).count() as u64;
    assert!(refused > 0 && refused < 20_000, "{refused}");
    assert!(results.is_sorted_by_key(|result| result.is_err()), "once full, it stays full");
    subway.identify("somebody".into()).unwrap();
    let ledger = subway.ledger();
    assert_eq!((ledger.generated, ledger.queued), (20_000, 20_000 - refused));
    assert_eq!(ledger.dropped.get("queue_full"), Some(&refused));
    clock.driver_gate.open();
    assert!(subway.flush_and_wait(LONG));
    let after = subway.ledger();
    assert!(after.balances() && after.generated == 20_000 && after.queued == 0, "{after:?}");
    assert!(after.dropped["queue_full"] >= refused);
}

#[test]
fn large_events_fill_the_inbox_by_their_bytes() {
    let (transport, clock) = (Arc::new(FakeTransport::default()), Arc::new(TestClock::default()));
    let config = Config::new("http://127.0.0.1:1", "demo");
    let subway = Subway::open_with(&config, transport, clock.clone()).unwrap();
    clock.driver_gate.close();
    subway.flush();
    clock.driver_gate.wait_for_somebody();
    let large = event().with_props(&serde_json::json!({"text": "x".repeat(30_000)}));
    let taken = (0..1000).filter(|_| subway.track(large.clone()).is_ok()).count();
    assert!((130..140).contains(&taken), "4 MiB of 30 kB each: {taken}");
    clock.driver_gate.open();
    assert!(subway.flush_and_wait(LONG));
    assert!(subway.ledger().balances());
}

#[test]
fn the_ledger_balances_at_every_moment_under_many_threads() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let settings = Settings { queue_rows: 2_000, ..Settings::default() };
    let subway = open(&Config { settings, ..config(&dir) }, &transport).unwrap();
    let done = AtomicBool::new(false);
    let taken = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut looks = 0u64;
            let mut last = 0;
            while !done.load(Ordering::SeqCst) {
                let ledger = subway.ledger();
                assert!(ledger.balances(), "{ledger:?}");
                assert!(ledger.generated >= last, "events never vanish");
                last = ledger.generated;
                looks += 1;
            }
            looks
        });
        let trackers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let bad = TrackEvent::new(Theme::View, "no\ncode");
                    (0..5_000).filter(|n| subway.track(if n % 10 == 0 { bad.clone() } else { event() }).is_ok()).count()
                })
            })
            .collect();
        let taken: usize = trackers.into_iter().map(|tracker| tracker.join().unwrap()).sum();
        done.store(true, Ordering::SeqCst);
        assert!(watcher.join().unwrap() > 0);
        taken as u64
    });
    assert!(subway.flush_and_wait(LONG));
    let ledger = subway.ledger();
    assert_eq!((ledger.generated, ledger.queued), (20_000, 0));
    assert_eq!(ledger.dropped.get("invalid"), Some(&2_000));
    assert!(ledger.balances() && ledger.acked <= taken);
    let ids: std::collections::BTreeSet<String> =
        transport.events().iter().map(|event| event["id"].to_string()).collect();
    assert_eq!(ids.len() as u64, ledger.acked, "no two events share an identity");
}

#[test]
fn mistakes_are_told_at_the_call() {
    let subway = open(&Config::new("http://127.0.0.1:1", "demo"), &Arc::new(FakeTransport::default())).unwrap();
    let told = |result: Result<(), TrackError>| match result {
        Err(TrackError::Invalid(text)) => text,
        other => panic!("{other:?}"),
    };
    let props = |text: &str| TrackEvent { props: text.to_owned(), ..event() };
    assert!(told(subway.track(TrackEvent::new(Theme::View, "a\n"))).starts_with("invalid_code at code"));
    assert!(told(subway.track(props("[1]"))).starts_with("invalid_field at props"));
    assert!(told(subway.track(props(r#"{"a":"#))).starts_with("invalid_field at props"));
    let deep = format!("{}1{}", r#"{"a":"#.repeat(9), "}".repeat(9));
    assert!(told(subway.track(props(&deep))).starts_with("property_too_deep at props.a"), "{deep}");
    assert!(told(subway.track(event().with_true_ts(-1))).starts_with("time_out_of_range at true_ts"));
    assert!(told(subway.identify(String::new())).starts_with("missing_field at user_id"));
    assert!(told(subway.identify("u".repeat(3000))).starts_with("text_too_long at user_id"));
    assert!(told(subway.register("nonsense".into())).starts_with("invalid_field at common"));
    assert_eq!(subway.ledger().dropped.get("invalid"), Some(&5));
    assert!(subway.ledger().balances());
}

#[test]
fn an_event_too_large_to_store_is_counted_and_told() {
    let subway = open(&Config::new("http://127.0.0.1:1", "demo"), &Arc::new(FakeTransport::default())).unwrap();
    subway.track(event().with_props(&serde_json::json!({"text": "x".repeat(40_000)}))).unwrap();
    assert!(subway.flush_and_wait(LONG));
    assert_eq!(subway.ledger().dropped.get("invalid"), Some(&1));
    assert!(subway.take_notices().iter().any(|notice| notice.starts_with("event_too_large")));
}

#[test]
fn a_directory_is_locked_until_close_or_drop() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let first = open(&config(&dir), &transport).unwrap();
    let Err(OpenError::InUse(text)) = open(&config(&dir), &transport) else { panic!("opened twice") };
    assert!(text.contains("is in use by another client"), "{text}");
    assert!(first.close(LONG));
    assert_eq!(first.track(event()), Err(TrackError::Closed));
    assert!(!first.flush_and_wait(LONG) && !first.persist_and_wait(LONG), "nobody is there to answer");
    let second = open(&config(&dir), &transport).unwrap();
    second.track(event()).unwrap();
    drop(second);
    let third = open(&config(&dir), &transport).unwrap();
    let ledger = third.ledger();
    assert_eq!((ledger.generated, ledger.acked + ledger.queued), (1, 1), "a dropped client stores first");
}

#[test]
fn nothing_is_stored_before_consent_or_left_after_withdrawal() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let settings = Settings { consent_required: true, ..Settings::default() };
    let subway = open(&Config { settings, ..config(&dir) }, &transport).unwrap();
    let secret = event().with_props(&serde_json::json!({"secret": "very-private-text"}));
    subway.track(secret.clone()).unwrap();
    assert!(!subway.persist_and_wait(Duration::from_millis(50)), "the user has not decided");
    assert_eq!((traces(&dir), transport.sent().len()), (0, 0));
    transport.gate.close();
    subway.set_consent(Consent::Granted);
    assert!(subway.persist_and_wait(LONG));
    assert!(traces(&dir) > 0, "the test can find it");
    let install = subway.install_id();
    subway.set_consent(Consent::Denied);
    subway.track(secret.clone()).unwrap();
    assert!(subway.persist_and_wait(LONG));
    assert_eq!(traces(&dir), 0);
    let ledger = subway.ledger();
    assert_eq!((ledger.dropped.get("consent_withdrawn"), ledger.dropped.get("consent_denied")), (Some(&1), Some(&1)));
    assert!(ledger.balances());
    transport.gate.open();
    subway.set_consent(Consent::Granted);
    subway.track(event()).unwrap();
    assert!(subway.flush_and_wait(LONG));
    assert_ne!(subway.install_id(), install, "a new person as far as anybody knows");
    assert_eq!(subway.ledger().acked, 1);
}

fn traces(dir: &TempDir) -> usize {
    let secret = b"very-private-text";
    let files = std::fs::read_dir(dir.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(secret.len()).filter(|window| window == secret).count()).sum()
}

#[test]
fn a_damaged_file_costs_what_was_in_it_and_is_counted() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let settings = Settings { flush_interval: LONG, flush_events: 1_000_000, ..Settings::default() };
    let config = Config { settings, ..config(&dir) };
    let subway = open(&config, &transport).unwrap();
    let install = subway.install_id();
    for _ in 0..2_000 {
        subway.track(event()).unwrap();
    }
    assert!(subway.persist_and_wait(LONG));
    drop(subway);
    let path = dir.path().join("subway.db");
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xff);
    std::fs::write(&path, bytes).unwrap();
    let subway = open(&config, &transport).unwrap();
    assert_eq!(subway.install_id(), install);
    assert!(subway.flush_and_wait(LONG));
    let ledger = subway.ledger();
    let lost = ledger.dropped["storage_lost"];
    assert!((1..200).contains(&lost) && ledger.acked == 2_000 - lost, "{ledger:?}");
    assert!(subway.take_notices().iter().any(|notice| notice.contains("the store's file was damaged")));
}

#[test]
fn a_newer_store_is_not_changed_and_events_go_from_memory() {
    let (dir, transport) = (TempDir::new().unwrap(), Arc::new(FakeTransport::default()));
    let subway = open(&config(&dir), &transport).unwrap();
    let install = subway.install_id();
    assert!(subway.persist_and_wait(LONG));
    drop(subway);
    let path = dir.path().join("subway.db");
    let ours = std::fs::read(&path).unwrap();
    let mut theirs = ours.clone();
    // Number of the version, which every later version raises.
    theirs[63] = 200;
    std::fs::write(&path, &theirs).unwrap();
    let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
    let subway = open(&config(&dir), &transport).unwrap();
    subway.track(event()).unwrap();
    assert!(subway.flush_and_wait(LONG), "events go on");
    let notices = subway.take_notices();
    let said = |part| notices.iter().filter(|notice| notice.contains(part)).count();
    assert_eq!((said("belongs to a later version of this SDK"), said("kept in memory alone")), (1, 1), "{notices:?}");
    assert!(subway.close(LONG));
    assert_eq!(std::fs::read(&path).unwrap(), theirs);
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), changed);
    std::fs::write(&path, ours).unwrap();
    assert_eq!(
        open(&config(&dir), &transport).unwrap().install_id(),
        install,
        "the later version goes on where it was"
    );
}
