//! The columns of a stored event, as they are written and read. The table may have more; these it must have.

/// How one column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A text; empty if unknown.
    Text,
    /// One of few texts.
    Word,
    /// 16 bytes, written as 36 characters in lower case.
    Uuid,
    /// A time in UTC, milliseconds.
    Time,
    /// A time that may be unknown.
    MaybeTime,
    /// A number.
    Number,
    /// A number that may be unknown.
    MaybeNumber,
}

impl Kind {
    /// The type's name in ClickHouse.
    pub(super) fn type_name(self) -> &'static str {
        match self {
            Kind::Text => "String",
            Kind::Word => "LowCardinality(String)",
            Kind::Uuid => "UUID",
            Kind::Time => "DateTime64(3, 'UTC')",
            Kind::MaybeTime => "Nullable(DateTime64(3, 'UTC'))",
            Kind::Number => "UInt64",
            Kind::MaybeNumber => "Nullable(UInt64)",
        }
    }
}

/// Name and kind of the columns that are the same for every event of a record, in the order of writing and reading.
pub(super) const OF_RECORD: [(&str, Kind); 19] = [
    ("app_key", Kind::Word),
    ("install_id", Kind::Text),
    ("batch_id", Kind::Text),
    ("received_at", Kind::Time),
    ("common", Kind::Text),
    ("app_version", Kind::Word),
    ("sdk_name", Kind::Word),
    ("sdk_version", Kind::Word),
    ("platform", Kind::Word),
    ("host_app", Kind::Word),
    ("host_version", Kind::Word),
    ("os", Kind::Word),
    ("os_version", Kind::Word),
    ("brand", Kind::Word),
    ("model", Kind::Word),
    ("screen", Kind::Word),
    ("language", Kind::Word),
    ("timezone", Kind::Word),
    ("network", Kind::Word),
];

/// Name and kind of the columns of an event, in the order of writing and reading, after those of its record.
pub(super) const OF_EVENT: [(&str, Kind); 18] = [
    ("event_id", Kind::Uuid),
    ("event_time", Kind::Time),
    ("position", Kind::Number),
    ("seq", Kind::Number),
    ("theme", Kind::Word),
    ("code", Kind::Word),
    ("user_id", Kind::Text),
    ("ts", Kind::Time),
    ("mono", Kind::MaybeNumber),
    ("boot", Kind::Text),
    ("session_id", Kind::Text),
    ("session_index", Kind::MaybeNumber),
    ("session_event", Kind::MaybeNumber),
    ("page_path", Kind::Text),
    ("page_title", Kind::Text),
    ("page_referrer", Kind::Text),
    ("page_enter_ts", Kind::MaybeTime),
    ("props", Kind::Text),
];

/// Every column, in the order of writing and reading.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, Kind)> {
    OF_RECORD.into_iter().chain(OF_EVENT)
}

/// The names, separated by commas.
pub(crate) fn names() -> String {
    all().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}

/// What each byte is as a digit of a UUID in lower case; what is none has the highest bit.
const DIGITS: [u8; 256] = {
    let mut digits = [0x80; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

/// The number of a UUID from its canonical text. Any other text, upper case included, would not come back as it was.
pub(super) fn uuid(text: &str) -> Option<u128> {
    let bytes: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut seen = 0;
    let mut number = |places: [std::ops::Range<usize>; 2]| {
        places.into_iter().flatten().fold(0u64, |number, place| {
            let digit = DIGITS[usize::from(bytes[place])];
            seen |= digit;
            number << 4 | u64::from(digit & 0xf)
        })
    };
    let parts = [number([0..8, 9..13]), number([14..18, 19..23]), number([24..30, 30..36])];
    let dashes = [8, 13, 18, 23].iter().all(|place| bytes[*place] == b'-');
    let [first, second, last] = parts.map(u128::from);
    (dashes && seen & 0x80 == 0).then_some(first << 80 | second << 48 | last)
}

/// The canonical text of a UUID.
pub(crate) fn uuid_text(value: u128) -> String {
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
            assert_eq!(uuid(text).map(uuid_text).as_deref(), Some(text));
        }
        for text in [
            "",
            "{}",
            "0198C0DE-0001-7000-8000-00000000abcf",
            "0198c0de00017000800000000000abcf",
            "0198c0de-0001-7000-8000-00000000abc",
        ] {
            assert_eq!(uuid(text), None, "{text}");
        }
    }

    #[test]
    fn every_field_of_a_row_has_a_column() {
        let record = r#"{"app_key":"a","batch_id":"b","install_id":"i","received_at":5,
            "events":[{"event_id":"e","seq":7,"theme":"view","code":"c","event_time":3,"ts":4}]}"#;
        let record: crate::record::Record<'_> = serde_json::from_str(record).unwrap();
        let row = serde_json::to_value(crate::row::Row::new(&record, &record.events[0])).unwrap();
        let fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        for field in &fields {
            assert!(all().any(|(name, _)| name == *field), "{field}");
        }
        let context: Vec<&str> = record.context.fields().map(|(name, _)| name).collect();
        assert_eq!(OF_RECORD[5..].iter().map(|(name, _)| *name).collect::<Vec<_>>(), context);
        assert_eq!(all().count(), fields.len() + 1, "besides position");
    }
}
