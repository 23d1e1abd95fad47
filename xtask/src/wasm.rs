//! `cargo xtask wasm`: the npm package, from the Rust core to the minified files, and what tests and measures it.

mod compile;
mod glue;
mod toolchain;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::tools;

/// The built npm package and the tools that tests of it need.
pub(crate) struct Package {
    /// `target/npm/subway-miniprogram`.
    pub(crate) dir: PathBuf,
    /// Holds `node_modules` with what `sdk-wasm/tools/package.json` pins.
    pub(crate) npm: PathBuf,
}

/// One file that an app would ship.
pub(crate) struct Size {
    /// Its name in the package.
    pub(crate) file: String,
    /// Bytes, minified.
    pub(crate) min: usize,
    /// Bytes after gzip, level 9.
    pub(crate) gzip: usize,
}

/// Runs `cargo xtask wasm [build|test|sizes|bench]`.
pub(crate) fn command(args: &[String]) -> Result<()> {
    let package = build()?;
    match args.first().map_or("build", String::as_str) {
        "build" | "sizes" => {
            println!("{}", package.dir.display());
            for size in sizes(&package)? {
                println!("{:>9} bytes  {:>7} gzipped  {}", size.min, size.gzip, size.file);
            }
            Ok(())
        }
        "test" => run_tests(&package),
        "bench" => {
            println!("{}", bench(&package)?);
            Ok(())
        }
        other => bail!("`cargo xtask wasm` builds, or takes one of: test, sizes, bench; not `{other}`"),
    }
}

/// Builds the package; what is up to date is not made again.
pub(crate) fn build() -> Result<Package> {
    let js = tools::root().join("sdk-wasm/js");
    let npm = tools::npm_install("sdk-wasm", &tools::root().join("sdk-wasm/tools"))?;
    let _lock = tools::lock("wasm")?;
    let core = compile::compile(&npm)?;
    let dir = tools::target_dir().join("npm/subway-miniprogram");
    let mut node = Command::new("node");
    node.arg(js.join("build.mjs")).arg(&npm).arg(&core).arg(&dir).arg(env!("CARGO_PKG_VERSION"));
    tools::run(&mut node)?;
    Ok(Package { dir, npm })
}

/// The sizes of every file that a package user ships.
pub(crate) fn sizes(package: &Package) -> Result<Vec<Size>> {
    ["jd.js", "mini.js", "subway.wasm", "web.mjs", "node.mjs"].iter().map(|file| size(&package.dir, file)).collect()
}

fn size(dir: &Path, file: &str) -> Result<Size> {
    let bytes = fs::read(dir.join(file))?;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&bytes)?;
    Ok(Size { file: file.to_owned(), min: bytes.len(), gzip: gzip.finish()?.len() })
}

/// Runs every JavaScript test on the built package: both builds in simulated mini-program hosts, Node, the example, and
/// one in a real headless browser.
pub(crate) fn run_tests(package: &Package) -> Result<()> {
    let tests = tools::root().join("sdk-wasm/js/test");
    let mut files: Vec<PathBuf> = fs::read_dir(tests)?.filter_map(|entry| entry.ok().map(|e| e.path())).collect();
    files.retain(|file| file.to_string_lossy().ends_with(".test.mjs"));
    files.sort();
    tools::run(node(package).arg("--test").args(files))
}

/// Times `track()` in both builds; gives JSON.
pub(crate) fn bench(package: &Package) -> Result<String> {
    tools::output(node(package).arg(tools::root().join("sdk-wasm/js/bench/track.mjs")))
}

/// `node` with what the project's scripts expect in the environment.
pub(crate) fn node(package: &Package) -> Command {
    let mut node = Command::new("node");
    node.env("SUBWAY_PACKAGE", &package.dir).env("SUBWAY_TOOLS", &package.npm);
    node
}
