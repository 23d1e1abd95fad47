//! Takes connections, caps them, and lets them finish when the collector drains.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::accept::unavailable;
use crate::http::Shared;
use crate::telemetry::Count;

/// How long to wait when the system has no more sockets to give.
const OUT_OF_SOCKETS: Duration = Duration::from_millis(100);

/// How long a connection that is turned away may take to hear so.
const TURN_AWAY: Duration = Duration::from_secs(1);

pub(super) struct Connections {
    shared: Arc<Shared>,
    service: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
    builder: http1::Builder,
}

/// Counts a connection as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn new(shared: Arc<Shared>, app: Router) -> Self {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_millis(shared.limits.head_ms))
            .max_buf_size(usize::try_from(shared.limits.head_bytes).unwrap_or(usize::MAX));
        Self { shared, service: TowerToHyperService::new(app), graceful: GracefulShutdown::new(), builder }
    }

    /// Takes connections for ever.
    pub(super) async fn take(&mut self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.admit(stream),
                // The client has gone already.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot take connections");
                    tokio::time::sleep(OUT_OF_SOCKETS).await;
                }
            }
        }
    }

    fn admit(&mut self, stream: TcpStream) {
        let open = self.shared.connections.fetch_add(1, Ordering::Relaxed);
        let guard = Open(Arc::clone(&self.shared));
        if open >= self.shared.limits.connections {
            self.shared.telemetry.add(Count::ConnectionsRefused, 1);
            drop(guard);
            tokio::spawn(tokio::time::timeout(TURN_AWAY, turn_away(stream)));
            return;
        }
        self.shared.telemetry.add(Count::Connections, 1);
        // Answers are small and complete; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let connection = self.builder.serve_connection(TokioIo::new(stream), self.service.clone());
        let connection = self.graceful.watch(connection);
        tokio::spawn(async move {
            let _guard = guard;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }

    /// Lets every connection finish the request it is in; gives up after `limit`.
    pub(super) async fn drain(self, limit: Duration) {
        if tokio::time::timeout(limit, self.graceful.shutdown()).await.is_err() {
            let open = self.shared.connections.load(Ordering::Relaxed);
            tracing::warn!(open, "some connections did not finish in time");
        }
    }
}

/// The answer to a connection beyond the cap, written by hand because no request of it is read.
fn too_many() -> String {
    let body = serde_json::to_string(&unavailable("too many connections are open already")).unwrap_or_default();
    let length = body.len();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\n\
        content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

async fn turn_away(mut stream: TcpStream) {
    if stream.write_all(too_many().as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
        // Until the client closes too: closing first with its request unread would take the answer away from it.
        let mut rest = [0; 1024];
        while matches!(tokio::io::AsyncReadExt::read(&mut stream, &mut rest).await, Ok(1..)) {}
    }
}
