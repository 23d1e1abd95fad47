//! Serves `GET /v1/apps/{key}/events`, the newest events first. They are read from the store page by page and written
//! as they are read, so that an answer of any size takes the memory of one page.

use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use subway_protocol::Id;
use tokio::sync::mpsc;

use super::problem::ProblemResponse;
use super::problem::{invalid_parameter, read_failed};
use super::query_pairs;
use super::{AppState, authorization, path_segments};
use crate::auth::RegisteredApp;
use crate::query::{EventsQuery, Filter, InvalidParameter, ListedEvent, Parameters, ReadError, Reader, SortKey, utc};

/// Default of `limit`: some screens.
const DEFAULT_EVENTS: usize = 100;

/// Most events in one answer. A client that needs more continues with `after`; `export` gives all.
const MAX_EVENTS: usize = 10_000;

/// Events of the first page, whose size is unknown. Later pages have about [`PAGE_BYTES`] and an event count in
/// [`PAGE_EVENTS`]. A client that reads slowly holds one page in memory.
const FIRST_PAGE_EVENTS: u64 = 100;
const PAGE_EVENTS: RangeInclusive<u64> = 10..=1000;
const PAGE_BYTES: u64 = 1024 * 1024;

/// Bytes of one chunk of the answer, and how many chunks can wait for a slow client.
const CHUNK_BYTES: usize = 64 * 1024;
const QUEUED_CHUNKS: usize = 2;

pub(super) async fn events(
    State(state): State<Arc<AppState>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ProblemResponse> {
    let key = path_segments(path)?;
    let current = state.current();
    let app = current.registry.authorize_reader(&key, authorization(&headers))?;
    let query = parse_query(app, &query_pairs(&uri)?).map_err(invalid_parameter)?;
    state.read_barrier.wait().await;
    let list = EventList {
        reader: Arc::clone(&state.reader),
        complete_from: state.read_barrier.complete_from(),
        query,
        max_bytes: current.limits.answer_bytes,
        bytes: 0,
        events: 0,
    };
    // The first page is read before the answer begins, so that a failing store can still be answered with a problem.
    let first = list.page().await.map_err(read_failed)?;
    let (sender, chunks) = mpsc::channel(QUEUED_CHUNKS);
    tokio::spawn(list.write(first, sender));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::new(ChunkBody(chunks))).into_response())
}

type Chunk = Result<Bytes, io::Error>;

/// Body whose chunks come from a channel. An error aborts the connection.
struct ChunkBody(mpsc::Receiver<Chunk>);

impl hyper::body::Body for ChunkBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

pub(crate) fn parse_query(
    app: &RegisteredApp,
    query_pairs: &[(String, String)],
) -> Result<EventsQuery, InvalidParameter> {
    let known = ["from", "to", "code", "theme", "install_id", "user_id", "after", "limit"];
    let parameters = Parameters::new(query_pairs, &known)?;
    let limit = match parameters.get("limit") {
        None => DEFAULT_EVENTS,
        Some(text) => {
            let number = text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
                InvalidParameter::new("limit", format!("must be a number from 1 to {}", MAX_EVENTS), text)
            })?;
            let over = || {
                InvalidParameter::limit_exceeded(
                    "limit",
                    "is too large; go on with `after`, or use `export`",
                    MAX_EVENTS as u64,
                    number,
                )
            };
            usize::try_from(number).ok().filter(|number| *number <= MAX_EVENTS).ok_or_else(over)?
        }
    };
    let mark = |text: &str| {
        text.parse::<SortKey>()
            .map_err(|_| InvalidParameter::new("after", "must be the `next` of an earlier answer", text))
    };
    Ok(EventsQuery {
        app: app.key.clone(),
        from: parameters.time("from", &app.timezone)?,
        to: parameters.time("to", &app.timezone)?,
        filter: Filter { theme: parameters.theme()?, code: parameters.code()? },
        // Identifiers are stored in lower case.
        install_id: parameters.get("install_id").map(|id| Id::parse(id).map_or_else(|| id.to_owned(), |id| id.text())),
        user_id: parameters.get("user_id").map(str::to_owned),
        after: parameters.get("after").map(mark).transpose()?,
        limit,
    })
}

/// Answer in progress.
struct EventList {
    reader: Arc<dyn Reader>,
    /// Events that the store never received arrived before this time, milliseconds since the epoch.
    complete_from: Option<i64>,
    /// Position in the list, and how many events may still follow.
    query: EventsQuery,
    /// Largest size of the events in the answer, bytes.
    max_bytes: u64,
    /// Bytes and number of the events written so far.
    bytes: u64,
    events: u64,
}

/// One page of the list.
struct EventPage {
    rows: Vec<ListedEvent>,
    /// Whether it has as many events as were requested, so that there may be more.
    full: bool,
}

/// Reason why an answer ends early.
enum ListError {
    /// The client has disconnected.
    Client,
    Store(ReadError),
}

impl EventList {
    async fn page(&self) -> Result<EventPage, ReadError> {
        let average = self.bytes.checked_div(self.events).map(|average| average.max(1));
        let events = average.map_or(FIRST_PAGE_EVENTS, |average| {
            (PAGE_BYTES / average).clamp(*PAGE_EVENTS.start(), *PAGE_EVENTS.end())
        });
        let limit = self.query.limit.min(usize::try_from(events).unwrap_or(usize::MAX));
        let rows = self.reader.newest(EventsQuery { limit, ..self.query.clone() }).await?;
        Ok(EventPage { full: rows.len() == limit, rows })
    }

    /// Writes the answer. If it cannot be finished, the connection is aborted, so that a client does not take it for
    /// complete.
    async fn write(mut self, first: EventPage, sender: mpsc::Sender<Chunk>) {
        let why = match self.write_all(first, &sender).await {
            Ok(()) | Err(ListError::Client) => return,
            Err(ListError::Store(error)) => error.to_string(),
        };
        tracing::warn!(why, "a list of events was broken off");
        let _ = sender.send(Err(io::Error::other(why))).await;
    }

    async fn write_all(&mut self, first: EventPage, sender: &mpsc::Sender<Chunk>) -> Result<(), ListError> {
        let mut chunk = br#"{"events":["#.to_vec();
        let mut page = first;
        let more = loop {
            let mut rows = page.rows.into_iter();
            for listed in rows.by_ref() {
                self.append(&listed, &mut chunk);
                if chunk.len() >= CHUNK_BYTES {
                    send(sender, &mut chunk).await?;
                }
                if self.bytes >= self.max_bytes {
                    break;
                }
            }
            let more = page.full || rows.len() > 0;
            if !more || self.bytes >= self.max_bytes || self.query.limit == 0 {
                break more;
            }
            page = self.page().await.map_err(ListError::Store)?;
        };
        let next = self.query.after.filter(|_| more).map_or("null".to_owned(), |mark| format!("\"{mark}\""));
        let truncated = more && self.query.limit > 0;
        // Read at the end, so that it covers what was deleted while the answer was written.
        let store = self.reader.complete_from(&self.query.app, false).await.map_err(ListError::Store)?;
        let from = store.max(self.complete_from).map(utc);
        let from = from.map_or(String::new(), |time| format!(",\"complete_from\":\"{time}\""));
        chunk.extend_from_slice(format!("],\"truncated\":{truncated},\"next\":{next}{from}}}").as_bytes());
        send(sender, &mut chunk).await
    }

    fn append(&mut self, listed: &ListedEvent, chunk: &mut Vec<u8>) {
        if self.events > 0 {
            chunk.push(b',');
        }
        let before = chunk.len();
        listed.row.write_json(chunk);
        self.bytes += (chunk.len() - before) as u64;
        self.events += 1;
        self.query.limit -= 1;
        self.query.after = Some(listed.sort_key());
    }
}

async fn send(sender: &mpsc::Sender<Chunk>, chunk: &mut Vec<u8>) -> Result<(), ListError> {
    let full = std::mem::replace(chunk, Vec::with_capacity(CHUNK_BYTES));
    sender.send(Ok(full.into())).await.map_err(|_| ListError::Client)
}
