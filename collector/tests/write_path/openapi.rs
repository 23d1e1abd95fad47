//! docs/openapi.yaml names what the collector has, and nothing else.

use std::collections::BTreeSet;
use std::path::Path;

use subway_protocol::RejectReason;
use subway_protocol::codec::server::ProblemCode;

use super::support::{CollectorFixture, agent};

const TEXT: &str = include_str!("../../../docs/openapi.yaml");

/// The lines below the line `head`, as long as they are indented deeper than it.
fn below(head: &str) -> Vec<&'static str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut lines = TEXT.lines().skip_while(|line| *line != head);
    assert!(lines.next().is_some(), "{head}");
    lines.take_while(|line| line.is_empty() || indent(line) > indent(head)).collect()
}

/// The values of the `enum` of a schema.
fn values(schema: &str) -> BTreeSet<&'static str> {
    below(&format!("    {schema}:")).into_iter().filter_map(|line| line.strip_prefix("        - ")).collect()
}

/// (path, method) of every operation.
fn operations() -> Vec<(&'static str, &'static str)> {
    let mut path = "";
    let mut out = Vec::new();
    for line in below("paths:") {
        if let Some(name) = line.strip_prefix("  ").filter(|line| line.starts_with('/')) {
            path = name.trim_end_matches(':');
        } else if let Some(method) =
            line.strip_prefix("    ").filter(|line| !line.starts_with(' ') && line.ends_with(':'))
        {
            out.push((path, method.trim_end_matches(':')));
        }
    }
    out
}

#[test]
fn every_reason_and_every_problem_is_named() {
    assert_eq!(values("RejectReason"), RejectReason::ALL.iter().map(|reason| reason.as_str()).collect());
    assert_eq!(values("ProblemCode"), ProblemCode::ALL.iter().map(|code| code.as_str()).collect());
}

#[test]
fn every_address_of_the_router_is_named() {
    let mut routed = BTreeSet::new();
    for file in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http")).unwrap() {
        let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
        routed.extend(source.split(".route(\"").skip(1).map(|rest| rest.split('"').next().unwrap().replace("{*", "{")));
    }
    assert!(routed.len() >= 11, "{routed:?}");
    assert_eq!(operations().into_iter().map(|(path, _)| path.to_owned()).collect::<BTreeSet<_>>(), routed);
}

#[test]
fn every_operation_is_answered_by_the_running_collector() {
    let site = CollectorFixture::new("");
    let collector = site.start();
    for (path, method) in operations() {
        let real = path.replace("{key}", "demo").replace("{metric}", "pv").replace("{name}", "app.js");
        let request = ureq::http::Request::builder()
            .method(method.to_uppercase().as_str())
            .uri(format!("{}{real}", collector.url))
            .body(())
            .unwrap();
        let status = agent().run(request).unwrap().status().as_u16();
        assert!([200, 401].contains(&status), "{method} {path}: {status}");
    }
}
