//! Columns of a stored event, and the conversion of their values to and from a store.

use std::borrow::Cow;
use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::Text;

/// Kind of a column's values. Every store derives its own type from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Text; empty if unknown.
    Text,
    /// One of few texts, so stores use a dictionary.
    Keyword,
    /// UUID as 36 characters in lower case.
    Uuid,
    /// Milliseconds since the epoch.
    Time,
    /// Milliseconds since the epoch; may be unknown.
    NullableTime,
    /// Number from 0.
    Number,
    /// Number from 0; may be unknown.
    NullableNumber,
    /// Boolean; false if unknown.
    Flag,
    /// JSON object; `{}` if absent.
    Object,
}

/// Scope of a column: the events that share its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnScope {
    /// Every event of a batch.
    Batch,
    /// Every event of a batch, and mostly of many batches: a description of the sender.
    Context,
    /// One event.
    Event,
}

/// One column of a stored event. Its name is the same in every store.
#[derive(Debug)]
pub struct Column {
    /// Name.
    pub name: &'static str,
    /// The name as a member of a JSON object: `"name":`.
    pub member: &'static str,
    /// Kind of the values.
    pub kind: ColumnKind,
    /// Events that share the value.
    pub of: ColumnScope,
    /// Meaning, for docs and schemas.
    pub doc: &'static str,
}

/// Value of one column of one event.
#[derive(Clone, Copy, Debug)]
pub enum Value<'v> {
    /// Of a text, a keyword or a UUID.
    Text(&'v str),
    /// Of a time; `None` only in a nullable column.
    Time(Option<i64>),
    /// Of a number; `None` only in a nullable column.
    Number(Option<u64>),
    /// Of a flag.
    Flag(bool),
    /// Of an object; `None` if absent.
    Object(Option<&'v RawValue>),
}

/// JSON of absent properties.
pub const NO_PROPERTIES: &str = "{}";

impl Value<'_> {
    /// Returns whether the value is unknown. A record leaves such a value out.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Value::Text(text) => text.is_empty(),
            Value::Time(time) => time.is_none(),
            Value::Number(number) => number.is_none(),
            Value::Flag(flag) => !flag,
            Value::Object(object) => object.is_none(),
        }
    }

    /// Appends the value as JSON on one line: an unknown text is `""`, an unknown number `null`, no object `{}`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match *self {
            // Writing to memory cannot fail.
            Value::Text(text) => drop(serde_json::to_writer(out, text)),
            Value::Time(time) => drop(serde_json::to_writer(out, &time)),
            Value::Number(number) => drop(serde_json::to_writer(out, &number)),
            Value::Flag(flag) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
            Value::Object(None) => out.extend_from_slice(NO_PROPERTIES.as_bytes()),
            Value::Object(Some(object)) => {
                let start = out.len();
                out.extend_from_slice(object.get().as_bytes());
                one_line(&mut out[start..]);
            }
        }
    }
}

/// Replaces line breaks by spaces. In JSON they can only stand between tokens, because strings escape them.
fn one_line(json: &mut [u8]) {
    for byte in json {
        if matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Value::Text(text) => serializer.serialize_str(text),
            Value::Time(time) => time.serialize(serializer),
            Value::Number(number) => number.serialize(serializer),
            Value::Flag(flag) => serializer.serialize_bool(*flag),
            Value::Object(Some(object)) => object.serialize(serializer),
            Value::Object(None) => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

/// Appends `"name":value` for each of these columns, a comma after each.
pub fn write_members<'v>(out: &mut Vec<u8>, columns: &[Column], values: impl IntoIterator<Item = Value<'v>>) {
    for (column, value) in columns.iter().zip(values) {
        out.extend_from_slice(column.member.as_bytes());
        value.write_json(out);
        out.push(b',');
    }
}

/// Appends `,"name":value` for those of these columns whose value is known.
pub fn write_known<'v>(out: &mut Vec<u8>, columns: &[Column], values: impl IntoIterator<Item = Value<'v>>) {
    for (column, value) in columns.iter().zip(values).filter(|(_, value)| !value.is_absent()) {
        out.push(b',');
        out.extend_from_slice(column.member.as_bytes());
        value.write_json(out);
    }
}

/// Source of the values of a stored event, column by column in the order of the declaration.
pub trait ColumnSource {
    /// Error of the source.
    type Error;

    /// Returns the next value, of this column.
    ///
    /// # Errors
    /// If the value is missing or has another type.
    fn next(&mut self, column: &'static Column) -> Result<OwnedValue, Self::Error>;
}

/// Value read from a store.
#[derive(Debug)]
pub enum OwnedValue {
    /// Unknown.
    Absent,
    /// Of a text, a keyword or a UUID.
    Text(String),
    /// Of a time.
    Time(i64),
    /// Of a number.
    Number(u64),
    /// Of a flag.
    Flag(bool),
    /// Of an object.
    Object(Box<RawValue>),
}

/// Type of a field that is a column.
pub(super) trait Field: Sized {
    fn value(&self) -> Value<'_>;

    fn from_value(value: OwnedValue) -> Self;

    fn is_absent(&self) -> bool {
        self.value().is_absent()
    }
}

impl Field for Text<'_> {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Text(text) = value { text.into() } else { Self::default() }
    }
}

impl Field for i64 {
    fn value(&self) -> Value<'_> {
        Value::Time(Some(*self))
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Time(time) = value { time } else { 0 }
    }
}

impl Field for Option<i64> {
    fn value(&self) -> Value<'_> {
        Value::Time(*self)
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Time(time) = value { Some(time) } else { None }
    }
}

impl Field for u64 {
    fn value(&self) -> Value<'_> {
        Value::Number(Some(*self))
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Number(number) = value { number } else { 0 }
    }
}

impl Field for Option<u64> {
    fn value(&self) -> Value<'_> {
        Value::Number(*self)
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Number(number) = value { Some(number) } else { None }
    }
}

impl Field for bool {
    fn value(&self) -> Value<'_> {
        Value::Flag(*self)
    }

    fn from_value(value: OwnedValue) -> Self {
        matches!(value, OwnedValue::Flag(true))
    }
}

impl Field for Object<'_> {
    fn value(&self) -> Value<'_> {
        Value::Object(self.get())
    }

    fn from_value(value: OwnedValue) -> Self {
        if let OwnedValue::Object(object) = value { Self(Some(Cow::Owned(object))) } else { Self(None) }
    }
}

/// JSON object that may be absent, borrowed where possible.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Object<'a>(pub Option<Cow<'a, RawValue>>);

impl Object<'_> {
    /// Returns the JSON.
    #[must_use]
    pub fn get(&self) -> Option<&RawValue> {
        self.0.as_deref()
    }
}

impl Object<'_> {
    /// Borrows the object.
    #[must_use]
    pub fn borrowed(&self) -> Object<'_> {
        Object(self.get().map(Cow::Borrowed))
    }
}

impl<'a> From<&'a RawValue> for Object<'a> {
    fn from(raw: &'a RawValue) -> Self {
        Self(Some(Cow::Borrowed(raw)))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::<&'de RawValue>::deserialize(deserializer)?.map(Cow::Borrowed)))
    }
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ColumnKind::Text => "text",
            ColumnKind::Keyword => "one of few texts",
            ColumnKind::Uuid => "UUID",
            ColumnKind::Time => "time",
            ColumnKind::NullableTime => "time or null",
            ColumnKind::Number => "integer",
            ColumnKind::NullableNumber => "integer or null",
            ColumnKind::Flag => "boolean",
            ColumnKind::Object => "object",
        })
    }
}
