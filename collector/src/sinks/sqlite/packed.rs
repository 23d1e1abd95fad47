//! Packs the events of a batch into one blob: a value equal to that of the event before takes one bit, and a number is
//! stored as the difference to the one before.
//!
//! ```text
//! blob   = event*
//! event  = mask value*          mask: a bit for each column, lowest first; set: the value is another than before
//! text   = 0 and 16 bytes of a UUID | 1 + length, bytes
//! number = 0: none | 1 and 8 bytes | 2 + zigzag difference
//! object = 0: none | 1 + length, JSON
//! flag   = nothing: its bit says that it is the other one
//! ```
//! Lengths and differences are LEB128. Before the first event every text is empty, and every number and object absent.
//! Columns change over time, so each part stores the [`BlobLayout`] of its blobs.

use std::sync::LazyLock;

use rusqlite::types::Type;
use subway_protocol::Id;

use super::ident::Ident;
use crate::record::{Column, ColumnKind, Event, OwnedValue, Value};

/// Encoding of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Text,
    Number,
    Flag,
    Object,
}

const ENCODINGS: [(char, Encoding); 4] =
    [('t', Encoding::Text), ('n', Encoding::Number), ('f', Encoding::Flag), ('o', Encoding::Object)];

const _: () = assert!(Event::COLUMNS.len() <= 64, "a mask is a u64");

impl Encoding {
    fn of(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid => Encoding::Text,
            ColumnKind::Time | ColumnKind::NullableTime | ColumnKind::Number | ColumnKind::NullableNumber => {
                Encoding::Number
            }
            ColumnKind::Flag => Encoding::Flag,
            ColumnKind::Object => Encoding::Object,
        }
    }
}

/// Layout of the blobs that this collector writes: `name:encoding`, separated by spaces.
pub(super) static CURRENT_LAYOUT: LazyLock<String> = LazyLock::new(|| {
    let letter = |encoding| ENCODINGS.iter().find(|(_, known)| *known == encoding).map_or('?', |(letter, _)| *letter);
    let columns = Event::COLUMNS.iter().map(|column| format!("{}:{}", column.name, letter(Encoding::of(column.kind))));
    columns.collect::<Vec<_>>().join(" ")
});

fn mask_bytes(columns: usize) -> usize {
    columns.div_ceil(8)
}

/// Maximum events in a blob, which bounds the cost of finding one. A wire batch has 1,000 unless configured otherwise.
pub(super) const MAX_BLOB_EVENTS: usize = 500;

/// Bytes at which a blob ends, because SQLite copies each several times in memory.
const MAX_BLOB_BYTES: usize = 256 * 1024;

/// Packs the first of `events`, as many as fit into a blob, into `out`, which is cleared before. Returns how many.
pub(super) fn pack(events: &[Event<'_>], out: &mut Vec<u8>) -> usize {
    out.clear();
    let nothing = Event::default();
    let mut previous = nothing.values();
    previous.iter_mut().for_each(|value| *value = initial_value(*value));
    let width = mask_bytes(previous.len());
    let mut packed = 0;
    for event in events.iter().take(MAX_BLOB_EVENTS) {
        if out.len() >= MAX_BLOB_BYTES {
            break;
        }
        packed += 1;
        let values = event.values();
        let start = out.len();
        out.resize(start + width, 0);
        let mut mask = 0u64;
        for (at, (value, previous)) in values.iter().zip(&previous).enumerate() {
            if !is_same(value, previous) {
                mask |= 1 << at;
                write_value(out, value, previous);
            }
        }
        if let Some(place) = out.get_mut(start..start + width) {
            place.copy_from_slice(&mask.to_le_bytes()[..width]);
        }
        previous = values;
    }
    packed
}

/// Returns the value of a column before the first event.
fn initial_value(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(_) => Value::Text(""),
        Value::Time(_) => Value::Time(None),
        Value::Number(_) => Value::Number(None),
        Value::Flag(_) => Value::Flag(false),
        Value::Object(_) => Value::Object(None),
    }
}

fn is_same(left: &Value<'_>, right: &Value<'_>) -> bool {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => left == right,
        (Value::Time(left), Value::Time(right)) => left == right,
        (Value::Number(left), Value::Number(right)) => left == right,
        (Value::Flag(left), Value::Flag(right)) => left == right,
        (Value::Object(left), Value::Object(right)) => left.map(|json| json.get()) == right.map(|json| json.get()),
        _ => false,
    }
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn write_value(out: &mut Vec<u8>, value: &Value<'_>, previous: &Value<'_>) {
    match (*value, *previous) {
        (Value::Text(text), _) => write_text(out, text),
        (Value::Time(time), Value::Time(previous)) => write_number(out, time, previous),
        (Value::Time(time), _) => write_number(out, time, None),
        (Value::Number(number), previous) => {
            let previous = if let Value::Number(previous) = previous { previous } else { None };
            write_number(out, number.map(u64::cast_signed), previous.map(u64::cast_signed));
        }
        (Value::Flag(_), _) => {}
        (Value::Object(None), _) => out.push(0),
        (Value::Object(Some(json)), _) => {
            write_varint(out, json.get().len() as u64 + 1);
            out.extend_from_slice(json.get().as_bytes());
        }
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    const UUID: usize = 36;
    if text.len() == UUID
        && let Ident::Uuid(bytes) = Ident::new(text)
    {
        out.push(0);
        out.extend_from_slice(&bytes);
        return;
    }
    write_varint(out, text.len() as u64 + 1);
    out.extend_from_slice(text.as_bytes());
}

fn write_number(out: &mut Vec<u8>, number: Option<i64>, previous: Option<i64>) {
    let Some(number) = number else { return out.push(0) };
    let difference = number.wrapping_sub(previous.unwrap_or(0));
    let zigzag = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
    match zigzag.checked_add(2) {
        Some(small) => write_varint(out, small),
        None => {
            out.push(1);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Columns in the blobs of a part.
pub(super) struct BlobLayout {
    columns: Vec<Encoding>,
    /// Index of each of [`Event::COLUMNS`] among them; `None` for a column declared later, which no event here has.
    column_indexes: Vec<Option<usize>>,
}

impl BlobLayout {
    pub(super) fn parse(text: &str) -> rusqlite::Result<Self> {
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in text.split(' ') {
            let encoding = column.split_once(':').and_then(|(name, letter)| {
                let encoding = ENCODINGS.iter().find(|(known, _)| letter.chars().eq([*known]))?.1;
                Some((name, encoding))
            });
            let Some((name, encoding)) = encoding else { return Err(corrupt_blob("a layout that is not known")) };
            names.push(name);
            columns.push(encoding);
        }
        let place = |column: &Column| {
            let at = names.iter().position(|name| *name == column.name)?;
            (columns.get(at) == Some(&Encoding::of(column.kind))).then_some(at)
        };
        Ok(Self { column_indexes: Event::COLUMNS.iter().map(place).collect(), columns })
    }
}

fn corrupt_blob(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("packed events are damaged: {what}").into())
}

/// Value as it is stored in the blob.
#[derive(Clone, Copy)]
enum PackedValue<'b> {
    Text(&'b [u8]),
    Uuid([u8; 16]),
    Number(Option<i64>),
    Flag(bool),
    Object(Option<&'b [u8]>),
}

/// Reads a blob event by event.
pub(super) struct BlobReader<'b> {
    layout: &'b BlobLayout,
    rest: &'b [u8],
    values: Vec<PackedValue<'b>>,
}

impl<'b> BlobReader<'b> {
    pub(super) fn new(layout: &'b BlobLayout, blob: &'b [u8]) -> Self {
        let values = layout.columns.iter().map(|encoding| match encoding {
            Encoding::Text => PackedValue::Text(b""),
            Encoding::Number => PackedValue::Number(None),
            Encoding::Flag => PackedValue::Flag(false),
            Encoding::Object => PackedValue::Object(None),
        });
        Self { layout, rest: blob, values: values.collect() }
    }

    /// Advances to the next event; `false` if there is none.
    pub(super) fn next(&mut self) -> rusqlite::Result<bool> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let mut mask = [0; 8];
        let bytes = self.bytes(mask_bytes(self.values.len()) as u64)?;
        mask.get_mut(..bytes.len()).ok_or_else(|| corrupt_blob("too many columns"))?.copy_from_slice(bytes);
        let mask = u64::from_le_bytes(mask);
        for at in (0..self.values.len()).filter(|at| mask >> at & 1 == 1) {
            let value = self.value(self.values[at])?;
            self.values[at] = value;
        }
        Ok(true)
    }

    /// Returns the value of the column at `index` in [`Event::COLUMNS`].
    pub(super) fn get(&self, index: usize, column: &Column) -> rusqlite::Result<OwnedValue> {
        let place = self.layout.column_indexes.get(index).copied().flatten();
        let Some(value) = place.and_then(|place| self.values.get(place)) else { return Ok(OwnedValue::Absent) };
        let text =
            |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| corrupt_blob("a text that is not UTF-8"));
        Ok(match (*value, column.kind) {
            (PackedValue::Text(bytes), _) => OwnedValue::Text(text(bytes)?),
            (PackedValue::Uuid(bytes), _) => OwnedValue::Text(Id::from_bytes(bytes).text()),
            (PackedValue::Number(None) | PackedValue::Object(None), _) => OwnedValue::Absent,
            (PackedValue::Number(Some(number)), ColumnKind::Time | ColumnKind::NullableTime) => {
                OwnedValue::Time(number)
            }
            (PackedValue::Number(Some(number)), _) => OwnedValue::Number(number.cast_unsigned()),
            (PackedValue::Flag(flag), _) => OwnedValue::Flag(flag),
            (PackedValue::Object(Some(json)), _) => {
                let json = serde_json::value::RawValue::from_string(text(json)?);
                OwnedValue::Object(json.map_err(|_| corrupt_blob("properties that are not JSON"))?)
            }
        })
    }

    /// Reads the next value of the column, whose value was `previous` in the event before.
    fn value(&mut self, previous: PackedValue<'b>) -> rusqlite::Result<PackedValue<'b>> {
        Ok(match previous {
            PackedValue::Flag(flag) => PackedValue::Flag(!flag),
            PackedValue::Number(previous) => PackedValue::Number(match self.number()? {
                0 => None,
                1 => Some(i64::from_le_bytes(self.array()?)),
                small => {
                    let zigzag = small - 2;
                    let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
                    Some(previous.unwrap_or(0).wrapping_add(difference))
                }
            }),
            PackedValue::Text(_) | PackedValue::Uuid(_) => match self.number()? {
                0 => PackedValue::Uuid(self.array()?),
                length => PackedValue::Text(self.bytes(length - 1)?),
            },
            PackedValue::Object(_) => PackedValue::Object(match self.number()? {
                0 => None,
                length => Some(self.bytes(length - 1)?),
            }),
        })
    }

    fn number(&mut self) -> rusqlite::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array::<1>()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(corrupt_blob("a number that is too long"))
    }

    fn bytes(&mut self, length: u64) -> rusqlite::Result<&'b [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| corrupt_blob("it ends early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> rusqlite::Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().map_err(|_| corrupt_blob("it ends early"))
    }
}
