//! Accepts connections, caps them in all and by client, runs TLS if configured, and lets requests finish when the
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
use crate::http::client::PeerAddress;
use crate::http::{AppState, ReloadableState};
use crate::limit::ClientKey;

/// Pause after an error of `accept`, such as too many open files.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Time in which a rejected client can read its answer.
const REJECT_TIMEOUT: Duration = Duration::from_secs(1);

/// `Retry-After` of a rejected connection, seconds.
const RETRY_AFTER: u64 = 2;

/// Largest number of connections to the listener for operators: some scrapers and some people. They are not counted
/// among the others, so that a full collector can still be observed.
const MAX_OPERATOR_CONNECTIONS: u64 = 64;

pub(super) struct Connections {
    state: Arc<AppState>,
    open: Arc<AtomicU64>,
    /// Cap of its own, instead of the configured limit.
    max_connections: Option<u64>,
    service: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
    certificate: Certificate,
    by_client: Arc<ConnectionsByClient>,
}

/// Open connections of each client. There are at most as many entries as connections.
#[derive(Default)]
struct ConnectionsByClient(Mutex<HashMap<ClientKey, u64>>);

impl ConnectionsByClient {
    /// Locks the counts. Ignores mutex poisoning: they are consistent even if a holder panicked.
    fn counts(&self) -> MutexGuard<'_, HashMap<ClientKey, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one connection of a client until it is dropped.
struct ClientPermit {
    client: ClientKey,
    by_client: Arc<ConnectionsByClient>,
}

impl ClientPermit {
    /// Returns a permit for one more connection of the client, or `None` if it has `max_connections` already.
    fn acquire(by_client: &Arc<ConnectionsByClient>, client: ClientKey, max_connections: u64) -> Option<Self> {
        let mut counts = by_client.counts();
        let count = counts.entry(client).or_default();
        if *count >= max_connections {
            return None;
        }
        *count += 1;
        Some(Self { client, by_client: Arc::clone(by_client) })
    }
}

impl Drop for ClientPermit {
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

/// Counts one connection until it is dropped.
struct ConnectionGuard {
    open: Arc<AtomicU64>,
    _permit: Option<ClientPermit>,
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn new(state: Arc<AppState>, app: Router, certificate: Certificate) -> Self {
        let open = Arc::clone(&state.connections);
        let (service, graceful) = (TowerToHyperService::new(app), GracefulShutdown::new());
        Self { state, open, max_connections: None, service, graceful, certificate, by_client: Arc::default() }
    }

    /// Creates the connections of the listener for operators.
    pub(super) fn for_operators(state: Arc<AppState>, app: Router, certificate: Certificate) -> Self {
        Self {
            open: Arc::default(),
            max_connections: Some(MAX_OPERATOR_CONNECTIONS),
            ..Self::new(state, app, certificate)
        }
    }

    /// Accepts connections; returns only with the task that runs it.
    pub(super) async fn accept_loop(&mut self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => self.admit(stream, from),
                // The client has disconnected already.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot take connections");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream, from: SocketAddr) {
        let live = self.state.current();
        let (guard, problem) = self.admit_client(&live, from.ip());
        if let Some(problem) = problem {
            self.state.telemetry.connections_rejected.inc();
            drop(guard);
            // With TLS an answer needs a handshake first, which costs more than a rejection is worth.
            if self.certificate.is_none() {
                tokio::spawn(tokio::time::timeout(REJECT_TIMEOUT, reject(stream, problem)));
            }
            return;
        }
        self.state.telemetry.connections.inc();
        // Answers are small and complete; Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        let stream = with_write_timeout(stream, &live.limits);
        let task = ConnectionTask {
            http: http_builder(&live.limits),
            service: self.service.clone(),
            watcher: self.graceful.watcher(),
            peer: PeerAddress(from.ip()),
            state: Arc::clone(&self.state),
            guard,
        };
        match &self.certificate {
            None => drop(tokio::spawn(task.serve(stream))),
            Some(certificate) => {
                let acceptor = TlsAcceptor::from(certificate.load_full());
                let limit = Duration::from_millis(live.limits.tls_handshake_timeout_ms);
                tokio::spawn(async move {
                    match tokio::time::timeout(limit, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => task.serve(stream).await,
                        Ok(Err(error)) => task.handshake_failed(&error.to_string()),
                        Err(_) => task.handshake_failed("it took too long"),
                    }
                });
            }
        }
    }

    /// Counts a connection. Returns its guard, and a problem if it exceeds a limit.
    fn admit_client(&self, live: &ReloadableState, address: IpAddr) -> (ConnectionGuard, Option<Problem>) {
        let limits = &live.limits;
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut guard = ConnectionGuard { open: Arc::clone(&self.open), _permit: None };
        if open >= self.max_connections.unwrap_or(limits.connections) {
            return (guard, Some(unavailable("too many connections are open already")));
        }
        // Operators have a listener and a limit of their own, and often one address.
        let max_connections = if self.max_connections.is_some() { 0 } else { limits.connections_per_ip };
        if max_connections > 0 && !live.proxies.iter().any(|proxy| proxy.contains(address)) {
            guard._permit = ClientPermit::acquire(&self.by_client, ClientKey::from(address), max_connections);
            if guard._permit.is_none() {
                let why = format!("your address has {max_connections} connections open already");
                return (guard, Some(Problem::new(ProblemCode::TooManyRequests, why)));
            }
        }
        (guard, None)
    }

    /// Lets every connection finish its request; stops waiting after `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            let open = self.open.load(Ordering::Relaxed);
            tracing::warn!(open, "some connections did not finish in time");
        }
    }
}

/// Returns an HTTP/1 server with the limits of request headers.
fn http_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.header_timeout_ms))
        .max_buf_size(usize::try_from(limits.max_header_bytes).unwrap_or(usize::MAX));
    builder
}

/// Adds a write timeout: an answer waits in memory until its client reads it.
fn with_write_timeout(stream: TcpStream, limits: &Limits) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(Duration::from_millis(limits.body_timeout_ms)));
    Box::pin(stream)
}

/// One connection with everything that serves it.
struct ConnectionTask {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    watcher: Watcher,
    peer: PeerAddress,
    state: Arc<AppState>,
    guard: ConnectionGuard,
}

impl ConnectionTask {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        let Self { http, service, watcher, peer, state: _, guard: _guard } = self;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await {
            tracing::debug!(%error, "a connection broke");
        }
    }

    fn handshake_failed(self, why: &str) {
        self.state.telemetry.handshake_failures.inc();
        tracing::debug!(why, peer = %self.peer.0, "a TLS handshake failed");
    }
}

/// Returns the response to a rejected connection. It is formatted here because no request of the connection is read.
fn rejection_response(problem: &Problem) -> String {
    let body = serde_json::to_string(problem).unwrap_or_default();
    let length = body.len();
    let (status, title) = problem.code.status_and_title();
    format!(
        "HTTP/1.1 {status} {title}\r\nconnection: close\r\nretry-after: {RETRY_AFTER}\r\n\
        content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn reject(mut stream: TcpStream, problem: Problem) {
    if stream.write_all(rejection_response(&problem).as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
        // Waits for the client to close: closing first, with its request unread, would reset the connection and lose
        // the answer.
        let mut rest = [0; 1024];
        while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await, Ok(1..)) {}
    }
}
