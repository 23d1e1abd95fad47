//! Readers that are private to their rooms, as the fuzzer calls them (`fuzz/targets`). No interface for anybody else.

use axum::http::{HeaderMap, HeaderValue, Uri};
use bytes::Bytes;
use jiff::tz::TimeZone;
use subway_protocol::codec::server::{Problem, ProblemCode, Rejection, decode};
use subway_protocol::limits::PAST_DAYS;
use subway_protocol::{Id, Limits};

use crate::accept::inflate::Inflation;
use crate::accept::signature::Signature;
use crate::accept::{BudgetReservation, sign, wire};
use crate::auth::RegisteredApp;
use crate::config::{Network, Secret};
use crate::http::client::{PeerAddress, client_key};
use crate::http::{self, events};
use crate::limit::ClientKey;
use crate::pipeline::{self, NewRecord};
use crate::query::clickhouse::decode::rows;
use crate::query::{EventsQuery, InvalidParameter};
use crate::record::{Event, Record};
use crate::row::Row;
use crate::sinks::elasticsearch::bulk::verdicts;
use crate::sinks::elasticsearch::document;

/// Bytes of text after which inflating stops and goes on.
const PAUSE: usize = 1000;

/// A gzip body as `accept` inflates it.
///
/// # Errors
/// The code of the refusal.
pub fn inflate(body: &[u8], limit: u64) -> Result<Vec<u8>, ProblemCode> {
    let (mut inflation, mut held) = (Inflation::new(Bytes::copy_from_slice(body)), BudgetReservation::unbounded());
    // Interrupted as often as can be, as a large body is once.
    let mut pause = 0;
    while !inflation.run(pause, limit, &mut held).map_err(|problem| problem.code)? {
        pause += PAUSE;
    }
    Ok(inflation.into_bytes())
}

/// Whether the header is a signature of `body`, made at `now` within five minutes; and the right header.
#[must_use]
pub fn signature(header: &str, secret: &str, body: &[u8], now: i64) -> (bool, String) {
    let age = subway_protocol::limits::SIGNATURE_AGE_MS;
    let checked = Signature::verify(Some(header), &Secret::new(secret.to_owned()), body, now, age);
    (checked.is_ok(), sign(secret, now, body))
}

/// The decoded parameters of a query string; `None` if it is none.
#[must_use]
pub fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    http::query_pairs(&format!("/?{query}").parse::<Uri>().ok()?).ok()
}

/// A request for a list of events.
///
/// # Errors
/// The parameter that cannot be used.
pub fn events_query(timezone: &TimeZone, pairs: &[(String, String)]) -> Result<EventsQuery, InvalidParameter> {
    let (key, token) = ("demo".to_owned(), Secret::new("t".to_owned()));
    events::parse_query(&RegisteredApp::new(key, 1, timezone.clone(), None, token), pairs)
}

/// Whether a client behind a proxy of 10.0.0.0/8 that sends this header counts as `peer` itself.
#[must_use]
pub fn forwarded(header: &[u8], peer: [u8; 4]) -> bool {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(header) {
        headers.append("x-forwarded-for", value);
    }
    let proxies: Vec<Network> = "10.0.0.0/8".parse().into_iter().collect();
    client_key(PeerAddress(peer.into()), &headers, &proxies) == ClientKey::from(std::net::IpAddr::from(peer))
}

/// What became of a batch.
#[derive(Debug)]
pub struct Judged {
    /// The batch.
    pub batch_id: Id,
    /// How many events it has.
    pub received: u64,
    /// Those that were rejected.
    pub rejected: Vec<Rejection>,
    /// What the spool gets if nothing is a repetition.
    pub records: Vec<NewRecord>,
}

/// Decodes and judges a batch of our wire, and writes what is to be stored.
///
/// # Errors
/// The refusal of the whole.
pub fn judge(body: &[u8], received_at: i64) -> Result<Judged, Problem> {
    let limits = Limits::default();
    let batch = decode(body, &limits)?;
    let incoming = wire::incoming("demo", &batch, received_at);
    let events = batch.events.iter().map(|raw| wire::event(raw, &limits));
    let mut prepared = pipeline::prepare(&incoming, events, &limits, PAST_DAYS);
    let fresh = vec![true; prepared.events.len()];
    prepared.order(&fresh, None);
    let records = prepared.records(&fresh).collect();
    Ok(Judged { batch_id: batch.batch_id, received: prepared.received, rejected: prepared.rejected, records })
}

/// An event as a document of Elasticsearch.
#[must_use]
pub fn document(record: &Record<'_>, event: &Event<'_>, as_text: bool) -> String {
    let mut out = Vec::new();
    document::write(&mut out, &document::SharedFields::new(record), event, 1, as_text);
    String::from_utf8(out).unwrap_or_default()
}

/// The event of a document of Elasticsearch.
///
/// # Errors
/// If it is none.
pub fn read_document(source: &str) -> Result<Row<'static>, serde_json::Error> {
    crate::query::elasticsearch::row::read(source)
}

/// How many verdicts Elasticsearch's answer to a bulk of `count` holds; `None` if it cannot be read.
#[must_use]
pub fn bulk_answer(body: &[u8], count: usize) -> Option<usize> {
    verdicts(body, count).ok().map(|verdicts| verdicts.len())
}

/// ClickHouse's answer to a request for events.
///
/// # Errors
/// What is wrong with it.
pub fn clickhouse_rows(answer: &[u8]) -> Result<Vec<Row<'static>>, String> {
    rows(answer).map(|rows| rows.into_iter().map(|listed| listed.row).collect())
}
