//! The same events as OpenTelemetry log records: protobuf, gzip. The numbers are those of
//! `opentelemetry/proto/logs/v1/logs.proto`.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::load::{EVENTS, event, id};

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field that carries bytes: a text or a message.
fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// An attribute, which is a `KeyValue` with a text or an integer.
fn attribute(out: &mut Vec<u8>, number: u64, key: &str, value: &Value) {
    let (mut any, mut pair) = (Vec::new(), Vec::new());
    match value {
        Value::Number(n) => {
            any.push(3 << 3);
            varint(&mut any, n.as_u64().unwrap());
        }
        Value::String(text) => field(&mut any, 1, text.as_bytes()),
        other => field(&mut any, 1, other.to_string().as_bytes()),
    }
    field(&mut pair, 1, key.as_bytes());
    field(&mut pair, 2, &any);
    field(out, number, &pair);
}

/// A `LogRecord`: the properties are its body, the rest its attributes.
fn record(event: &Value) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend_from_slice(&(event["ts"].as_u64().unwrap() * 1_000_000).to_le_bytes());
    let mut body = Vec::new();
    field(&mut body, 1, event["props"].to_string().as_bytes());
    field(&mut out, 5, &body);
    for (key, value) in event.as_object().unwrap() {
        match value {
            _ if key == "ts" || key == "props" => {}
            Value::Object(parts) => {
                for (part, value) in parts {
                    attribute(&mut out, 6, &format!("{key}.{part}"), value);
                }
            }
            _ => attribute(&mut out, 6, key, value),
        }
    }
    out
}

/// `count` gzip bodies of 100 records each, the events of `load::bodies`.
pub(crate) fn bodies(count: usize) -> Vec<Vec<u8>> {
    (0..count as u64).map(body).collect()
}

fn body(batch: u64) -> Vec<u8> {
    let (mut resource, mut scope, mut logs, mut request) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let context = [
        ("batch_id", id(3, batch).to_string()),
        ("install_id", id(4, batch % 500).to_string()),
        ("app_version", "1.2.0".into()),
        ("sdk_name", "bench".into()),
        ("sdk_version", "1".into()),
        ("platform", "jd".into()),
        ("os", "iOS".into()),
        ("os_version", "17.1".into()),
        ("brand", "Apple".into()),
        ("network", "wifi".into()),
    ];
    for (key, value) in context {
        attribute(&mut resource, 1, key, &Value::String(value));
    }
    for at in 0..EVENTS {
        let event = serde_json::from_str(&event(batch * EVENTS as u64 + at as u64, at)).unwrap();
        field(&mut scope, 2, &record(&event));
    }
    field(&mut logs, 1, &resource);
    field(&mut logs, 2, &scope);
    field(&mut request, 1, &logs);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&request).unwrap();
    encoder.finish().unwrap()
}
