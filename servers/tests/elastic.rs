//! Elasticsearch and OpenSearch as the tests use them.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

use subway_servers::{Elastic, Elasticsearch, OpenSearch, available};

fn what_is_written_survives_a_kill(store: &Elastic) {
    let bulk = "{\"create\":{\"_id\":\"1\"}}\n{\"a\":1}\n{\"create\":{\"_id\":\"1\"}}\n{\"a\":2}\n";
    let answer = store.post("/survives/_bulk", bulk).unwrap().json().unwrap();
    assert_eq!(answer["items"][0]["create"]["status"], 201, "{answer}");
    assert_eq!(answer["items"][1]["create"]["status"], 409, "{answer}");
    assert_eq!(store.count("survives").unwrap(), 1);
    assert_eq!(store.count("nowhere").unwrap(), 0);

    let (url, pid) = (store.url(), store.pid());
    store.kill();
    assert!(store.get("/").is_err());
    store.restart().unwrap();
    assert_eq!(store.url(), url);
    assert_ne!(store.pid(), pid);
    assert_eq!(store.get("/survives/_doc/1").unwrap().json().unwrap()["_source"]["a"], 1);
}

#[test]
fn elasticsearch_keeps_what_it_took_over_a_kill() {
    let Some(store) = available(Elasticsearch::start()) else { return };
    what_is_written_survives_a_kill(&store);
}

#[test]
fn opensearch_keeps_what_it_took_over_a_kill() {
    let Some(store) = available(OpenSearch::start()) else { return };
    what_is_written_survives_a_kill(&store);
}
