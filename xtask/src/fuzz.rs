//! `cargo xtask fuzz`: coverage-guided runs of the targets in `fuzz/`, and their corpus. Needs a nightly compiler and
//! cargo-fuzz; the corpus is replayed without either (`fuzz/targets/tests/corpus.rs`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::tools;

/// What `cargo xtask help` says about this command's options.
const HELP: &str = "\
cargo xtask fuzz [options] [target..]

  --seconds N     how long each target runs (default 600)
  --keep          afterwards put the fewest inputs that reach what was reached into fuzz/corpus/

Targets are listed in fuzz/targets/src/lib.rs; none means all, one after the other. What is found on the way stays in
target/fuzz/corpus/, and what breaks a target in target/fuzz/artifacts/. Needs `cargo install cargo-fuzz` and nightly.
";

/// How long one target runs unless the caller says otherwise, seconds.
const SECONDS: u64 = 600;
/// Inputs are no longer than this, bytes: short ones are tried more often, and nothing here looks further ahead.
const INPUT_BYTES: usize = 2048;
/// One input may take so long, seconds. They take microseconds; this is a hang.
const INPUT_SECONDS: u64 = 10;
/// Most files of one target's committed corpus, and their bytes together: it is replayed in every test run.
const KEPT_FILES: usize = 200;
const KEPT_BYTES: u64 = 300 * 1024;

/// Runs the command.
///
/// # Errors
/// If a target found something, or a tool is missing.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let (mut seconds, mut keep, mut targets) = (SECONDS, false, Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "--seconds" => seconds = rest.next().context("--seconds needs a number")?.parse().context("--seconds")?,
            "--keep" => keep = true,
            "-h" | "--help" => {
                print!("{HELP}");
                return Ok(());
            }
            option if option.starts_with('-') => bail!("no option `{option}`; see `cargo xtask fuzz --help`"),
            target => targets.push(target.to_owned()),
        }
    }
    let known = known()?;
    if let Some(other) = targets.iter().find(|target| !known.contains(target)) {
        bail!("no target is called {other}; there are: {}", known.join(", "));
    }
    for target in if targets.is_empty() { known } else { targets } {
        let target = Target::new(&target)?;
        target.run(seconds)?;
        if keep {
            target.keep()?;
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    tools::root().join("fuzz")
}

/// The names of the targets: those of their binaries.
fn known() -> Result<Vec<String>> {
    let manifest = std::fs::read_to_string(folder().join("Cargo.toml"))?;
    let names = manifest.split("[[bin]]\nname = \"").skip(1);
    Ok(names.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect())
}

struct Target {
    name: String,
    /// What is committed.
    corpus: PathBuf,
    /// What this machine has found.
    found: PathBuf,
    artifacts: PathBuf,
}

impl Target {
    fn new(name: &str) -> Result<Self> {
        let work = tools::target_dir().join("fuzz");
        let target = Self {
            name: name.to_owned(),
            corpus: folder().join("corpus").join(name),
            found: work.join("corpus").join(name),
            artifacts: work.join("artifacts"),
        };
        for folder in [&target.corpus, &target.found, &target.artifacts] {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        Ok(target)
    }

    /// `cargo fuzz run` with these folders and options of libFuzzer.
    fn fuzzer(&self, folders: &[&Path], options: &[String]) -> Result<()> {
        let mut command = Command::new("rustup");
        // Nothing here is unsafe but SQLite and its like, which are not built with the sanitizer anyway; without it the
        // fuzzer is twice as fast. Overflows and other checks of a debug build are on.
        command.args(["run", "nightly", "cargo", "fuzz", "run", "--fuzz-dir"]).arg(folder());
        command.args(["--sanitizer", "none", &self.name]);
        command.args(folders).arg("--").args(options).current_dir(tools::root()).env_remove("CARGO");
        tools::run(&mut command)
    }

    fn run(&self, seconds: u64) -> Result<()> {
        let mut options = vec![
            format!("-max_total_time={seconds}"),
            format!("-max_len={INPUT_BYTES}"),
            format!("-timeout={INPUT_SECONDS}"),
            format!("-artifact_prefix={}/{}-", self.artifacts.display(), self.name),
            "-print_final_stats=1".to_owned(),
        ];
        let dictionary = folder().join("dictionaries").join(format!("{}.dict", self.name));
        if dictionary.is_file() {
            options.push(format!("-dict={}", dictionary.display()));
        }
        self.fuzzer(&[&self.found, &self.corpus], &options)
            .with_context(|| format!("the target {} (what broke it is in {})", self.name, self.artifacts.display()))
    }

    /// Replaces the committed corpus by the fewest inputs that reach every place that it or this machine's reached.
    fn keep(&self) -> Result<()> {
        let fewest = tempfile::tempdir()?;
        let options = ["-set_cover_merge=1".to_owned(), "-use_counters=0".to_owned()];
        self.fuzzer(&[fewest.path(), &self.found, &self.corpus], &options)?;
        let mut files = Vec::new();
        for entry in std::fs::read_dir(fewest.path())? {
            let entry = entry?;
            files.push((entry.metadata()?.len(), entry.path()));
        }
        ensure!(!files.is_empty(), "the corpus of {} came out empty", self.name);
        files.sort();
        for entry in std::fs::read_dir(&self.corpus)? {
            std::fs::remove_file(entry?.path())?;
        }
        let (mut bytes, mut count) = (0, 0);
        for (length, file) in &files {
            if count == KEPT_FILES || bytes + length > KEPT_BYTES {
                break;
            }
            bytes += length;
            count += 1;
            std::fs::copy(file, self.corpus.join(file.file_name().unwrap_or_default()))?;
        }
        println!("{}: {count} of {} inputs kept, {bytes} bytes", self.name, files.len());
        Ok(())
    }
}
