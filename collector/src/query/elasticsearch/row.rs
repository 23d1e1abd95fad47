//! A stored document as an event. PURE.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::record::{Context, Event};
use crate::row::Row;

/// The parts of a document that are passed on as they are.
#[derive(Deserialize)]
struct Free {
    #[serde(default)]
    props: Option<Box<RawValue>>,
    #[serde(default)]
    common: Option<Box<RawValue>>,
    /// The properties as text, where the store did not take them as an object.
    #[serde(default)]
    props_json: Option<String>,
    #[serde(default)]
    common_json: Option<String>,
}

/// The batch that an event came in.
#[derive(Deserialize)]
struct Batch {
    app_key: String,
    batch_id: String,
    install_id: String,
    received_at: i64,
}

/// The event that was written as this document.
///
/// # Errors
/// If it was written by something else.
pub(crate) fn read(source: &str) -> serde_json::Result<Row<'static>> {
    let free: Free = serde_json::from_str(source)?;
    let object = |raw: Option<Box<RawValue>>, text: Option<String>| match text {
        Some(text) => RawValue::from_string(text).map(|raw| Some(Cow::Owned(raw))),
        None => Ok(raw.map(Cow::Owned)),
    };
    let (props, common) = (object(free.props, free.props_json)?, object(free.common, free.common_json)?);
    // Properties may hold what is no value of this language: half a surrogate, 1e999.
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(source)?;
    let known = fields.iter().filter(|(name, _)| !["props", "common"].contains(&name.as_str()));
    let known: serde_json::Result<serde_json::Map<String, Value>> =
        known.map(|(name, raw)| Ok((name.clone(), serde_json::from_str(raw.get())?))).collect();
    let rest = Value::Object(known?);
    let batch: Batch = serde_json::from_str(source)?;
    let event = Event::deserialize(rest.clone())?;
    let context = Context::deserialize(rest)?;
    Ok(Row {
        app_key: batch.app_key.into(),
        batch_id: batch.batch_id.into(),
        install_id: batch.install_id.into(),
        received_at: batch.received_at,
        context,
        common,
        event,
        props,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_gives_its_event_with_what_was_left_out() {
        let source = r#"{"event_id":"e","theme":"view","code":"c","event_time":3,"ts":4,"seq":7,"position":99,"user_id":"","props":{"a":1e300},
            "app_key":"demo","batch_id":"b","install_id":"i","received_at":5,"platform":"jd"}"#;
        let row = serde_json::to_value(read(source).unwrap()).unwrap();
        assert_eq!(row.as_object().unwrap().len(), 36);
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
        assert_eq!(read(source).unwrap().props.unwrap().get(), r#"{"a":1,"a":2}"#);
    }
}
