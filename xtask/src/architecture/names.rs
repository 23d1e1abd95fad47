//! What a file names: every path of its `use` trees, expressions, types, attributes and macro arguments, as it is
//! written. `source` resolves them.

use proc_macro2::{Ident, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Meta, UseTree};

use super::cfg::{self, is_test_only};

/// A path as it is written, and where.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The module around it, from the crate's root on.
    pub(super) module: Vec<String>,
    /// `crate`, `self`, `super` and names, that of a macro with its `!`; of a glob the path before the star.
    pub(super) segments: Vec<String>,
    /// It begins with `::`.
    pub(super) is_global: bool,
    /// It ends with `*`.
    pub(super) is_glob: bool,
    pub(super) line: usize,
}

/// A name that a module takes from elsewhere: by `use`, or by a type alias.
#[derive(Clone, Debug)]
pub(super) struct Import {
    pub(super) name: String,
    pub(super) target: Written,
}

/// Everything that one file names outside of its tests.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) written: Vec<Written>,
    pub(super) imports: Vec<Import>,
    /// Modules declared in the file.
    pub(super) modules: Vec<Vec<String>>,
    /// Methods called: name and line.
    pub(super) methods: Vec<(String, usize)>,
    pub(super) statics: Vec<Static>,
}

/// A static, or a macro that makes some.
#[derive(Debug)]
pub(super) struct Static {
    pub(super) name: String,
    pub(super) line: usize,
    /// Its type, where that is a path: it may be an alias.
    pub(super) kind: Option<Written>,
    /// It can change or is made late, by what is written there.
    pub(super) is_state: bool,
}

/// Reads the names of a file whose module path is `module`.
pub(super) fn names(file: &syn::File, module: &[String]) -> Names {
    let mut collector = Collector { module: module.to_vec(), names: Names::default() };
    if !is_test_only(&file.attrs) {
        collector.visit_file(file);
    }
    collector.names
}

/// Types whose value can change behind a shared reference, or is made when it is first asked for.
const SHARED_STATE: &[&str] =
    &["Cell", "LazyCell", "LazyLock", "Mutex", "Once", "OnceCell", "OnceLock", "RefCell", "RwLock", "UnsafeCell"];

struct Collector {
    module: Vec<String>,
    names: Names,
}

impl Collector {
    fn written(&self, segments: Vec<String>, is_global: bool, is_glob: bool, line: usize) -> Written {
        Written { module: self.module.clone(), segments, is_global, is_glob, line }
    }

    fn written_path(&self, path: &syn::Path, line: usize) -> Written {
        let segments = path.segments.iter().map(|segment| name(&segment.ident)).collect();
        self.written(segments, path.leading_colon.is_some(), false, line)
    }

    fn add(&mut self, segments: Vec<String>, is_global: bool, line: usize) {
        let written = self.written(segments, is_global, false, line);
        self.names.written.push(written);
    }

    /// Adds the leaves of a `use` tree behind `prefix`.
    fn use_tree(&mut self, tree: &UseTree, prefix: &[String], is_global: bool) {
        match tree {
            UseTree::Path(path) => {
                let prefix = [prefix, &[name(&path.ident)]].concat();
                self.use_tree(&path.tree, &prefix, is_global);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.use_tree(tree, prefix, is_global)),
            UseTree::Name(leaf) => self.import(prefix, &leaf.ident, &leaf.ident, is_global),
            UseTree::Rename(leaf) => self.import(prefix, &leaf.ident, &leaf.rename, is_global),
            UseTree::Glob(glob) => {
                let line = glob.star_token.span().start().line;
                let written = self.written(prefix.to_vec(), is_global, true, line);
                self.names.written.push(written);
            }
        }
    }

    fn import(&mut self, prefix: &[String], leaf: &Ident, rename: &Ident, is_global: bool) {
        let (mut segments, mut rename) = (prefix.to_vec(), name(rename));
        if leaf == "self" {
            if rename == "self" {
                rename = prefix.last().cloned().unwrap_or_default();
            }
        } else {
            segments.push(name(leaf));
        }
        let target = self.written(segments, is_global, false, leaf.span().start().line);
        self.names.written.push(target.clone());
        self.names.imports.push(Import { name: rename, target });
    }

    /// Adds every macro and every path of two or more names in the arguments of a macro or an attribute.
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(_) if !is_member(&tokens, at) => {
                    let is_global = at >= 2 && is_colons(&tokens, at - 2);
                    at = self.path(&tokens, at, &[], is_global);
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Adds the path that begins at the identifier `at`, behind `prefix`; gives the place after it.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, prefix: &[String], is_global: bool) -> usize {
        let (mut segments, line) = (prefix.to_vec(), tokens[at].span().start().line);
        while let Some(TokenTree::Ident(ident)) = tokens.get(at) {
            segments.push(name(ident));
            at += 1;
            if !is_colons(tokens, at) {
                break;
            }
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(_)) => at += 2,
                Some(TokenTree::Group(group)) => {
                    self.group(group.stream(), &segments, is_global);
                    return at + 3;
                }
                _ => break,
            }
        }
        if let (Some(TokenTree::Punct(mark)), Some(TokenTree::Group(_))) = (tokens.get(at), tokens.get(at + 1))
            && mark.as_char() == '!'
        {
            segments.last_mut().into_iter().for_each(|last| last.push('!'));
            self.add(segments, is_global, line);
        } else if segments.len() > 1 {
            self.add(segments, is_global, line);
        }
        at
    }

    /// Adds what stands in the braces of a `use` tree inside of a macro.
    fn group(&mut self, stream: TokenStream, prefix: &[String], is_global: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Ident(_) => self.path(&tokens, at, prefix, is_global),
                _ => at + 1,
            };
        }
    }
}

/// Whether `::` stands at this place.
fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>| match token {
        Some(TokenTree::Punct(punct)) if punct.as_char() == ':' => Some(punct.spacing()),
        _ => None,
    };
    colon(tokens.get(at)) == Some(Spacing::Joint) && colon(tokens.get(at + 1)).is_some()
}

/// Whether the identifier is a field or method, or goes on a path behind `>`.
fn is_member(tokens: &[TokenTree], at: usize) -> bool {
    let is = |back: usize, c: char| match at.checked_sub(back).map(|at| &tokens[at]) {
        Some(TokenTree::Punct(punct)) => punct.as_char() == c,
        _ => false,
    };
    is(1, '.') && !is(2, '.') || is(1, ':') && is(2, ':') && is(3, '>')
}

/// The identifier without `r#`.
fn name(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map(str::to_owned).unwrap_or(text)
}

/// The path in a text such as serde's `with = "crate::module"`.
fn quoted(text: &str) -> Option<Vec<String>> {
    let is_path = text.contains("::") && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
    is_path.then(|| text.split("::").map(str::to_owned).collect())
}

fn strings(stream: TokenStream, found: &mut Vec<String>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Literal(literal) => found.push(literal.to_string().trim_matches('"').to_owned()),
            _ => {}
        }
    }
}

/// Whether a type of this name is shared state.
pub(super) fn is_shared_state(name: &str) -> bool {
    SHARED_STATE.contains(&name) || name.starts_with("Atomic")
}

/// Whether the code of a static speaks of shared state.
fn has_shared_state(stream: TokenStream) -> bool {
    stream.into_iter().any(|token| match token {
        TokenTree::Group(group) => has_shared_state(group.stream()),
        TokenTree::Ident(ident) => is_shared_state(&ident.to_string()),
        _ => false,
    })
}

/// Visits a node unless it is there in tests only.
macro_rules! outside_tests {
    ($($visit:ident($node:ty, $attributes:expr);)*) => {
        $(fn $visit(&mut self, node: &'ast $node) {
            if !is_test_only($attributes(node)) {
                visit::$visit(self, node);
            }
        })*
    };
}

impl<'ast> Visit<'ast> for Collector {
    outside_tests! {
        visit_item(syn::Item, cfg::of_item);
        visit_impl_item(syn::ImplItem, cfg::of_impl_item);
        visit_trait_item(syn::TraitItem, cfg::of_trait_item);
        visit_stmt(syn::Stmt, cfg::of_statement);
        visit_expr(syn::Expr, cfg::of_expression);
        visit_arm(syn::Arm, |node: &'ast syn::Arm| &node.attrs);
        visit_field(syn::Field, |node: &'ast syn::Field| &node.attrs);
        visit_field_value(syn::FieldValue, |node: &'ast syn::FieldValue| &node.attrs);
        visit_variant(syn::Variant, |node: &'ast syn::Variant| &node.attrs);
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        self.module.push(name(&node.ident));
        self.names.modules.push(self.module.clone());
        visit::visit_item_mod(self, node);
        self.module.pop();
    }

    fn visit_item_use(&mut self, node: &'ast syn::ItemUse) {
        self.use_tree(&node.tree, &[], node.leading_colon.is_some());
    }

    fn visit_item_extern_crate(&mut self, node: &'ast syn::ItemExternCrate) {
        let rename = node.rename.as_ref().map_or(&node.ident, |(_, rename)| rename);
        self.import(&[], &node.ident, rename, true);
    }

    fn visit_item_type(&mut self, node: &'ast syn::ItemType) {
        if let syn::Type::Path(path) = &*node.ty {
            let target = self.written_path(&path.path, node.ident.span().start().line);
            self.names.imports.push(Import { name: name(&node.ident), target });
        }
        visit::visit_item_type(self, node);
    }

    fn visit_item_static(&mut self, node: &'ast syn::ItemStatic) {
        let line = node.ident.span().start().line;
        let kind = match &*node.ty {
            syn::Type::Path(path) => Some(self.written_path(&path.path, line)),
            _ => None,
        };
        let is_state = matches!(node.mutability, syn::StaticMutability::Mut(_)) || has_shared_state(tokens_of(node));
        self.names.statics.push(Static { name: name(&node.ident), line, kind, is_state });
        visit::visit_item_static(self, node);
    }

    fn visit_path(&mut self, node: &'ast syn::Path) {
        // A single name is a local one, or its import is noted.
        if node.segments.len() > 1 {
            let written = self.written_path(node, node.span().start().line);
            self.names.written.push(written);
        }
        visit::visit_path(self, node);
    }

    fn visit_expr_method_call(&mut self, node: &'ast syn::ExprMethodCall) {
        self.names.methods.push((name(&node.method), node.method.span().start().line));
        visit::visit_expr_method_call(self, node);
    }

    fn visit_macro(&mut self, node: &'ast syn::Macro) {
        if node.path.segments.last().is_some_and(|last| last.ident == "thread_local") {
            let line = node.path.span().start().line;
            self.names.statics.push(Static { name: "thread_local!".into(), line, kind: None, is_state: true });
        }
        let mut written = self.written_path(&node.path, node.path.span().start().line);
        written.segments.last_mut().into_iter().for_each(|last| last.push('!'));
        self.names.written.push(written);
        self.tokens(node.tokens.clone());
    }

    fn visit_attribute(&mut self, node: &'ast Attribute) {
        self.visit_path(node.path());
        if let Meta::List(list) = &node.meta {
            let mut found = Vec::new();
            strings(list.tokens.clone(), &mut found);
            let line = list.path.span().start().line;
            found.iter().filter_map(|text| quoted(text)).for_each(|segments| self.add(segments, false, line));
            self.tokens(list.tokens.clone());
        }
    }

    /// Who may see an item is no dependency.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}
}

fn tokens_of(node: &syn::ItemStatic) -> TokenStream {
    let (kind, value) = (&node.ty, &node.expr);
    quote::quote!(#kind #value)
}
