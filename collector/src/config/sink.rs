//! `[[sink]]`: the stores besides the embedded one. Each kind reads its own settings; none but the embedded is built yet.

use std::collections::HashSet;

use toml::Spanned;

use super::text::expand;
use super::{ConfigError, Source};

/// The name of the sink that is always there.
pub const EMBEDDED: &str = "embedded";

/// One configured sink besides the embedded one.
#[derive(Clone, Debug)]
pub struct Sink {
    /// Names it in the ledger, the metrics and the dead letters.
    pub name: String,
    /// What it is and how to reach it.
    pub kind: Kind,
}

/// The kinds of sinks that can be configured, each with its settings. None is built yet.
#[derive(Clone, Debug)]
pub enum Kind {}

const PLANNED: [&str; 3] = ["clickhouse", "elasticsearch", "kafka"];

pub(super) fn all(source: &Source<'_>, tables: Vec<Spanned<toml::Table>>) -> Result<Vec<Sink>, ConfigError> {
    let mut names = HashSet::new();
    let mut sinks = Vec::new();
    for table in tables {
        let at = table.span();
        let mut settings = table.into_inner();
        let mut text = |key: &str| {
            let wrong = |why: String| source.error(at.clone(), &format!("sink.{key}"), why);
            match settings.remove(key) {
                Some(toml::Value::String(text)) => expand(&text, &|name| std::env::var(name).ok()).map_err(wrong),
                Some(_) => Err(wrong("must be a string".into())),
                None => Err(wrong("is missing".into())),
            }
        };
        let (name, kind) = (text("name")?, text("kind")?);
        if !names.insert(name.clone()) {
            return Err(source.error(at, "sink.name", format!("{name} is there twice")));
        }
        if let Some(sink) = one(source, at, name, &kind, &settings)? {
            sinks.push(sink);
        }
    }
    Ok(sinks)
}

fn one(
    source: &Source<'_>,
    at: std::ops::Range<usize>,
    name: String,
    kind: &str,
    settings: &toml::Table,
) -> Result<Option<Sink>, ConfigError> {
    match kind {
        "sqlite" if name != EMBEDDED => {
            Err(source.error(at, "sink.kind", "the one sink of kind sqlite is always there and is named \"embedded\""))
        }
        "sqlite" => match settings.keys().next() {
            Some(key) => Err(source.error(at, &format!("sink.{key}"), "is not a key of kind sqlite")),
            None => Ok(None),
        },
        _ if name == EMBEDDED => {
            Err(source.error(at, "sink.name", "\"embedded\" is the name of the sink of kind sqlite"))
        }
        _ if PLANNED.contains(&kind) => Err(source.error(at, "sink.kind", format!("the kind {kind} is not built yet"))),
        _ => Err(source.error(
            at,
            "sink.kind",
            format!("{kind} is no kind of sink; known are sqlite, {}", PLANNED.join(", ")),
        )),
    }
}
