//! Encodes an event as a document. PURE.

use crate::record::{Column, Context, Event, Record, Value};

/// Encoded fields that the events of one record share, as the end of a document. Encoded once and copied for each
/// event.
pub(crate) struct SharedFields {
    object: Vec<u8>,
    /// The same, with the common properties as text.
    text: Vec<u8>,
}

impl SharedFields {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let end = |as_text| {
            let mut out = Vec::with_capacity(512);
            write_known(&mut out, Record::COLUMNS, record.values(), as_text);
            write_known(&mut out, Context::COLUMNS, record.context.values(), as_text);
            out.extend_from_slice(b"}\n");
            out
        };
        Self { object: end(false), text: end(true) }
    }
}

/// Appends `,"name":value` for each value that is present.
///
/// With `as_text` objects are appended under the name `name_json`, as a text that the store does not index.
fn write_known<'v>(out: &mut Vec<u8>, columns: &[Column], values: impl IntoIterator<Item = Value<'v>>, as_text: bool) {
    for (column, value) in columns.iter().zip(values) {
        match value {
            Value::Object(Some(object)) if as_text => {
                out.extend_from_slice(b",\"");
                out.extend_from_slice(column.name.as_bytes());
                string(out, "_json\":", object.get());
            }
            value if value.is_absent() => {}
            value => {
                out.push(b',');
                out.extend_from_slice(column.member.as_bytes());
                value.write_json(out);
            }
        }
    }
}

/// Appends the event as one line. Absent values are left out, except for fields that are always present.
///
/// With `as_text` the properties are a text that the store does not index.
pub(crate) fn write(out: &mut Vec<u8>, shared: &SharedFields, event: &Event<'_>, position: u64, as_text: bool) {
    integer(out, "{\"position\":", position);
    write_known(out, Event::COLUMNS, event.values(), as_text);
    if event.user_id.is_empty() {
        out.extend_from_slice(b",\"user_id\":\"\"");
    }
    if as_text || event.props.get().is_none() {
        out.extend_from_slice(b",\"props\":{}");
    }
    out.extend_from_slice(if as_text { &shared.text } else { &shared.object });
}

/// Appends `name` and a text as JSON.
pub(super) fn string(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

pub(super) fn integer(out: &mut Vec<u8>, name: &str, value: impl serde::Serialize) {
    out.extend_from_slice(name.as_bytes());
    let _ = serde_json::to_writer(out, &value);
}
