//! TCP proxy that injects faults between the collector and a store.

mod connection;
mod kafka;
mod message;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// The proxy. It parses HTTP/1.1, or Kafka's protocol ([`crate::Kafka::start_behind_proxy`]), well enough to separate
/// requests and to know when a response is complete. Connections of the client are kept alive; each request goes to the
/// server on a connection of its own.
///
/// Faults are switched at run time and apply to later requests. [`Proxy::refuse`], [`Proxy::blackhole`] and
/// [`Proxy::delay`] last until another is chosen. The counted ones ([`Proxy::cut_answers`], [`Proxy::cut_requests`],
/// [`Proxy::duplicate`], [`Proxy::answer_instead`]) end by themselves and take precedence over the lasting one.
pub struct Proxy {
    state: Arc<ProxyState>,
    addr: SocketAddr,
}

/// Protocol between client and server.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Kafka,
}

/// Lasting behaviour.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Blackhole,
    Delay(Duration),
}

/// Active faults.
struct Faults {
    mode: Mode,
    /// Restricts faults to requests whose head contains this.
    matching: String,
    cut_answers: u64,
    cut_requests: u64,
    duplicate: u64,
    /// Number of requests that the proxy answers itself, and the status.
    instead: (u64, u16),
}

/// Action for one request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Pass,
    Close,
    Hold,
    Delay(Duration),
    CutAnswer,
    CutRequest,
    Duplicate,
    Instead(u16),
}

struct ProxyState {
    protocol: Protocol,
    target: Mutex<SocketAddr>,
    faults: Mutex<Faults>,
    ended: AtomicBool,
    /// Open connections of clients, for [`Proxy::sever`].
    connections: Mutex<BTreeMap<u64, TcpStream>>,
    accepted: AtomicU64,
    requests: AtomicU64,
    injected: AtomicU64,
    bytes: AtomicU64,
}

impl ProxyState {
    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn target(&self) -> SocketAddr {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Returns the action for one request; uses up a counted fault.
    fn next_action(&self, head: &str) -> Action {
        let mut faults = self.faults();
        if !head.contains(&faults.matching) {
            return Action::Pass;
        }
        let action = faults.next();
        if action != Action::Pass {
            self.injected.fetch_add(1, Ordering::SeqCst);
        }
        action
    }
}

impl Faults {
    const NONE: Self = Self {
        mode: Mode::Pass,
        matching: String::new(),
        cut_answers: 0,
        cut_requests: 0,
        duplicate: 0,
        instead: (0, 0),
    };

    fn next(&mut self) -> Action {
        let counted = [
            (&mut self.cut_answers, Action::CutAnswer),
            (&mut self.cut_requests, Action::CutRequest),
            (&mut self.duplicate, Action::Duplicate),
            (&mut self.instead.0, Action::Instead(self.instead.1)),
        ];
        for (left, action) in counted {
            if *left > 0 {
                *left -= 1;
                return action;
            }
        }
        match self.mode {
            Mode::Pass => Action::Pass,
            Mode::Refuse => Action::Close,
            Mode::Blackhole => Action::Hold,
            Mode::Delay(time) => Action::Delay(time),
        }
    }
}

impl Proxy {
    /// Starts a proxy to a server on loopback, given as `127.0.0.1:PORT` or `http://127.0.0.1:PORT`.
    ///
    /// # Errors
    /// If the address is invalid, or no port is free.
    pub fn to(server: &str) -> Result<Self> {
        Self::start(Protocol::Http, address(server)?)
    }

    /// Starts a proxy to a Kafka broker, which must advertise the proxy's address.
    pub(crate) fn kafka(port: u16) -> Result<Self> {
        Self::start(Protocol::Kafka, (Ipv4Addr::LOCALHOST, port).into())
    }

    fn start(protocol: Protocol, target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port for the proxy")?;
        let addr = listener.local_addr()?;
        let state = Arc::new(ProxyState {
            protocol,
            target: Mutex::new(target),
            faults: Mutex::new(Faults::NONE),
            ended: AtomicBool::new(false),
            connections: Mutex::new(BTreeMap::new()),
            accepted: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        std::thread::Builder::new().name("proxy".to_owned()).spawn(move || accept(&listener, &shared))?;
        Ok(Self { state, addr })
    }

    /// Returns the address of the proxy.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the address as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Forwards later requests to another server.
    ///
    /// # Errors
    /// If the address is invalid.
    pub fn retarget(&self, server: &str) -> Result<()> {
        *self.state.target.lock().unwrap_or_else(PoisonError::into_inner) = address(server)?;
        Ok(())
    }

    /// Ends every fault, the counted ones too; the filter of [`Proxy::matching`] stays.
    pub fn pass(&self) {
        let mut faults = self.state.faults();
        *faults = Faults { matching: std::mem::take(&mut faults.matching), ..Faults::NONE };
    }

    /// Closes new connections at once, and old ones at their next request.
    pub fn refuse(&self) {
        self.state.faults().mode = Mode::Refuse;
    }

    /// Accepts requests and never responds; the server does not receive them. When the fault ends, the waiting
    /// connections are closed.
    pub fn blackhole(&self) {
        self.state.faults().mode = Mode::Blackhole;
    }

    /// Delays each response by this many milliseconds.
    pub fn delay(&self, milliseconds: u64) {
        self.state.faults().mode = Mode::Delay(Duration::from_millis(milliseconds));
    }

    /// Cuts the next `requests` responses: the server gets the whole request and responds, but the client's connection
    /// is closed before the first byte of the response. The store has the batch, and the client does not know.
    pub fn cut_answers(&self, requests: u64) {
        self.state.faults().cut_answers = requests;
    }

    /// Cuts the next `requests` requests: the server gets the head and half of the body, then both connections are
    /// closed.
    pub fn cut_requests(&self, requests: u64) {
        self.state.faults().cut_requests = requests;
    }

    /// Duplicates the next `requests` requests: the server gets the same bytes twice in sequence, and the client gets
    /// the second response.
    pub fn duplicate(&self, requests: u64) {
        self.state.faults().duplicate = requests;
    }

    /// Answers the next `requests` requests with this status and `Retry-After: 1`, as a load balancer in front of a
    /// store does. The server does not receive them. HTTP only: a Kafka client's connection is closed instead.
    pub fn answer_instead(&self, requests: u64, status: u16) {
        self.state.faults().instead = (requests, status);
    }

    /// Restricts faults to requests whose head contains this; empty means all of them. The head is the request line and
    /// the headers; in Kafka's protocol it is the kind of the request, such as `Produce v11`.
    pub fn matching(&self, substring: &str) {
        substring.clone_into(&mut self.state.faults().matching);
    }

    /// Closes every open connection of clients.
    pub fn sever(&self) {
        for stream in self.state.connections().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> u64 {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// Returns the number of complete requests from clients.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Returns the number of faults injected into requests.
    pub fn injected(&self) -> u64 {
        self.state.injected.load(Ordering::SeqCst)
    }

    /// Returns the number of counted faults that are still to come.
    pub fn outstanding(&self) -> u64 {
        let faults = self.state.faults();
        faults.cut_answers + faults.cut_requests + faults.duplicate + faults.instead.0
    }

    /// Returns the bytes of requests from clients, heads included.
    pub fn bytes(&self) -> u64 {
        self.state.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.sever();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.addr);
    }
}

fn address(server: &str) -> Result<SocketAddr> {
    let bare = server.trim_start_matches("http://").trim_end_matches('/').replace("localhost", "127.0.0.1");
    bare.parse().with_context(|| format!("`{server}` is not http://127.0.0.1:PORT"))
}

fn accept(listener: &TcpListener, state: &Arc<ProxyState>) {
    for stream in listener.incoming() {
        if state.is_stopped() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = state.accepted.fetch_add(1, Ordering::SeqCst);
        let refuses = {
            let faults = state.faults();
            faults.mode == Mode::Refuse && faults.matching.is_empty()
        };
        if refuses {
            continue;
        }
        let Ok(copy) = stream.try_clone() else { continue };
        state.connections().insert(number, copy);
        let shared = Arc::clone(state);
        let serve = move || {
            // An error is a closed connection, which the client notices too.
            let _ = connection::serve(&stream, &shared);
            let _ = stream.shutdown(Shutdown::Both);
            shared.connections().remove(&number);
        };
        if std::thread::Builder::new().name(format!("proxy-{number}")).spawn(serve).is_err() {
            state.connections().remove(&number);
        }
    }
}
