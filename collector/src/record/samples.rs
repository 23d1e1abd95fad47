//! Sample record in which every column has a value, built from the declaration.

use serde_json::{Map, Value, json};

use super::{Column, ColumnKind, Context, Event, Record};

/// Returns a value that no other column has, as hostile as its kind allows.
fn value(column: &Column, number: usize) -> Value {
    match column.kind {
        ColumnKind::Text => json!(format!("{} \u{1f600}\"\\\n\u{0}é {number}", column.name)),
        ColumnKind::Keyword => json!(format!("{}é {number}", column.name)),
        ColumnKind::Uuid => json!(format!("0198c0de-0000-7000-8000-{number:012x}")),
        ColumnKind::Time | ColumnKind::NullableTime => json!(1_431_835_000_000i64 + number as i64),
        ColumnKind::Number | ColumnKind::NullableNumber => json!(9_007_199_254_740_000u64 + number as u64),
        ColumnKind::Flag => json!(true),
        ColumnKind::Object => json!({column.name: [number, null, {"a": "b"}]}),
    }
}

fn values(columns: &[Column], from: usize) -> Map<String, Value> {
    (from..).zip(columns).map(|(number, column)| (column.name.to_owned(), value(column, number))).collect()
}

/// Returns the JSON of a record with one event.
pub(crate) fn record() -> String {
    let mut record = values(Record::COLUMNS, 100);
    record.insert("context".into(), values(Context::COLUMNS, 200).into());
    record.insert("events".into(), json!([values(Event::COLUMNS, 300)]));
    Value::from(record).to_string()
}
