//! Which crate may depend on which other, outside of its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

/// Crates of this workspace and the crates of this workspace that they may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("subway-protocol", &[]),
    ("subway-sdk-core", &["subway-protocol"]),
    ("subway-wasm", &["subway-sdk-core"]),
    ("subway-mobile", &["subway-sdk-core"]),
    ("subway-analytics", &["subway-protocol"]),
    ("subway-collector", &["subway-analytics", "subway-protocol"]),
    ("subway-servers", &[]),
];

/// Crates for the people who work on the project, which may use everything.
const TOOLS: &[&str] = &["xtask", "subway-access-log", "subway-fuzz-targets", "subway-example-rust-host"];

/// What PURE crates may use of others: nothing that touches the world.
const PURE: &[(&str, &[&str])] = &[
    ("subway-protocol", &["serde", "serde_json", "serde_path_to_error"]),
    ("subway-sdk-core", &[]),
    ("subway-analytics", &["jiff"]),
];

/// By crate: its dependencies in this workspace, and those from elsewhere.
type Dependencies = BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)>;

/// Everything that is wrong with the workspace's dependencies.
pub(super) fn violations(root: &Path) -> Result<Vec<String>> {
    let output = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut all = Dependencies::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let own = all.entry(package["name"].as_str().unwrap_or_default().to_owned()).or_default();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        for dependency in dependencies.filter(|dependency| dependency["kind"] != "dev") {
            let name = dependency["name"].as_str().unwrap_or_default().to_owned();
            if dependency["path"].is_string() {
                own.0.insert(name)
            } else {
                own.1.insert(name)
            };
        }
    }
    Ok(check(&all))
}

fn check(all: &Dependencies) -> Vec<String> {
    let mut found = Vec::new();
    for name in all.keys().filter(|name| !TOOLS.contains(&name.as_str())) {
        if !CRATES.iter().any(|(known, _)| known == name) {
            found.push(format!("the crate {name} has no line in xtask/src/architecture/crates.rs"));
        }
    }
    for (name, allowed) in CRATES {
        let Some((workspace, others)) = all.get(*name) else {
            found.push(format!("the crate {name} is missing"));
            continue;
        };
        let foreign = PURE.iter().find(|(pure, _)| pure == name);
        let foreign = foreign.into_iter().flat_map(|(_, pure)| others.iter().filter(|o| !pure.contains(&o.as_str())));
        let own = workspace.iter().filter(|other| !allowed.contains(&other.as_str()));
        found.extend(own.chain(foreign).map(|other| format!("the crate {name} must not depend on {other}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_dependency_between_crates_is_found() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<String>>();
        let line = |(name, allowed): &(&str, &[&str])| ((*name).to_owned(), (owned(allowed), BTreeSet::new()));
        let mut all: Dependencies = CRATES.iter().map(line).collect();
        assert_eq!(check(&all), [""; 0]);
        all.entry("subway-protocol".into()).or_default().0.insert("subway-sdk-core".into());
        all.entry("subway-analytics".into()).or_default().1.insert("tokio".into());
        all.entry("subway-collector".into()).or_default().1.insert("tokio".into());
        all.entry("subway-new".into()).or_default();
        all.remove("subway-wasm");
        assert_eq!(
            check(&all),
            [
                "the crate subway-new has no line in xtask/src/architecture/crates.rs",
                "the crate subway-protocol must not depend on subway-sdk-core",
                "the crate subway-wasm is missing",
                "the crate subway-analytics must not depend on tokio",
            ]
        );
    }
}
