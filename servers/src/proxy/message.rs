//! HTTP/1.1 as far as a proxy needs it: where a message ends.

use std::io::{self, BufRead, Read};

/// Largest head; a larger one is not HTTP.
const MAX_HEAD_BYTES: usize = 256 * 1024;

/// One request or response, as received.
pub(super) struct Message {
    /// Head and body, byte for byte.
    pub(super) bytes: Vec<u8>,
    /// Head as text, without its last empty line.
    pub(super) head: String,
    /// Offset of the body in `bytes`.
    pub(super) body_at: usize,
    /// Whether the connection cannot carry another message after this one.
    pub(super) last: bool,
}

/// Length of a body.
enum Length {
    Bytes(u64),
    Chunked,
    UntilClose,
}

impl Message {
    /// Reads a whole request; `None` if the connection ends before it.
    pub(super) fn request(
        from: &mut impl BufRead,
        on_expect: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Option<Self>> {
        let Some(mut message) = Self::read_head(from)? else { return Ok(None) };
        if message.header("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            on_expect()?;
        }
        let length = message.length(Length::Bytes(0))?;
        message.read_body(from, length)?;
        Ok(Some(message))
    }

    /// Reads the whole response to a request with this head; interim responses (1xx) are skipped.
    pub(super) fn answer(from: &mut impl BufRead, request: &str) -> io::Result<Self> {
        loop {
            let mut message = Self::read_head(from)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = message.head.split(' ').nth(1).unwrap_or_default().to_owned();
            if status.starts_with('1') && status != "101" {
                continue;
            }
            let bodiless = request.starts_with("HEAD ") || status == "204" || status == "304";
            let length = if bodiless { Length::Bytes(0) } else { message.length(Length::UntilClose)? };
            message.read_body(from, length)?;
            return Ok(message);
        }
    }

    fn read_head(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let begin = bytes.len();
            from.take((MAX_HEAD_BYTES - begin) as u64).read_until(b'\n', &mut bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            if !bytes.ends_with(b"\n") || bytes.len() >= MAX_HEAD_BYTES {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the head of an HTTP message is cut or too long",
                ));
            }
            let line = &bytes[begin..];
            if line == b"\r\n" || line == b"\n" {
                break;
            }
        }
        let head = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        let mut message = Self { body_at: bytes.len(), bytes, head, last: false };
        let old = message.head.lines().next().unwrap_or_default().contains("HTTP/1.0");
        let connection = message.header("connection").unwrap_or_default().to_ascii_lowercase();
        message.last = connection.contains("close") || old && !connection.contains("keep-alive");
        Ok(Some(message))
    }

    /// Returns the value of a header; names are compared without case.
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn length(&self, without: Length) -> io::Result<Length> {
        if self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked")) {
            return Ok(Length::Chunked);
        }
        match self.header("content-length") {
            Some(text) => text.parse().map(Length::Bytes).map_err(|_| invalid("content-length is no number")),
            None => Ok(without),
        }
    }

    fn read_body(&mut self, from: &mut impl BufRead, length: Length) -> io::Result<()> {
        match length {
            Length::Bytes(count) => self.read_exactly(from, count),
            Length::UntilClose => {
                self.last = true;
                from.read_to_end(&mut self.bytes).map(drop)
            }
            Length::Chunked => loop {
                let begin = self.read_line(from)?;
                let line = String::from_utf8_lossy(&self.bytes[begin..]);
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk's size is no number"))?;
                if size > 0 {
                    self.read_exactly(from, size + 2)?;
                    continue;
                }
                // Skips trailers, up to an empty line.
                loop {
                    let begin = self.read_line(from)?;
                    if self.bytes[begin..].iter().all(u8::is_ascii_whitespace) {
                        return Ok(());
                    }
                }
            },
        }
    }

    fn read_exactly(&mut self, from: &mut impl BufRead, count: u64) -> io::Result<()> {
        let read = from.take(count).read_to_end(&mut self.bytes)?;
        if read as u64 == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Appends a line with its end. Returns its offset.
    fn read_line(&mut self, from: &mut impl BufRead) -> io::Result<usize> {
        let begin = self.bytes.len();
        from.take(MAX_HEAD_BYTES as u64).read_until(b'\n', &mut self.bytes)?;
        if self.bytes.ends_with(b"\n") { Ok(begin) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(mut wire: &[u8]) -> (Message, Vec<u8>) {
        let message = Message::request(&mut wire, || Ok(())).unwrap().unwrap();
        (message, wire.to_vec())
    }

    #[test]
    fn a_request_ends_where_its_content_length_says() {
        let (message, rest) = request(b"POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET /b");
        assert!(message.bytes.ends_with(b"\r\n\r\nabc"));
        assert_eq!(rest, b"GET /b");
        assert!(!message.last);
    }

    #[test]
    fn a_chunked_request_ends_after_its_last_chunk_and_trailers() {
        let wire = b"POST /a HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: 1\r\n\r\nGET";
        let (message, rest) = request(wire);
        assert_eq!(rest, b"GET");
        assert!(message.bytes.ends_with(b"T: 1\r\n\r\n"));
    }

    #[test]
    fn a_request_without_a_body_ends_with_its_head() {
        let (message, rest) = request(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nX");
        assert_eq!(rest, b"X");
        assert!(message.last);
    }

    #[test]
    fn a_cut_body_is_an_error_and_an_ended_connection_is_none() {
        let cut = &mut &b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"[..];
        assert!(Message::request(cut, || Ok(())).is_err());
        assert!(Message::request(&mut &b""[..], || Ok(())).unwrap().is_none());
    }

    #[test]
    fn interim_responses_are_skipped_and_no_length_ends_at_close() {
        let wire = &mut &b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nall of it"[..];
        let answer = Message::answer(wire, "POST / HTTP/1.1").unwrap();
        assert!(answer.bytes.ends_with(b"all of it") && answer.bytes.starts_with(b"HTTP/1.1 200"));
        assert!(answer.last);
        let wire = &mut &b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"[..];
        assert!(!Message::answer(wire, "HEAD / HTTP/1.1").unwrap().last);
    }
}
