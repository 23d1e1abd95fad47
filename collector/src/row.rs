//! JSON line of one stored event: the flat form that `export`, the reading API and the sinks that write JSON share. It
//! never contains a line break. PURE.

use serde::ser::{Serialize, SerializeMap, Serializer};

pub use crate::record::Row;
use crate::record::{self, Context, Event, Record, write_members};

/// Returns the end of the line that all events of a record share, so that it is encoded once.
#[must_use]
pub fn shared_suffix(record: &Record<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    write_suffix(&mut out, record.values(), &record.context);
    out
}

fn write_suffix(
    out: &mut Vec<u8>,
    batch: [record::Value<'_>; Record::<'static>::COLUMNS.len()],
    context: &Context<'_>,
) {
    write_members(out, Record::COLUMNS, batch);
    write_members(out, Context::COLUMNS, context.values());
    // Replaces the last comma.
    if let Some(last) = out.last_mut() {
        *last = b'}';
    }
}

/// Appends one event as a line, without the line break. `shared` is that of its record.
pub fn write(out: &mut Vec<u8>, event: &Event<'_>, shared: &[u8]) {
    out.push(b'{');
    write_members(out, Event::COLUMNS, event.values());
    out.extend_from_slice(shared);
}

impl Row<'_> {
    /// Appends the row as a line, without the line break.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        write_members(out, Event::COLUMNS, self.event.values());
        write_suffix(out, self.batch_values(), &self.context);
    }
}

impl Serialize for Row<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let of_batch = self.batch_values().into_iter().chain(self.context.values());
        let values = self.event.values().into_iter().chain(of_batch);
        for (column, value) in record::all().zip(values) {
            map.serialize_entry(column.name, &value)?;
        }
        map.end()
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
        assert_eq!(row["unverified"], false);
        assert_eq!(row["common"], serde_json::json!({"channel": "qr"}));
        assert_eq!(row["props"], serde_json::json!({}));
        let names: Vec<&String> = row.as_object().unwrap().keys().collect();
        assert!(record::all().all(|column| names.iter().any(|name| *name == column.name)));
        assert_eq!(names.len(), record::all().count());
    }

    #[test]
    fn the_three_ways_to_write_it_are_one() {
        let text = record::samples::record();
        let record: Record<'_> = serde_json::from_str(&text).unwrap();
        let (row, mut one, mut other) = (Row::new(&record, &record.events[0]), Vec::new(), Vec::new());
        row.write_json(&mut one);
        write(&mut other, &record.events[0], &shared_suffix(&record));
        assert_eq!(String::from_utf8(one).unwrap(), serde_json::to_string(&row).unwrap());
        assert_eq!(String::from_utf8(other).unwrap(), serde_json::to_string(&row).unwrap());
    }

    #[test]
    fn properties_sent_over_several_lines_stay_on_one() {
        let text = RECORD.replace(r#""ts":4"#, "\"ts\":4,\"props\":{\"a\":\r\n\"x\\ny\"}");
        let record: Record<'_> = serde_json::from_str(&text).unwrap();
        let mut line = Vec::new();
        write(&mut line, &record.events[0], &shared_suffix(&record));
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        let back: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(back["props"]["a"], "x\ny");
    }
}
