//! One connection of a client: its requests, one after the other.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::message::Message;
use super::{Action, Mode, Protocol, State, kafka};

/// How often a held connection looks whether it is still to be held.
const LOOK: Duration = Duration::from_millis(20);
/// The longest that the server may be silent, so that a test does not hang for ever.
const SERVER_SILENCE: Duration = Duration::from_secs(300);

/// Serves the requests of one connection until it ends.
pub(super) fn serve(client: &TcpStream, state: &State) -> io::Result<()> {
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
        let answer = match state.decide(&request.head) {
            Action::Close => return Ok(()),
            Action::Hold => return hold(client, state),
            Action::Pass => ask(&request, state)?,
            Action::Delay(time) => {
                let answer = ask(&request, state)?;
                wait(time, state);
                answer
            }
            Action::CutAnswer => return ask(&request, state).map(drop),
            Action::CutRequest => return send_half(&request, state),
            Action::Duplicate => {
                ask(&request, state)?;
                ask(&request, state)?
            }
            Action::Instead(status) if state.protocol == Protocol::Http => own_answer(status),
            Action::Instead(_) => return Ok(()),
        };
        (&mut &*client).write_all(&answer.bytes)?;
        if request.last || answer.last {
            return Ok(());
        }
    }
}

/// Sends the request to the server on a new connection and reads the whole answer.
fn ask(request: &Message, state: &State) -> io::Result<Message> {
    let server = TcpStream::connect(state.target())?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(SERVER_SILENCE))?;
    // A server may answer before it has read the whole request, and close: the answer counts then.
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

/// Sends the head and one half of the body. The head is whole because half of one aborts chDB's ClickHouse.
fn send_half(request: &Message, state: &State) -> io::Result<()> {
    let server = TcpStream::connect(state.target())?;
    let half = request.body_at + (request.bytes.len() - request.body_at) / 2;
    (&mut &server).write_all(&request.bytes[..half])?;
    server.shutdown(Shutdown::Both)
}

/// Keeps the connection open and silent while the mode is the same and the client is there.
fn hold(client: &TcpStream, state: &State) -> io::Result<()> {
    client.set_read_timeout(Some(LOOK))?;
    let mut ignored = [0; 1024];
    while !state.is_ended() && state.faults().mode == Mode::Blackhole {
        match (&mut &*client).read(&mut ignored) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(time: Duration, state: &State) {
    let end = Instant::now() + time;
    while !state.is_ended() && Instant::now() < end {
        std::thread::sleep(LOOK.min(end.saturating_duration_since(Instant::now())));
    }
}

fn own_answer(status: u16) -> Message {
    let head = format!("HTTP/1.1 {status} Injected");
    let body = "injected by the proxy\n";
    let rest =
        format!("\r\ncontent-type: text/plain\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let bytes = format!("{head}{rest}").into_bytes();
    Message { body_at: bytes.len() - body.len(), bytes, head, last: false }
}
