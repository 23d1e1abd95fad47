//! PURE code touches nothing of the world, and no crate has state of its own but what is listed.

use super::source::{SourceCrate, SourceFile};

/// What touches the world.
const IO_APIS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::io::Stdin",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant::now",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::sync::mpsc",
    "std::hash::RandomState",
    "std::collections::hash_map::RandomState",
    "dbg!",
    "std::dbg!",
    "eprint!",
    "std::eprint!",
    "eprintln!",
    "std::eprintln!",
    "print!",
    "std::print!",
    "println!",
    "std::println!",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
    "jiff::tz::TimeZone::system",
    "jiff::tz::TimeZone::try_system",
    "axum",
    "crossbeam_channel",
    "getrandom",
    "hyper",
    "libc",
    "rand",
    "rdkafka",
    "reqwest",
    "rusqlite",
    "rustix",
    "tokio",
    "ureq",
];

/// Methods that touch the world, on any type.
const IO_METHODS: &[&str] = &["elapsed", "to_socket_addrs"];

/// Statics that can change or are made late, each with the reason why it is one.
const STATICS: &[(&str, &str, &str)] = &[
    ("collector/src/clock.rs", "STARTED", "the monotonic clock counts from the process's start"),
    ("collector/src/http/console.rs", "TAGS", "a constant: hashes of files in the binary"),
    ("collector/src/sinks/sqlite/columns.rs", "CONTEXT_SQL", "a constant: SQL text made of the columns"),
    ("collector/src/sinks/sqlite/packed.rs", "CURRENT_LAYOUT", "a constant: a text made of the columns"),
    ("sdk-wasm/src/alloc.rs", "ALLOCATOR", "a global allocator is a static"),
    ("sdk-wasm/src/instance.rs", "thread_local!", "exports are functions: JavaScript names a client by number"),
    ("servers/src/clickhouse.rs", "SHARED", "one server for all tests of a process"),
    ("servers/src/elastic.rs", "SHARED", "one server for all tests of a process"),
    ("servers/src/kafka.rs", "SHARED", "one server for all tests of a process"),
];

/// What a PURE file names that touches the world. `is_crate`: of a PURE crate, where not even the type of an instant is
/// needed, because the clock is an argument of its own kind.
pub(super) fn violations(place: &str, file: &SourceFile, is_crate: bool) -> Vec<String> {
    let mut found = Vec::new();
    for dependency in &file.dependencies {
        let path = dependency.path.join("::").replacen("core::", "std::", usize::from(dependency.path[0] == "core"));
        let within = |api: &str| path == api || path.strip_prefix(api).is_some_and(|rest| rest.starts_with("::"));
        let opens =
            |api: &str| dependency.is_glob && api.strip_prefix(&*path).is_some_and(|rest| rest.starts_with("::"));
        let api = IO_APIS.iter().find(|api| within(api) || opens(api));
        if let Some(api) = api.or_else(|| (is_crate && within("std::time::Instant")).then_some(&"std::time::Instant")) {
            found.push(format!("{place}/{}:{}: PURE code names `{api}`", file.name, dependency.line));
        }
    }
    for (method, line) in file.methods.iter().filter(|(method, _)| IO_METHODS.contains(&method.as_str())) {
        found.push(format!("{place}/{}:{line}: PURE code calls `{method}`", file.name));
    }
    found
}

/// Statics of a crate that can change or are made late and are not listed, and those that are listed and not there.
pub(super) fn statics(place: &str, source: &SourceCrate) -> Vec<String> {
    let all = source.files.iter().flat_map(|file| {
        file.statics.iter().map(move |(name, line)| (format!("{place}/{}", file.name), name.as_str(), *line))
    });
    let all: Vec<(String, &str, usize)> = all.collect();
    let is_listed = |path: &str, name: &str| STATICS.iter().any(|(at, listed, _)| *at == path && *listed == name);
    let unlisted = all.iter().filter(|(path, name, _)| !is_listed(path, name));
    let unlisted = unlisted.map(|(path, name, line)| format!("{path}:{line}: `{name}` is global state"));
    let here = STATICS.iter().filter(|(at, ..)| at.strip_prefix(place).is_some_and(|rest| rest.starts_with('/')));
    let gone = here.filter(|(at, listed, _)| !all.iter().any(|(path, name, _)| path == at && name == listed));
    unlisted.chain(gone.map(|(at, name, _)| format!("{at}: `{name}` is listed as state and is not there"))).collect()
}
