//! Count documents, retention, and the schema.

use serde_json::Value;

use super::index_budget::MAX_NEW_INDICES;
use super::tests::{DAY, Store, batch, event};
use super::*;
use crate::query::{CountQuery, Filter, Measure, Reader};
use crate::sinks::days;

#[tokio::test]
async fn documents_that_count_equal_what_is_counted_by_hand() {
    use std::collections::{BTreeMap, BTreeSet};
    let Some(store) = Store::elasticsearch("follow_code = \"sub\"\nunfollow_code = \"unsub\"") else { return };
    let sink = store.sink().await;
    let (mut visitors, mut firsts) = (BTreeSet::new(), BTreeMap::<_, i64>::new());
    let mut followers = BTreeMap::<_, (i64, u64, bool)>::new();
    // A walk through all combinations; 7919 is prime, so times come in no order.
    for first in 1..=40u64 {
        let (app, install) = (["a", "b"][first as usize % 2], format!("i{}", first % 7));
        let events: Vec<Value> = (0..6u64)
            .map(|n| {
                let number = first * 6 + n;
                let time = (number as i64 * 7919 % 997) * DAY / 199;
                let (theme, user) = (["view", "custom"][number as usize % 2], format!("u{}", number % 5));
                let code = ["v", "sub", "v", "unsub", "v"][number as usize % 5];
                // Clocks of the app a are eight hours ahead.
                let local = if app == "a" { time + 8 * 3_600_000 } else { time };
                if theme == "view" {
                    visitors.insert(format!("{app}|{}|{install}", names::date(local.div_euclid(DAY))));
                }
                let earliest = firsts.entry(format!("{app}|{install}")).or_insert(time);
                *earliest = time.min(*earliest);
                if code != "v" {
                    let word = (time, number, code == "sub");
                    let latest = followers.entry(format!("{app}|{user}")).or_insert(word);
                    *latest = word.max(*latest);
                }
                event(number, time, json!({"theme": theme, "code": code, "user_id": user}))
            })
            .collect();
        let batch = batch(app, &install, first * 6, &events);
        for _ in 0..1 + first % 3 {
            assert_eq!(sink.deliver(Arc::clone(&batch)).await, Ok(Delivered::default()));
        }
        if first == 20 {
            // A new process remembers nothing; what it writes again changes nothing.
            let again = store.sink().await;
            assert_eq!(again.deliver(Arc::clone(&batch)).await, Ok(Delivered::default()));
        }
    }
    let ids = |end: &str| store.documents(end).into_iter().map(|(_, id, _)| id).collect::<BTreeSet<_>>();
    assert_eq!(ids("uv-*"), visitors);
    let found: BTreeMap<_, i64> = store
        .documents("users")
        .into_iter()
        .map(|(_, id, source)| (id, source["first_time"].as_i64().unwrap()))
        .collect();
    assert_eq!(found, firsts);
    let found: BTreeMap<_, bool> =
        store.documents("followers").into_iter().map(|(_, id, source)| (id, source["following"] == true)).collect();
    assert_eq!(found, followers.into_iter().map(|(id, word)| (id, word.2)).collect());
}

#[tokio::test]
async fn documents_that_count_are_not_read_if_they_lack_what_came_before_them() {
    let Some(mut store) = Store::elasticsearch("exact_counts = false") else { return };
    let at = |id: u64, time: i64| batch("a", &format!("i{id}"), id, &[event(id, time, json!({}))]);
    store.sink().await.deliver(at(1, 5)).await.unwrap();
    store.settings = Settings::of_test(&store.server.url(), store.prefix(), "");
    store.sink().await.deliver(at(2, 15)).await.unwrap();
    let query = CountQuery {
        app: "a".into(),
        measure: Measure::InstallsSeen,
        filter: Filter::default(),
        bounds: vec![0, 10, 20],
    };
    assert_eq!(store.documents("users").len(), 1);
    assert_eq!(store.reader().count(query).await.unwrap().buckets, [1, 2]);
}

#[tokio::test]
async fn retention_deletes_only_what_is_old_and_its_own() {
    let Some(store) = Store::elasticsearch("retention_days = 30") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    let today = days::day_of(crate::clock::now());
    let on = |id: u64, day: i64| event(id, day * DAY + 5, json!({}));
    for other in
        [format!("{prefix}-ods-2001.01.01-copy"), format!("{prefix}x-ods-2001.01.01"), format!("{prefix}-ods-latest")]
    {
        store.put(&format!("/{other}"), json!({}));
    }
    let events = [on(1, today - 400), on(2, today - 31), on(3, today - 30), on(4, today), on(5, today + 2)];
    assert_eq!(sink.deliver(batch("b", "i", 1, &events)).await, Ok(Delivered::default()));
    let left = || store.documents("ods-*").into_iter().map(|(index, _, _)| index).collect::<Vec<_>>();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while left().len() > 3 && std::time::Instant::now() < until {
        tokio::task::yield_now().await;
    }
    assert_eq!(left(), [today - 30, today, today + 2].map(|day| names::ods(&prefix, day)));
    // The reader says from when on it is all there; installs are remembered for longer.
    let reader = store.reader();
    assert_eq!(reader.complete_from("b", false).await, Ok(Some((today - 30) * DAY)));
    assert_eq!(reader.complete_from("b", true).await, Ok(None));
    let without = Settings::of_test(&store.server.url(), "none", "retention_days = 30");
    let without = crate::query::elasticsearch::ElasticsearchReader::new(&without).unwrap();
    assert_eq!(without.complete_from("b", true).await, Ok(Some((today - 30) * DAY)), "read from the events");
    for kept in
        [format!("{prefix}-ods-2001.01.01-copy"), format!("{prefix}x-ods-2001.01.01"), format!("{prefix}-ods-latest")]
    {
        assert_eq!(store.server.get(&format!("/{kept}")).unwrap().status, 200, "{kept}");
    }
    // A month is kept as long as one of its days; the first has no month of its own, and its year is over for long.
    let days = [today - 400, today - 31, today - 30, today, today + 2];
    let last = |day: i64| names::last_day(&prefix, &names::uv(&prefix, day)).unwrap();
    let kept = days.iter().filter(|day| last(**day) >= today - 30).count();
    assert_eq!(store.documents("uv-*").len(), kept);
    assert_eq!(store.documents("users").len(), 1);
}

#[tokio::test]
async fn a_schema_of_the_operator_is_checked_and_not_made() {
    let Some(store) = Store::elasticsearch("manage_schema = false") else { return };
    let delivery = Settings::delivery_of_test();
    let sink = Elasticsearch::new("es", &store.settings, &delivery, &[]).unwrap();
    let result = sink.prepare().await;
    assert!(matches!(&result, Err(SinkError::Misconfigured { message }) if message.contains("app_key")), "{result:?}");
    // A person may still apply what the collector would.
    assert_eq!(apply(&store.settings, &delivery).await.unwrap().len(), 3);
    assert_eq!(apply(&store.settings, &delivery).await, Ok(Vec::new()));
    assert_eq!(sink.prepare().await, Ok(()));
    assert_eq!(store.sink().await.health().await, Ok(()));
}

#[tokio::test]
async fn a_newer_template_is_left_as_it_is() {
    let Some(store) = Store::elasticsearch("") else { return };
    let prefix = store.prefix();
    store.sink().await;
    let path = format!("/_index_template/{prefix}-ods");
    let newer = json!({"index_patterns": [format!("{prefix}-ods-*")], "priority": 300, "version": 99, "template": {"mappings": {"dynamic": false}}});
    store.put(&path, newer);
    store.sink().await;
    assert_eq!(store.get(&path)["index_templates"][0]["index_template"]["version"], 99);
}

#[test]
fn a_batch_is_cut_where_it_would_make_too_many_indices() {
    let settings = Settings::of_test("http://127.0.0.1:1", "p", "");
    let sink = Elasticsearch::new("es", &settings, &Settings::delivery_of_test(), &[]).unwrap();
    let on = |id: u64, day: i64| event(id, day * DAY, json!({}));
    let events: Vec<Value> = (0..120).map(|n| on(n, (n as i64) / 2)).collect();
    assert_eq!(sink.batch_end(&batch("a", "i", 11, &events)), Ok(11 + 2 * MAX_NEW_INDICES as u64 - 1));
    assert_eq!(sink.batch_end(&batch("a", "i", 11, &events[..7])), Ok(17));
    // Days that came before may come again.
    let again: Vec<Value> = (0..120).map(|n| on(n, (n as i64) % MAX_NEW_INDICES as i64)).collect();
    assert_eq!(sink.batch_end(&batch("a", "i", 1, &again)), Ok(120));
}

#[tokio::test]
async fn changed_settings_change_the_template_for_the_indices_to_come() {
    let Some(mut store) = Store::elasticsearch("") else { return };
    store.sink().await;
    store.settings =
        Settings::of_test(&store.server.url(), store.prefix(), "shards = 3\nreplicas = 0\nexact_counts = false");
    store.sink().await.deliver(batch("a", "i", 1, &[event(1, DAY, json!({}))])).await.unwrap();
    let index = names::ods(store.prefix(), 1);
    let settings = store.get(&format!("/{index}/_settings"));
    assert_eq!(settings[&index]["settings"]["index"]["number_of_shards"], "3");
    let users = names::users(store.prefix());
    assert_eq!(store.get(&format!("/{users}/_mapping"))[&users]["mappings"]["_meta"]["complete"], false);
}
