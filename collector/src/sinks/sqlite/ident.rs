//! Stored form of identifiers.

use rusqlite::ToSql;
use rusqlite::types::{self, ToSqlOutput, ValueRef};
use subway_protocol::Id;

/// Stored form of an identifier: 16 bytes if it is a UUID in canonical lower-case form, else the text itself, so that
/// it is read back unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Ident<'a> {
    Uuid([u8; 16]),
    Text(&'a str),
}

impl<'a> Ident<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        match Id::parse(text) {
            Some(id) if !text.bytes().any(|c| c.is_ascii_uppercase()) => Ident::Uuid(*id.as_bytes()),
            _ => Ident::Text(text),
        }
    }
}

impl ToSql for Ident<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Ident::Uuid(bytes) => ValueRef::Blob(bytes),
            Ident::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Returns the text of a stored identifier.
pub(super) fn ident_text(value: types::Value) -> String {
    match value {
        types::Value::Blob(bytes) => match <[u8; 16]>::try_from(bytes) {
            Ok(bytes) => Id::from_bytes(bytes).text(),
            Err(other) => String::from_utf8_lossy(&other).into_owned(),
        },
        types::Value::Text(text) => text,
        types::Value::Integer(_) | types::Value::Real(_) | types::Value::Null => String::new(),
    }
}
