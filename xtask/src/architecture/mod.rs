//! The architecture as a check: which crate and which room (here: layer) of the collector may name which, which code is
//! PURE, which modules go in circles, and how long files and functions may be, and
//! that the files exist which the documentation names. ARCHITECTURE.md says why.
//!
//! `names` reads what a file names, `source` resolves it to full paths; `crates`, `layers`, `purity`, `cycles` and
//! `size` hold a table each of what is allowed, and what is wrong is a text with file and line.

mod cfg;
mod crates;
mod cycles;
mod layers;
mod names;
mod paths;
mod purity;
mod size;
mod source;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use self::source::SourceCrate;

/// Crates with a `src` whose names are read.
const CRATES: &[&str] = &["protocol", "sdk-core", "sdk-wasm", "sdk-mobile", "analytics", "collector", "servers"];

/// Crates that are PURE.
const PURE: &[&str] = &["protocol", "sdk-core", "analytics"];

/// Folders besides [`CRATES`] whose files must be short.
const OTHERS: &[&str] = &["xtask", "examples", "fuzz"];

/// Checks everything; the error names every violation.
///
/// # Errors
/// If there is one, or a file cannot be read.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut found = crates::violations(root)?;
    for krate in CRATES {
        let place = format!("{krate}/src");
        let source = SourceCrate::read(&root.join(&place))?;
        if *krate == "collector" {
            found.extend(layers::violations(&source));
            for file in &source.files {
                if says_pure(&read(&root.join(&place).join(&file.name))?) {
                    found.extend(purity::violations(&place, file, false));
                }
            }
        }
        if PURE.contains(krate) {
            found.extend(source.files.iter().flat_map(|file| purity::violations(&place, file, true)));
        }
        found.extend(purity::statics(&place, &source));
        found.extend(cycles::violations(&place, &source));
    }
    for folder in CRATES.iter().chain(OTHERS) {
        for path in rust_files(&root.join(folder))? {
            let (name, text) = (relative(root, &path), read(&path)?);
            let file = syn::parse_file(&text).with_context(|| name.clone())?;
            found.extend(size::violations(&name, &text, &file));
        }
    }
    found.extend(paths::violations(root)?);
    if !found.is_empty() {
        bail!("the rooms are not in order:\n  {}", found.join("\n  "));
    }
    Ok(())
}

/// Returns whether the head of a file says that the file is PURE. A word later in a sentence is about something else.
fn says_pure(text: &str) -> bool {
    let head = text.lines().take_while(|line| line.starts_with("//!"));
    head.map(|line| line.trim_start_matches("//!").trim()).any(|line| line == "PURE." || line.ends_with(". PURE."))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && name != "target" && name != "node_modules" {
            files.extend(rust_files(&path)?);
        } else if name.ends_with(".rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
