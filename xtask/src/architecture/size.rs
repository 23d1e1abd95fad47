//! How long files and functions may be. Clippy knows the same limit of functions, but sees only what is compiled here.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Most lines of a file.
const FILE_LINES: usize = 400;
/// Most lines of a function's body that are neither empty nor comments; `clippy.toml` has the same.
const FUNCTION_LINES: usize = 70;
/// Files that may be longer, with the reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// What is too long in a file.
pub(super) fn violations(name: &str, text: &str, file: &syn::File) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > FILE_LINES && !LONG_FILES.iter().any(|(long, _)| *long == name) {
        found.push(format!("{name} has {lines} lines; at most {FILE_LINES} are allowed"));
    }
    let mut functions = Functions { lines: text.lines().collect(), long: Vec::new() };
    functions.visit_file(file);
    found.extend(functions.long.into_iter().map(|(function, line, lines)| {
        format!("{name}:{line}: `{function}` has {lines} lines; at most {FUNCTION_LINES} are allowed")
    }));
    found
}

struct Functions<'a> {
    lines: Vec<&'a str>,
    long: Vec<(String, usize, usize)>,
}

impl Functions<'_> {
    fn check(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let span = body.span();
        let (begin, end) = (span.start().line, span.end().line.saturating_sub(1));
        let body = self.lines.get(begin..end).unwrap_or_default();
        let lines =
            body.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        if lines > FUNCTION_LINES {
            self.long.push((signature.ident.to_string(), signature.ident.span().start().line, lines));
        }
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.check(&node.sig, &node.block);
        visit::visit_item_fn(self, node);
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.check(&node.sig, &node.block);
        visit::visit_impl_item_fn(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(body) = &node.default {
            self.check(&node.sig, body);
        }
        visit::visit_trait_item_fn(self, node);
    }
}
