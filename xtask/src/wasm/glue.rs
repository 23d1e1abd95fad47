//! Corrects wasm-bindgen's glue for memories that grow without detaching their old buffer.
//!
//! A real `WebAssembly.Memory` detaches its ArrayBuffer when it grows, and the glue renews its cached views when it
//! sees one of length 0. wasm2js swaps the buffer and leaves the old one alive, so that the glue would go on writing
//! into dead bytes. Every check is therefore replaced by the one that is right for both: is it still the memory's
//! buffer?

use anyhow::{Result, ensure};

/// Rewrites the glue; an error if a view remains whose freshness is not checked.
pub(crate) fn fix_stale_views(glue: &str) -> Result<String> {
    let mut fixed = String::with_capacity(glue.len());
    let mut checks = 0;
    for line in glue.lines() {
        match cached_view_check(line) {
            Some(name) => {
                checks += 1;
                let indent = &line[..line.len() - line.trim_start().len()];
                fixed.push_str(&format!("{indent}if ({name} === null || {name}.buffer !== wasm.memory.buffer) {{"));
            }
            None => fixed.push_str(line),
        }
        fixed.push('\n');
    }
    let views = glue.matches("new Uint8Array(wasm.memory.buffer)").count()
        + glue.matches("new DataView(wasm.memory.buffer)").count();
    ensure!(checks > 0 && checks == views, "the glue makes {views} cached views, but {checks} checks were found");
    for stale in ["byteLength === 0", ".buffer.detached"] {
        ensure!(!fixed.contains(stale), "the glue still checks a view by `{stale}`");
    }
    Ok(fixed)
}

/// The cached view's name, if the line is a check whether it is still fresh.
fn cached_view_check(line: &str) -> Option<&str> {
    let rest = line.trim().strip_prefix("if (")?;
    let name = rest.split_once(' ').filter(|(_, rest)| rest.starts_with("=== null ||"))?.0;
    let is_view = name.starts_with("cached") && name.contains("Memory") && line.trim_end().ends_with('{');
    is_view.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GLUE: &str = "\
function getDataViewMemory0() {
    if (cachedDataViewMemory0 === null || cachedDataViewMemory0.buffer.detached === true || (cachedDataViewMemory0.buffer.detached === undefined && cachedDataViewMemory0.buffer !== wasm.memory.buffer)) {
        cachedDataViewMemory0 = new DataView(wasm.memory.buffer);
    }
    return cachedDataViewMemory0;
}
function getUint8ArrayMemory0() {
    if (cachedUint8ArrayMemory0 === null || cachedUint8ArrayMemory0.byteLength === 0) {
        cachedUint8ArrayMemory0 = new Uint8Array(wasm.memory.buffer);
    }
    return cachedUint8ArrayMemory0;
}
";

    #[test]
    fn both_kinds_of_check_compare_the_buffer() {
        let fixed = fix_stale_views(GLUE).unwrap();
        assert_eq!(fixed.matches(".buffer !== wasm.memory.buffer) {").count(), 2);
        assert_eq!(fixed.matches(" = new ").count(), 2);
    }

    #[test]
    fn glue_with_an_unknown_check_is_refused() {
        let strange = GLUE.replace("cachedUint8ArrayMemory0 === null ||", "isStale(cachedUint8ArrayMemory0) ||");
        assert!(fix_stale_views(&strange).is_err());
    }
}
