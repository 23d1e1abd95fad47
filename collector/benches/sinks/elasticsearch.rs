//! Elasticsearch: the sink against a loader of the same documents in an index of the same make, as many bytes a bulk.

use serde_json::value::RawValue;
use serde_json::{Value, json};
use subway_servers::{Elastic, Elasticsearch};

use crate::collector::{Collector, backlog};
use crate::{bulk, load};

/// Batches of the backlog; 100 events each.
const BATCHES: usize = 1000;
/// Documents read back at once.
const PAGE: u64 = 10_000;
/// Bytes of one bulk of the loader, before compression: the sink's default.
const BULK_BYTES: usize = 8 * 1024 * 1024;

pub(crate) fn run() -> anyhow::Result<Value> {
    let server = Elasticsearch::start()?;
    let bodies = load::bodies(BATCHES);
    let events = (BATCHES * load::EVENTS) as u64;
    let mut sink_rates = serde_json::Map::new();
    let mut cpu = 0.0;
    // With the documents that count exactly, as it is by default, and then without, which the loader has not either.
    for (name, more) in [("with_exact_counts", ""), ("events_only", "exact_counts = false\n")] {
        let folder = backlog(&bodies, "es", "elasticsearch", "http://127.0.0.1:1");
        let url = server.url();
        let sink = format!(
            "[[sink]]\nname = \"es\"\nkind = \"elasticsearch\"\nurl = \"{url}\"\nindex_prefix = \"{name}\"\n{more}"
        );
        let collector = Collector::start(folder.path(), &sink);
        sink_rates.insert(name.to_owned(), json!(collector.drain_rate("es", events)));
        cpu = collector.cpu();
        drop(collector);
        server.post(&format!("/{name}-ods-*/_refresh"), "")?.ok()?;
        assert_eq!(server.count(&format!("{name}-ods-*"))?, events, "every event is in the store once");
    }
    let bulks = bulks(&server, "events_only-ods-*")?;
    server.delete("/events_only-ods-*")?.ok()?;
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let url = format!("{}/_bulk", server.url());
    let loader = bulk::rate(&bulks, |body: &Vec<u8>| {
        let mut answer = agent.post(&url).content_type("application/x-ndjson").send(&body[..]).unwrap();
        let text = answer.body_mut().with_config().limit(1 << 30).read_to_string().unwrap();
        assert!(answer.status() == 200 && text.contains("\"errors\":false"), "{}", &text[..text.len().min(500)]);
    });
    Ok(
        json!({"events": events, "sink_per_second": sink_rates, "collector_cpu_seconds": cpu, "loader_per_second": loader, "bulks": bulks.len()}),
    )
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
fn bulks(server: &Elastic, index: &str) -> anyhow::Result<Vec<(Vec<u8>, u64)>> {
    let (mut bulks, mut after) = (vec![(Vec::new(), 0)], None);
    loop {
        let mut query = json!({"size": PAGE, "sort": [{"event_time": "asc"}], "track_total_hits": false});
        if let Some(after) = after {
            query["search_after"] = json!([after]);
        }
        let text = server.post(&format!("/{index}/_search"), &query.to_string())?.ok()?;
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
