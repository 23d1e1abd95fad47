//! The events of a batch as one blob: a value that is the same as in the event before takes one bit, a number is kept as the
//! difference to the one before.
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
//! The columns are not the same for ever, so each part says which its blobs have: its [`Layout`].

use std::sync::LazyLock;

use rusqlite::types::Type;
use subway_protocol::Id;

use super::ident::Ident;
use crate::record::{Column, Event, Kind, Owned, Value};

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Text,
    Number,
    Flag,
    Object,
}

const CODINGS: [(char, Coding); 4] =
    [('t', Coding::Text), ('n', Coding::Number), ('f', Coding::Flag), ('o', Coding::Object)];

const _: () = assert!(Event::COLUMNS.len() <= 64, "a mask is a u64");

impl Coding {
    fn of(kind: Kind) -> Self {
        match kind {
            Kind::Text | Kind::Word | Kind::Uuid => Coding::Text,
            Kind::Time | Kind::MaybeTime | Kind::Number | Kind::MaybeNumber => Coding::Number,
            Kind::Flag => Coding::Flag,
            Kind::Object => Coding::Object,
        }
    }
}

/// The layout of the blobs that this collector writes: `name:coding`, a space between two.
pub(super) static LAYOUT: LazyLock<String> = LazyLock::new(|| {
    let letter = |coding| CODINGS.iter().find(|(_, known)| *known == coding).map_or('?', |(letter, _)| *letter);
    let columns = Event::COLUMNS.iter().map(|column| format!("{}:{}", column.name, letter(Coding::of(column.kind))));
    columns.collect::<Vec<_>>().join(" ")
});

fn mask_bytes(columns: usize) -> usize {
    columns.div_ceil(8)
}

/// Most events in a blob: what finding one of them costs. A wire batch has 1,000 unless configured otherwise.
pub(super) const BLOB_EVENTS: usize = 500;

/// Bytes at which a blob ends: SQLite copies each several times in memory.
const BLOB_BYTES: usize = 256 * 1024;

/// Writes the first of `events`, as many as a blob takes, to `out`, which is emptied before. Returns how many.
pub(super) fn pack(events: &[Event<'_>], out: &mut Vec<u8>) -> usize {
    out.clear();
    let nothing = Event::default();
    let mut before = nothing.values();
    before.iter_mut().for_each(|value| *value = absent(*value));
    let width = mask_bytes(before.len());
    let mut packed = 0;
    for event in events.iter().take(BLOB_EVENTS) {
        if out.len() >= BLOB_BYTES {
            break;
        }
        packed += 1;
        let values = event.values();
        let start = out.len();
        out.resize(start + width, 0);
        let mut mask = 0u64;
        for (at, (value, before)) in values.iter().zip(&before).enumerate() {
            if !is_same(value, before) {
                mask |= 1 << at;
                put_value(out, value, before);
            }
        }
        if let Some(place) = out.get_mut(start..start + width) {
            place.copy_from_slice(&mask.to_le_bytes()[..width]);
        }
        before = values;
    }
    packed
}

/// What the column of a value has before the first event.
fn absent(value: Value<'_>) -> Value<'_> {
    match value {
        Value::Text(_) => Value::Text(""),
        Value::Time(_) => Value::Time(None),
        Value::Number(_) => Value::Number(None),
        Value::Flag(_) => Value::Flag(false),
        Value::Object(_) => Value::Object(None),
    }
}

fn is_same(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Time(a), Value::Time(b)) => a == b,
        (Value::Number(a), Value::Number(b)) => a == b,
        (Value::Flag(a), Value::Flag(b)) => a == b,
        (Value::Object(a), Value::Object(b)) => a.map(|json| json.get()) == b.map(|json| json.get()),
        _ => false,
    }
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn put_value(out: &mut Vec<u8>, value: &Value<'_>, before: &Value<'_>) {
    match (*value, *before) {
        (Value::Text(text), _) => put_text(out, text),
        (Value::Time(time), Value::Time(before)) => put_number(out, time, before),
        (Value::Time(time), _) => put_number(out, time, None),
        (Value::Number(number), before) => {
            let before = if let Value::Number(before) = before { before } else { None };
            put_number(out, number.map(u64::cast_signed), before.map(u64::cast_signed));
        }
        (Value::Flag(_), _) => {}
        (Value::Object(None), _) => out.push(0),
        (Value::Object(Some(json)), _) => {
            put(out, json.get().len() as u64 + 1);
            out.extend_from_slice(json.get().as_bytes());
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    const UUID: usize = 36;
    if text.len() == UUID
        && let Ident::Uuid(bytes) = Ident::new(text)
    {
        out.push(0);
        out.extend_from_slice(&bytes);
        return;
    }
    put(out, text.len() as u64 + 1);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, number: Option<i64>, before: Option<i64>) {
    let Some(number) = number else { return out.push(0) };
    let difference = number.wrapping_sub(before.unwrap_or(0));
    let zigzag = ((difference << 1) ^ (difference >> 63)).cast_unsigned();
    match zigzag.checked_add(2) {
        Some(small) => put(out, small),
        None => {
            out.push(1);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// The columns in the blobs of a part.
pub(super) struct Layout {
    columns: Vec<Coding>,
    /// Where each of [`Event::COLUMNS`] is among them; `None`: it was declared later, and no event here has it.
    places: Vec<Option<usize>>,
}

impl Layout {
    pub(super) fn parse(text: &str) -> rusqlite::Result<Self> {
        let mut names = Vec::new();
        let mut columns = Vec::new();
        for column in text.split(' ') {
            let coding = column.split_once(':').and_then(|(name, letter)| {
                let coding = CODINGS.iter().find(|(known, _)| letter.chars().eq([*known]))?.1;
                Some((name, coding))
            });
            let Some((name, coding)) = coding else { return Err(damaged("a layout that is not known")) };
            names.push(name);
            columns.push(coding);
        }
        let place = |column: &Column| {
            let at = names.iter().position(|name| *name == column.name)?;
            (columns.get(at) == Some(&Coding::of(column.kind))).then_some(at)
        };
        Ok(Self { places: Event::COLUMNS.iter().map(place).collect(), columns })
    }
}

fn damaged(what: &str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, format!("packed events are damaged: {what}").into())
}

/// A value as it is in the blob.
#[derive(Clone, Copy)]
enum Packed<'b> {
    Text(&'b [u8]),
    Uuid([u8; 16]),
    Number(Option<i64>),
    Flag(bool),
    Object(Option<&'b [u8]>),
}

/// Reads a blob event by event.
pub(super) struct Unpacked<'b> {
    layout: &'b Layout,
    rest: &'b [u8],
    values: Vec<Packed<'b>>,
}

impl<'b> Unpacked<'b> {
    pub(super) fn new(layout: &'b Layout, blob: &'b [u8]) -> Self {
        let values = layout.columns.iter().map(|coding| match coding {
            Coding::Text => Packed::Text(b""),
            Coding::Number => Packed::Number(None),
            Coding::Flag => Packed::Flag(false),
            Coding::Object => Packed::Object(None),
        });
        Self { layout, rest: blob, values: values.collect() }
    }

    /// Goes to the next event; `false`: there is none.
    pub(super) fn next(&mut self) -> rusqlite::Result<bool> {
        if self.rest.is_empty() {
            return Ok(false);
        }
        let mut mask = [0; 8];
        let bytes = self.bytes(mask_bytes(self.values.len()) as u64)?;
        mask.get_mut(..bytes.len()).ok_or_else(|| damaged("too many columns"))?.copy_from_slice(bytes);
        let mask = u64::from_le_bytes(mask);
        for at in (0..self.values.len()).filter(|at| mask >> at & 1 == 1) {
            let value = self.value(self.values[at])?;
            self.values[at] = value;
        }
        Ok(true)
    }

    /// The value of the column at `index` in [`Event::COLUMNS`].
    pub(super) fn get(&self, index: usize, column: &Column) -> rusqlite::Result<Owned> {
        let place = self.layout.places.get(index).copied().flatten();
        let Some(value) = place.and_then(|place| self.values.get(place)) else { return Ok(Owned::Absent) };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| damaged("a text that is not UTF-8"));
        Ok(match (*value, column.kind) {
            (Packed::Text(bytes), _) => Owned::Text(text(bytes)?),
            (Packed::Uuid(bytes), _) => Owned::Text(Id::from_bytes(bytes).text()),
            (Packed::Number(None) | Packed::Object(None), _) => Owned::Absent,
            (Packed::Number(Some(number)), Kind::Time | Kind::MaybeTime) => Owned::Time(number),
            (Packed::Number(Some(number)), _) => Owned::Number(number.cast_unsigned()),
            (Packed::Flag(flag), _) => Owned::Flag(flag),
            (Packed::Object(Some(json)), _) => {
                let json = serde_json::value::RawValue::from_string(text(json)?);
                Owned::Object(json.map_err(|_| damaged("properties that are not JSON"))?)
            }
        })
    }

    /// The next value, of the column that had `before` in the event before.
    fn value(&mut self, before: Packed<'b>) -> rusqlite::Result<Packed<'b>> {
        Ok(match before {
            Packed::Flag(flag) => Packed::Flag(!flag),
            Packed::Number(before) => Packed::Number(match self.number()? {
                0 => None,
                1 => Some(i64::from_le_bytes(self.array()?)),
                small => {
                    let zigzag = small - 2;
                    let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
                    Some(before.unwrap_or(0).wrapping_add(difference))
                }
            }),
            Packed::Text(_) | Packed::Uuid(_) => match self.number()? {
                0 => Packed::Uuid(self.array()?),
                length => Packed::Text(self.bytes(length - 1)?),
            },
            Packed::Object(_) => Packed::Object(match self.number()? {
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
        Err(damaged("a number that is too long"))
    }

    fn bytes(&mut self, length: u64) -> rusqlite::Result<&'b [u8]> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| damaged("it ends early"))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> rusqlite::Result<[u8; N]> {
        let bytes = self.bytes(N as u64)?;
        bytes.try_into().map_err(|_| damaged("it ends early"))
    }
}
