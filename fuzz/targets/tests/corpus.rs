//! Runs every target on its committed corpus: seeds written by hand, and inputs that the fuzzer has added because they
//! reach new code or once found a fault.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

/// Returns the corpus of one target.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files = entries.map(|entry| entry.unwrap().path());
    files.map(|path| (path.display().to_string(), std::fs::read(&path).unwrap())).collect()
}

#[test]
fn every_target_holds_on_its_corpus() {
    std::thread::scope(|scope| {
        for (name, run) in subway_fuzz_targets::ALL {
            scope.spawn(move || {
                let files = corpus(name);
                assert!(files.len() > 3, "{name} has no corpus");
                for (path, data) in files {
                    // The last line before a failure names the file.
                    println!("{path}");
                    run(&data);
                }
            });
        }
    });
}

#[test]
fn the_fuzzer_has_a_binary_for_every_target_and_no_other() {
    let manifest = include_str!("../../Cargo.toml");
    let mut binaries: Vec<&str> =
        manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    binaries.sort_unstable();
    let targets: Vec<&str> = subway_fuzz_targets::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(binaries, targets);
}
