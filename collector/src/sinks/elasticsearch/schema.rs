//! Index templates, and their installation in the store.

use reqwest::Method;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::super::SinkError;
use super::names;
use super::server::{Distribution, Server};
use crate::config::Elasticsearch as Settings;
use crate::record::{self, Column, ColumnKind};

/// Version of the templates. Raise it with every change here. A newer version in the store is left as it is.
pub(super) const VERSION: u64 = 2;
/// Priority above most other templates, which have 100 to 200.
const PRIORITY: u64 = 300;
/// Longest text that is indexed, characters: a term has at most 32,766 bytes. Longer texts are stored and cannot be
/// searched.
const MAX_INDEXED_CHARS: u64 = 8191;

/// Fields that queries use, with the type that each must have.
const REQUIRED_FIELDS: [(&str, &str); 7] = [
    ("app_key", "keyword"),
    ("install_id", "keyword"),
    ("user_id", "keyword"),
    ("session_id", "keyword"),
    ("theme", "keyword"),
    ("code", "keyword"),
    ("event_time", "date"),
];

/// Returns the requests that create the schema, as JSON: for Elasticsearch and for OpenSearch.
#[must_use]
pub(crate) fn schema(settings: &Settings) -> String {
    let of = |distribution| {
        let requests = templates(settings, distribution).into_iter();
        let request = |(name, body): (String, Value)| json!({"method": "PUT", "path": format!("/_index_template/{name}"), "body": body});
        requests.map(request).collect::<Vec<_>>()
    };
    let both = json!({"elasticsearch": of(Distribution::Elasticsearch), "opensearch": of(Distribution::OpenSearch)});
    format!("{both:#}\n")
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": MAX_INDEXED_CHARS})
}

fn epoch_millis() -> Value {
    json!({"type": "date", "format": "epoch_millis"})
}

fn long() -> Value {
    json!({"type": "long", "ignore_malformed": true})
}

/// Returns names and bodies of the templates.
fn templates(settings: &Settings, distribution: Distribution) -> Vec<(String, Value)> {
    let prefix = settings.index_prefix();
    let counts = json!({"dynamic": false, "properties": {
        "app_key": keyword(), "install_id": keyword(), "user": keyword(), "day": {"type": "date", "format": "yyyy-MM-dd"},
        "first_time": epoch_millis(), "event_time": epoch_millis(), "event_id": keyword(), "following": {"type": "boolean"}}});
    let events = template(settings, &format!("{prefix}-ods-*"), settings.ilm_policy.as_deref(), events(distribution));
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
    let digest = hex::encode(&Sha256::digest(content.to_string())[..8]);
    json!({"index_patterns": patterns, "priority": PRIORITY, "version": VERSION,
        "_meta": {"made_by": "subway-collector", "content": digest}, "template": content})
}

/// Returns the mapping of a column. A value of another type is stored and cannot be searched.
fn mapping(column: &Column, distribution: Distribution) -> Value {
    match (column.name, column.kind, distribution) {
        // It says which index a document is in; a wrong one must not be stored.
        ("event_time", ..) => epoch_millis(),
        // Only looked up, never counted.
        ("batch_id", ..) => json!({"type": "keyword", "doc_values": false}),
        (_, ColumnKind::Text | ColumnKind::Keyword | ColumnKind::Uuid, _) => keyword(),
        (_, ColumnKind::Time | ColumnKind::NullableTime, _) => {
            json!({"type": "date", "format": "epoch_millis", "ignore_malformed": true})
        }
        (_, ColumnKind::Number | ColumnKind::NullableNumber, _) => long(),
        (_, ColumnKind::Flag, _) => json!({"type": "boolean"}),
        (_, ColumnKind::Object, Distribution::Elasticsearch) => {
            json!({"type": "flattened", "ignore_above": MAX_INDEXED_CHARS})
        }
        (_, ColumnKind::Object, Distribution::OpenSearch) => json!({"type": "flat_object"}),
    }
}

/// Returns the mapping of the events. Dynamic mapping is off: a new field is permanent, and an index has at most a
/// thousand.
fn events(distribution: Distribution) -> Value {
    let mut properties = Map::new();
    for column in record::all() {
        properties.insert(column.name.to_owned(), mapping(column, distribution));
        if column.kind == ColumnKind::Object {
            // The same as text, where the store does not take it as an object; kept, not searched.
            let text = json!({"type": "keyword", "index": false, "doc_values": false});
            properties.insert(format!("{}_json", column.name), text);
        }
    }
    properties.insert("position".into(), long());
    json!({"dynamic": false, "properties": properties})
}

/// Installs what is needed in the store, or checks it if the operator manages the templates.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the store refuses a template or lacks what is needed; [`SinkError::Retryable`].
pub(super) async fn prepare(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    if settings.manage_schema {
        return apply(server, settings).await.map(|_| ());
    }
    check_server(server, settings).await?;
    check_template(server, settings).await?;
    if !settings.exact_counts {
        mark_counts_incomplete(server, settings).await?;
    }
    Ok(())
}

/// Installs what is missing in the store. Returns a line for each step.
///
/// # Errors
/// [`SinkError::Misconfigured`] if the store refuses a template; [`SinkError::Retryable`].
pub(super) async fn apply(server: &Server, settings: &Settings) -> Result<Vec<String>, SinkError> {
    let distribution = check_server(server, settings).await?;
    let mut applied = Vec::new();
    for (name, body) in templates(settings, distribution) {
        if put_template(server, &name, &body).await? {
            applied.push(format!("index template {name}, version {VERSION}"));
        }
    }
    if !settings.exact_counts {
        mark_counts_incomplete(server, settings).await?;
    } else if create_users_index(server, settings).await? {
        applied.push(format!("index {}", names::users(settings.index_prefix())));
    }
    Ok(applied)
}

async fn check_server(server: &Server, settings: &Settings) -> Result<Distribution, SinkError> {
    let distribution = server.check_version().await?;
    if distribution == Distribution::OpenSearch && settings.ilm_policy.is_some() {
        return Err(SinkError::misconfigured(
            "ilm_policy is of Elasticsearch; OpenSearch's policies name the indices they are for themselves (ism_template)",
        ));
    }
    Ok(distribution)
}

/// Puts one template, unless the store has it already or has a newer one. Returns whether it did.
async fn put_template(server: &Server, name: &str, body: &Value) -> Result<bool, SinkError> {
    let path = format!("/_index_template/{name}");
    let answer = server.ask(Method::GET, &path, None).await?;
    match answer.status {
        404 => {}
        200 => {
            let value = super::server::parse(&answer)?;
            let existing = &value["index_templates"][0]["index_template"];
            let version = existing["version"].as_u64().unwrap_or(0);
            if version > VERSION || version == VERSION && existing["_meta"]["content"] == body["_meta"]["content"] {
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

/// Checks that a new index would have the fields that queries use.
async fn check_template(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    let index = names::ods(settings.index_prefix(), 0);
    let path = format!("/_index_template/_simulate_index/{index}?filter_path=template.mappings");
    let value = server.value(Method::POST, &path, None).await?;
    for (name, kind) in REQUIRED_FIELDS {
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

/// Returns whether the index of installs exists.
async fn users_index_exists(server: &Server, users: &str) -> Result<bool, SinkError> {
    let answer = server.ask(Method::GET, &format!("/{users}/_mapping?filter_path=*.mappings._meta"), None).await?;
    match answer.status {
        200 => Ok(true),
        404 => Ok(false),
        _ => Err(answer.retryable()),
    }
}

/// Returns the mark in the index of installs that says whether it has the first time of all installs. Queries use the
/// index only if it has.
fn completeness_mark(complete: bool) -> Value {
    json!({"_meta": {"complete": complete}})
}

/// Creates the index of installs if it is missing, and marks whether there were events before it. Returns whether it
/// did.
async fn create_users_index(server: &Server, settings: &Settings) -> Result<bool, SinkError> {
    let prefix = settings.index_prefix();
    let users = names::users(prefix);
    if users_index_exists(server, &users).await? {
        return Ok(false);
    }
    let events = format!("/_resolve/index/{prefix}-ods-*?filter_path=indices.name");
    let events = server.value(Method::GET, &events, None).await?;
    let complete = events["indices"].as_array().is_none_or(Vec::is_empty);
    let answer =
        server.ask(Method::PUT, &format!("/{users}"), Some(&json!({"mappings": completeness_mark(complete)}))).await?;
    // Somebody else may have been faster.
    let raced = answer.status == 400 && answer.message().contains("resource_already_exists_exception");
    if answer.is_ok() || raced { Ok(!raced) } else { Err(answer.retryable()) }
}

/// Marks the index of installs as incomplete, because events are written without their counts from now on.
async fn mark_counts_incomplete(server: &Server, settings: &Settings) -> Result<(), SinkError> {
    let users = names::users(settings.index_prefix());
    if users_index_exists(server, &users).await? {
        server.value(Method::PUT, &format!("/{users}/_mapping"), Some(&completeness_mark(false))).await?;
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
