//! The index templates, and how they come into the store.

use reqwest::Method;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::SinkError;
use super::names;
use super::server::{Flavour, Server};
use crate::config::Elasticsearch as Settings;
use crate::record::{self, Column, ColumnKind};

/// Number of the templates' content. Grows with every change here; a store that has a newer one is left as it is.
pub(super) const VERSION: u64 = 2;
/// Above the templates of most others, which stay at 100 to 200.
const PRIORITY: u64 = 300;
/// Longest text that is indexed, characters: a term may have 32,766 bytes. Longer ones are stored and not found.
const INDEXED_CHARS: u64 = 8191;

/// Fields that questions are answered by, and the type that each must have.
const NEEDED: [(&str, &str); 7] = [
    ("app_key", "keyword"),
    ("install_id", "keyword"),
    ("user_id", "keyword"),
    ("session_id", "keyword"),
    ("theme", "keyword"),
    ("code", "keyword"),
    ("event_time", "date"),
];

/// The requests that make the schema, as JSON: for Elasticsearch and for OpenSearch.
#[must_use]
pub(crate) fn schema(settings: &Settings) -> String {
    let of = |flavour| {
        let requests = templates(settings, flavour).into_iter();
        let request = |(name, body): (String, Value)| json!({"method": "PUT", "path": format!("/_index_template/{name}"), "body": body});
        requests.map(request).collect::<Vec<_>>()
    };
    let both = json!({"elasticsearch": of(Flavour::Elasticsearch), "opensearch": of(Flavour::OpenSearch)});
    format!("{both:#}\n")
}

fn word() -> Value {
    json!({"type": "keyword", "ignore_above": INDEXED_CHARS})
}

fn time() -> Value {
    json!({"type": "date", "format": "epoch_millis"})
}

fn number() -> Value {
    json!({"type": "long", "ignore_malformed": true})
}

/// Names and bodies of the templates.
fn templates(settings: &Settings, flavour: Flavour) -> Vec<(String, Value)> {
    let prefix = settings.index_prefix();
    let counts = json!({"dynamic": false, "properties": {
        "app_key": word(), "install_id": word(), "user": word(), "day": {"type": "date", "format": "yyyy-MM-dd"},
        "first_time": time(), "event_time": time(), "event_id": word(), "following": {"type": "boolean"}}});
    let events = template(settings, &format!("{prefix}-ods-*"), settings.ilm_policy.as_deref(), events(flavour));
    let patterns = [format!("{prefix}-uv-*"), names::users(prefix), names::followers(prefix)];
    let mut all = vec![(format!("{prefix}-ods"), events)];
    if settings.exact_counts {
        all.push((format!("{prefix}-counts"), template(settings, &patterns.join(","), None, counts)));
    }
    all
}

fn template(settings: &Settings, patterns: &str, ilm_policy: Option<&str>, mappings: Value) -> Value {
    let mut index = Map::new();
    index.insert("number_of_shards".into(), json!(settings.shards));
    match settings.replicas {
        Some(replicas) => index.insert("number_of_replicas".into(), json!(replicas)),
        None => index.insert("auto_expand_replicas".into(), json!("0-1")),
    };
    index.insert("refresh_interval".into(), json!(settings.refresh_interval()));
    if settings.best_compression {
        index.insert("codec".into(), json!("best_compression"));
    }
    if let Some(policy) = ilm_policy {
        index.insert("lifecycle.name".into(), json!(policy));
    }
    let patterns: Vec<&str> = patterns.split(',').collect();
    let content = json!({"settings": {"index": index}, "mappings": mappings});
    let made = Sha256::digest(content.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({"index_patterns": patterns, "priority": PRIORITY, "version": VERSION,
        "_meta": {"made_by": "subway-collector", "content": made}, "template": content})
}

/// The mapping of a column. A value that is not of its kind is stored and not found.
fn mapping(column: &Column, flavour: Flavour) -> Value {
    match (column.name, column.kind, flavour) {
        // It says which index a document is in; a wrong one must not be stored.
        ("event_time", ..) => time(),
        // Only looked up, never counted.
        ("batch_id", ..) => json!({"type": "keyword", "doc_values": false}),
        (_, ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid, _) => word(),
        (_, ColumnKind::Time | ColumnKind::NullableTime, _) => {
            json!({"type": "date", "format": "epoch_millis", "ignore_malformed": true})
        }
        (_, ColumnKind::Number | ColumnKind::NullableNumber, _) => number(),
        (_, ColumnKind::Flag, _) => json!({"type": "boolean"}),
        (_, ColumnKind::Object, Flavour::Elasticsearch) => json!({"type": "flattened", "ignore_above": INDEXED_CHARS}),
        (_, ColumnKind::Object, Flavour::OpenSearch) => json!({"type": "flat_object"}),
    }
}

/// The mapping of the events. Nothing is mapped by guessing: a field more is a field for ever, and an index has a thousand.
fn events(flavour: Flavour) -> Value {
    let mut properties = Map::new();
    for column in record::all() {
        properties.insert(column.name.to_owned(), mapping(column, flavour));
        if column.kind == ColumnKind::Object {
            // The same as text, where the store does not take it as an object; kept, not searched.
            let text = json!({"type": "keyword", "index": false, "doc_values": false});
            properties.insert(format!("{}_json", column.name), text);
        }
    }
    properties.insert("position".into(), number());
    json!({"dynamic": false, "properties": properties})
}

/// Brings what is needed into the store, or checks that it is there if the templates are the operator's.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the store refuses a template or lacks what is needed; [`SinkError::Retryable`].
pub(super) async fn prepare(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    if settings.manage_schema {
        return apply(server, settings).await.map(|_| ());
    }
    check_server(server, settings).await?;
    check(server, settings).await?;
    if !settings.exact_counts {
        counts_are_incomplete(server, settings).await?;
    }
    Ok(())
}

/// Brings what is missing into the store; says what it did.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the store refuses a template; [`SinkError::Retryable`].
pub(super) async fn apply(server: &Server, settings: &Settings) -> Result<Vec<String>, SinkError> {
    let flavour = check_server(server, settings).await?;
    let mut did = Vec::new();
    for (name, body) in templates(settings, flavour) {
        if put(server, &name, &body).await? {
            did.push(format!("index template {name}, version {VERSION}"));
        }
    }
    if !settings.exact_counts {
        counts_are_incomplete(server, settings).await?;
    } else if make_users(server, settings).await? {
        did.push(format!("index {}", names::users(settings.index_prefix())));
    }
    Ok(did)
}

async fn check_server(server: &Server, settings: &Settings) -> Result<Flavour, SinkError> {
    let flavour = server.check_version().await?;
    if flavour == Flavour::OpenSearch && settings.ilm_policy.is_some() {
        return Err(SinkError::misconfigured(
            "ilm_policy is of Elasticsearch; OpenSearch's policies name the indices they are for themselves (ism_template)",
        ));
    }
    Ok(flavour)
}

/// Puts one template, unless the store has it already or has a newer one. Says whether it did.
async fn put(server: &Server, name: &str, body: &Value) -> Result<bool, SinkError> {
    let path = format!("/_index_template/{name}");
    let answer = server.ask(Method::GET, &path, None).await?;
    match answer.status {
        404 => {}
        200 => {
            let value = super::server::parse(&answer)?;
            let there = &value["index_templates"][0]["index_template"];
            let version = there["version"].as_u64().unwrap_or(0);
            if version > VERSION || version == VERSION && there["_meta"]["content"] == body["_meta"]["content"] {
                return Ok(false);
            }
        }
        _ => return Err(answer.retryable()),
    }
    let answer = server.ask(Method::PUT, &path, Some(body)).await?;
    match answer.status {
        200 => Ok(true),
        400 => Err(SinkError::misconfigured(format!("the store refuses the template {name}: {}", answer.message()))),
        _ => Err(answer.retryable()),
    }
}

/// Whether an index made now would have the fields that questions are answered by.
async fn check(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    let index = names::ods(settings.index_prefix(), 0);
    let path = format!("/_index_template/_simulate_index/{index}?filter_path=template.mappings");
    let value = server.value(Method::POST, &path, None).await?;
    for (name, kind) in NEEDED {
        let found = value["template"]["mappings"]["properties"][name]["type"].as_str().unwrap_or("missing");
        if found != kind {
            return Err(SinkError::misconfigured(format!(
                "manage_schema is false, and in an index named {index} the field {name} would be {found}, not {kind}; \
                put the templates that `schema show` prints, or let the sink manage them"
            )));
        }
    }
    Ok(())
}

/// Whether there is an index of installs.
async fn has_users(server: &Server, users: &str) -> Result<bool, SinkError> {
    let answer = server.ask(Method::GET, &format!("/{users}/_mapping?filter_path=*.mappings._meta"), None).await?;
    match answer.status {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(answer.retryable()),
    }
}

/// A note in the index of installs: whether it has the first time of every one, so that questions may be answered from it.
fn note(complete: bool) -> Value {
    json!({"_meta": {"complete": complete}})
}

/// Makes the index of installs if there is none, and notes whether there were events before it. Says whether it did.
async fn make_users(server: &Server, settings: &Settings) -> Result<bool, SinkError> {
    let prefix = settings.index_prefix();
    let users = names::users(prefix);
    if has_users(server, &users).await? {
        return Ok(false);
    }
    let events = format!("/_resolve/index/{prefix}-ods-*?filter_path=indices.name");
    let events = server.value(Method::GET, &events, None).await?;
    let complete = events["indices"].as_array().is_none_or(Vec::is_empty);
    let answer = server.ask(Method::PUT, &format!("/{users}"), Some(&json!({"mappings": note(complete)}))).await?;
    // Somebody else may have been faster.
    let raced = answer.status == 400 && answer.message().contains("resource_already_exists_exception");
    if answer.is_ok() || raced { Ok(!raced) } else { Err(answer.retryable()) }
}

/// From now on events are written without their counts.
async fn counts_are_incomplete(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    let users = names::users(settings.index_prefix());
    if has_users(server, &users).await? {
        server.value(Method::PUT, &format!("/{users}/_mapping"), Some(&note(false))).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_every_field_of_an_event_and_what_was_asked_for() {
        let more = "replicas = 2\nilm_policy = \"thirty-days\"\nbest_compression = true\nrefresh_interval = \"1s\"";
        let settings = Settings::of_test("http://127.0.0.1:1", "px", more);
        let schema: Value = serde_json::from_str(&schema(&settings)).unwrap();
        let events = &schema["elasticsearch"][0];
        assert_eq!(events["path"], "/_index_template/px-ods");
        assert_eq!(events["body"]["index_patterns"], json!(["px-ods-*"]));
        let index = &events["body"]["template"]["settings"]["index"];
        assert_eq!(index["lifecycle.name"], "thirty-days");
        assert_eq!((&index["number_of_replicas"], &index["codec"]), (&json!(2), &json!("best_compression")));
        let record: crate::record::Record<'_> = serde_json::from_str(
            r#"{"app_key":"a","batch_id":"b","install_id":"i","received_at":5,"events":[{"event_id":"e","seq":7,"theme":"view","code":"c","event_time":3,"ts":4}]}"#).unwrap();
        let row = serde_json::to_value(crate::row::Row::new(&record, &record.events[0])).unwrap();
        let properties = events["body"]["template"]["mappings"]["properties"].as_object().unwrap();
        for name in row.as_object().unwrap().keys() {
            assert!(properties.contains_key(name), "{name}");
        }
        assert_eq!(properties["props"]["type"], "flattened");
        let open = &schema["opensearch"][0]["body"]["template"]["mappings"]["properties"];
        assert_eq!(open["props"]["type"], "flat_object");
        assert_eq!(schema["elasticsearch"].as_array().unwrap().len(), 2);
    }
}
