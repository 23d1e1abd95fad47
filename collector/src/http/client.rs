//! Client of a request: the address of the connection, or the one that a trusted proxy forwards.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Extensions, HeaderMap};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::AppState;
use super::problem::ProblemResponse;
use crate::config::Network;
use crate::limit::ClientKey;

/// Address of the connection of a request. An extension of the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddress(pub IpAddr);

impl PeerAddress {
    /// Returns the peer of a request, or the unspecified address if the request has none.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
    }
}

/// Returns the client of a request.
///
/// `X-Forwarded-For` is read from its end, which our own proxy wrote. Each address that is a trusted proxy vouches for
/// the one before it. What a client wrote itself is further to the front and is never reached.
pub(crate) fn client_key(peer: PeerAddress, headers: &HeaderMap, proxies: &[Network]) -> ClientKey {
    let trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    let mut client = peer.0;
    let lines: Vec<&str> = headers.get_all("x-forwarded-for").iter().filter_map(|line| line.to_str().ok()).collect();
    let mut hops = lines.iter().rev().flat_map(|line| line.rsplit(','));
    while trusted(client) {
        let Some(before) = hops.next().and_then(address) else { break };
        client = before;
    }
    ClientKey::from(client)
}

/// Parses an address as proxies write it, with or without port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

/// Middleware that refuses requests over the rate limit of their client. For requests without a body.
pub(super) async fn limit(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    match state.admit(&state.current(), PeerAddress::of(request.extensions()), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => ProblemResponse(problem).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn client(peer: &str, forwarded: &[&str]) -> ClientKey {
        let proxies = ["127.0.0.1/32", "10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", HeaderValue::from_str(line).unwrap());
        }
        client_key(PeerAddress(peer.parse().unwrap()), &headers, &proxies)
    }

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let at = |text: &str| ClientKey::from(text.parse::<IpAddr>().unwrap());
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
            ("127.0.0.1", &["203.0.113.9, 198.51.100.7, 10.2.3.4"], "198.51.100.7"),
            ("127.0.0.1", &["203.0.113.9", "198.51.100.7,10.2.3.4"], "198.51.100.7"),
            ("127.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("fd00::1", &["[2001:db8::1]:80"], "2001:db8::1"),
            ("fd00::1", &["[2001:db8::1]"], "2001:db8::1"),
            ("127.0.0.1", &["198.51.100.7, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["unknown, 10.0.0.9"], "10.0.0.9"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("::ffff:127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
        ] {
            assert_eq!(client(peer, forwarded), at(expected), "{peer} {forwarded:?}");
        }
    }
}
