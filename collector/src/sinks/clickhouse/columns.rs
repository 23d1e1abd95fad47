//! Columns of a stored event in ClickHouse. The table must have these and may have more.

use crate::record::{self, Column, ColumnKind};

/// Column that only stores have: the event's number within the collector that delivered it.
pub(crate) static POSITION: Column = Column {
    name: "position",
    member: "\"position\":",
    kind: ColumnKind::Number,
    of: record::ColumnScope::Event,
    doc: "Number within the collector that delivered it",
};

/// Returns the name of a type.
pub(crate) fn type_name(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Text | ColumnKind::Object => "String",
        ColumnKind::Keyword => "LowCardinality(String)",
        ColumnKind::Uuid => "UUID",
        ColumnKind::Time => "DateTime64(3, 'UTC')",
        ColumnKind::NullableTime => "Nullable(DateTime64(3, 'UTC'))",
        ColumnKind::Number => "UInt64",
        ColumnKind::NullableNumber => "Nullable(UInt64)",
        ColumnKind::Flag => "Bool",
    }
}

/// Returns the codec of a type. Low-cardinality texts, UUIDs and flags need none.
fn codec(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Time | ColumnKind::Number => " CODEC(Delta(8), ZSTD(1))",
        ColumnKind::Text | ColumnKind::Object | ColumnKind::NullableTime | ColumnKind::NullableNumber => {
            " CODEC(ZSTD(1))"
        }
        ColumnKind::Keyword | ColumnKind::Uuid | ColumnKind::Flag => "",
    }
}

/// Returns the line of a column in a table's definition.
pub(super) fn column_definition(column: &Column) -> String {
    let Column { name, kind, doc, .. } = column;
    let comment = doc.trim().replace('\'', "\\'");
    format!("{name} {} COMMENT '{comment}'{}", type_name(*kind), codec(*kind))
}

/// Returns every column, in the order of writing and reading.
pub(super) fn all() -> impl Iterator<Item = &'static Column> {
    std::iter::once(&POSITION).chain(record::all())
}

/// Returns the names of all columns, separated by commas.
pub(crate) fn column_names() -> String {
    all().map(|column| column.name).collect::<Vec<_>>().join(", ")
}

/// Value of each byte as a lower-case hexadecimal digit; the highest bit marks other bytes.
const HEX_DIGITS: [u8; 256] = {
    let mut digits = [0x80; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// Parses a UUID from its canonical text. Refuses any other text, upper case included, because it would not be read
/// back unchanged.
pub(super) fn parse_uuid(text: &str) -> Option<u128> {
    let bytes: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut seen = 0;
    let mut number = |places: [std::ops::Range<usize>; 2]| {
        places.into_iter().flatten().fold(0u64, |number, place| {
            let digit = HEX_DIGITS[usize::from(bytes[place])];
            seen |= digit;
            number << 4 | u64::from(digit & 0xf)
        })
    };
    let parts = [number([0..8, 9..13]), number([14..18, 19..23]), number([24..30, 30..36])];
    let dashes = [8, 13, 18, 23].iter().all(|place| bytes[*place] == b'-');
    let [first, second, last] = parts.map(u128::from);
    (dashes && seen & 0x80 == 0).then_some(first << 80 | second << 48 | last)
}

/// Formats a UUID as its canonical text.
pub(crate) fn format_uuid(value: u128) -> String {
    let digits = format!("{value:032x}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_text_that_comes_back_the_same_is_a_uuid() {
        for text in ["0198c0de-0001-7000-8000-00000000abcf", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
            assert_eq!(parse_uuid(text).map(format_uuid).as_deref(), Some(text));
        }
        for text in [
            "",
            "{}",
            "0198C0DE-0001-7000-8000-00000000abcf",
            "0198c0de00017000800000000000abcf",
            "0198c0de-0001-7000-8000-00000000abc",
        ] {
            assert_eq!(parse_uuid(text), None, "{text}");
        }
    }
}
