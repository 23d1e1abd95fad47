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
const RUSTFLAGS: &str = "-Ctarget-cpu=mvp -Ctarget-feature=+bulk-memory -Zunstable-options \
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

/// Exports that only hosts which can send bytes need; the JavaScript twin, made for the others, goes without.
const BYTES_ONLY: &str = "zipped";
/// wasm-bindgen's hooks for hosts that restart a module after a trap. They are not called here.
const UNUSED: [&str; 2] = ["__abort_handler", "__instance_terminated"];

/// Writes the glue and the two modules that fit it: `bound.wasm`, and `bound-js.wasm` without [`BYTES_ONLY`].
fn bindgen(raw: &Path, dir: &Path) -> Result<()> {
    let mut bindgen = Bindgen::new();
    bindgen.input_path(raw).out_name(STEM).typescript(false).remove_name_section(true).remove_producers_section(true);
    // encodeInto is an optimisation that few mini-program runtimes have; without it the glue is shorter.
    bindgen.bundler(true)?.encode_into(EncodeInto::Never);
    let mut output = bindgen.generate_output().context("wasm-bindgen")?;
    let made = dir.join("bindgen");
    output.emit(&made)?;
    let glue = fs::read_to_string(made.join("subway_bg.js"))?;
    fs::write(dir.join("subway_bg.js"), glue::fix_stale_views(&glue)?)?;
    for name in UNUSED {
        ensure!(!glue.contains(name), "the glue uses {name}");
        output.wasm_mut().exports.remove(name)?;
    }
    fs::write(dir.join("bound.wasm"), output.wasm_mut().emit_wasm())?;
    output.wasm_mut().exports.remove(BYTES_ONLY)?;
    fs::write(dir.join("bound-js.wasm"), output.wasm_mut().emit_wasm())?;
    Ok(())
}

fn optimise(npm: &Path, dir: &Path) -> Result<()> {
    let wasm_opt = |args: &[&str], from: &str, to: &str| {
        let mut command = binaryen(npm, "wasm-opt");
        tools::output(command.args(args).arg(dir.join(from)).arg("-o").arg(dir.join(to))).map(|_| ())
    };
    let features = ["--mvp-features", "--enable-bulk-memory", "--enable-bulk-memory-opt"];
    // The stack lies below everything else, so that no static lies at a low address.
    let shrink = ["-Oz", "--converge", "--low-memory-unused", "--strip-producers", "--strip-target-features"];
    wasm_opt(&[&features[..], &shrink].concat(), "bound-js.wasm", "small-js.wasm")?;
    let js = tools::output(
        binaryen(npm, "wasm2js").args(features).args(["-Oz", "--low-memory-unused"]).arg(dir.join("small-js.wasm")),
    )?;
    ensure!(js.contains("export"), "wasm2js gave no module");
    fs::write(dir.join("subway.js"), js)?;
    let lower = [&features[..], &shrink, &["--llvm-memory-copy-fill-lowering", "-Oz"]].concat();
    wasm_opt(&lower, "bound.wasm", "lowered.wasm")?;
    // --mvp-features alone is the gate: a module that uses anything newer is refused.
    wasm_opt(&["--mvp-features", "-Oz", "--strip-target-features"], "lowered.wasm", "subway.wasm")
}

fn binaryen(npm: &Path, tool: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(npm.join("node_modules/binaryen/bin").join(tool));
    command
}
