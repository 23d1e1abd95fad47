//! Decodes rows of ClickHouse's format RowBinary, in the order of the sink's columns: the position, then the declared
//! ones.

use serde_json::value::RawValue;

use crate::query::ListedEvent;
use crate::record::{Column, ColumnKind, ColumnSource, NO_PROPERTIES, OwnedValue};
use crate::row::Row;
use crate::sinks::clickhouse::{POSITION, format_uuid};

/// Unread rest of the response.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take(&mut self, length: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it ends in the middle of a row")?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.take(1)?[0])
    }

    fn word(&mut self) -> Result<u64, String> {
        let bytes = self.take(8)?;
        Ok(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
    }

    fn text(&mut self) -> Result<String, String> {
        let (mut length, mut shift) = (0usize, 0);
        loop {
            let byte = self.byte()?;
            length |= usize::from(byte & 0x7f).checked_shl(shift).ok_or("a length is too large")?;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| "a text is not UTF-8".into())
    }
}

impl ColumnSource for Input<'_> {
    type Error = String;

    fn next(&mut self, column: &'static Column) -> Result<OwnedValue, String> {
        Ok(match column.kind {
            ColumnKind::Text | ColumnKind::Keyword => OwnedValue::Text(self.text()?),
            ColumnKind::Object => match self.text()? {
                text if text == NO_PROPERTIES => OwnedValue::Absent,
                text => OwnedValue::Object(RawValue::from_string(text).map_err(|error| error.to_string())?),
            },
            ColumnKind::Uuid => {
                let (high, low) = (self.word()?, self.word()?);
                OwnedValue::Text(format_uuid(u128::from(high) << 64 | u128::from(low)))
            }
            ColumnKind::Time => OwnedValue::Time(self.word()?.cast_signed()),
            ColumnKind::Number => OwnedValue::Number(self.word()?),
            ColumnKind::Flag => OwnedValue::Flag(self.byte()? != 0),
            ColumnKind::NullableTime | ColumnKind::NullableNumber if self.byte()? != 0 => OwnedValue::Absent,
            ColumnKind::NullableTime => OwnedValue::Time(self.word()?.cast_signed()),
            ColumnKind::NullableNumber => OwnedValue::Number(self.word()?),
        })
    }
}

/// Decodes the rows of a response.
///
/// # Errors
/// What is wrong with the response.
pub(crate) fn rows(answer: &[u8]) -> Result<Vec<ListedEvent>, String> {
    let (mut input, mut rows) = (Input(answer), Vec::new());
    while !input.0.is_empty() {
        let position = match input.next(&POSITION)? {
            OwnedValue::Number(position) => position,
            _ => 0,
        };
        rows.push(ListedEvent { position, row: Row::read(&mut input)? });
    }
    Ok(rows)
}
