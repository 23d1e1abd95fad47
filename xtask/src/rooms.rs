//! The architecture as a check: which crate and which room of the collector may name which, which code is PURE, and how
//! long a file may be. ARCHITECTURE.md says why.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Crates of this workspace and the crates of this workspace that they may depend on, outside their tests.
const CRATES: &[(&str, &[&str])] = &[
    ("subway-protocol", &[]),
    ("subway-sdk-core", &["subway-protocol"]),
    ("subway-wasm", &["subway-sdk-core"]),
    ("subway-mobile", &["subway-sdk-core"]),
    ("subway-analytics", &["subway-protocol"]),
    ("subway-collector", &["subway-analytics", "subway-protocol"]),
    ("subway-servers", &[]),
];

/// What any room that is not PURE may use besides its own arrows.
const COMMON: &[&str] = &["telemetry", "config", "clock", "db", "disk", "record", "row"];

/// Rooms of the collector and the rooms they may name, besides [`COMMON`]. `lib`, `main`, `cli` and `serve` put the
/// others together and may name all.
const ROOMS: &[(&str, &[&str])] = &[
    ("http", &["auth", "accept", "limit", "process", "query"]),
    ("accept", &["auth", "limit", "pipeline", "spool"]),
    ("auth", &["limit"]),
    ("process", &[]),
    ("spool", &[]),
    ("fanout", &["spool", "sinks"]),
    ("sinks", &[]),
    ("query", &["sinks"]),
    ("export", &["spool", "sinks", "query"]),
];

/// Rooms and files that are PURE: they may name only these rooms, and nothing that touches the world.
const PURE: &[(&str, &[&str])] =
    &[("limit", &[]), ("pipeline", &["record"]), ("fanout/plan.rs", &[]), ("record", &[]), ("row.rs", &["record"])];

/// Names that touch the world.
const WORLD: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
    "std::process",
    "SystemTime",
    "Instant::now",
    "Zoned::now",
    "Timestamp::now",
    "tokio::",
    "rusqlite",
    "rdkafka",
    "reqwest",
    "axum",
];

/// Rooms that put the others together, and the one that opens them to the fuzzer.
const ROOTS: &[&str] = &["lib", "main", "cli", "serve", "fuzzing"];

/// Most lines of a file.
const FILE_LINES: usize = 400;
/// Files that may be longer, with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// Checks everything; the error names every breach.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut breaches = crate_arrows(root)?;
    let collector = root.join("collector/src");
    for file in rust_files(&collector)? {
        let name = relative(&collector, &file);
        breaches.extend(room_breaches(&name, &product_code(&read(&file)?)));
    }
    for krate in ["sdk-core", "protocol", "analytics"] {
        let folder = root.join(krate).join("src");
        for file in rust_files(&folder)? {
            let name = relative(root, &file);
            breaches.extend(world_breaches(&name, &product_code(&read(&file)?)));
        }
    }
    for krate in [
        "protocol",
        "sdk-core",
        "sdk-wasm",
        "sdk-mobile",
        "analytics",
        "collector",
        "servers",
        "xtask",
        "examples",
        "fuzz",
    ] {
        for file in rust_files(&root.join(krate))? {
            let name = relative(root, &file);
            let lines = read(&file)?.lines().count();
            if lines > FILE_LINES && !LONG_FILES.iter().any(|(long, _)| *long == name) {
                breaches.push(format!("{name} has {lines} lines; at most {FILE_LINES} are allowed"));
            }
        }
    }
    if !breaches.is_empty() {
        bail!("the rooms are not in order:\n  {}", breaches.join("\n  "));
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.is_dir() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && name != "node_modules" {
            files.extend(rust_files(&path)?);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The code of a file without comments and without its test module.
fn product_code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        let line = line.trim_start();
        if !line.starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// Rooms named as `crate::ROOM` in a piece of code.
fn named(code: &str) -> BTreeSet<&str> {
    code.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or_default())
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_test_file(name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or_default();
    file == "tests.rs" || file.ends_with("_tests.rs") || file == "conformance.rs" || file == "oracle.rs"
}

/// Breaches of one file of the collector; `name` is its path below `src`.
fn room_breaches(name: &str, code: &str) -> Vec<String> {
    let room = name.split(['/', '.']).next().unwrap_or_default();
    if is_test_file(name) || ROOTS.contains(&room) || COMMON.contains(&room) && pure(name).is_none() {
        return Vec::new();
    }
    let Some(allowed) = pure(name).or_else(|| {
        let arrows = ROOMS.iter().find(|(other, _)| *other == room)?.1;
        Some(arrows.iter().chain(COMMON).copied().collect())
    }) else {
        return vec![format!("collector/src/{name}: the room `{room}` has no line in xtask/src/rooms.rs")];
    };
    let mut breaches: Vec<String> = named(code)
        .into_iter()
        .filter(|other| *other != room && !allowed.contains(other))
        .map(|other| format!("collector/src/{name}: `{room}` must not name `{other}`"))
        .collect();
    if pure(name).is_some() {
        breaches.extend(world_breaches(name, code));
    }
    breaches
}

/// The rooms a PURE file may name; `None` if it is not PURE.
fn pure(name: &str) -> Option<Vec<&'static str>> {
    let room = name.split('/').next().unwrap_or_default();
    PURE.iter().find(|(pure, _)| *pure == name || *pure == room).map(|(_, allowed)| allowed.to_vec())
}

fn world_breaches(name: &str, code: &str) -> Vec<String> {
    if is_test_file(name) {
        return Vec::new();
    }
    WORLD.iter().filter(|word| code.contains(**word)).map(|word| format!("{name} is PURE and names `{word}`")).collect()
}

fn crate_arrows(root: &Path) -> Result<Vec<String>> {
    let output = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cargo metadata")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default().to_owned();
        let dependencies = package["dependencies"].as_array().into_iter().flatten();
        let own = dependencies
            .filter(|dependency| dependency["path"].is_string() && dependency["kind"] != "dev")
            .filter_map(|dependency| dependency["name"].as_str().map(str::to_owned));
        arrows.insert(name, own.collect());
    }
    Ok(crate_breaches(&arrows))
}

fn crate_breaches(arrows: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (name, allowed) in CRATES {
        let Some(real) = arrows.get(*name) else {
            breaches.push(format!("the crate {name} is missing"));
            continue;
        };
        for other in real.iter().filter(|other| !allowed.contains(&other.as_str())) {
            breaches.push(format!("the crate {name} must not depend on {other}"));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forbidden_arrow_between_rooms_is_found() {
        assert_eq!(room_breaches("http/ingest.rs", "use crate::accept::Acceptor;\nuse crate::telemetry;"), [""; 0]);
        assert_eq!(room_breaches("http/ingest.rs", "use crate::spool::Spool;").len(), 1);
        assert_eq!(room_breaches("spool/mod.rs", "crate::fanout::start()").len(), 1);
        assert_eq!(room_breaches("newroom/mod.rs", "").len(), 1, "a room without a line");
    }

    #[test]
    fn pure_code_that_touches_the_world_is_found() {
        assert_eq!(room_breaches("pipeline/mod.rs", "use crate::record::Record;"), [""; 0]);
        assert_eq!(room_breaches("pipeline/mod.rs", "use crate::config::Config;").len(), 1);
        assert_eq!(room_breaches("pipeline/clock.rs", "std::time::SystemTime::now()").len(), 1);
        assert_eq!(room_breaches("fanout/plan.rs", "tokio::time::sleep(x)").len(), 1);
    }

    #[test]
    fn comments_and_tests_do_not_count() {
        let code = product_code("// crate::spool\nfn a() {}\n#[cfg(test)]\nmod tests { use crate::spool; }\n");
        assert_eq!(named(&code), BTreeSet::new());
    }

    #[test]
    fn a_forbidden_arrow_between_crates_is_found() {
        let mut arrows: BTreeMap<String, BTreeSet<String>> = CRATES
            .iter()
            .map(|(name, allowed)| ((*name).into(), allowed.iter().map(|a| (*a).into()).collect()))
            .collect();
        assert_eq!(crate_breaches(&arrows), [""; 0]);
        arrows.entry("subway-protocol".into()).or_default().insert("subway-sdk-core".into());
        arrows.remove("subway-wasm");
        assert_eq!(crate_breaches(&arrows).len(), 2);
    }
}
