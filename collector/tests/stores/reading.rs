//! The same questions, answered from three stores.

use super::lab::{Load, StoresFixture, answers, stores};

#[test]
fn the_reading_api_answers_the_same_from_the_embedded_store_clickhouse_and_elasticsearch() {
    let Some(stores) = stores() else { return };
    let mut lab = StoresFixture::quick(&stores, "reading");
    let path = lab.site.dir.path().join("config.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    lab.start();
    Load::run(&lab.url(), |load| load.more(3000));
    lab.settled(&["embedded", "ch", "es"]);
    let mut found = Vec::new();
    for sink in ["embedded", "ch", "es"] {
        assert!(lab.collector.take().unwrap().terminate().success());
        std::fs::write(&path, format!("{config}\n[query]\nsource = \"{sink}\"\n")).unwrap();
        lab.start();
        // A question sees what was acknowledged before it was asked, whichever store answers.
        let batch = super::lab::three_days(10);
        assert_eq!(lab.collector.as_ref().unwrap().send(&batch).counts(), (10, 0, 0));
        let pv = "/v1/apps/demo/metrics/pv?from=2015-05-16&to=2015-05-22&interval=total";
        let total = lab.collector.as_ref().unwrap().get(pv, Some(super::support::READ)).json()["total"].as_u64();
        assert_eq!(total, lab.ledger()["stored"].as_u64(), "{sink}");
    }
    for sink in ["embedded", "ch", "es"] {
        assert!(lab.collector.take().unwrap().terminate().success());
        std::fs::write(&path, format!("{config}\n[query]\nsource = \"{sink}\"\n")).unwrap();
        lab.start();
        found.push(answers(lab.collector.as_ref().unwrap()));
    }
    for (at, answer) in found[0].iter().enumerate() {
        assert_eq!(found[1][at], *answer, "ClickHouse");
        assert_eq!(found[2][at], *answer, "Elasticsearch");
    }
    println!("{} answers of 3 stores are equal", found[0].len());
}
