//! Events of many days on a real server: how many indices they create, and that each event is in one.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::MAX_OLD_DAYS;
use super::tests::{DAY, Store, batch_of_text, event};
use super::*;
use crate::query::{EventsQuery, Reader};
use crate::sinks::days;

/// 2026-07-01, when all events here arrived.
const ARRIVED: i64 = 1_782_864_000_000;

/// Creates a batch of `app` with one event for each of `days_ago`.
fn spread(app: &str, first: u64, days_ago: &[i64]) -> Arc<SinkBatch> {
    let events: Vec<String> =
        days_ago.iter().zip(first..).map(|(days, id)| event(id, ARRIVED - days * DAY, json!({})).to_string()).collect();
    batch_of_text((app, "i", ARRIVED), first, &events)
}

/// Delivers as the fanout does: as much as may go at once.
async fn deliver(sink: &Elasticsearch, batch: &SinkBatch) -> usize {
    let (mut first, mut deliveries) = (batch.first, 0);
    while first <= batch.last {
        let mut piece = SinkBatch { first, ..batch.clone() };
        piece.last = sink.batch_end(&piece).unwrap();
        first = piece.last + 1;
        assert_eq!(sink.deliver(Arc::new(piece)).await, Ok(Delivered::default()));
        deliveries += 1;
    }
    deliveries
}

/// Returns the index of each event.
fn indices(store: &Store) -> BTreeMap<String, String> {
    let prefix = format!("{}-ods-", store.prefix());
    let documents = store.documents("ods-*");
    let indices: BTreeMap<_, _> =
        documents.iter().map(|(index, id, _)| (id.clone(), index.strip_prefix(&prefix).unwrap().to_owned())).collect();
    assert_eq!(indices.len(), documents.len(), "an event lies in two indices");
    indices
}

fn days_and_years(indices: &BTreeMap<String, String>) -> (usize, usize) {
    let names: BTreeSet<&String> = indices.values().collect();
    let days = names.iter().filter(|name| name.contains('.')).count();
    (days, names.len() - days)
}

#[tokio::test]
async fn a_sender_of_twenty_years_makes_few_indices_and_every_attempt_the_same() {
    let Some(store) = Store::elasticsearch("") else { return };
    let near = [-1, 0, 1, 399, 400];
    let old: Vec<i64> = (0..300).map(|n| 401 + n * 23).collect();
    let all: Vec<i64> = near.iter().chain(&old).copied().collect();
    let batch = spread("a", 1, &all);
    let sink = store.sink().await;
    let first = deliver(&sink, &batch).await;
    let there = indices(&store);
    assert_eq!(there.len(), all.len());
    let (days, years) = days_and_years(&there);
    assert_eq!(days, near.len() + MAX_OLD_DAYS);
    assert!(years <= 20, "{years}");
    // Again, from a process that remembers nothing, in pieces that are cut otherwise.
    let fresh = store.sink().await;
    for (at, piece) in all.chunks(7).enumerate().rev() {
        deliver(&fresh, &spread("a", 1 + 7 * at as u64, piece)).await;
    }
    assert_eq!(indices(&store), there);
    // Indices that are there need no caution: it is one delivery, also of days that never came.
    assert!(first > 1, "{first}");
    assert_eq!(deliver(&sink, &batch).await, 1);
    let more: Vec<i64> = (0..300).map(|n| 402 + n * 23).collect();
    assert_eq!(deliver(&sink, &spread("a", 10_000, &more)).await, 1);
    assert_eq!(days_and_years(&indices(&store)).0, days, "no further days");
    // What another app has is its own.
    deliver(&sink, &spread("b", 20_000, &[403, 404])).await;
    assert_eq!(days_and_years(&indices(&store)).0, days + 2);
    // Visitors of old months go by years too.
    let months: BTreeSet<String> = store.documents("uv-*").into_iter().map(|(index, ..)| index).collect();
    assert_eq!(months.iter().filter(|index| index.contains('.')).count(), 3, "{months:?}");
    assert!(months.len() <= 3 + 21, "{months:?}");
    assert_eq!(sink.metrics.old_day_indices.get(), 42);
    assert_eq!(sink.metrics.far_events.get(), 2 * (300 - MAX_OLD_DAYS as u64) + 300);
    every_range_is_read(&store).await;
}

/// Checks that each day is found in the index of its day and in that of its year.
async fn every_range_is_read(store: &Store) {
    let reader = store.reader();
    for (days_ago, width) in
        [(0, 1), (400, 1), (401, 1), (401 + 23 * 299, 1), (430, 29), (800, 200), (2000, 1500), (7300, 7301)]
    {
        let from = ARRIVED - days_ago * DAY;
        let (from, to) = (Some(from), Some(from + width * DAY));
        let rows = reader
            .newest(EventsQuery { app: "a".into(), from, to, limit: 1000, ..EventsQuery::default() })
            .await
            .unwrap();
        let last = days_ago - width;
        let sent = [-1, 0, 1, 399, 400].into_iter().chain((0..300).flat_map(|n| [401 + n * 23, 402 + n * 23]));
        let expected = sent.filter(|ago| *ago <= days_ago && *ago > last).count();
        assert_eq!(rows.len(), expected, "{days_ago} {width}");
    }
}

#[tokio::test]
async fn collectors_that_decide_at_once_decide_the_same() {
    let Some(store) = Store::elasticsearch("exact_counts = false") else { return };
    let (one, other) = (store.sink().await, store.sink().await);
    let days = |from: i64| (from..from + 30).collect::<Vec<i64>>();
    let (first, second) = (spread("a", 1, &days(500)), spread("a", 100, &days(515)));
    tokio::join!(deliver(&one, &first), deliver(&other, &second));
    let there = indices(&store);
    assert_eq!(there.len(), 60);
    assert_eq!(days_and_years(&there).0, MAX_OLD_DAYS);
    // Each sends what the other had.
    tokio::join!(deliver(&other, &first), deliver(&one, &second));
    assert_eq!(indices(&store), there);
}

#[tokio::test]
async fn retention_knows_years() {
    let Some(store) = Store::elasticsearch("retention_days = 3000") else { return };
    let sink = store.sink().await;
    let today = days::day_of(crate::clock::now());
    let events: Vec<String> = (0..60)
        .map(|n| event(n + 1, (today - 7000 + n as i64) * DAY, json!({})).to_string())
        .chain([event(100, (today - 2000) * DAY, json!({})).to_string()])
        .collect();
    // Each first delivery begins a look at what is old, which takes away what is being written to; that is tried again.
    let batch = batch_of_text(("a", "i", today * DAY), 1, &events);
    while sink.deliver(Arc::clone(&batch)).await.is_err() {}
    let fresh = store.sink().await;
    let now = batch_of_text(("a", "i", today * DAY), 200, &[event(200, today * DAY, json!({})).to_string()]);
    while fresh.deliver(Arc::clone(&now)).await.is_err() {}
    while indices(&store).len() > 2 {
        tokio::task::yield_now().await;
    }
    let left: Vec<String> = indices(&store).into_values().collect();
    assert_eq!(days_and_years(&indices(&store)), (1, 1), "{left:?}");
}
