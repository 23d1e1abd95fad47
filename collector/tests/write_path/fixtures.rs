//! The shared examples of bad input, sent to the running binary.

use serde_json::Value;

use super::support::{Collector, CollectorFixture, assert_adds_up, fixtures};

fn site(fixture: &Value) -> CollectorFixture {
    let limits: String =
        fixture["limits"].as_object().into_iter().flatten().map(|(key, value)| format!("{key} = {value}\n")).collect();
    CollectorFixture::new(&format!("[limits]\n{limits}"))
}

/// The reason or the code that a file is an example of.
fn kind(file: &str) -> &str {
    file.split('.').next().unwrap()
}

fn body(fixture: &Value) -> Vec<u8> {
    if let Some(text) = fixture["body"].as_str() {
        return text.as_bytes().to_vec();
    }
    match fixture["body_hex"].as_str() {
        Some(hex) => (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect(),
        None => fixture["request"].to_string().into_bytes(),
    }
}

/// Fixtures with the same limits share a collector.
fn each(folder: &str, mut visit: impl FnMut(&str, &Value, &CollectorFixture, &Collector)) {
    let mut fixtures = fixtures(folder);
    fixtures.sort_by_key(|(_, fixture)| fixture["limits"].to_string());
    let mut running: Option<(String, CollectorFixture, Collector)> = None;
    for (name, fixture) in fixtures {
        let limits = fixture["limits"].to_string();
        if running.as_ref().is_none_or(|(known, ..)| *known != limits) {
            let site = site(&fixture);
            let collector = site.start();
            running = Some((limits, site, collector));
        }
        let (_, site, collector) = running.as_ref().unwrap();
        visit(&name, &fixture, site, collector);
    }
}

#[test]
fn every_bad_event_is_rejected_as_written_and_its_neighbours_are_stored() {
    each("rejected", |name, fixture, site, collector| {
        let (file, name) = (name, kind(name));
        let before = collector.ledger()["rejected"][name].as_u64().unwrap_or(0);
        let answer = collector.post("demo", &[], &body(fixture));
        let mut receipt = answer.json();
        assert!(receipt.as_object_mut().unwrap().remove("server_time").unwrap().as_i64().unwrap() > 0);
        let (stored, duplicate, rejected) = answer.counts();
        assert_eq!(stored as usize + duplicate + rejected, 3, "{name}");
        let mut expected = fixture["answer"]["rejected"].clone();
        if expected[0]["limit"].is_string() {
            // It depends on the time of the arrival.
            assert!(receipt["rejected"][0]["limit"].is_u64(), "{file}");
            expected[0]["limit"] = receipt["rejected"][0]["limit"].clone();
        }
        assert_eq!(receipt["rejected"], expected, "{file}");
        assert_eq!(receipt["batch_id"], fixture["answer"]["batch_id"], "{name}");
        // The fixtures of one collector share the IDs of the good neighbours.
        assert_eq!(stored as usize + duplicate, 2, "{name}");
        let ledger = collector.ledger();
        assert_eq!(ledger["rejected"][name], before + 1, "{name}");
        assert_adds_up(&ledger);
        assert_adds_up(&site.ledger());
    });
}

#[test]
fn every_bad_request_is_refused_as_written_and_stores_nothing() {
    each("refused", |name, fixture, _, collector| {
        let key = fixture["key"].as_str().unwrap_or("demo");
        let headers = fixture["headers"].as_object();
        let headers: Vec<(&str, &str)> =
            headers.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
        let (file, name) = (name, kind(name));
        let series = format!("subway_requests_rejected_total{{code=\"{name}\"}}");
        let before = collector.metric(&series);
        let answer = collector.post(key, &headers, &body(fixture));
        let mut problem = answer.problem();
        problem.as_object_mut().unwrap().remove("detail");
        assert_eq!(problem, fixture["problem"], "{file}");
        assert_eq!(collector.ledger()["received"], 0, "{name}");
        assert_eq!(collector.metric(&series), before + 1, "{file}");
    });
}
