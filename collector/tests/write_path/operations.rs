//! docs/operations/12-reference.md says what the code says.

use std::collections::BTreeMap;

use subway_collector::config::Limits;

use super::support::CollectorFixture;

const TEXT: &str = include_str!("../../../docs/operations/12-reference.md");
const WIRE: &str = include_str!("../../../docs/protocol.md");

/// First and second cell of each row of the tables that begin with `header`.
fn table(text: &str, header: &str) -> BTreeMap<String, String> {
    let rows =
        text.lines().skip_while(|line| !line.starts_with(header)).skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|line| {
        let mut cells = line.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', ""));
        (cells.next().unwrap(), cells.next().unwrap())
    })
    .collect()
}

#[test]
fn every_limit_is_documented_with_its_default() {
    let mut stated = table(TEXT, "| limit | default |");
    stated.extend(table(WIRE, "| limit | default |"));
    let real: BTreeMap<String, String> =
        Limits::default().entries().into_iter().map(|(key, value)| (key.to_owned(), value.to_string())).collect();
    assert_eq!(stated, real);
}

#[test]
fn every_metric_is_documented_with_its_kind() {
    let site = CollectorFixture::new("");
    let page = site.start().get("/metrics", None).text;
    let heads = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let real: BTreeMap<String, String> = heads.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    assert_eq!(table(TEXT, "| metric | kind |"), real);
}
