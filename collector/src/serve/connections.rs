//! Takes connections, caps them in all and by client, lets them speak TLS if configured, and lets them finish when the
//! collector drains.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use subway_protocol::codec::server::{Problem, ProblemCode};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::reload::Certificate;
use crate::accept::unavailable;
use crate::config::Limits;
use crate::http::client::Peer;
use crate::http::{Live, Shared};
use crate::limit::Origin;

/// How long to wait when the system has no more sockets to give.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// How long a connection that is turned away may take to hear so.
const TURN_AWAY: Duration = Duration::from_secs(1);

/// Seconds after which a connection that is turned away may try again.
const RETRY_AFTER: u64 = 2;

/// Connections to the listener for operators that may be open at once: some scrapers and some people. They do not count
/// among the others, so that a full collector can still be looked at.
const OPERATORS: u64 = 64;

pub(super) struct Connections {
    shared: Arc<Shared>,
    open: Arc<AtomicU64>,
    /// How many may be open, where that is not the configured limit.
    most: Option<u64>,
    service: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
    certificate: Certificate,
    by_client: Arc<ByClient>,
}

/// How many connections each client has open; never more entries than connections.
#[derive(Default)]
struct ByClient(Mutex<HashMap<Origin, u64>>);

impl ByClient {
    /// A poisoned lock guards counts, which are whole at every moment.
    fn counts(&self) -> MutexGuard<'_, HashMap<Origin, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection of a client as long as it lives.
struct Place {
    client: Origin,
    by_client: Arc<ByClient>,
}

impl Place {
    /// A place for one more connection of the client, if it may have `most`.
    fn take(by_client: &Arc<ByClient>, client: Origin, most: u64) -> Option<Self> {
        let mut counts = by_client.counts();
        let count = counts.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { client, by_client: Arc::clone(by_client) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.by_client.counts();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// Counts a connection as long as it lives.
struct Open {
    open: Arc<AtomicU64>,
    _place: Option<Place>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn new(shared: Arc<Shared>, app: Router, certificate: Certificate) -> Self {
        let open = Arc::clone(&shared.connections);
        let (service, graceful) = (TowerToHyperService::new(app), GracefulShutdown::new());
        Self { shared, open, most: None, service, graceful, certificate, by_client: Arc::default() }
    }

    /// Those of the listener for operators.
    pub(super) fn of_operators(shared: Arc<Shared>, app: Router, certificate: Certificate) -> Self {
        Self { open: Arc::default(), most: Some(OPERATORS), ..Self::new(shared, app, certificate) }
    }

    /// Takes connections for ever.
    pub(super) async fn take(&mut self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.admit(stream, from),
                // The client has gone already.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot take connections");
                    tokio::time::sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) {
        let live = self.shared.live();
        let (guard, refusal) = self.place(&live, from.ip());
        if let Some(refusal) = refusal {
            self.shared.telemetry.connections_rejected.inc();
            drop(guard);
            // Under TLS nothing can be said before the handshake, which would cost more than it is worth.
            if self.certificate.is_none() {
                tokio::spawn(tokio::time::timeout(TURN_AWAY, turn_away(stream, refusal)));
            }
            return;
        }
        self.shared.telemetry.connections.inc();
        // Answers are small and complete; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = impatient(stream, &live.limits);
        let serving = Serving {
            http: http(&live.limits),
            service: self.service.clone(),
            watcher: self.graceful.watcher(),
            peer: Peer(from.ip()),
            shared: Arc::clone(&self.shared),
            guard,
        };
        match &self.certificate {
            None => drop(tokio::spawn(serving.serve(stream))),
            Some(certificate) => {
                let acceptor = TlsAcceptor::from(certificate.load_full());
                let limit = Duration::from_millis(live.limits.tls_handshake_timeout_ms);
                tokio::spawn(async move {
                    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => serving.serve(stream).await,
                        Ok(Err(error)) => serving.no_handshake(&error.to_string()),
                        Err(_) => serving.no_handshake("it took too long"),
                    }
                });
            }
        }
    }

    /// A place for a connection, and why it has to go if there is none.
    fn place(&self, live: &Live, address: IpAddr) -> (Open, Option<Problem>) {
        let limits = &live.limits;
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut guard = Open { open: Arc::clone(&self.open), _place: None };
        if open >= self.most.unwrap_or(limits.connections) {
            return (guard, Some(unavailable("too many connections are open already")));
        }
        // Operators have a listener and a limit of their own, and often one address.
        let most = if self.most.is_some() { 0 } else { limits.connections_per_ip };
        if most > 0 && !live.proxies.iter().any(|proxy| proxy.contains(address)) {
            guard._place = Place::take(&self.by_client, Origin::from(address), most);
            if guard._place.is_none() {
                let why = format!("your address has {most} connections open already");
                return (guard, Some(Problem::new(ProblemCode::TooManyRequests, why)));
            }
        }
        (guard, None)
    }

    /// Lets every connection finish the request it is in; gives up after `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            let open = self.open.load(Ordering::Relaxed);
            tracing::warn!(open, "some connections did not finish in time");
        }
    }
}

/// HTTP with the limits of heads.
fn http(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX));
    builder
}

/// The stream, broken off when its client takes nothing of an answer for as long as a body may take to arrive: an answer
/// waits in memory until it is taken.
fn impatient(stream: TcpStream, limits: &Limits) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(limits.body_timeout_ms)));
    Box::pin(stream)
}

/// One connection and all it needs.
struct Serving {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
    peer: Peer,
    shared: Arc<Shared>,
    guard: Open,
}

impl Serving {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let Self { http, service, watcher, peer, shared: _, guard: _guard } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    fn no_handshake(self, why: &str) {
        self.shared.telemetry.handshake_failures.inc();
        tracing::debug!(why, peer = %self.peer.0, "a TLS handshake failed");
    }
}

/// The answer to a connection that is turned away, written by hand because no request of it is read.
fn answer(refusal: &Problem) -> String {
    let body = serde_json::to_string(refusal).unwrap_or_default();
    let length = body.len();
    let (_, status, title) = refusal.code.parts();
    format!(
        "HTTP/1.1 {status} {title}\r\nconnection: close\r\nretry-after: {RETRY_AFTER}\r\n\
        content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn turn_away(mut stream: TcpStream, refusal: Problem) {
    if stream.write_all(answer(&refusal).as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
        // Until the client closes too: closing first with its request unread would take the answer away from it.
        let mut rest = [0; 1024];
        while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await, Ok(1..)) {}
    }
}
