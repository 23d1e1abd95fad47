//! What the store's answers mean for an event.

use serde::Deserialize;
use serde_json::value::RawValue;
use subway_protocol::codec::server::WireText;
use subway_protocol::outcome::truncate;

/// Bytes of a reason that are kept.
const MAX_REASON_BYTES: usize = 1000;
/// Nested causes that are added to the reason.
const MAX_CAUSES: usize = 8;

/// Types of errors about the document itself, which will be refused in every attempt.
const DOCUMENT_ERROR_TYPES: [&str; 4] =
    ["document_parsing_exception", "mapper_parsing_exception", "strict_dynamic_mapping_exception", "parsing_exception"];
/// Texts by which an `illegal_argument_exception`, which has many meanings, concerns the document: a term that is too
/// long to be indexed, more fields than an index may have, an invalid field name.
const ILLEGAL_ARGUMENT_TEXTS: [&str; 3] = ["immense term", "Limit of ", "field name"];

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// It is in the store, now.
    Taken,
    /// A document of this identity was there before.
    Exists,
    /// The store will never take it.
    Refused(String),
    /// The store has too much to do, or a shard is away for the moment.
    Later(String),
    /// Nothing of this kind is taken until somebody changes the store.
    Blocked(String),
}

/// Error in a response. Its texts may quote what a sender wrote, including half a surrogate pair.
#[derive(Deserialize)]
struct StoreError<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: WireText<'a>,
    #[serde(borrow, default)]
    reason: Option<WireText<'a>>,
    #[serde(borrow, default)]
    caused_by: Option<&'a RawValue>,
}

/// What `status` and `error` of one item of a bulk's answer mean.
pub(super) fn classify(status: u16, error: Option<&RawValue>) -> ErrorClass {
    match status {
        200 | 201 => return ErrorClass::Taken,
        409 => return ErrorClass::Exists,
        _ => {}
    }
    let (speaks_of_document, message) = match error {
        Some(error) => read(error),
        None => (false, String::new()),
    };
    let message = format!("status {status}: {message}");
    match status {
        429 | 500..=599 => ErrorClass::Later(message),
        400 if speaks_of_document => ErrorClass::Refused(message),
        _ => ErrorClass::Blocked(message),
    }
}

/// Returns whether the error concerns the document, and its text.
fn read(error: &RawValue) -> (bool, String) {
    let Ok(top) = serde_json::from_str::<StoreError<'_>>(error.get()) else {
        return (false, clip(error.get()));
    };
    let reason = top.reason.unwrap_or_default();
    let speaks = DOCUMENT_ERROR_TYPES.contains(&&*top.kind)
        || &*top.kind == "illegal_argument_exception"
            && ILLEGAL_ARGUMENT_TEXTS.iter().any(|words| reason.contains(words));
    let mut message = format!("{}: {}", &*top.kind, &*reason);
    let mut cause = top.caused_by;
    for _ in 0..MAX_CAUSES {
        let Some(Ok(below)) = cause.map(|raw| serde_json::from_str::<StoreError<'_>>(raw.get())) else { break };
        message.push_str("; ");
        message.push_str(&below.kind);
        message.push_str(": ");
        message.push_str(below.reason.as_deref().unwrap_or_default());
        cause = below.caused_by;
    }
    (speaks, clip(&message))
}

fn clip(text: &str) -> String {
    truncate(text, MAX_REASON_BYTES).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, error: &str) -> ErrorClass {
        let raw: Option<Box<RawValue>> = (!error.is_empty()).then(|| serde_json::from_str(error).unwrap());
        classify(status, raw.as_deref())
    }

    #[test]
    fn only_what_speaks_of_the_document_is_held_against_it() {
        assert_eq!(of(201, ""), ErrorClass::Taken);
        assert_eq!(
            of(409, r#"{"type":"version_conflict_engine_exception","reason":"[a]: version conflict"}"#),
            ErrorClass::Exists
        );
        let deep = r#"{"type":"document_parsing_exception","reason":"[1:20] failed to parse field [props]","caused_by":{"type":"illegal_argument_exception",
            "reason":"Keys cannot contain \\0"}}"#;
        assert!(
            matches!(of(400, deep), ErrorClass::Refused(why) if why.contains("Keys cannot contain \\0") && why.contains("status 400"))
        );
        // As Elasticsearch 8.19 quotes the value of a document that it refuses.
        let quoting = r#"{"type":"document_parsing_exception","reason":"[1:9] failed. Preview of field's value: '\uD83D'",
            "caused_by":{"type":"x_content_parse_exception","reason":"Duplicate field 'a' beside '\uD83D'"}}"#;
        assert!(
            matches!(of(400, quoting), ErrorClass::Refused(why) if why.contains("value: '\u{fffd}'") && why.contains("beside '\u{fffd}'"))
        );
        let immense = r#"{"type":"illegal_argument_exception","reason":"Document contains at least one immense term in field=\"props._value\""}"#;
        assert!(matches!(of(400, immense), ErrorClass::Refused(_)));
        for of_all in [
            r#"{"type":"illegal_argument_exception","reason":"pipeline with id [x] does not exist"}"#,
            r#"{"type":"index_closed_exception","reason":"closed"}"#,
            r#"{"type":"validation_exception","reason":"this action would add [2] shards, but this cluster currently has [1000]/[1000] maximum"}"#,
            r#"{"type":"something_new","reason":null}"#,
            "",
        ] {
            assert!(matches!(of(400, of_all), ErrorClass::Blocked(_)), "{of_all}");
        }
        assert!(matches!(
            of(403, r#"{"type":"cluster_block_exception","reason":"FORBIDDEN/8/index write (api)"}"#),
            ErrorClass::Blocked(_)
        ));
        assert!(matches!(
            of(404, r#"{"type":"index_not_found_exception","reason":"no such index"}"#),
            ErrorClass::Blocked(_)
        ));
        assert!(matches!(
            of(429, r#"{"type":"es_rejected_execution_exception","reason":"queue"}"#),
            ErrorClass::Later(_)
        ));
        assert!(matches!(of(503, r#"{"type":"unavailable_shards_exception","reason":"away"}"#), ErrorClass::Later(_)));
    }

    #[test]
    fn a_long_reason_is_clipped_between_characters() {
        let long = format!(r#"{{"type":"parsing_exception","reason":"{}"}}"#, "\u{9875}".repeat(2000));
        let ErrorClass::Refused(why) = of(400, &long) else { panic!() };
        assert!(why.len() <= MAX_REASON_BYTES + "status 400: ".len());
    }
}
