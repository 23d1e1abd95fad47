//! Circles of modules: siblings that need each other are one module in two files.
//!
//! In every folder of modules the graph of its children is built: one names another if any file in or below it names
//! anything in or below the other, through re-exports too. A child may name its parent, and a parent its children.

use std::collections::{BTreeMap, BTreeSet};

use super::source::SourceCrate;

/// Circles that are known, by place and parent module and the siblings in alphabetical order, each with its reason.
const ALLOWED: &[(&str, &str, &[&str], &str)] = &[];

/// Siblings, whom each names, and where for example.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

/// Every circle of a crate that is not allowed.
pub(super) fn violations(place: &str, source: &SourceCrate) -> Vec<String> {
    let mut found = Vec::new();
    for (parent, graph) in graphs(source) {
        for circle in circles(&graph) {
            let parent = parent.join("::");
            if ALLOWED.iter().any(|(at, of, names, _)| *at == place && *of == parent && circle == *names) {
                continue;
            }
            let arrows = circle.iter().flat_map(|from| {
                let targets = graph[from].iter().filter(|(to, _)| circle.contains(to));
                targets.map(move |(to, at)| format!("{from} -> {to} ({at})"))
            });
            let arrows: Vec<String> = arrows.collect();
            found.push(format!("{place}: a circle of modules in `{parent}`: {}", arrows.join(", ")));
        }
    }
    found
}

/// The graph of each module's children.
fn graphs(source: &SourceCrate) -> BTreeMap<Vec<String>, Graph> {
    let mut graphs: BTreeMap<Vec<String>, Graph> = BTreeMap::new();
    for file in &source.files {
        for dependency in &file.dependencies {
            let Some(target) = source.home(&dependency.path) else { continue };
            let common = file.module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            let (Some(from), Some(to)) = (file.module.get(common), target.get(common)) else { continue };
            let graph = graphs.entry(target[..common].to_vec()).or_default();
            graph.entry(to.clone()).or_default();
            let at = format!("{}:{}", file.name, dependency.line);
            graph.entry(from.clone()).or_default().entry(to.clone()).or_insert(at);
        }
    }
    graphs
}

/// Groups of two or more that reach each other.
fn circles(graph: &Graph) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|from| (from, reach(graph, from))).collect();
    let group = |name: &String| -> Vec<String> {
        let others = reached[name].iter().filter(|other| reached[**other].contains(name));
        others.map(|other| (*other).clone()).collect()
    };
    graph.keys().map(group).filter(|group| group.len() > 1).collect()
}

fn reach<'a>(graph: &'a Graph, from: &'a String) -> BTreeSet<&'a String> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(name) = open.pop() {
        for next in graph[name].keys() {
            if seen.insert(next) {
                open.push(next);
            }
        }
    }
    seen
}
