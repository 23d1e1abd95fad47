//! Files that the documentation names: every one must exist.

use std::path::Path;

use anyhow::Result;

/// Endings of files that pages name in backticks.
const ENDINGS: &[&str] = &[".rs", ".js", ".mjs", ".ts", ".sql", ".md", ".toml", ".yaml", ".json", ".dict"];

/// Returns the violations of the pages at the root and in `docs/`.
pub(super) fn violations(root: &Path) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for page in pages(root, &root.join("docs"))? {
        let text = std::fs::read_to_string(&page)?;
        let name = page.strip_prefix(root).unwrap_or(&page).display();
        let missing = named_files(&text).filter(|file| in_tree(root, file) && !root.join(file).exists());
        violations.extend(missing.map(|file| format!("{name} names `{file}`, which does not exist")));
    }
    Ok(violations)
}

fn pages(root: &Path, docs: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut pages = Vec::new();
    for folder in [root.to_owned(), docs.to_owned(), docs.join("adr"), docs.join("operations")] {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            // The changelog names files as they were.
            if path.extension().is_some_and(|ending| ending == "md") && !path.ends_with("CHANGELOG.md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// Returns the files in backticks, except those with a placeholder such as `NAME`.
fn named_files(text: &str) -> impl Iterator<Item = &str> {
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter(|span| {
        let is_path = span.contains('/') && ENDINGS.iter().any(|ending| span.ends_with(ending));
        is_path && !span.contains(|c: char| c.is_whitespace() || "*<>{}$:".contains(c)) && !span.contains("NAME")
    })
}

/// Returns whether the path begins with a folder of the project, as opposed to one of a user.
fn in_tree(root: &Path, file: &str) -> bool {
    file.split('/').next().is_some_and(|first| !first.is_empty() && first != "." && root.join(first).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_names_a_missing_file_is_found() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["docs/adr", "docs/operations", "src"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        std::fs::write(root.path().join("src/there.rs"), "").unwrap();
        let page = "`src/there.rs`, `src/gone.rs`, `src/NAME.rs`, `data/theirs.json`, `cargo test src/x.rs`";
        std::fs::write(root.path().join("docs/adr/page.md"), page).unwrap();
        assert_eq!(violations(root.path()).unwrap(), ["docs/adr/page.md names `src/gone.rs`, which does not exist"]);
    }
}
