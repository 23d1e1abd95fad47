//! From the crate to `target/wasm/core/`: one WASM module, its JavaScript twin for runtimes without WASM, and the glue.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use wasm_bindgen_cli_support::{Bindgen, EncodeInto};

use super::{glue, toolchain};
use crate::tools;

/// The module as wasm-bindgen names it; the glue imports from `./subway_bg.js`.
const STEM: &str = "subway";

/// Nothing newer than the first WASM release but memory.copy and memory.fill: wasm2js has short, fast JavaScript for
/// those two, and for runtimes with an old WASM wasm-opt rewrites them. No text for panics: a defect of the SDK must
/// cost the host app nothing but that call, and the formatting behind panic messages is a third of the module.
const RUSTFLAGS: &str = "-Ctarget-cpu=mvp -Ctarget-feature=+bulk-memory,+bulk-memory-opt -Zunstable-options \
                         -Cpanic=immediate-abort -Zlocation-detail=none -Clink-arg=-zstack-size=131072";

/// Compiles the crate and makes the folder with `subway.wasm` (optimised), `subway_bg.js` (glue) and `subway.js` (the
/// same module by wasm2js); does nothing more if the compiled module is the last one's.
pub(crate) fn compile(npm: &Path) -> Result<PathBuf> {
    let raw = cargo_build()?;
    let dir = tools::target_dir().join("wasm/core");
    let bytes = fs::read(&raw)?;
    let stamp = dir.join("made-from.wasm");
    if fs::read(&stamp).is_ok_and(|last| last == bytes) && dir.join("subway.js").exists() {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    bindgen(&raw, &dir)?;
    optimise(npm, &dir)?;
    fs::write(stamp, bytes)?;
    Ok(dir)
}

fn cargo_build() -> Result<PathBuf> {
    let toolchain = toolchain::find()?;
    // A folder of its own, so that this build and the machine's do not wait for each other.
    let target = tools::target_dir().join("wasm").join(toolchain.kind);
    let mut cargo = toolchain.cargo();
    cargo.current_dir(tools::root()).env("RUSTFLAGS", RUSTFLAGS).arg("build").args(["--package", "subway-wasm"]);
    cargo.args(["--profile", "wasm", "--target", "wasm32-unknown-unknown", "--lib"]).arg("--target-dir").arg(&target);
    cargo.args(["-Zbuild-std=std,panic_abort", "-Zbuild-std-features=optimize_for_size"]);
    tools::run(&mut cargo)?;
    Ok(target.join("wasm32-unknown-unknown/wasm/subway_wasm.wasm"))
}

fn bindgen(raw: &Path, dir: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(raw).out_name(STEM).typescript(false).remove_name_section(true).remove_producers_section(true);
    // encodeInto is an optimisation that few mini-program runtimes have; without it the glue is shorter.
    bindgen.bundler(true)?.encode_into(EncodeInto::Never);
    let made = dir.join("bindgen");
    bindgen.generate(&made).context("wasm-bindgen")?;
    let glue = fs::read_to_string(made.join("subway_bg.js"))?;
    fs::write(dir.join("subway_bg.js"), glue::fix_stale_views(&glue)?)?;
    Ok(())
}

fn optimise(npm: &Path, dir: &Path) -> Result<()> {
    let bound = dir.join("bindgen/subway_bg.wasm");
    let (small, wasm) = (dir.join("small.wasm"), dir.join("subway.wasm"));
    let wasm_opt = |args: &[&str], from: &Path, to: &Path| {
        let mut command = binaryen(npm, "wasm-opt");
        tools::output(command.args(args).arg(from).arg("-o").arg(to)).map(|_| ())
    };
    let features = ["--mvp-features", "--enable-bulk-memory", "--enable-bulk-memory-opt"];
    let shrink = ["-Oz", "--converge", "--strip-producers", "--strip-target-features"];
    wasm_opt(&[&features[..], &shrink].concat(), &bound, &small)?;
    let js = tools::output(binaryen(npm, "wasm2js").args(features).arg("-Oz").arg(&small))?;
    ensure!(js.contains("export"), "wasm2js gave no module");
    fs::write(dir.join("subway.js"), js)?;
    let lowered = dir.join("lowered.wasm");
    wasm_opt(&[&features[..], &["--llvm-memory-copy-fill-lowering", "-Oz"]].concat(), &small, &lowered)?;
    // --mvp-features alone is the gate: a module that uses anything newer is refused.
    wasm_opt(&["--mvp-features", "-Oz", "--strip-target-features"], &lowered, &wasm)
}

fn binaryen(npm: &Path, tool: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(npm.join("node_modules/binaryen/bin").join(tool));
    command
}
