//! Each kind of violation is found, and tests are none.

use super::source::SourceCrate;
use super::{cycles, layers, purity, size};

fn source(files: &[(&str, &str)]) -> SourceCrate {
    SourceCrate::parse(files.iter().copied()).unwrap()
}

/// What is wrong with one file of the collector, without the place.
fn wrong(name: &str, text: &str) -> Vec<String> {
    let found = layers::violations(&source(&[(name, text), ("spool/mod.rs", ""), ("accept/mod.rs", "")]));
    found.into_iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect()
}

/// What a PURE crate with this file touches.
fn touched(text: &str) -> Vec<String> {
    let source = source(&[("lib.rs", text)]);
    let found = source.files.iter().flat_map(|file| purity::violations("pure/src", file, true));
    found.map(|line| line.split('`').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn a_forbidden_layer_is_found_however_it_is_named() {
    let names_spool = ["`http` must not name `spool`"];
    for text in [
        "use crate::spool::Spool;",
        "use crate::{accept::Ingestor, spool::{self as _}};",
        "use crate::spool as storage;",
        "use super::super::spool::Spool;",
        "use self::super::super::spool::*;",
        "fn f() { let spool = crate::spool::Spool::open(); }",
        "fn f(spool: &super::super::spool::Spool) {}",
        "fn f() -> impl Iterator<Item = crate::spool::SpoolRecord> { todo() }",
        "#[cfg(test)] mod tests { fn f() {} }\nfn f() { crate::spool::open() }",
        "mod inner { use super::super::super::spool::Spool; }",
        "fn f() { assert!(matches!(x, crate::spool::CapacityExceeded::Spool)); }",
        "fn f() { tokio::select! { a = b => { use crate::{auth, spool::Spool}; } } }",
        "macro_rules! m { () => { $crate::spool::open() } }",
        "#[derive(Serialize)] struct A { #[serde(with = \"crate::spool::text\")] a: u8 }",
        "#[cfg(any(test, feature = \"x\"))] use crate::spool::Spool;",
        "#[cfg(not(test))] use crate::spool::Spool;",
        "use crate::{self as root}; fn f() { root::spool::open() }",
        "impl A { fn f(&self) -> crate::spool::CapacityExceeded { x } }",
    ] {
        assert_eq!(wrong("http/ingest.rs", text), names_spool, "{text}");
    }
    assert_eq!(wrong("http/ingest.rs", "use crate::*;"), ["names all layers"]);
    assert_eq!(wrong("http/ingest.rs", "use rusqlite::Connection;"), ["`http` must not name the crate `rusqlite`"]);
    assert_eq!(
        wrong("newroom/mod.rs", ""),
        ["`newroom` has no line in xtask/src/architecture/layers.rs"],
        "a layer without a line"
    );
}

#[test]
fn a_layer_is_found_behind_a_re_export_of_the_root() {
    let files = [("lib.rs", "pub use spool::Spool;"), ("spool/mod.rs", ""), ("http/a.rs", "use crate::Spool;")];
    assert_eq!(layers::violations(&source(&files)), ["collector/src/http/a.rs:1: `http` must not name `spool`"]);
}

#[test]
fn what_is_allowed_and_what_is_a_test_is_no_violation() {
    for text in [
        "use crate::accept::Ingestor;\nuse crate::telemetry;",
        "use super::router;",
        "// crate::spool\n/// [`crate::spool::Spool`]\nfn f() -> &'static str { \"crate::spool\" }",
        "#[cfg(test)]\nmod tests { use crate::spool::Spool; }",
        "#[cfg(all(test, unix))] use crate::spool::Spool;",
        "#[cfg(any(test, all(test, unix)))] use crate::spool::Spool;",
        "#[test] fn f() { crate::spool::open() }",
        "impl A { #[cfg(test)] fn f() { crate::spool::open() } }",
        "fn f() { #[cfg(test)] let spool = crate::spool::open(); }",
        "fn f() { #[cfg(test)] { crate::spool::open(); } }",
        "struct A { #[cfg(test)] spool: crate::spool::Spool }",
        "#![cfg(test)]\nuse crate::spool::Spool;",
        "mod spool { pub fn open() {} }\nfn f() { spool::open() }",
    ] {
        assert_eq!(wrong("http/ingest.rs", text), [""; 0], "{text}");
    }
    let files = [("http/mod.rs", "#[cfg(test)] mod checks;"), ("http/checks.rs", "use crate::spool::Spool;")];
    assert_eq!(layers::violations(&source(&files)), [""; 0], "a file that is declared for tests");
}

#[test]
fn a_pure_layer_names_pure_layers_only_and_touches_nothing() {
    assert_eq!(wrong("pipeline/mod.rs", "use crate::record::Record;"), [""; 0]);
    assert_eq!(wrong("pipeline/mod.rs", "use crate::config::Config;"), ["`pipeline` must not name `config`"]);
    assert_eq!(wrong("limit/mod.rs", "use std::time::Instant;\nfn f(now: Instant) {}"), [""; 0]);
    let now = ["PURE code names `std::time::Instant::now`"];
    assert_eq!(wrong("limit/mod.rs", "use std::time::Instant;\nfn f() { Instant::now(); }"), now);
    let rest = ["a PURE file must not name the rest of `fanout`"];
    assert_eq!(wrong("fanout/scheduler.rs", "use super::worker::Worker;"), rest);
    assert_eq!(wrong("fanout/scheduler.rs", "use self::Action::SendNext; mod a { use super::Action; }"), [""; 0]);
    assert_eq!(wrong("fanout/scheduler.rs", "async fn f() { tokio::time::sleep(x) }"), ["PURE code names `tokio`"]);
}

#[test]
fn whatever_touches_the_world_is_found_by_its_full_path() {
    for (text, api) in [
        ("use std::{fmt, fs::File};", "std::fs"),
        ("fn f() { ::std::env::var(x); }", "std::env"),
        ("use std::time; fn f() { g(time::Instant::now) }", "std::time::Instant::now"),
        ("use std::time::{Duration, SystemTime as Clock};", "std::time::SystemTime"),
        ("use std::time::*;", "std::time::Instant::now"),
        ("use std::*;", "std::env"),
        ("fn f() { vec![std::thread::spawn(g)] }", "std::thread"),
        ("fn f() { println!(\"{}\", 1); }", "println!"),
        ("fn f() { g!(a => { std::eprintln!(); }) }", "std::eprintln!"),
        ("fn f() { g!(a => { dbg!(1) }) }", "dbg!"),
        ("fn f() -> T { jiff::Timestamp::now() }", "jiff::Timestamp::now"),
        ("use jiff::Zoned as Z; type Now = Z; fn f() { Now::now(); }", "jiff::Zoned::now"),
        ("use std::collections::hash_map::RandomState;", "std::collections::hash_map::RandomState"),
        ("#[tokio::main] async fn f() {}", "tokio"),
        ("mod a { pub use std::fs as files; } fn f() { a::files::read(x); }", "std::fs"),
        ("fn f(s: S) { s.begun().elapsed(); }", "elapsed"),
        ("use std::time::Instant;", "std::time::Instant"),
        ("extern crate rand;", "rand"),
    ] {
        assert_eq!(touched(text).first().map(String::as_str), Some(api), "{text}");
    }
    for text in [
        "use std::time::Duration; use std::net::IpAddr; use std::sync::Arc;",
        "fn f(a: A) -> u8 { a.fs.env(a.thread) }",
        "fn f() { assert!(net.tokio::<u8>() == fs); }",
        "fn print(rand: u8) -> u8 { print(rand) != rand }",
    ] {
        assert_eq!(touched(text), [""; 0], "{text}");
    }
}

#[test]
fn statics_that_are_state_are_found() {
    let text = "
        static NAME: &str = \"a\";
        type Shared<T> = std::sync::OnceLock<T>;
        mod inner { use super::Shared as Own; static AA: Own<u8> = Own::new(); }
        static mut A: u8 = 0;
        static B: std::sync::OnceLock<u8> = std::sync::OnceLock::new();
        static C: AtomicU64 = AtomicU64::new(0);
        static D: Own = Own(UnsafeCell::new(0));
        thread_local! { static E: u8 = 0; }
        fn f() { static F: LazyLock<u8> = LazyLock::new(g); }
        #[cfg(test)] static G: Mutex<u8> = Mutex::new(0);";
    let found = purity::statics("sdk-core/src", &source(&[("lib.rs", text)]));
    let names: Vec<&str> = found.iter().map(|line| line.split('`').nth(1).unwrap()).collect();
    assert_eq!(names, ["AA", "A", "B", "C", "D", "thread_local!", "F"]);
}

#[test]
fn siblings_that_need_each_other_are_found() {
    let circle = |files: &[(&str, &str)]| cycles::violations("collector/src", &source(files));
    let (a, b) = (("spool/a.rs", "use super::b::B;"), ("spool/b.rs", "fn f() { super::a::g() }"));
    assert_eq!(
        circle(&[a, b]),
        ["collector/src: a circle of modules in `spool`: a -> b (spool/a.rs:1), b -> a (spool/b.rs:1)"]
    );
    let parent = ("spool/mod.rs", "mod a; mod b; mod c; pub use a::A; use b::B;");
    assert_eq!(circle(&[parent, ("spool/a.rs", "use super::Spool;"), b]), [""; 0], "a child names its parent");
    let through = [parent, ("spool/a.rs", "use super::B;"), ("spool/b.rs", "use crate::spool::A;")];
    assert_eq!(circle(&through).len(), 1, "through what their parent re-exports");
    let three = [a, ("spool/b.rs", "use super::c::C;"), ("spool/c/deep.rs", "use crate::spool::a::A;")];
    assert_eq!(circle(&three).len(), 1, "three of them, one a folder");
    let below = [("spool/c/x.rs", "use super::y;"), ("spool/c/y.rs", "use super::super::c::x;")];
    assert_eq!(circle(&below).len(), 1, "further down");
    assert_eq!(circle(&[("auth.rs", "use crate::limit;"), ("limit.rs", "use crate::auth;")]).len(), 1, "layers");
    let test = ("spool/b.rs", "#[cfg(test)] mod tests { use super::super::a; }");
    assert_eq!(circle(&[a, test]), [""; 0]);
}

#[test]
fn long_files_and_functions_are_found() {
    let check = |text: &str| size::violations("a.rs", text, &syn::parse_file(text).unwrap());
    assert_eq!(check(&"\n".repeat(401)), ["a.rs has 401 lines; at most 400 are allowed"]);
    let function =
        |lines: usize| format!("impl A {{\n    fn f() {{\n{}    // why\n\n    }}\n}}\n", "a();\n".repeat(lines));
    assert_eq!(check(&function(70)), [""; 0]);
    assert_eq!(check(&function(71)), ["a.rs:2: `f` has 71 lines; at most 70 are allowed"]);
}

#[test]
fn a_file_whose_head_says_pure_is_known() {
    assert!(super::says_pure("//! Names of indices. PURE.\n\nuse std::fs;"));
    assert!(super::says_pure("//! Names.\n//! PURE.\n"));
    assert!(!super::says_pure("//! `scheduler` is PURE and decides.\n"));
    assert!(!super::says_pure("/// Names. PURE.\n"));
}
