//! Every target over its committed corpus: its seeds, written by hand, and what runs of the fuzzer have added since (where
//! they have): inputs that reach something new, and those that once were a fault.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

/// The corpus of one target.
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
