//! Batches that are refused as a whole, by the collector or by an intermediary.
#![allow(clippy::unwrap_used)]

mod common;

use common::{START, answer, client, ids, input, later, receipt, track, upload};
use subway_sdk_core::{Client, DropReason, MemoryStore, UploadRequest};

/// Returns the body of a refusal by the collector.
fn problem(status: u16) -> String {
    format!(
        r#"{{"type":"urn:subway:problem:any","title":"t","status":{status},"detail":"why","code":"any","field":"events"}}"#
    )
}

/// Answers every batch that contains `poison` with `status` until the queue is empty; counts the requests.
fn bisect(client: &mut Client<MemoryStore>, poison: &str, status: u16) -> usize {
    let mut requests = 0;
    while let Some(request) = upload(client, START) {
        requests += 1;
        if ids(&request.body).iter().any(|id| id == poison) {
            client.handle_upload_result(START, request.batch_id, answer(status, &problem(status)));
        } else {
            let body = receipt(request.batch_id, request.events);
            client.handle_upload_result(START, request.batch_id, answer(200, &body));
        }
    }
    requests
}

#[test]
fn one_poison_event_is_found_by_bisecting_the_others_arrive() {
    for (status, reason) in [(400, DropReason::Poison), (413, DropReason::TooLarge)] {
        let mut client = client();
        track(&mut client, 99);
        let poison = client.track(START, input("poison")).unwrap().text();
        let requests = bisect(&mut client, &poison, status);
        let ledger = client.ledger();
        assert_eq!((ledger.acked, ledger.queued, ledger.dropped(reason)), (99, 0, 1));
        assert!(requests <= 20, "{requests} requests for 1 in 100");
    }
}

/// Bodies with which a proxy, a firewall or a load balancer can answer in place of the collector.
const STRANGERS: [&str; 5] = [
    "",
    "<html><h1>400 Bad Request</h1><center>nginx</center></html>",
    r#"{"code":"invalid_field","message":"Bad Request"}"#,
    r#"{"type":"about:blank","status":400}"#,
    r#"{"type":"urn:subway:problem:unknown_key","status":401}"#,
];

#[test]
fn a_400_that_is_not_the_collectors_own_costs_nothing_and_waits() {
    for body in STRANGERS {
        let mut client = client();
        track(&mut client, 100);
        let request = upload(&mut client, START).unwrap();
        client.handle_upload_result(START, request.batch_id, answer(400, body));
        let mut tries = 0;
        for second in 0..3_600 {
            if let Some(again) = upload(&mut client, later(second * 1_000)) {
                assert_eq!(again.batch_id, request.batch_id, "the same batch, not a half");
                client.handle_upload_result(later(second * 1_000), again.batch_id, answer(400, body));
                tries += 1;
            }
        }
        assert_eq!((client.ledger().queued, client.ledger().generated), (100, 100), "{body}");
        assert!((10..60).contains(&tries), "{tries} tries in an hour");
        let diagnostics = client.take_diagnostics();
        assert!(diagnostics.len() == 1 && diagnostics[0].contains("on the way"), "{diagnostics:?}");
        let again = upload(&mut client, later(2 * 3_600_000)).unwrap();
        let body = receipt(again.batch_id, 100);
        client.handle_upload_result(later(2 * 3_600_000), again.batch_id, answer(200, &body));
        assert_eq!(client.ledger().acked, 100);
    }
}

#[test]
fn a_413_of_somebody_on_the_way_halves_but_gives_no_event_up() {
    for body in STRANGERS {
        let mut client = client();
        track(&mut client, 20);
        let large = client.track(START, input("large")).unwrap().text();
        track(&mut client, 20);
        let refused = |request: &UploadRequest| ids(&request.body).contains(&large);
        // For an hour no batch passes that holds the large event; all others do, and soon.
        for second in 0..3_600 {
            while let Some(request) = upload(&mut client, later(second * 1_000)) {
                let receipt = receipt(request.batch_id, request.events);
                let answer = if refused(&request) { answer(413, body) } else { answer(200, &receipt) };
                client.handle_upload_result(later(second * 1_000), request.batch_id, answer);
            }
            if second == 60 {
                assert_eq!(client.ledger().acked, 40, "the large one is not in the way of the others");
            }
        }
        assert_eq!((client.ledger().queued, client.ledger().acked), (1, 40), "{body}");
        let again = upload(&mut client, later(2 * 3_600_000)).unwrap();
        assert_eq!(ids(&again.body), [large.as_str()]);
        let body = receipt(again.batch_id, 1);
        client.handle_upload_result(later(2 * 3_600_000), again.batch_id, answer(200, &body));
        assert_eq!(client.ledger().acked, 41);
    }
}
