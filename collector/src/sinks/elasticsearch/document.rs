//! One event as a document. PURE.

use crate::record::{Column, Context, Event, Record, Value};

/// What the events of one record have in common, as the end of a document: written once, copied for each.
pub(crate) struct Shared {
    object: Vec<u8>,
    /// The same with the common properties as text.
    text: Vec<u8>,
}

impl Shared {
    pub(crate) fn new(record: &Record<'_>) -> Self {
        let end = |as_text| {
            let mut out = Vec::with_capacity(512);
            known(&mut out, Record::COLUMNS, record.values(), as_text);
            known(&mut out, Context::COLUMNS, record.context.values(), as_text);
            out.extend_from_slice(b"}\n");
            out
        };
        Self { object: end(false), text: end(true) }
    }
}

/// Appends `,"name":value` for what is known. `as_text`: objects are only kept, as a text that the store does not look into,
/// under the name `name_json`.
fn known<'v>(out: &mut Vec<u8>, columns: &[Column], values: impl IntoIterator<Item = Value<'v>>, as_text: bool) {
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

/// Appends the event as one line. What is unknown is left out, except for the fields that everybody may rely on. `as_text`:
/// the properties are only kept, as a text that the store does not look into.
pub(crate) fn write(out: &mut Vec<u8>, shared: &Shared, event: &Event<'_>, position: u64, as_text: bool) {
    integer(out, "{\"position\":", position);
    known(out, Event::COLUMNS, event.values(), as_text);
    if event.user_id.is_empty() {
        out.extend_from_slice(b",\"user_id\":\"\"");
    }
    if as_text || event.props.get().is_none() {
        out.extend_from_slice(b",\"props\":{}");
    }
    out.extend_from_slice(if as_text { &shared.text } else { &shared.object });
}

/// A text as JSON after `name`.
pub(super) fn string(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(out, value);
}

pub(super) fn integer(out: &mut Vec<u8>, name: &str, value: impl serde::Serialize) {
    out.extend_from_slice(name.as_bytes());
    let _ = serde_json::to_writer(out, &value);
}
