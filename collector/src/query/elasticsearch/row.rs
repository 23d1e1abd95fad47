//! Decodes a stored document as an event. PURE.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;

use crate::record::{Column, ColumnKind, ColumnSource, OwnedValue};
use crate::row::Row;

/// Fields of a document as raw JSON.
#[derive(Deserialize)]
#[serde(transparent)]
struct Document<'a> {
    #[serde(borrow)]
    fields: HashMap<String, &'a RawValue>,
}

impl<'a> Document<'a> {
    fn get<T: Deserialize<'a>>(&self, name: &str) -> serde_json::Result<Option<T>> {
        self.fields.get(name).map_or(Ok(None), |raw| serde_json::from_str(raw.get()))
    }
}

impl ColumnSource for Document<'_> {
    type Error = serde_json::Error;

    fn next(&mut self, column: &'static Column) -> serde_json::Result<OwnedValue> {
        let name = column.name;
        let found = match column.kind {
            ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid => self.get(name)?.map(OwnedValue::Text),
            ColumnKind::Time | ColumnKind::NullableTime => self.get(name)?.map(OwnedValue::Time),
            ColumnKind::Number | ColumnKind::NullableNumber => self.get(name)?.map(OwnedValue::Number),
            ColumnKind::Flag => self.get(name)?.map(OwnedValue::Flag),
            // As text, where the store refused it as an object.
            ColumnKind::Object => match self.get::<String>(&format!("{name}_json"))? {
                Some(text) => Some(OwnedValue::Object(RawValue::from_string(text)?)),
                None => self.get(name)?.map(OwnedValue::Object),
            },
        };
        match found {
            Some(value) => Ok(value),
            None if matches!(column.kind, ColumnKind::Uuid | ColumnKind::Time | ColumnKind::Number) => {
                Err(serde_json::Error::custom(format!("the document has no {name}")))
            }
            None => Ok(OwnedValue::Absent),
        }
    }
}

/// Decodes the event of a document.
///
/// # Errors
/// If another program wrote the document.
pub(crate) fn read(source: &str) -> serde_json::Result<Row<'static>> {
    Row::read(&mut serde_json::from_str::<Document<'_>>(source)?)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_document_gives_its_event_with_what_was_left_out() {
        let source = r#"{"event_id":"e","theme":"view","code":"c","event_time":3,"ts":4,"seq":7,"position":99,"user_id":"","props":{"a":1e300},
            "app_key":"demo","batch_id":"b","install_id":"i","received_at":5,"platform":"jd"}"#;
        let row = serde_json::to_value(read(source).unwrap()).unwrap();
        assert_eq!(row.as_object().unwrap().len(), crate::record::all().count());
        for (name, value) in [("event_id", "e"), ("platform", "jd"), ("os", ""), ("user_id", "")] {
            assert_eq!(row[name], value, "{name}");
        }
        assert_eq!(
            (&row["props"]["a"], &row["mono"], &row["seq"]),
            (&serde_json::json!(1e300), &Value::Null, &serde_json::json!(7))
        );
    }

    #[test]
    fn properties_kept_as_text_come_back_as_they_were_sent() {
        let source = r#"{"event_id":"e","theme":"view","code":"c","event_time":3,"ts":4,"seq":7,"user_id":"","props":{},"props_json":"{\"a\":1,\"a\":2}",
            "app_key":"demo","batch_id":"b","install_id":"i","received_at":5}"#;
        assert_eq!(read(source).unwrap().event.props.get().unwrap().get(), r#"{"a":1,"a":2}"#);
    }
}
