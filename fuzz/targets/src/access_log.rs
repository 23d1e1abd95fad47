//! Lines of web servers' access logs.

use subway_access_log::{Request, parse};

/// Parses any line. An accepted line can be written again and then means the same.
pub fn run(data: &[u8]) {
    let Ok(request) = parse(data) else { return };
    assert!((100..1000).contains(&request.status) && request.bytes < 1 << 53);
    assert!((0..=subway_protocol::limits::MAX_TIME_MS).contains(&request.time), "{}", request.time);
    assert!(!request.url.is_empty() && !request.method.is_empty());
    let _ = (request.path(), request.is_view());
    let again = parse(line(&request).as_bytes());
    assert_eq!(again.as_ref(), Ok(&request), "{}", line(&request));
}

/// Returns the request as a server would log it.
fn line(request: &Request) -> String {
    let instant = jiff::Timestamp::from_millisecond(request.time).unwrap();
    let quoted = |text: &str| {
        let escaped: String = text
            .chars()
            .map(|c| match c {
                '"' | '\\' => format!("\\{c}"),
                c if c.is_control() && u32::from(c) < 0x80 => format!("\\x{:02x}", u32::from(c)),
                c => c.to_string(),
            })
            .collect();
        format!("\"{escaped}\"")
    };
    let or_none = |text: &Option<String>| text.as_deref().map_or("\"-\"".to_owned(), quoted);
    format!(
        "{} - - [{}] {} {} {} {} {}",
        request.client,
        instant.strftime("%d/%b/%Y:%H:%M:%S +0000"),
        quoted(&format!("{} {} HTTP/1.1", request.method, request.url)),
        request.status,
        request.bytes,
        or_none(&request.referrer),
        or_none(&request.agent)
    )
}
