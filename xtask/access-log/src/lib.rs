//! One line of an access log in the common or combined format, read strictly: what does not fit is refused with a
//! reason, never guessed (<https://httpd.apache.org/docs/2.4/mod/mod_log_config.html>).
//!
//! ```text
//! CLIENT IDENT USER [17/May/2015:10:05:03 +0000] "GET /path?query HTTP/1.1" STATUS BYTES "REFERRER" "AGENT"
//! ```
//!
//! * The common format ends after BYTES. Fields after AGENT, which servers are often configured to add, are ignored.
//! * In quotes `\"`, `\\`, `\n`, `\t`, .. and `\xhh` are escapes. Bytes that are no UTF-8 become U+FFFD.
//! * `-` means none; as BYTES it means 0, as the format's definition says (`%b`).

use std::net::IpAddr;

use jiff::civil::DateTime;
use jiff::tz::Offset;

/// One request as the log tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The client's address, in canonical form if it is an IP address.
    pub client: String,
    /// Milliseconds since the epoch.
    pub time: i64,
    /// The method as sent: a token, not necessarily one of HTTP's.
    pub method: String,
    /// The request target as sent: usually a path with query, sometimes a whole address.
    pub url: String,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Where the request came from.
    pub referrer: Option<String>,
    /// What sent it.
    pub agent: Option<String>,
}

/// Reads one line without its line ending.
///
/// # Errors
/// Half a sentence: what is missing or has another form.
pub fn parse(line: &[u8]) -> Result<Request, &'static str> {
    let mut rest = Cursor { line };
    let client = rest.word().ok_or("no client")?;
    let _ident = rest.word().ok_or("no ident after the client")?;
    let _user = rest.word().ok_or("no user before the time")?;
    let time = parse_time(rest.bracketed().ok_or("no [time] as the fourth field")?)?;
    let request = rest.quoted().ok_or("no \"request\" after the time")?;
    let (method, url) = parse_request(&request)?;
    let status = parse_status(rest.word().ok_or("no status after the request")?)?;
    let bytes = parse_bytes(rest.word().ok_or("no size after the status")?)?;
    let referrer = rest.optional_quoted("a referrer without an end")?;
    let agent = rest.optional_quoted("a user agent without an end")?;
    Ok(Request { client: canonical(client), time, method, url, status, bytes, referrer, agent })
}

/// Takes fields off the front of a line.
struct Cursor<'a> {
    line: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_spaces(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.line {
            self.line = rest;
        }
    }

    /// The next field without quotes or brackets, up to a space.
    fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_spaces();
        if matches!(self.line, [] | [b'"' | b'[', ..]) {
            return None;
        }
        let end = self.line.iter().position(|c| matches!(c, b' ' | b'\t')).unwrap_or(self.line.len());
        let (word, rest) = self.line.split_at(end);
        self.line = rest;
        Some(word)
    }

    fn bracketed(&mut self) -> Option<&'a [u8]> {
        self.skip_spaces();
        let inner = self.line.strip_prefix(b"[")?;
        let end = inner.iter().position(|c| *c == b']')?;
        self.line = &inner[end + 1..];
        Some(&inner[..end])
    }

    /// The next field if it is in quotes, its escapes resolved.
    fn quoted(&mut self) -> Option<String> {
        self.skip_spaces();
        let mut rest = self.line.strip_prefix(b"\"")?;
        let mut out = Vec::new();
        loop {
            match rest {
                [] => return None,
                [b'"', after @ ..] => {
                    self.line = after;
                    return Some(text(out));
                }
                [b'\\', escape @ ..] if !escape.is_empty() => rest = unescape(escape, &mut out),
                [c, after @ ..] => {
                    out.push(*c);
                    rest = after;
                }
            }
        }
    }

    /// A quoted field that may be missing; `-` and nothing at all are none.
    fn optional_quoted(&mut self, broken: &'static str) -> Result<Option<String>, &'static str> {
        self.skip_spaces();
        if !self.line.starts_with(b"\"") {
            return Ok(None);
        }
        let value = self.quoted().ok_or(broken)?;
        Ok(Some(value).filter(|value| !matches!(value.as_str(), "" | "-")))
    }
}

/// Resolves one escape, given what follows the backslash (not empty). Returns what follows the escape.
fn unescape<'a>(escape: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let hex = |c: u8| char::from(c).to_digit(16).map(|digit| digit as u8);
    if let [b'x', high, low, rest @ ..] = escape
        && let (Some(high), Some(low)) = (hex(*high), hex(*low))
    {
        out.push(high << 4 | low);
        return rest;
    }
    match escape[0] {
        c @ (b'"' | b'\\') => out.push(c),
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'r' => out.push(b'\r'),
        b'b' => out.push(8),
        b'f' => out.push(12),
        b'v' => out.push(11),
        // No escape that any server writes: the backslash stands for itself.
        c => out.extend([b'\\', c]),
    }
    &escape[1..]
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// Two spellings of one address are one client.
fn canonical(client: &[u8]) -> String {
    let client = String::from_utf8_lossy(client);
    client.parse::<IpAddr>().map_or_else(|_| client.clone().into_owned(), |address| address.to_string())
}

/// `17/May/2015:10:05:03 +0000` to milliseconds since the epoch.
fn parse_time(field: &[u8]) -> Result<i64, &'static str> {
    const BAD: &str = "the time is not like 17/May/2015:10:05:03 +0000";
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let field = std::str::from_utf8(field).map_err(|_| BAD)?;
    let bytes = field.as_bytes();
    let shape = b"dd/mmm/dddd:dd:dd:dd sdddd";
    let fits = bytes.len() == shape.len()
        && bytes.iter().zip(shape).all(|(c, kind)| match kind {
            b'd' => c.is_ascii_digit(),
            b'm' => c.is_ascii_alphabetic(),
            b's' => matches!(c, b'+' | b'-'),
            other => c == other,
        });
    if !fits {
        return Err(BAD);
    }
    let number = |from: usize, to: usize| bytes[from..to].iter().fold(0i16, |n, c| n * 10 + i16::from(c - b'0'));
    let small = |from: usize| number(from, from + 2) as i8;
    let month = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(&field[3..6])).ok_or(BAD)? as i8 + 1;
    // A leap second, which no calendar here knows, is the second after 59.
    let (second, leap) = if small(18) == 60 { (59, 1) } else { (small(18), 0) };
    let local = DateTime::new(number(7, 11), month, small(0), small(12), small(15), second, 0)
        .map_err(|_| "the time is on no calendar")?;
    let (hours, minutes) = (i32::from(small(22)), i32::from(small(24)));
    if minutes > 59 {
        return Err("the time zone is on no map");
    }
    let sign = if bytes[21] == b'-' { -1 } else { 1 };
    let offset =
        Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).map_err(|_| "the time zone is on no map")?;
    let millis = offset.to_timestamp(local).map_err(|_| BAD)?.as_millisecond() + leap * 1000;
    if millis < 0 { Err("the time is before 1970") } else { Ok(millis) }
}

/// `GET /path HTTP/1.1`; the version is absent in HTTP/0.9.
fn parse_request(request: &str) -> Result<(String, String), &'static str> {
    const BAD: &str = "the request is not METHOD URL VERSION";
    let (method, rest) = request.split_once(' ').ok_or(BAD)?;
    let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(BAD);
    }
    let url = match rest.rsplit_once(' ') {
        Some((url, version)) if version.starts_with("HTTP/") => url,
        _ => rest,
    };
    let url = url.trim();
    if url.is_empty() { Err(BAD) } else { Ok((method.to_owned(), url.to_owned())) }
}

fn parse_status(field: &[u8]) -> Result<u16, &'static str> {
    let digits = field.len() == 3 && field.iter().all(u8::is_ascii_digit);
    let status = std::str::from_utf8(field).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    status.filter(|status| *status >= 100).ok_or("the status is not three digits")
}

fn parse_bytes(field: &[u8]) -> Result<u64, &'static str> {
    if field == b"-" {
        return Ok(0);
    }
    let digits = field.iter().all(u8::is_ascii_digit);
    let bytes = std::str::from_utf8(field).ok().filter(|_| digits).and_then(|text| text.parse().ok());
    // Beyond 2^53 a number is not the same number everywhere.
    bytes.filter(|bytes| *bytes < 1 << 53).ok_or("the size is neither a number nor -")
}

impl Request {
    /// The path without query: of `/a?b`, of `http://host/a?b`, of `http://host`.
    #[must_use]
    pub fn path(&self) -> &str {
        let target = self.url.split('?').next().unwrap_or_default();
        match target.split_once("://") {
            Some((scheme, rest)) if scheme.bytes().all(|c| c.is_ascii_alphabetic()) && !scheme.is_empty() => {
                rest.find('/').map_or("/", |at| &rest[at..])
            }
            _ => target,
        }
    }

    /// Whether this was a page being shown: see the contract's section 6.
    #[must_use]
    pub fn is_view(&self) -> bool {
        const NO_PAGES: [&str; 24] = [
            ".css", ".js", ".png", ".jpg", ".jpeg", ".gif", ".ico", ".svg", ".woff", ".ttf", ".txt", ".xml", ".pdf",
            ".zip", ".gz", ".tar", ".rpm", ".exe", ".mp4", ".iso", ".patch", ".diff", ".jar", ".sh",
        ];
        let path = self.path().to_ascii_lowercase();
        self.method == "GET"
            && matches!(self.status, 200 | 304)
            && !NO_PAGES.iter().any(|ending| path.ends_with(ending))
    }
}

#[cfg(test)]
mod tests;
