//! ClickHouse as the tests use it.

use subway_servers::{ClickHouse, OldClickHouse, available};

#[test]
fn what_is_written_is_read() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    store.query("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a").unwrap();
    let answer = store.post("query=INSERT%20INTO%20t%20FORMAT%20JSONEachRow&async_insert=0", b"{\"a\":7}\n").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(store.query("SELECT sum(a) FROM t").unwrap(), "7\n");
}

#[test]
fn an_error_carries_the_stores_message() {
    let Some(store) = available(ClickHouse::shared()) else { return };
    let error = store.query("SELECT * FROM nowhere").unwrap_err().to_string();
    assert!(error.contains("UNKNOWN_TABLE"), "{error}");
}

#[test]
fn a_restart_after_a_kill_keeps_data_and_port() {
    let Some(store) = available(ClickHouse::start()) else { return };
    store.query("CREATE DATABASE s").unwrap();
    store.query("CREATE TABLE s.t (a UInt32) ENGINE = MergeTree ORDER BY a").unwrap();
    store.query("INSERT INTO s.t SETTINGS async_insert = 0 VALUES (1), (2)").unwrap();
    let (url, pid) = (store.url(), store.pid());
    store.kill();
    assert_eq!(store.pid(), None);
    assert!(store.query("SELECT 1").is_err());
    store.restart().unwrap();
    assert_eq!(store.url(), url);
    assert_ne!(store.pid(), pid);
    assert_eq!(store.query("SELECT count() FROM s.t").unwrap(), "2\n");
}

#[test]
fn a_dropped_server_takes_its_data_along() {
    let Some(store) = available(ClickHouse::start()) else { return };
    let data = store.data_dir();
    assert!(data.exists());
    drop(store);
    assert!(!data.exists());
}

#[test]
fn a_paused_server_answers_after_it_is_resumed() {
    let Some(store) = available(ClickHouse::start()) else { return };
    store.pause().unwrap();
    let answered = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let answer = store.query("SELECT 1");
            answered.store(true, std::sync::atomic::Ordering::SeqCst);
            answer
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!answered.load(std::sync::atomic::Ordering::SeqCst), "a paused server answered");
        store.resume().unwrap();
        assert_eq!(asking.join().unwrap().unwrap(), "1\n");
    });
}

#[test]
fn the_old_version_is_one_that_is_too_old() {
    let Some(store) = available(OldClickHouse::start()) else { return };
    assert!(store.query("SELECT version()").unwrap().starts_with("18.16."));
    assert!(store.query("SELECT toDateTime64('2020-01-01 00:00:00', 3)").is_err());
    store.query("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a").unwrap();
    store.query("INSERT INTO t VALUES (1)").unwrap();
    store.kill();
    store.restart().unwrap();
    assert_eq!(store.query("SELECT count() FROM t").unwrap(), "1\n");
}
