//! One stored event with everything known about it, flat: the shape that `export`, the reading API and the sinks that
//! write JSON share. PURE.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::record::{Context, Event, Record, Text};

/// One event, flat. As JSON every field is always there: an unknown text is `""`, an unknown number `null`, properties
/// that were not given are `{}`. Times are milliseconds since the epoch. The JSON text never contains a line break.
#[derive(Debug, Clone)]
pub struct Row<'a> {
    /// Key of the app.
    pub app_key: Text<'a>,
    /// The batch it came in.
    pub batch_id: Text<'a>,
    /// Who sent it.
    pub install_id: Text<'a>,
    /// When it arrived.
    pub received_at: i64,
    /// App, SDK, host and device.
    pub context: Context<'a>,
    /// Common properties of the batch, a JSON object.
    pub common: Option<Cow<'a, RawValue>>,
    /// The event itself; its `props` are in [`Row::props`].
    pub event: Event<'a>,
    /// Properties of the event, a JSON object.
    pub props: Option<Cow<'a, RawValue>>,
}

impl<'a> Row<'a> {
    /// The row of one event of a record; borrows everything.
    #[must_use]
    pub fn new(record: &'a Record<'a>, event: &'a Event<'a>) -> Self {
        Row {
            app_key: Cow::Borrowed(&record.app_key),
            batch_id: Cow::Borrowed(&record.batch_id),
            install_id: Cow::Borrowed(&record.install_id),
            received_at: record.received_at,
            context: record.context.clone(),
            common: record.common.map(Cow::Borrowed),
            event: event.clone(),
            props: event.props.map(Cow::Borrowed),
        }
    }

    /// The record with this one event.
    #[must_use]
    pub fn record(&self) -> Record<'_> {
        Record {
            app_key: Cow::Borrowed(&self.app_key),
            batch_id: Cow::Borrowed(&self.batch_id),
            install_id: Cow::Borrowed(&self.install_id),
            received_at: self.received_at,
            context: self.context.clone(),
            common: self.common.as_deref(),
            events: vec![Event { props: self.props.as_deref(), ..self.event.clone() }],
        }
    }

    /// Appends the row as one line of JSON, without the line break.
    ///
    /// # Errors
    /// None in practice: every field can be written as JSON.
    pub fn write_json(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
        let start = out.len();
        serde_json::to_writer(&mut *out, self)?;
        // Properties pass through as they were sent. A raw line break can only be white space between tokens there,
        // because inside of strings JSON requires it to be escaped.
        for byte in &mut out[start..] {
            if matches!(*byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        Ok(())
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = &self.event;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("event_id", &event.event_id)?;
        map.serialize_entry("app_key", &self.app_key)?;
        map.serialize_entry("install_id", &self.install_id)?;
        map.serialize_entry("user_id", &event.user_id)?;
        map.serialize_entry("theme", &event.theme)?;
        map.serialize_entry("code", &event.code)?;
        map.serialize_entry("event_time", &event.event_time)?;
        map.serialize_entry("received_at", &self.received_at)?;
        map.serialize_entry("ts", &event.ts)?;
        map.serialize_entry("mono", &event.mono)?;
        map.serialize_entry("boot", &event.boot)?;
        map.serialize_entry("seq", &event.seq)?;
        map.serialize_entry("batch_id", &self.batch_id)?;
        map.serialize_entry("session_id", &event.session_id)?;
        map.serialize_entry("session_index", &event.session_index)?;
        map.serialize_entry("session_event", &event.session_event)?;
        map.serialize_entry("page_path", &event.page_path)?;
        map.serialize_entry("page_title", &event.page_title)?;
        map.serialize_entry("page_referrer", &event.page_referrer)?;
        map.serialize_entry("page_enter_ts", &event.page_enter_ts)?;
        for (name, value) in self.context.fields() {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry("common", &Object(self.common.as_deref()))?;
        map.serialize_entry("props", &Object(self.props.as_deref()))?;
        map.end()
    }
}

/// A JSON object, `{}` if there is none.
struct Object<'a>(Option<&'a RawValue>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(raw) => raw.serialize(serializer),
            None => serializer.serialize_map(Some(0))?.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"app_key":"demo","batch_id":"b","install_id":"i","received_at":5,"context":{"platform":"jd","network":"wifi"},
        "common":{"channel":"qr"},"events":[{"event_id":"e","seq":7,"theme":"view","code":"page_view","event_time":3,"ts":4}]}"#;

    #[test]
    fn every_field_is_there_even_when_nothing_is_known() {
        let record: Record<'_> = serde_json::from_str(RECORD).unwrap();
        let row = serde_json::to_value(Row::new(&record, &record.events[0])).unwrap();
        for (name, value) in [
            ("event_id", "e"),
            ("app_key", "demo"),
            ("user_id", ""),
            ("platform", "jd"),
            ("network", "wifi"),
            ("os", ""),
        ] {
            assert_eq!(row[name], value, "{name}");
        }
        assert_eq!(row["event_time"], 3);
        assert_eq!(row["session_index"], serde_json::Value::Null);
        assert_eq!(row["common"], serde_json::json!({"channel": "qr"}));
        assert_eq!(row["props"], serde_json::json!({}));
        assert_eq!(row.as_object().unwrap().len(), 36);
    }

    #[test]
    fn properties_sent_over_several_lines_stay_on_one() {
        let raw: Box<RawValue> = serde_json::from_str("{\"a\":\r\n\"x\\ny\"}").unwrap();
        let record: Record<'_> = serde_json::from_str(RECORD).unwrap();
        let mut row = Row::new(&record, &record.events[0]);
        row.props = Some(Cow::Owned(raw));
        let mut line = Vec::new();
        row.write_json(&mut line).unwrap();
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let back: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(back["props"]["a"], "x\ny");
    }
}
