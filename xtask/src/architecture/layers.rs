//! Which room (layer) of the collector may name which other.

use super::purity;
use super::source::{Dependency, SourceCrate, SourceFile};

/// Where the collector's source is.
const PLACE: &str = "collector/src";

/// What any layer that is not PURE may name besides its own line.
const COMMON: &[&str] = &["telemetry", "config", "clock", "db", "disk", "record", "row"];

/// Layers of the collector and the layers that they may name, besides [`COMMON`].
const LAYERS: &[(&str, &[&str])] = &[
    ("http", &["auth", "accept", "limit", "process", "query"]),
    ("accept", &["auth", "limit", "pipeline", "spool"]),
    ("auth", &["limit"]),
    ("process", &[]),
    ("spool", &["limit"]),
    ("fanout", &["spool", "sinks"]),
    ("sinks", &[]),
    ("query", &["sinks"]),
    ("export", &["spool", "sinks", "query"]),
    ("telemetry", &["limit"]),
    ("config", &[]),
    ("clock", &[]),
    ("db", &[]),
    ("disk", &[]),
];

/// Layers and files that are PURE: they may name only these layers, and nothing that touches the world.
const PURE: &[(&str, &[&str])] = &[
    ("limit", &[]),
    ("pipeline", &["record"]),
    ("fanout/scheduler.rs", &[]),
    ("record", &[]),
    ("row.rs", &["record"]),
];

/// Crates that a layer must not name: no SQL in `http`, no HTTP types behind it, and what a number means only where it
/// is asked for.
const FOREIGN: &[(&str, &[&str])] = &[
    ("http", &["rusqlite"]),
    ("accept", &["axum", "hyper", "rusqlite", "subway_analytics"]),
    ("spool", &["axum", "hyper", "reqwest", "subway_analytics"]),
    ("fanout", &["axum", "hyper", "reqwest", "rusqlite", "subway_analytics"]),
    ("sinks", &["axum", "subway_analytics"]),
    ("query", &["axum", "hyper"]),
];

/// Layers that put the others together, and the one that opens them to the fuzzer.
const ROOTS: &[&str] = &["lib", "main", "cli", "serve", "fuzzing"];

/// Everything that is wrong with the collector's layers.
pub(super) fn violations(collector: &SourceCrate) -> Vec<String> {
    collector.files.iter().flat_map(|file| of_file(collector, file)).collect()
}

fn of_file(collector: &SourceCrate, file: &SourceFile) -> Vec<String> {
    let layer = file.name.split(['/', '.']).next().unwrap_or_default();
    if ROOTS.contains(&layer) {
        return Vec::new();
    }
    let pure = pure(&file.name);
    let line = LAYERS.iter().find(|(name, _)| *name == layer);
    let Some(allowed) = pure.map(<[_]>::to_vec).or_else(|| line.map(|(_, allowed)| [allowed, COMMON].concat())) else {
        return vec![format!("{PLACE}/{}: `{layer}` has no line in xtask/src/architecture/layers.rs", file.name)];
    };
    let is_pure_file = PURE.iter().any(|(name, _)| *name == file.name);
    let is_own = |path: &[String]| collector.home(path).is_some_and(|home| home.starts_with(&file.module));
    let mut found = Vec::new();
    for dependency in &file.dependencies {
        let at = || format!("{PLACE}/{}:{}", file.name, dependency.line);
        match named(collector, dependency) {
            Named::Layer(other) if other != layer && !allowed.contains(&other.as_str()) => {
                found.push(format!("{}: `{layer}` must not name `{other}`", at()));
            }
            // What is PURE within a layer that is not names nothing else of it.
            Named::Layer(other) if other == layer && is_pure_file && !is_own(&dependency.path) => {
                found.push(format!("{}: a PURE file must not name the rest of `{layer}`", at()));
            }
            Named::All => found.push(format!("{}: names all layers", at())),
            Named::Foreign(name) if FOREIGN.iter().any(|(of, names)| *of == layer && names.contains(&name)) => {
                found.push(format!("{}: `{layer}` must not name the crate `{name}`", at()));
            }
            _ => {}
        }
    }
    if pure.is_some() {
        found.extend(purity::violations(PLACE, file, false));
    }
    found
}

enum Named<'a> {
    Layer(String),
    /// `use crate::*`.
    All,
    Foreign(&'a str),
    /// Something of the crate's root.
    Root,
}

fn named<'a>(collector: &SourceCrate, dependency: &'a Dependency) -> Named<'a> {
    match dependency.path.as_slice() {
        [root] if root == "crate" && dependency.is_glob => Named::All,
        [root] if root == "crate" => Named::Root,
        [root, name, ..] if root == "crate" => {
            let has_line = LAYERS.iter().any(|(layer, _)| layer == name) || ROOTS.contains(&name.as_str());
            let is_layer = has_line || collector.files.iter().any(|file| file.module.first() == Some(name));
            let layer = if is_layer { Some(name.clone()) } else { collector.home(&dependency.path).and_then(first) };
            layer.map_or(Named::Root, Named::Layer)
        }
        [name, ..] => Named::Foreign(name),
        [] => Named::Root,
    }
}

fn first(module: Vec<String>) -> Option<String> {
    module.into_iter().next()
}

/// The layers that a PURE file may name; `None` if it is not PURE.
fn pure(name: &str) -> Option<&'static [&'static str]> {
    let layer = name.split('/').next().unwrap_or_default();
    PURE.iter().find(|(pure, _)| *pure == name || *pure == layer).map(|(_, allowed)| *allowed)
}
