//! Compares the columns in the docs with the declaration. `SUBWAY_UPDATE_DOCS=1 cargo test -p subway-collector columns`
//! writes them.

use std::path::{Path, PathBuf};

use super::{Column, ColumnKind, ColumnScope, all};

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Checks that the part of a page between two lines is `wanted`, or writes it.
fn part(page: &str, begin: &str, end: &str, wanted: &str) {
    let path = docs(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{page} has no {begin}"));
    let (part, after) = rest.split_once(end).unwrap();
    if std::env::var_os("SUBWAY_UPDATE_DOCS").is_some() && part != wanted {
        std::fs::write(&path, [before, begin, wanted, end, after].concat()).unwrap();
    } else {
        assert_eq!(part, wanted, "{page} after {begin}; SUBWAY_UPDATE_DOCS=1 writes it");
    }
}

fn clickhouse(column: &Column) -> &'static str {
    crate::sinks::clickhouse::type_name(column.kind)
}

#[test]
fn the_table_of_columns_is_the_declaration() {
    let mut table = String::from("| column | type | of | meaning |\n| --- | --- | --- | --- |\n");
    for column in all() {
        let of = match column.of {
            ColumnScope::Batch | ColumnScope::Context => "batch",
            ColumnScope::Event => "event",
        };
        table.push_str(&format!("| `{}` | {} | {of} | {} |\n", column.name, column.kind, column.doc.trim()));
    }
    part("columns.md", "<!-- columns -->\n", "<!-- end -->", &table);
}

#[test]
fn the_columns_of_a_reader_of_kafka_are_the_declaration() {
    let lines = |of: &dyn Fn(&Column) -> String| {
        let mut columns: Vec<String> = all().map(|column| format!("    {} {}", column.name, of(column))).collect();
        let last = columns.pop().unwrap();
        columns.into_iter().map(|line| line + ",\n").collect::<String>() + &last
    };
    // Times are numbers in the JSON; a dictionary matters only to a store.
    let plain = |column: &Column| match column.kind {
        ColumnKind::Time => "Int64".to_owned(),
        ColumnKind::NullableTime => "Nullable(Int64)".to_owned(),
        ColumnKind::Keyword => "String".to_owned(),
        _ => clickhouse(column).to_owned(),
    };
    let kept = lines(&|column| clickhouse(column).to_owned());
    part("scaling.md", "subway.ods_event\n(\n", ",\n    INDEX", &kept);
    part("scaling.md", "subway.kafka_event\n(\n", "\n)\n", &lines(&plain));
    let times: Vec<String> = all()
        .filter(|column| matches!(column.kind, ColumnKind::Time | ColumnKind::NullableTime))
        .map(|column| format!("    fromUnixTimestamp64Milli({0}, 'UTC') AS {0}", column.name))
        .collect();
    part("scaling.md", "SELECT * REPLACE (\n", ")\nFROM", &times.join(",\n"));
}

#[test]
fn the_columns_of_a_stored_event_in_the_open_api_are_the_declaration() {
    let schema = |column: &Column| match (column.name, column.kind) {
        ("theme", _) => "{$ref: '#/components/schemas/Theme'}".to_owned(),
        ("code", _) => "{$ref: '#/components/schemas/Code'}".to_owned(),
        (_, ColumnKind::Object) => "{$ref: '#/components/schemas/Properties'}".to_owned(),
        (_, kind) => {
            let form = match kind {
                ColumnKind::Uuid => "type: string, format: uuid",
                ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Object => "type: string",
                ColumnKind::Time | ColumnKind::Number => "type: integer",
                ColumnKind::NullableTime | ColumnKind::NullableNumber => "type: ['integer', 'null']",
                ColumnKind::Flag => "type: boolean",
            };
            format!("{{{form}, description: '{}'}}", column.doc.trim().replace('`', ""))
        }
    };
    let properties: String = all().map(|column| format!("        {}: {}\n", column.name, schema(column))).collect();
    let names: String = all().map(|column| format!("        - {}\n", column.name)).collect();
    let wanted = format!("{names}      properties:\n{properties}");
    part("openapi.yaml", "an unknown number null.\n      required:\n", "    # end of the stored event\n", &wanted);
}
