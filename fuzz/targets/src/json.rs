//! Compares the JSON code shared by SDK and collector with serde_json.

use std::io::Read;

use serde_json::Value;
use serde_json::value::RawValue;
use subway_protocol::codec::receipt::Receipt;
use subway_protocol::codec::server::WireText;
use subway_protocol::json::{JsonError, PropertyLimits, Reader, check_object};
use subway_protocol::{Actual, Id, RejectReason};

/// Deepest tree that this crate's recursive functions process.
const MAX_DEPTH: usize = 200;

/// Measures of a tree of properties.
#[derive(Default)]
struct Measure {
    depth: u64,
    members: u64,
    key_bytes: u64,
}

/// Measures one value with the SDK's pull reader.
fn walk(reader: &mut Reader<'_>, depth: u64, found: &mut Measure) -> Result<(), JsonError> {
    found.depth = found.depth.max(depth);
    let mut own = 0;
    reader.object(|name, reader| {
        own += 1;
        found.key_bytes = found.key_bytes.max(name.len() as u64);
        value(reader, depth, found)
    })?;
    found.members = found.members.max(own);
    Ok(())
}

fn value(reader: &mut Reader<'_>, depth: u64, found: &mut Measure) -> Result<(), JsonError> {
    let text = reader.raw()?;
    if text.starts_with('{') {
        return walk(&mut Reader::new(text), depth + 1, found);
    }
    if text.starts_with('[') {
        found.depth = found.depth.max(depth + 1);
        return Reader::new(text).array(|reader| value(reader, depth + 1, found));
    }
    Ok(())
}

/// Compares the checker of properties with serde_json's objects, and its limits with a measurement by the pull reader.
pub fn properties(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let wide = PropertyLimits { properties: u64::MAX, depth: u64::MAX, key_bytes: u64::MAX };
    let grammar = check_object(text, "props", wide);
    // The collector reads properties as a RawValue, which allows lone surrogates and any number.
    let object = serde_json::from_str::<&RawValue>(text).is_ok_and(|raw| raw.get().starts_with('{'));
    assert_eq!(grammar.is_ok(), object, "{text}");
    if let Err(violation) = grammar {
        assert_eq!(violation.reason, RejectReason::InvalidField);
        return;
    }
    if text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() > MAX_DEPTH {
        return;
    }
    let mut found = Measure::default();
    walk(&mut Reader::new(text), 1, &mut found).unwrap();
    for (properties, depth, key_bytes) in [(256, 8, 128), (2, 8, 128), (256, 2, 128), (256, 8, 3), (3, 3, 5)] {
        let within = found.members <= properties && found.depth <= depth && found.key_bytes <= key_bytes;
        let verdict = check_object(text, "props", PropertyLimits { properties, depth, key_bytes });
        assert_eq!(verdict.is_ok(), within, "{text}");
        let Err(violation) = verdict else { continue };
        assert!(violation.field.starts_with("props") && violation.field.len() <= 256, "{violation:?}");
        let (Some(limit), Some(Actual::Number(got))) = (violation.limit, violation.got) else { panic!("no numbers") };
        let (own, most) = match violation.reason {
            RejectReason::TooManyProperties => (properties, found.members),
            RejectReason::PropertyTooDeep => (depth, found.depth),
            RejectReason::KeyTooLong => (key_bytes, found.key_bytes),
            other => panic!("{other:?}"),
        };
        assert_eq!(limit, own);
        assert!(got as u64 > own && got as u64 <= most, "{text}");
    }
}

/// Reads one JSON value: a text as the collector and as the SDK read it, a whole number, any value.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut reader = Reader::new(text);
    let ours = reader.string().and_then(|string| reader.end().map(|()| string));
    let theirs = serde_json::from_str::<WireText<'_>>(text);
    assert_eq!(ours.is_ok(), theirs.is_ok(), "{text}");
    if let (Ok(ours), Ok(theirs)) = (&ours, &theirs) {
        assert_eq!(ours, &*theirs.0, "{text}");
        let mut written = String::new();
        subway_protocol::json::write_string(&mut written, ours);
        assert_eq!(&serde_json::from_str::<String>(&written).unwrap(), ours);
    }
    if let Ok(plain) = serde_json::from_str::<String>(text) {
        assert_eq!(ours.as_ref(), Ok(&plain));
        if let Some(id) = Id::parse(&plain) {
            assert_eq!(id.text(), plain.to_ascii_lowercase());
        }
    }
    if let Ok(number) = serde_json::from_str::<i64>(text) {
        assert_eq!(Reader::new(text).integer(), Ok(number), "{text}");
    }
    if let Ok(number) = Reader::new(text).integer() {
        // serde_json refuses leading zeros and reads -0 as a fraction.
        let plain = text.trim_start();
        let plain = &plain[..plain.bytes().skip(1).position(|c| !c.is_ascii_digit()).map_or(plain.len(), |at| at + 1)];
        assert_eq!(plain.parse::<i64>(), Ok(number), "{text}");
    }
    if let Ok(raw) = serde_json::from_str::<&RawValue>(text) {
        let mut reader = Reader::new(text);
        assert_eq!(reader.raw(), Ok(raw.get()));
        assert!(reader.end().is_ok(), "{text}");
    }
}

/// Returns the members of an object if all its names, and those of nested objects, are distinct.
fn unambiguous(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    // Writing it again yields the same number of names only if there was no duplicate.
    let names = |text: &str| text.bytes().filter(|byte| *byte == b':').count();
    let again = serde_json::to_string(&value).ok()?;
    (!text.contains('\\') && names(&again) == names(text)).then_some(value)
}

/// Compares the receipt as the SDK reads it with serde_json's tree.
pub fn receipt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let read = Receipt::decode(text);
    if let Ok(receipt) = &read {
        for events in [0, 1, 2, receipt.stored, receipt.stored.saturating_add(1)] {
            if events <= 2000 {
                assert_eq!(receipt.accounts_for(events), adds_up(receipt, events), "{text}");
            }
        }
    }
    // -0 is a whole number for one reader and a fraction for the other.
    let Some(tree) = unambiguous(text).filter(|_| !text.contains("-0")) else { return };
    let expected = model(&tree);
    assert_eq!(read.is_ok(), expected.is_some(), "{text}");
    let (Ok(receipt), Some((id, time, stored, duplicate, rejected))) = (read, expected) else { return };
    assert_eq!((receipt.batch_id, receipt.server_time, receipt.stored), (id, time, stored as u64));
    assert_eq!(receipt.duplicate, duplicate.iter().map(|index| *index as u64).collect::<Vec<_>>());
    let named: Vec<_> = receipt.rejected.iter().map(|one| (one.index as i64, one.reason.clone())).collect();
    assert_eq!(named, rejected);
}

/// Returns whether each event is named at most once, all numbers are in range, and the rest is stored.
fn adds_up(receipt: &Receipt, events: u64) -> bool {
    let named: Vec<u64> =
        receipt.duplicate.iter().copied().chain(receipt.rejected.iter().map(|rejected| rejected.index)).collect();
    let distinct: std::collections::BTreeSet<u64> = named.iter().copied().collect();
    let all = distinct.len() == named.len() && distinct.iter().all(|index| *index < events);
    all && u128::from(receipt.stored) + named.len() as u128 == u128::from(events)
}

type Model = (Id, i64, i64, Vec<i64>, Vec<(i64, String)>);

/// Reads a receipt from a tree; `None` if it is not one.
fn model(tree: &Value) -> Option<Model> {
    let fields = tree.as_object()?;
    let integer = |name: &str| fields.get(name).map(Value::as_i64);
    let list = |name: &str| match fields.get(name) {
        None => Some(Vec::new()),
        Some(list) => list.as_array().cloned(),
    };
    let id = Id::parse(fields.get("batch_id")?.as_str()?)?;
    let time = integer("server_time").unwrap_or(Some(0))?;
    let stored = integer("stored")??;
    let duplicate = list("duplicate")?.iter().map(Value::as_i64).collect::<Option<Vec<_>>>()?;
    let mut rejected = Vec::new();
    for one in list("rejected")? {
        let one = one.as_object()?;
        let reason = one.get("reason").map_or(Some(""), Value::as_str)?;
        rejected.push((one.get("index")?.as_i64()?, reason.to_owned()));
    }
    Some((id, time, stored, duplicate, rejected))
}

/// Decompresses the output of the mini-program's gzip encoder with another implementation.
pub fn gzip_round_trip(data: &[u8]) {
    // Repeated with a gap, so that matches have every distance.
    let (gap, data) = data.split_at(data.len().min(2));
    let gap = gap.iter().fold(0usize, |gap, byte| gap << 8 | usize::from(*byte));
    let mut input = data.to_vec();
    if gap > 0 && !data.is_empty() {
        input.extend(data.iter().rev().cycle().take(gap));
        input.extend_from_slice(data);
    }
    let zipped = subway_wasm::gzip::gzip(&input);
    let mut output = Vec::new();
    flate2::bufread::GzDecoder::new(&zipped[..]).read_to_end(&mut output).unwrap();
    assert!(input == output);
}
