//! Retention under clocks that jump.

use serde_json::json;

use super::retention_tests::{Site, days};
use super::*;
use crate::sinks::{BackfillSource, StoredRecord};

const HOUR: i64 = 60 * 60 * 1000;
const DAY: i64 = 24 * HOUR;
const TODAY: i64 = 20_000 * DAY;

/// Returns a store with one event of today, which keeps events for 30 days.
async fn store(dir: &Path) -> EmbeddedSink {
    let settings = Embedded { retention_days: 30, ..Embedded::default() };
    let sink = EmbeddedSink::open_with(dir, &settings, Arc::default()).unwrap();
    let json = json!({"app_key": "demo", "batch_id": "b", "install_id": "i", "received_at": TODAY, "events":
        [{"event_id": "e", "seq": 1, "theme": "view", "code": "c", "event_time": TODAY, "ts": 1}]});
    let records = vec![StoredRecord { first: 1, json: json.to_string() }];
    sink.deliver(Arc::new(SinkBatch { first: 1, last: 1, dedup_token: String::new(), records })).await.unwrap();
    sink
}

/// Runs retention at these clocks. Returns whether the event is still there.
async fn keeps(dir: &Path, sink: &EmbeddedSink, wall: i64, monotonic: i64) -> bool {
    let now = sink.thread.call(move |writer| writer.retention_time_at(wall, monotonic)).unwrap().unwrap();
    while sink.run_retention_step_at(now).await.unwrap() {}
    StoreBackfill::new(dir).records(0, 1, 1, 1).unwrap().len() == 1
}

#[tokio::test]
async fn a_clock_that_is_ahead_for_two_seconds_deletes_nothing_and_time_that_has_passed_does() {
    let dir = tempfile::tempdir().unwrap();
    let sink = store(dir.path()).await;
    for (wall, monotonic) in [(0, 0), (100 * DAY, 1_000), (100 * DAY + 2_000, 3_000), (4_000, 4_000)] {
        assert!(keeps(dir.path(), &sink, TODAY + wall, monotonic).await, "{wall}");
    }
    assert!(keeps(dir.path(), &sink, TODAY + 29 * DAY, 29 * DAY).await);
    assert!(!keeps(dir.path(), &sink, TODAY + 32 * DAY, 32 * DAY).await);
}

#[tokio::test]
async fn a_new_store_has_no_reason_to_doubt_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let sink = EmbeddedSink::open(dir.path()).unwrap();
    let now = sink
        .thread
        .call(|writer| (writer.retention_time_at(TODAY, 0).unwrap(), writer.guard.as_ref().unwrap().doubts()));
    assert_eq!(now.unwrap(), (TODAY, false));
}

#[tokio::test]
async fn a_collector_that_was_off_for_long_deletes_what_is_old_after_some_hours() {
    let dir = tempfile::tempdir().unwrap();
    drop(store(dir.path()).await);
    let sink = store(dir.path()).await;
    for hour in 0..6 {
        assert!(keeps(dir.path(), &sink, TODAY + 100 * DAY + hour * HOUR, hour * HOUR).await, "hour {hour}");
    }
    assert!(!keeps(dir.path(), &sink, TODAY + 100 * DAY + 6 * HOUR, 6 * HOUR).await);
}

#[tokio::test]
async fn a_clock_that_is_set_back_deletes_nothing_until_so_much_time_has_passed_by_it() {
    let mut site = Site::new(&days(5), 1000);
    let today = 20_000;
    for day in 0..3 {
        site.store("demo", (today - 2 + day) * DAY, (1, 1, "c", day)).await;
    }
    site.settle(0).await;
    assert_eq!(site.seqs(None).await, [3, 2, 1]);
    site.store("demo", 0, (1, 1, "c", 3)).await;
    site.settle(5 * DAY).await;
    assert_eq!(site.seqs(None).await, [4, 3, 2, 1]);
    site.settle((today + 3) * DAY).await;
    assert_eq!(site.seqs(None).await, [4, 3, 2, 1], "the clock is right again: all are young enough");
    site.store("demo", DAY, (1, 1, "c", 4)).await;
    site.settle(6 * DAY).await;
    assert_eq!(site.seqs(None).await, [5], "set back again: what arrived before the fourth is as old as that at least");
}
