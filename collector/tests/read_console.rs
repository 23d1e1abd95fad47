//! The console as the built binary serves it.
#![allow(clippy::unwrap_used, reason = "a helper of tests fails the test")]

mod read_support;

use read_support::Collector;

#[test]
fn the_page_and_everything_it_loads_come_from_the_binary() {
    let collector = Collector::start();
    let page = collector.get_with("/", &[]);
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let loaded: Vec<&str> = page.text.split('"').filter(|text| text.starts_with("console/")).collect();
    assert!(loaded.len() >= 4, "{loaded:?}");
    for path in loaded {
        let file = collector.get_with(&format!("/{path}"), &[]);
        let expected = match path.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            _ => "image/svg+xml",
        };
        assert_eq!((file.status, file.header("content-type")), (200, Some(expected)), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert!(file.header("content-security-policy").unwrap().contains("frame-ancestors 'none'"));
    }
}

#[test]
fn an_unchanged_file_is_not_sent_again() {
    let collector = Collector::start();
    let first = collector.get_with("/console/app.js", &[]);
    let tag = first.header("etag").unwrap();
    let again = collector.get_with("/console/app.js", &[("if-none-match", tag)]);
    assert_eq!((again.status, again.text.as_str()), (304, ""));
    assert_eq!(collector.get_with("/console/app.js", &[("if-none-match", "\"other\"")]).status, 200);
}

#[test]
fn tests_and_other_files_are_not_served() {
    let collector = Collector::start();
    for path in [
        "/console/test/console.test.mjs",
        "/console/README.md",
        "/console/",
        "/console/%2e%2e/Cargo.toml",
        "/index.html",
    ] {
        let answer = collector.get_with(path, &[]);
        assert_eq!((answer.status, answer.header("content-type")), (404, Some("application/problem+json")), "{path}");
    }
}
