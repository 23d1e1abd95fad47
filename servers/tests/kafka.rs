//! Kafka as the tests use it.

use subway_servers::{Kafka, available};

#[test]
fn what_is_produced_is_consumed_and_survives_a_kill() {
    let Some(broker) = available(Kafka::start()) else { return };
    assert_eq!(broker.consume_all("events").unwrap(), []);
    broker.produce("events", &[("i1", r#"{"a": "one two"}"#), ("i2", "{}")]).unwrap();
    let (bootstrap, pid) = (broker.bootstrap(), broker.pid());
    broker.kill();
    assert!(broker.pid().is_none());
    broker.restart().unwrap();
    assert_eq!(broker.bootstrap(), bootstrap);
    assert_ne!(broker.pid(), pid);
    broker.produce("events", &[("i1", "3")]).unwrap();
    let expected =
        [("i1", r#"{"a": "one two"}"#), ("i2", "{}"), ("i1", "3")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(broker.consume_all("events").unwrap(), expected);
}

#[test]
fn the_records_of_all_partitions_are_counted() {
    let Some(broker) = available(Kafka::shared()) else { return };
    broker.create_topic("parts", 3).unwrap();
    let keys: Vec<String> = (0..20).map(|key| key.to_string()).collect();
    let records: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), "x")).collect();
    broker.produce("parts", &records).unwrap();
    assert_eq!(broker.count("parts").unwrap(), 20);
    let mut got: Vec<u32> = broker.consume_all("parts").unwrap().iter().map(|(key, _)| key.parse().unwrap()).collect();
    got.sort_unstable();
    assert_eq!(got, (0..20).collect::<Vec<u32>>());
}

#[test]
fn after_a_cut_response_only_the_broker_has_the_record() {
    let Some((broker, proxy)) = available(Kafka::start_behind_proxy()) else { return };
    let through = proxy.addr().to_string();
    proxy.matching("Produce");

    // Every response is cut: the producer gives up, and the broker has the record once, despite retries.
    proxy.cut_answers(u64::MAX);
    let impatient = ["delivery.timeout.ms=6000", "request.timeout.ms=3000", "linger.ms=0", "retry.backoff.ms=500"];
    let lost = broker.produce_at(&through, &impatient, "cut", &[("k", "1")]);
    assert!(lost.is_err());
    assert!(proxy.injected() > 0);
    assert_eq!(broker.count("cut").unwrap(), 1);

    // One response is cut, one request is duplicated: an idempotent producer's record is stored once.
    proxy.cut_answers(1);
    proxy.duplicate(1);
    broker.produce_at(&through, &[], "twice", &[("k", "1"), ("k", "2")]).unwrap();
    assert_eq!(proxy.outstanding(), 0);
    assert_eq!(broker.count("twice").unwrap(), 2);
    // Without idempotence it is there twice.
    proxy.duplicate(1);
    broker.produce_at(&through, &["enable.idempotence=false"], "plain", &[("k", "1")]).unwrap();
    assert_eq!(broker.count("plain").unwrap(), 2);
}
