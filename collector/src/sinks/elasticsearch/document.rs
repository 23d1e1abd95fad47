//! One event as a document. PURE.

use serde_json::value::RawValue;

use crate::record::{Event, Record};

/// What the events of one record have in common, as the end of a document: written once, copied for each.
pub(super) struct Shared {
    object: Vec<u8>,
    /// The same with the common properties as text.
    text: Vec<u8>,
}

impl Shared {
    pub(super) fn new(record: &Record<'_>) -> Self {
        let mut head = Vec::with_capacity(512);
        string(&mut head, ",\"app_key\":", &record.app_key);
        string(&mut head, ",\"batch_id\":", &record.batch_id);
        string(&mut head, ",\"install_id\":", &record.install_id);
        integer(&mut head, ",\"received_at\":", record.received_at);
        for (name, value) in record.context.fields() {
            if !value.is_empty() {
                head.extend_from_slice(b",\"");
                head.extend_from_slice(name.as_bytes());
                string(&mut head, "\":", value);
            }
        }
        let (mut object, mut text) = (head.clone(), head);
        raw(&mut object, ",\"common\":", record.common);
        raw_as_text(&mut text, ",\"common_json\":", record.common);
        object.extend_from_slice(b"}\n");
        text.extend_from_slice(b"}\n");
        Self { object, text }
    }
}

/// Appends the event as one line. What is unknown is left out, except for the fields that everybody may rely on. `as_text`:
/// the properties are only kept, as a text that the store does not look into.
pub(super) fn write(out: &mut Vec<u8>, shared: &Shared, event: &Event<'_>, position: u64, as_text: bool) {
    string(out, "{\"event_id\":", &event.event_id);
    string(out, ",\"theme\":", &event.theme);
    string(out, ",\"code\":", &event.code);
    integer(out, ",\"event_time\":", event.event_time);
    integer(out, ",\"ts\":", event.ts);
    integer(out, ",\"seq\":", event.seq);
    integer(out, ",\"position\":", position);
    string(out, ",\"user_id\":", &event.user_id);
    let texts = [
        (",\"boot\":", &event.boot),
        (",\"session_id\":", &event.session_id),
        (",\"page_path\":", &event.page_path),
        (",\"page_title\":", &event.page_title),
        (",\"page_referrer\":", &event.page_referrer),
    ];
    for (name, value) in texts {
        if !value.is_empty() {
            string(out, name, value);
        }
    }
    let numbers = [
        (",\"mono\":", event.mono),
        (",\"session_index\":", event.session_index),
        (",\"session_event\":", event.session_event),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            integer(out, name, value);
        }
    }
    if let Some(value) = event.page_enter_ts {
        integer(out, ",\"page_enter_ts\":", value);
    }
    if as_text {
        out.extend_from_slice(b",\"props\":{}");
        raw_as_text(out, ",\"props_json\":", event.props);
        out.extend_from_slice(&shared.text);
    } else {
        match event.props {
            Some(_) => raw(out, ",\"props\":", event.props),
            None => out.extend_from_slice(b",\"props\":{}"),
        }
        out.extend_from_slice(&shared.object);
    }
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

/// JSON as it came, on one line: a line break in JSON can only stand between tokens.
fn raw(out: &mut Vec<u8>, name: &str, value: Option<&RawValue>) {
    let Some(value) = value else { return };
    out.extend_from_slice(name.as_bytes());
    let start = out.len();
    out.extend_from_slice(value.get().as_bytes());
    for byte in &mut out[start..] {
        if *byte == b'\n' {
            *byte = b' ';
        }
    }
}

fn raw_as_text(out: &mut Vec<u8>, name: &str, value: Option<&RawValue>) {
    if let Some(value) = value {
        string(out, name, value.get());
    }
}
