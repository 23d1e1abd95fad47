//! Refused documents, and the delivery of the others.

use serde_json::Value;
use subway_servers::{Proxy, available};

use super::tests::{DAY, Store, batch, batch_of_text, event};
use super::*;
use crate::query::{EventsQuery, Reader};

#[tokio::test]
async fn a_document_that_the_store_refuses_is_named_and_its_neighbours_arrive() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    let good = |id| event(id, DAY, json!({}));
    // The store knows no date so long ago.
    let poison = |id| event(id, i64::MIN, json!({"user_id": "only here", "code": "follow"}));
    let delivered = sink.deliver(batch("a", "i", 1, &[good(1), poison(2), good(3)])).await.unwrap();
    assert_eq!(delivered.refused.len(), 1);
    assert_eq!(delivered.refused[0].position, 2);
    assert!(delivered.refused[0].reason.contains("event_time"), "{}", delivered.refused[0].reason);
    assert_eq!(store.documents("ods-*").len(), 2);
    assert_eq!(store.documents("followers*"), [], "what was refused is not counted");

    let result = sink.deliver(batch("a", "i", 4, &[poison(4), poison(5)])).await;
    assert!(matches!(&result, Err(SinkError::Permanent { message }) if message.contains("event_time")), "{result:?}");
}

async fn properties_that_cannot_be_fields_are_kept_exactly(store: Store) {
    let sink = store.sink().await;
    let key = "k".repeat(40_000);
    let deep = format!("{}1{}", "{\"d\":".repeat(30), "}".repeat(30));
    let mut events = Vec::new();
    let props = [
        "{\"\\u0000\":1}".to_owned(),
        "{\"a\":1,\"a\":2}".to_owned(),
        format!("{{\"{key}\":1}}"),
        format!("{{\"v\":\"{key}\"}}"),
        deep,
        "{\"\":{\"\":1},\".\":2,\"a.b\":3,\"a\":{\"b\":4}}".to_owned(),
        "{\"big\":1e300,\"zero\":-0.0,\"long\":12345678901234567890123,\"none\":null,\"mixed\":[1,[\"x\",{}]]}"
            .to_owned(),
    ];
    for (props, id) in props.iter().zip(1..) {
        let text = event(id, DAY, json!({})).to_string();
        events.push(format!("{},\"props\":{props}}}", &text[..text.len() - 1]));
    }
    assert_eq!(sink.deliver(batch_of_text(("a", "i", DAY), 1, &events)).await, Ok(Delivered::default()));
    // Sent again, they are recognised in whichever form they are there.
    assert_eq!(sink.deliver(batch_of_text(("a", "i", DAY), 1, &events)).await, Ok(Delivered::default()));
    let query = EventsQuery { app: "a".into(), limit: 100, ..EventsQuery::default() };
    let rows = store.reader().newest(query).await.unwrap();
    let found: Vec<&str> = rows.iter().rev().map(|listed| listed.row.event.props.get().unwrap().get()).collect();
    assert_eq!(found, props);
}

#[tokio::test]
async fn properties_that_elasticsearch_cannot_index_are_kept_exactly() {
    let Some(store) = Store::elasticsearch("") else { return };
    properties_that_cannot_be_fields_are_kept_exactly(store).await;
}

#[tokio::test]
async fn properties_that_opensearch_cannot_index_are_kept_exactly() {
    let Some(server) = available(subway_servers::OpenSearch::shared()) else { return };
    properties_that_cannot_be_fields_are_kept_exactly(Store::new(server, "")).await;
}

#[tokio::test]
async fn an_event_lies_in_the_index_of_its_day_under_its_id_in_no_other() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    let events = [event(1, 1_431_907_199_999, json!({})), event(2, 1_431_907_200_000, json!({}))];
    for _ in 0..3 {
        assert_eq!(sink.deliver(batch("a", "i", 1, &events)).await, Ok(Delivered::default()));
    }
    let prefix = store.prefix();
    let indices: Vec<_> = store.documents("ods-*").into_iter().map(|(index, id, _)| (index, id)).collect();
    assert_eq!(
        indices,
        [
            (format!("{prefix}-ods-2015.05.17"), "00000000-0000-7000-8000-000000000001".to_owned()),
            (format!("{prefix}-ods-2015.05.18"), "00000000-0000-7000-8000-000000000002".to_owned())
        ]
    );
    let index = format!("{prefix}-ods-2015.05.17");
    let mapping = store.get(&format!("/{index}/_mapping"));
    let properties = &mapping[&index]["mappings"]["properties"];
    assert_eq!(
        (&properties["props"]["type"], &properties["app_key"]["type"]),
        (&json!("flattened"), &json!("keyword"))
    );
    let template = store.get(&format!("/_index_template/{prefix}-ods"));
    assert_eq!(template["index_templates"][0]["index_template"]["version"], schema::VERSION);
}

#[tokio::test]
async fn equal_ids_of_two_apps_stay_two_events_however_often_they_are_sent() {
    let Some(store) = Store::elasticsearch("") else { return };
    let sink = store.sink().await;
    for _ in 0..3 {
        for (app, first) in [("a", 1), ("b", 2), ("c", 3)] {
            let batch = batch(app, "i", first, &[event(1, DAY, json!({}))]);
            assert_eq!(sink.deliver(batch).await, Ok(Delivered::default()));
        }
    }
    let id = "00000000-0000-7000-8000-000000000001";
    let found: Vec<_> =
        store.documents("ods-*").into_iter().map(|(_, id, source)| (id, source["app_key"].clone())).collect();
    assert_eq!(found, [(id.to_owned(), json!("a")), (format!("b|{id}"), json!("b")), (format!("c|{id}"), json!("c"))]);
}

#[tokio::test]
async fn only_the_events_that_were_not_taken_are_sent_again() {
    let Some(store) = Store::elasticsearch("exact_counts = false") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    sink.deliver(batch("a", "i", 1, &[event(1, DAY, json!({})), event(2, 2 * DAY, json!({}))])).await.unwrap();
    let full = |full: Value| {
        store.put(&format!("/{prefix}-ods-1970.01.02/_settings"), json!({"index.blocks.read_only_allow_delete": full}))
    };
    // As a node does with its indices when its disk is full: every write is answered 429.
    full(json!(true));
    let next = batch("a", "i", 3, &[event(3, DAY, json!({})), event(4, 2 * DAY, json!({})), event(5, DAY, json!({}))]);
    let (delivered, ()) = tokio::join!(sink.deliver(next), async {
        while store.documents("ods-1970.01.03").len() < 2 {
            tokio::task::yield_now().await;
        }
        full(Value::Null);
    });
    assert_eq!(delivered, Ok(Delivered::default()));
    assert_eq!(store.documents("ods-*").len(), 5);
    let stats = store.get(&format!("/{prefix}-ods-1970.01.03/_stats/indexing"));
    let indexing = &stats["_all"]["primaries"]["indexing"];
    assert_eq!((&indexing["index_total"], &indexing["index_failed"]), (&json!(2), &json!(0)), "{indexing}");
}

#[tokio::test]
async fn an_index_that_takes_nothing_is_no_poison() {
    let Some(store) = Store::elasticsearch("") else { return };
    let (sink, prefix) = (store.sink().await, store.prefix().to_owned());
    sink.deliver(batch("a", "i", 1, &[event(1, DAY, json!({})), event(2, 2 * DAY, json!({}))])).await.unwrap();
    let next = batch("a", "i", 3, &[event(3, DAY, json!({})), event(4, 2 * DAY, json!({}))]);
    let index = format!("/{prefix}-ods-1970.01.02");
    let block = |block: bool| store.put(&format!("{index}/_settings"), json!({"index.blocks.write": block}));
    block(true);
    let result = sink.deliver(Arc::clone(&next)).await;
    assert!(matches!(&result, Err(SinkError::Retryable { message, .. }) if message.contains("blocked")), "{result:?}");
    block(false);
    store.server.post(&format!("{index}/_close"), "").unwrap().ok().unwrap();
    let result = sink.deliver(Arc::clone(&next)).await;
    assert!(
        matches!(&result, Err(SinkError::Retryable { message, .. }) if message.contains("index_closed")),
        "{result:?}"
    );
    let query = EventsQuery { app: "a".into(), limit: 9, ..EventsQuery::default() };
    assert!(store.reader().newest(query.clone()).await.is_err(), "an answer without a closed index would be wrong");
    store.server.post(&format!("{index}/_open"), "").unwrap().ok().unwrap();
    assert_eq!(sink.deliver(next).await, Ok(Delivered::default()));
    assert_eq!(store.reader().newest(query).await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_request_that_breaks_off_anywhere_loses_and_doubles_nothing() {
    let Some(mut store) = Store::elasticsearch("") else { return };
    let direct = store.settings.clone();
    let proxy = Proxy::to(&store.server.url()).unwrap();
    store.settings = Settings::of_test(&proxy.url(), direct.index_prefix(), "bulk_bytes = 1024");
    let sink = store.sink().await;
    proxy.matching("/_bulk");
    let events: Vec<Value> = (1..=40).map(|id| event(id, id as i64 % 3 * DAY, json!({}))).collect();
    let batch = batch("a", "i", 1, &events);
    let faults: [&dyn Fn(); 4] =
        [&|| proxy.cut_answers(1), &|| proxy.cut_requests(1), &|| proxy.answer_instead(1, 503), &|| {
            proxy.answer_instead(1, 413)
        }];
    for fault in faults {
        fault();
        let failed = sink.deliver(Arc::clone(&batch)).await.unwrap_err();
        match failed {
            SinkError::Retryable { after_ms, ref message } => {
                assert_eq!(after_ms.is_some(), message.contains("503"), "{failed}")
            }
            SinkError::TooLarge { ref message } => assert!(message.contains("413"), "{failed}"),
            _ => panic!("{failed}"),
        }
    }
    proxy.duplicate(2);
    assert_eq!(sink.deliver(batch).await, Ok(Delivered::default()));
    assert_eq!(proxy.outstanding(), 0);
    store.settings = direct;
    assert_eq!(store.documents("ods-*").len(), 40);
    assert_eq!(store.documents("uv-*").len(), 3);
}
