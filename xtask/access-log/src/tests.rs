use super::{Request, parse};

const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) Chrome/32.0";

fn ok(line: &str) -> Request {
    parse(line.as_bytes()).unwrap_or_else(|why| panic!("{why}: {line}"))
}

fn refused(line: &str) -> &'static str {
    match parse(line.as_bytes()) {
        Ok(request) => panic!("accepted: {line} as {request:?}"),
        Err(why) => why,
    }
}

/// A line whose request field is this.
fn with_request(request: &str) -> String {
    format!("1.2.3.4 - - [17/May/2015:10:05:03 +0000] \"{request}\" 200 1 \"-\" \"-\"")
}

fn with_time(time: &str) -> String {
    format!("1.2.3.4 - - [{time}] \"GET / HTTP/1.1\" 200 1")
}

#[test]
fn a_combined_line_is_read_field_by_field() {
    let line = format!(
        r#"83.149.9.216 - frank [17/May/2015:10:05:03 +0000] "GET /a/b?c=d HTTP/1.1" 304 203023 "http://r.example/x?y" "{AGENT}""#
    );
    let expected = Request {
        client: "83.149.9.216".into(),
        time: 1_431_857_103_000,
        method: "GET".into(),
        url: "/a/b?c=d".into(),
        status: 304,
        bytes: 203_023,
        referrer: Some("http://r.example/x?y".into()),
        agent: Some(AGENT.into()),
    };
    assert_eq!(ok(&line), expected);
    assert_eq!(expected.path(), "/a/b");
}

#[test]
fn the_common_format_and_absent_fields_are_read() {
    let common = ok(r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 -"#);
    assert_eq!((common.bytes, &common.referrer, &common.agent), (0, &None, &None));
    let dashes = ok(r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 5 "-" """#);
    assert_eq!((&dashes.referrer, &dashes.agent), (&None, &None));
    let more = ok(r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.0" 200 5 "r" "a" 0.003 "x""#);
    assert_eq!((more.referrer.as_deref(), more.agent.as_deref()), (Some("r"), Some("a")));
}

#[test]
fn escapes_in_quotes_are_resolved() {
    let line = r#"1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET /\"q\"\\\x41\xe4\q HTTP/1.1" 200 5 "a \" b" "c\\" "#;
    let request = ok(line);
    assert_eq!(request.url, "/\"q\"\\A\u{fffd}\\q");
    assert_eq!((request.referrer.as_deref(), request.agent.as_deref()), (Some("a \" b"), Some("c\\")));
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    let mut line = with_request("GET /X HTTP/1.1").into_bytes();
    let at = line.iter().position(|c| *c == b'X').unwrap();
    line[at] = 0xff;
    assert_eq!(parse(&line).unwrap().url, "/\u{fffd}");
}

#[test]
fn clients_are_addresses_in_one_spelling_or_names() {
    let client = |text: &str| ok(&with_time("17/May/2015:10:05:03 +0000").replacen("1.2.3.4", text, 1)).client;
    assert_eq!(client("2001:DB8:0:0::1"), "2001:db8::1");
    assert_eq!(client("::1"), "::1");
    assert_eq!(client("crawler.example"), "crawler.example");
}

#[test]
fn times_count_their_own_zone() {
    assert_eq!(ok(&with_time("17/May/2015:10:05:03 +0000")).time, 1_431_857_103_000);
    assert_eq!(ok(&with_time("17/May/2015:18:05:03 +0800")).time, 1_431_857_103_000);
    assert_eq!(ok(&with_time("17/May/2015:06:35:03 -0330")).time, 1_431_857_103_000);
    assert_eq!(ok(&with_time("29/Feb/2016:00:00:00 +0000")).time, 1_456_704_000_000);
    assert_eq!(ok(&with_time("30/Jun/2015:23:59:60 +0000")).time, 1_435_708_800_000);
    for bad in [
        "29/Feb/2015:00:00:00 +0000",
        "17/Mai/2015:10:05:03 +0000",
        "17/May/2015:24:05:03 +0000",
        "17/May/2015:10:05:03",
        "17/May/2015:10:05:03 +00:00",
        "17/May/2015:10:05:03 +9900",
        "17/May/2015:10:05:03 +0099",
        "7/May/2015:10:05:03 +0000",
        "31/Dec/1969:23:59:59 +0000",
        "2015-05-17T10:05:03Z",
        "",
    ] {
        refused(&with_time(bad));
    }
}

#[test]
fn requests_have_a_method_and_a_target() {
    let parts = |request: &str| {
        let request = ok(&with_request(request));
        (request.method.clone(), request.url.clone(), request.path().to_owned())
    };
    let of = |method: &str, url: &str, path: &str| (method.to_owned(), url.to_owned(), path.to_owned());
    assert_eq!(parts("GET /old"), of("GET", "/old", "/old"));
    assert_eq!(parts("GET /a b HTTP/1.1"), of("GET", "/a b", "/a b"));
    assert_eq!(parts("GET http://h.example/p?q HTTP/1.1"), of("GET", "http://h.example/p?q", "/p"));
    assert_eq!(parts("GET http://h.example?q HTTP/1.1"), of("GET", "http://h.example?q", "/"));
    assert_eq!(parts("GET /r?u=http://h.example/p HTTP/1.1"), of("GET", "/r?u=http://h.example/p", "/r"));
    assert_eq!(parts("OPTIONS * HTTP/1.1"), of("OPTIONS", "*", "*"));
    for bad in ["-", "", "GET", "GET  HTTP/1.1", r"\x16\x03\x01 x", " / HTTP/1.1"] {
        refused(&with_request(bad));
    }
}

#[test]
fn other_lines_are_refused_with_the_reason() {
    assert_eq!(refused(""), "no client");
    assert_eq!(refused("hello"), "no ident after the client");
    assert_eq!(refused("# a comment of some length"), "no [time] as the fourth field");
    assert_eq!(
        refused(r#"www.example:80 1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 5"#),
        "no [time] as the fourth field",
        "a virtual host before the client would be taken for the client"
    );
    let whole = format!("{} \"r\" \"{AGENT}\"", with_time("17/May/2015:10:05:03 +0000"));
    let shortest = with_time("17/May/2015:10:05:03 +0000").len();
    for length in 0..whole.len() {
        let cut = parse(&whole.as_bytes()[..length]);
        let ends_with_a_field = length >= shortest && !whole[shortest..length].matches('"').count().is_multiple_of(2);
        assert!(length < shortest || cut.is_ok() != ends_with_a_field, "{length}: {cut:?}");
        assert!(length >= shortest || cut.is_err(), "{length}: {cut:?}");
    }
    for (from, to) in
        [(" 200 ", " 20 "), (" 200 ", " 2000 "), (" 200 ", " 099 "), (" 200 1", " 200 x"), (" 200 1", " 200 -1")]
    {
        refused(&with_time("17/May/2015:10:05:03 +0000").replace(from, to));
    }
}

#[test]
fn a_view_is_a_page_that_was_got() {
    let view =
        |request: &str, status: &str| ok(&with_request(request).replace("\" 200 ", &format!("\" {status} "))).is_view();
    assert!(view("GET /a HTTP/1.1", "200") && view("GET /a HTTP/1.1", "304"));
    assert!(view("GET /a.css?x HTTP/1.1", "200") != view("GET /a?x.css HTTP/1.1", "200"));
    assert!(
        view("GET /a.html HTTP/1.1", "200") && view("GET /ajs HTTP/1.1", "200") && view("GET /a.css/ HTTP/1.1", "200")
    );
    assert!(!view("GET /a.JPEG HTTP/1.1", "200") && !view("GET http://h/a.sh?x HTTP/1.1", "200"));
    assert!(!view("HEAD /a HTTP/1.1", "200") && !view("get /a HTTP/1.1", "200") && !view("GET /a HTTP/1.1", "206"));
}
