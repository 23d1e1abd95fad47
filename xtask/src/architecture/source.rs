//! The source of a crate: its files, the modules that they are, and what each of them depends on.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result};

use super::names::{Import, Names, Static, Written, is_shared_state, names};

/// A path from the crate's root (`crate`, ..) or from another crate (`std`, ..).
pub(super) type FullPath = Vec<String>;

/// What a file depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dependency {
    pub(super) path: FullPath,
    /// All that the path holds, not the path itself.
    pub(super) is_glob: bool,
    pub(super) line: usize,
}

/// A file outside of the crate's tests.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Path below `src`.
    pub(super) name: String,
    /// Module path without `crate`.
    pub(super) module: Vec<String>,
    pub(super) dependencies: Vec<Dependency>,
    pub(super) methods: Vec<(String, usize)>,
    /// Statics that can change or are made late: name and line.
    pub(super) statics: Vec<(String, usize)>,
}

/// A crate's files and modules, its tests apart.
#[derive(Debug)]
pub(super) struct SourceCrate {
    pub(super) files: Vec<SourceFile>,
    scope: Scope,
}

/// What names mean in each module.
#[derive(Debug, Default)]
struct Scope {
    modules: BTreeSet<Vec<String>>,
    /// By module and name.
    imports: HashMap<(Vec<String>, String), Vec<Written>>,
    globs: HashMap<Vec<String>, Vec<Written>>,
}

/// Names are followed through at most so many imports: more would be a circle of them.
const STEPS: usize = 8;

impl SourceCrate {
    /// Reads what lies in `folder`, a crate's `src`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut texts = Vec::new();
        for file in super::rust_files(folder)? {
            texts.push((super::relative(folder, &file), super::read(&file)?));
        }
        Self::parse(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())))
    }

    /// Reads files by name (below `src`) and text.
    pub(super) fn parse<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let (mut parsed, mut for_tests) = (Vec::new(), BTreeSet::new());
        for (name, text) in texts {
            let file = syn::parse_file(text).with_context(|| name.to_owned())?;
            let module = module_of(name);
            for_tests.extend(test_modules(&file.items, &module));
            parsed.push((name.to_owned(), module.clone(), names(&file, &module)));
        }
        let is_product = |module: &[String]| !(0..=module.len()).any(|end| for_tests.contains(&module[..end]));
        parsed.retain(|(_, module, _)| is_product(module));
        let mut scope = Scope::default();
        for (_, module, names) in &parsed {
            scope.add(module, names);
        }
        let files = parsed.into_iter().map(|(name, module, names)| scope.file(name, module, names)).collect();
        Ok(Self { files, scope })
    }

    /// The module (without `crate`) that defines what `path` names, through the re-exports of others; `None` if it is
    /// not of this crate.
    pub(super) fn home(&self, path: &[String]) -> Option<Vec<String>> {
        let path = self.scope.follow(path.to_vec());
        (path.first()? == "crate").then(|| self.scope.module_prefix(&path[1..]))
    }
}

impl Scope {
    fn add(&mut self, module: &[String], names: &Names) {
        self.modules.extend((0..=module.len()).map(|end| module[..end].to_vec()));
        self.modules.extend(names.modules.iter().cloned());
        for Import { name, target } in &names.imports {
            self.imports.entry((target.module.clone(), name.clone())).or_default().push(target.clone());
        }
        for glob in names.written.iter().filter(|written| written.is_glob) {
            self.globs.entry(glob.module.clone()).or_default().push(glob.clone());
        }
    }

    fn file(&self, name: String, module: Vec<String>, names: Names) -> SourceFile {
        let mut dependencies = Vec::new();
        for written in &names.written {
            for path in self.resolve(written, STEPS) {
                let dependency = Dependency { path, is_glob: written.is_glob, line: written.line };
                if !dependencies.contains(&dependency) {
                    dependencies.push(dependency);
                }
            }
        }
        let is_state = |found: &&Static| {
            let kinds = found.kind.iter().flat_map(|kind| self.resolve(kind, STEPS));
            found.is_state || kinds.flat_map(|kind| self.follow(kind)).any(|name| is_shared_state(&name))
        };
        let statics = names.statics.iter().filter(is_state).map(|found| (found.name.clone(), found.line)).collect();
        SourceFile { name, module, dependencies, methods: names.methods, statics }
    }

    /// What `path` names in the end, through imports and aliases of this crate.
    fn follow(&self, mut path: FullPath) -> FullPath {
        for _ in 0..STEPS {
            let Some(inner) = path.strip_prefix(&["crate".to_owned()][..]) else { break };
            let module = self.module_prefix(inner);
            let Some(name) = inner.get(module.len()) else { break };
            let targets = self.imports.get(&(module.clone(), name.clone()));
            let target = targets.and_then(|all| self.resolve(all.first()?, STEPS).into_iter().next());
            let Some(target) = target else { break };
            path = [target.as_slice(), &inner[module.len() + 1..]].concat();
        }
        path
    }

    /// The longest beginning of `path` that is a module.
    fn module_prefix(&self, path: &[String]) -> Vec<String> {
        let end = (0..=path.len()).rev().find(|end| self.modules.contains(&path[..*end]));
        path[..end.unwrap_or(0)].to_vec()
    }

    /// What a written path means; more than one where functions of a module import the same name differently.
    fn resolve(&self, written: &Written, steps: usize) -> Vec<FullPath> {
        let [first, rest @ ..] = written.segments.as_slice() else { return Vec::new() };
        let absolute = |module: &[String], rest: &[String]| {
            let mut path = vec!["crate".to_owned()];
            path.extend_from_slice(module);
            path.extend_from_slice(rest);
            vec![path]
        };
        if written.is_global {
            return vec![written.segments.clone()];
        }
        match first.as_str() {
            "crate" => absolute(&[], rest),
            "self" | "super" => {
                let (mut module, mut rest) = (written.module.as_slice(), written.segments.as_slice());
                while let [word, more @ ..] = rest {
                    match (word.as_str(), module) {
                        ("self", _) => {}
                        ("super", [outer @ .., _]) => module = outer,
                        _ => break,
                    }
                    rest = more;
                }
                absolute(module, rest)
            }
            _ => self.resolve_name(written, first, rest, steps),
        }
    }

    fn resolve_name(&self, written: &Written, first: &str, rest: &[String], steps: usize) -> Vec<FullPath> {
        let child = [written.module.as_slice(), &[first.to_owned()]].concat();
        let is_child = self.modules.contains(&child);
        let as_child = || [&["crate".to_owned()], child.as_slice(), rest].concat();
        // What goes on is no function, so that a module is meant even where a function has its name.
        if is_child && !rest.is_empty() {
            return vec![as_child()];
        }
        let behind = |target: &Written| {
            let paths = self.resolve(target, steps.saturating_sub(1)).into_iter();
            paths.map(|path| [path.as_slice(), rest].concat()).collect::<Vec<FullPath>>()
        };
        if let Some(targets) = self.imports.get(&(written.module.clone(), first.to_owned())).filter(|_| steps > 0) {
            let targets =
                targets.iter().filter(|target| target.line != written.line || target.segments != written.segments);
            let paths: Vec<FullPath> = targets.flat_map(behind).collect();
            if !paths.is_empty() {
                return paths;
            }
        }
        if is_child {
            return vec![as_child()];
        }
        let mut paths = vec![written.segments.clone()];
        if !rest.is_empty() && steps > 0 {
            // It may come through a glob.
            let globs = self.globs.get(&written.module).into_iter().flatten().filter(|glob| glob.segments[0] != *first);
            for base in globs.flat_map(|glob| self.resolve(glob, steps - 1)) {
                paths.extend(self.through_glob(&base, first, rest, steps - 1));
            }
        }
        paths
    }

    /// What `first::rest` means if `use base::*` brought it in.
    fn through_glob(&self, base: &[String], first: &str, rest: &[String], steps: usize) -> Vec<FullPath> {
        let behind = || vec![[base, &[first.to_owned()], rest].concat()];
        if base.first().is_none_or(|root| root != "crate") {
            return behind();
        }
        let module = base[1..].to_vec();
        if self.modules.contains(&[module.as_slice(), &[first.to_owned()]].concat()) {
            return behind();
        }
        let targets = self.imports.get(&(module, first.to_owned())).into_iter().flatten();
        let paths = targets.flat_map(|target| self.resolve(target, steps));
        paths.map(|path| [path.as_slice(), rest].concat()).collect()
    }
}

/// The module path of a file, without `crate`.
fn module_of(name: &str) -> Vec<String> {
    let mut module: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let is_root = module.len() == 1 && matches!(module[0].as_str(), "lib" | "main");
    if is_root || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

/// Modules that these items declare for tests only.
fn test_modules(items: &[syn::Item], module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for item in items {
        let syn::Item::Mod(item) = item else { continue };
        let inner = [module, &[item.ident.to_string()]].concat();
        if super::cfg::is_test_only(&item.attrs) {
            found.push(inner);
        } else if let Some((_, items)) = &item.content {
            found.extend(test_modules(items, &inner));
        }
    }
    found
}
