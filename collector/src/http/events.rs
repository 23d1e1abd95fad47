//! `GET /v1/apps/{key}/events`: the newest events, read from the store page by page and written as they are read, so that
//! an answer of any size takes the memory of a page.

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

use super::pairs;
use super::problem::Refusal;
use super::problem::{invalid, unreadable};
use super::{Shared, authorization, segments};
use crate::auth::App;
use crate::query::{EventsQuery, Filter, InvalidParameter, ListedEvent, Parameters, ReadError, Reader, SortKey, utc};

/// Events in one answer if the request does not say: some screens.
const EVENTS: usize = 100;

/// Most events in one answer. Whoever wants more goes on with `after`; whoever wants all exports.
const MOST_EVENTS: usize = 10_000;

/// Events asked of the store at first, and at least and at most later on, when it is known how large they are: pages of
/// about [`PAGE_BYTES`]. Whoever reads slowly holds one of them.
const FIRST_PAGE: u64 = 100;
const PAGE: RangeInclusive<u64> = 10..=1000;
const PAGE_BYTES: u64 = 1024 * 1024;

/// Bytes of the answer that are sent together, and how many such pieces wait for a client that is slow.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 2;

pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let key = segments(path)?;
    let live = shared.live();
    let app = live.keys.reader(&key, authorization(&headers))?;
    let query = query(app, &pairs(&uri)?).map_err(invalid)?;
    shared.read_barrier.wait().await;
    let list = List {
        reader: Arc::clone(&shared.reader),
        complete_from: shared.read_barrier.complete_from(),
        query,
        most_bytes: live.limits.answer_bytes,
        bytes: 0,
        events: 0,
    };
    // Read before the answer begins: what is wrong with the store can still be said.
    let first = list.page().await.map_err(unreadable)?;
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::spawn(list.write(first, sender));
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::new(Pieces(pieces))).into_response())
}

type Piece = Result<Bytes, io::Error>;

/// A body that somebody else writes; an error breaks the connection off.
struct Pieces(mpsc::Receiver<Piece>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

pub(crate) fn query(app: &App, pairs: &[(String, String)]) -> Result<EventsQuery, InvalidParameter> {
    let known = ["from", "to", "code", "theme", "install_id", "user_id", "after", "limit"];
    let parameters = Parameters::new(pairs, &known)?;
    let limit = match parameters.get("limit") {
        None => EVENTS,
        Some(text) => {
            let number = text.parse::<u64>().ok().filter(|number| *number > 0).ok_or_else(|| {
                InvalidParameter::new("limit", format!("The limit is a number from 1 to {}.", MOST_EVENTS), text)
            })?;
            let over = || {
                InvalidParameter::limit_exceeded("limit", "Go on with after, or export.", MOST_EVENTS as u64, number)
            };
            usize::try_from(number).ok().filter(|number| *number <= MOST_EVENTS).ok_or_else(over)?
        }
    };
    let mark = |text: &str| {
        text.parse::<SortKey>()
            .map_err(|_| InvalidParameter::new("after", "It is the `next` of an earlier answer.", text))
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

/// An answer that is being written.
struct List {
    reader: Arc<dyn Reader>,
    /// What the store never got arrived before this time, milliseconds since the epoch.
    complete_from: Option<i64>,
    /// The place in the list, and how many events may still come.
    query: EventsQuery,
    /// Bytes of events that it may have.
    most_bytes: u64,
    /// Bytes and number of those that it has.
    bytes: u64,
    events: u64,
}

/// Some events of the list.
struct Page {
    rows: Vec<ListedEvent>,
    /// As many as were asked for: there may be more.
    full: bool,
}

/// Why an answer ends before its last bracket.
enum Broken {
    /// The client has gone.
    Client,
    Store(ReadError),
}

impl List {
    async fn page(&self) -> Result<Page, ReadError> {
        let average = self.bytes.checked_div(self.events).map(|average| average.max(1));
        let events = average.map_or(FIRST_PAGE, |average| (PAGE_BYTES / average).clamp(*PAGE.start(), *PAGE.end()));
        let limit = self.query.limit.min(usize::try_from(events).unwrap_or(usize::MAX));
        let rows = self.reader.newest(EventsQuery { limit, ..self.query.clone() }).await?;
        Ok(Page { full: rows.len() == limit, rows })
    }

    /// Writes the answer. One that cannot be finished is broken off, so that nobody takes it for a whole one.
    async fn write(mut self, first: Page, sender: mpsc::Sender<Piece>) {
        let why = match self.write_all(first, &sender).await {
            Ok(()) | Err(Broken::Client) => return,
            Err(Broken::Store(error)) => error.to_string(),
        };
        tracing::warn!(why, "a list of events was broken off");
        let _ = sender.send(Err(io::Error::other(why))).await;
    }

    async fn write_all(&mut self, first: Page, sender: &mpsc::Sender<Piece>) -> Result<(), Broken> {
        let mut piece = br#"{"events":["#.to_vec();
        let mut page = first;
        let more = loop {
            let mut rows = page.rows.into_iter();
            for listed in rows.by_ref() {
                self.append(&listed, &mut piece);
                if piece.len() >= PIECE_BYTES {
                    send(sender, &mut piece).await?;
                }
                if self.bytes >= self.most_bytes {
                    break;
                }
            }
            let more = page.full || rows.len() > 0;
            if !more || self.bytes >= self.most_bytes || self.query.limit == 0 {
                break more;
            }
            page = self.page().await.map_err(Broken::Store)?;
        };
        let next = self.query.after.filter(|_| more).map_or("null".to_owned(), |mark| format!("\"{mark}\""));
        let truncated = more && self.query.limit > 0;
        // Asked at the end: what was deleted while the answer was written is said.
        let store = self.reader.complete_from(&self.query.app, false).await.map_err(Broken::Store)?;
        let from = store.max(self.complete_from).map(utc);
        let from = from.map_or(String::new(), |time| format!(",\"complete_from\":\"{time}\""));
        piece.extend_from_slice(format!("],\"truncated\":{truncated},\"next\":{next}{from}}}").as_bytes());
        send(sender, &mut piece).await
    }

    fn append(&mut self, listed: &ListedEvent, piece: &mut Vec<u8>) {
        if self.events > 0 {
            piece.push(b',');
        }
        let before = piece.len();
        listed.row.write_json(piece);
        self.bytes += (piece.len() - before) as u64;
        self.events += 1;
        self.query.limit -= 1;
        self.query.after = Some(listed.sort_key());
    }
}

async fn send(sender: &mpsc::Sender<Piece>, piece: &mut Vec<u8>) -> Result<(), Broken> {
    let full = std::mem::replace(piece, Vec::with_capacity(PIECE_BYTES));
    sender.send(Ok(full.into())).await.map_err(|_| Broken::Client)
}
