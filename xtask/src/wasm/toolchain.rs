//! Finds, or fetches without root, a compiler that can build std for wasm32-unknown-unknown.
//!
//! std is built with the SDK (`-Zbuild-std`), because the std that rustup ships uses WASM instructions that older
//! mini-program runtimes and wasm2js lack, and is a third larger. So what is needed is a rustc and std's source:
//! 1. rustup's component `rust-src`; 2. Debian's `rustc-web` and `rust-web-src`, installed or unpacked under `target/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::tools;

/// rust-src is 3 MB; a server that has not delivered it by then is taken as not reachable.
const RUSTUP_LIMIT: Duration = Duration::from_secs(20);
/// How long a failure of rustup is remembered before it is tried again.
const RUSTUP_RETRY: Duration = Duration::from_secs(3600);
const RUSTUP_FAILURE: &str = "rustup-rust-src";
/// Set to `debian` to pass over rustup; for trying the other way where rustup works.
const FORCE_VARIABLE: &str = "SUBWAY_WASM_TOOLCHAIN";

/// A compiler for the WASM build.
pub(crate) struct Toolchain {
    /// Which way was taken, for people.
    pub(crate) described: String,
    /// A short name for the way, used to keep build folders apart.
    pub(crate) kind: &'static str,
    rustc: PathBuf,
    /// Where rustc finds its libraries, if it was unpacked.
    library_path: Option<PathBuf>,
    linker: Option<PathBuf>,
}

impl Toolchain {
    /// A `cargo` command that builds with this compiler.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.env("RUSTC", &self.rustc).env("RUSTC_BOOTSTRAP", "1");
        // What the outer build was given is for the machine, not for WASM.
        command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS").env_remove("RUSTC_WRAPPER");
        if let Some(path) = &self.library_path {
            command.env("LD_LIBRARY_PATH", path);
        }
        if let Some(linker) = &self.linker {
            command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        command
    }
}

type Way = fn() -> Result<Toolchain>;

/// Finds a toolchain, and says on stderr what was tried and which way was taken.
pub(crate) fn find() -> Result<Toolchain> {
    let mut tried = Vec::new();
    let mut ways: Vec<(&str, Way)> = vec![
        ("rustup", rustup),
        ("installed Debian rustc-web", debian_installed),
        ("unpacked Debian rustc-web", debian_unpacked),
    ];
    if std::env::var(FORCE_VARIABLE).is_ok_and(|way| way == "debian") {
        ways.remove(0);
    }
    for (name, way) in ways {
        match way() {
            Ok(toolchain) => {
                for line in &tried {
                    eprintln!("xtask: {line}");
                }
                eprintln!("xtask: WASM toolchain: {}", toolchain.described);
                return Ok(toolchain);
            }
            Err(error) => tried.push(format!("{name}: {error:#}")),
        }
    }
    bail!(
        "no WASM toolchain; tried:\n  {}\nEither of these unblocks it: `rustup component add rust-src` works, or (Debian 12 \
         and newer) `apt-get install rustc-web rust-web-src`",
        tried.join("\n  ")
    )
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(PathBuf::from(tools::output(Command::new(rustc).args(["--print", "sysroot"]))?.trim()))
}

fn std_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock")
}

/// The rustc of this build's own toolchain.
fn own_rustc() -> PathBuf {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from);
    let beside = cargo.and_then(|cargo| cargo.parent().map(|dir| dir.join("rustc"))).filter(|rustc| rustc.exists());
    beside.unwrap_or_else(|| "rustc".into())
}

fn rustup() -> Result<Toolchain> {
    let rustc = own_rustc();
    let source = std_source(&sysroot(&rustc)?);
    if !source.exists() {
        if let Some(why) = tools::remembered_failure(RUSTUP_FAILURE, RUSTUP_RETRY) {
            bail!("failed within the last hour, not tried again: {why}");
        }
        eprintln!("xtask: rustup component add rust-src");
        let added = tools::run_for(Command::new("rustup").args(["component", "add", "rust-src"]), RUSTUP_LIMIT);
        if let Err(error) = added {
            tools::remember_failure(RUSTUP_FAILURE, &format!("{error:#}"))?;
            return Err(error);
        }
    }
    if !source.exists() {
        bail!("std's source is not at {}", source.display());
    }
    let version = tools::output(Command::new(&rustc).arg("--version"))?;
    let described = format!("rustup's {} with component rust-src", version.trim());
    Ok(Toolchain { described, kind: "rustup", rustc, library_path: None, linker: None })
}

fn debian_installed() -> Result<Toolchain> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    if !rustc.exists() || !std_source(Path::new("/usr")).exists() {
        bail!("/usr/bin/rustc or /usr/lib/rustlib/src is missing");
    }
    let version = tools::output(Command::new(&rustc).arg("--version"))?;
    let described = format!("Debian's installed {}", version.trim());
    Ok(Toolchain { described, kind: "debian", rustc, library_path: None, linker: Some(wasm_linker()?) })
}

fn debian_unpacked() -> Result<Toolchain> {
    let dir = tools::debian_unpack("rustc-web", &["rustc-web", "rust-web-src"])?;
    let rustc = dir.join("usr/bin/rustc");
    let libraries = library_folder(&dir)?;
    let version = tools::output(Command::new(&rustc).arg("--version").env("LD_LIBRARY_PATH", &libraries))
        .context("the unpacked rustc does not start")?;
    let described = format!("Debian's {}, unpacked in {}", version.trim(), dir.display());
    Ok(Toolchain { described, kind: "debian", rustc, library_path: Some(libraries), linker: Some(wasm_linker()?) })
}

/// `usr/lib/<architecture>-linux-gnu`, the folder that holds librustc_driver.
fn library_folder(dir: &Path) -> Result<PathBuf> {
    let lib = dir.join("usr/lib");
    std::fs::read_dir(&lib)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .with_context(|| format!("no library folder in {}", lib.display()))
}

/// Debian's rustc comes without a linker for WASM; rustup's toolchain, with which xtask itself was built, has one.
fn wasm_linker() -> Result<PathBuf> {
    let own = sysroot(&own_rustc())?.join("lib/rustlib");
    let beside = std::fs::read_dir(&own)
        .with_context(|| format!("cannot read {}", own.display()))?
        .filter_map(|entry| entry.ok().map(|e| e.path().join("bin/rust-lld")))
        .find(|lld| lld.exists());
    match beside {
        Some(lld) => Ok(lld),
        None if tools::exists("wasm-ld") => Ok("wasm-ld".into()),
        None => bail!("no linker for WASM: neither rust-lld in {} nor wasm-ld", own.display()),
    }
}
