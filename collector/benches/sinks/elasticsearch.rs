//! Elasticsearch: the sink against a loader of the same documents in an index of the same make, as many bytes a bulk.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use subway_servers::{Elastic, Elasticsearch};

use crate::bulk::Sum;
use crate::collector::{Backlog, Collector};
use crate::{bulk, load};

/// Batches of the backlog; 100 events each.
const BATCHES: usize = 1000;
/// Documents read back at once.
const PAGE: u64 = 10_000;
/// Bytes of one bulk of the loader, before compression: the sink's default.
const BULK_BYTES: usize = 8 * 1024 * 1024;

/// How often everything is measured, in turns, so that a disturbance meets both sides.
const ROUNDS: usize = 2;

pub(crate) fn run() -> anyhow::Result<Value> {
    let server = Elasticsearch::start()?;
    let backlog = Backlog::fill(&load::bodies(BATCHES), "es", "elasticsearch");
    let (mut counting, mut plain, mut loader) = (Sum::default(), Sum::default(), Sum::default());
    let mut bulks = Vec::new();
    for _ in 0..ROUNDS {
        // With the documents that count exactly, as it is by default, and then without, which the loader has not
        // either.
        deliver(&server, &backlog, "", &mut counting)?;
        server.delete("/subway-*")?.ok()?;
        deliver(&server, &backlog, "exact_counts = false\n", &mut plain)?;
        if bulks.is_empty() {
            bulks = read_back(&server)?;
        }
        server.delete("/subway-*")?.ok()?;
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let url = format!("{}/_bulk", server.url());
        bulk::load(&bulks, server.pid(), &mut loader, |body: &Vec<u8>| {
            let mut answer = agent.post(&url).content_type("application/x-ndjson").send(&body[..]).unwrap();
            let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
            assert!(answer.status() == 200 && text.contains("\"errors\":false"), "{}", &text[..text.len().min(500)]);
        });
        server.delete("/subway-*")?.ok()?;
    }
    Ok(json!({
        "events": BATCHES * load::EVENTS,
        "sink": {"events_only": plain.report(), "with_exact_counts": counting.report()},
        "loader": loader.report(),
        "bulks": bulks.len(),
    }))
}

fn deliver(server: &Elastic, backlog: &Backlog, more: &str, sum: &mut Sum) -> anyhow::Result<()> {
    let events = (BATCHES * load::EVENTS) as u64;
    let folder = backlog.copy();
    let sink = format!("[[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{}\"\n{more}", server.url());
    let collector = Collector::start(folder.path(), &sink);
    collector.drain("es", events, server.pid(), sum);
    drop(collector);
    server.post("/subway-ods-*/_refresh", "")?.ok()?;
    anyhow::ensure!(server.count("subway-ods-*")? == events, "every event is in the store once");
    Ok(())
}

#[derive(serde::Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    hits: Hits<'a>,
}

#[derive(serde::Deserialize)]
struct Hits<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
}

#[derive(serde::Deserialize)]
struct Hit<'a> {
    _index: &'a str,
    _id: &'a str,
    #[serde(borrow)]
    _source: &'a RawValue,
    sort: (u64,),
}

/// The documents that the sink wrote, as bulks.
fn read_back(server: &Elastic) -> anyhow::Result<Vec<(Vec<u8>, u64)>> {
    let (mut bulks, mut after) = (vec![(Vec::new(), 0)], None);
    loop {
        let mut query = json!({"size": PAGE, "sort": [{"event_time": "asc"}], "track_total_hits": false});
        if let Some(after) = after {
            query["search_after"] = json!([after]);
        }
        let text = server.post("/subway-ods-*/_search", &query.to_string())?.ok()?;
        let found: Found<'_> = serde_json::from_str(&text)?;
        let Some(last) = found.hits.hits.last() else { return Ok(bulks) };
        // Every event of the load has a time of its own.
        after = Some(last.sort.0);
        for hit in &found.hits.hits {
            if bulks.last().is_some_and(|(body, _)| body.len() >= BULK_BYTES) {
                bulks.push((Vec::new(), 0));
            }
            let (body, count) = bulks.last_mut().unwrap();
            body.extend_from_slice(
                format!("{{\"create\":{{\"_index\":\"{}\",\"_id\":\"{}\"}}}}\n{}\n", hit._index, hit._id, hit._source)
                    .as_bytes(),
            );
            *count += 1;
        }
    }
}
