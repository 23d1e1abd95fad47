//! One connection of a client: its requests in sequence.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::message::Message;
use super::{Action, Mode, Protocol, ProxyState, kafka};

/// Interval at which a held connection checks whether it is still to be held.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Longest silence of the server, so that a test does not hang for ever.
const SERVER_TIMEOUT: Duration = Duration::from_secs(300);

/// Serves the requests of one connection until it ends.
pub(super) fn serve(client: &TcpStream, state: &ProxyState) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut reader = BufReader::new(client);
    loop {
        let request = match state.protocol {
            Protocol::Http => {
                let go_on = || (&mut &*client).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
                Message::request(&mut reader, go_on)?
            }
            Protocol::Kafka => kafka::request(&mut reader)?,
        };
        let Some(request) = request else { return Ok(()) };
        state.requests.fetch_add(1, Ordering::SeqCst);
        state.bytes.fetch_add(request.bytes.len() as u64, Ordering::SeqCst);
        let answer = match state.next_action(&request.head) {
            Action::Close => return Ok(()),
            Action::Hold => return hold_open(client, state),
            Action::Pass => forward(&request, state)?,
            Action::Delay(time) => {
                let answer = forward(&request, state)?;
                wait(time, state);
                answer
            }
            Action::CutAnswer => return forward(&request, state).map(drop),
            Action::CutRequest => return send_half(&request, state),
            Action::Duplicate => {
                forward(&request, state)?;
                forward(&request, state)?
            }
            Action::Instead(status) if state.protocol == Protocol::Http => synthetic_response(status),
            Action::Instead(_) => return Ok(()),
        };
        (&mut &*client).write_all(&answer.bytes)?;
        if request.last || answer.last {
            return Ok(());
        }
    }
}

/// Forwards the request to the server on a new connection and reads the whole response.
fn forward(request: &Message, state: &ProxyState) -> io::Result<Message> {
    let server = TcpStream::connect(state.target())?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(SERVER_TIMEOUT))?;
    // A server can respond before it has read the whole request, and close; the response counts.
    let sent = (&mut &server).write_all(&request.bytes);
    let mut reader = BufReader::new(&server);
    let answer = match state.protocol {
        Protocol::Http => Message::answer(&mut reader, &request.head),
        Protocol::Kafka => kafka::answer(&mut reader),
    };
    match (sent, answer) {
        (_, Ok(answer)) => Ok(answer),
        (Err(error), Err(_)) | (Ok(()), Err(error)) => Err(error),
    }
}

/// Sends the head and half of the body. The head is complete, because half of one aborts chDB's ClickHouse.
fn send_half(request: &Message, state: &ProxyState) -> io::Result<()> {
    let server = TcpStream::connect(state.target())?;
    let half = request.body_at + (request.bytes.len() - request.body_at) / 2;
    (&mut &server).write_all(&request.bytes[..half])?;
    server.shutdown(Shutdown::Both)
}

/// Keeps the connection open and silent while the mode is unchanged and the client connected.
fn hold_open(client: &TcpStream, state: &ProxyState) -> io::Result<()> {
    client.set_read_timeout(Some(POLL_INTERVAL))?;
    let mut ignored = [0; 1024];
    while !state.is_stopped() && state.faults().mode == Mode::Blackhole {
        match (&mut &*client).read(&mut ignored) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(time: Duration, state: &ProxyState) {
    let end = Instant::now() + time;
    while !state.is_stopped() && Instant::now() < end {
        std::thread::sleep(POLL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}

fn synthetic_response(status: u16) -> Message {
    let head = format!("HTTP/1.1 {status} Injected");
    let body = "injected by the proxy\n";
    let rest =
        format!("\r\ncontent-type: text/plain\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let bytes = format!("{head}{rest}").into_bytes();
    Message { body_at: bytes.len() - body.len(), bytes, head, last: false }
}
