//! `cargo xtask wasm`: the npm package, from the Rust core to the minified files.

mod compile;
mod glue;
mod toolchain;

use anyhow::Result;

use crate::tools;

/// Runs `cargo xtask wasm ...`.
pub(crate) fn command(_args: &[String]) -> Result<()> {
    let npm = tools::npm_install("sdk-wasm", &tools::root().join("sdk-wasm/tools"))?;
    let core = compile::compile(&npm)?;
    println!("{}", core.dir.display());
    Ok(())
}
