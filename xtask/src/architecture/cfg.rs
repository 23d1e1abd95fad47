//! Which parts of a file are compiled for tests only.

use syn::{Attribute, Expr, ImplItem, Item, Meta, Stmt, Token, TraitItem, punctuated::Punctuated};

/// Whether these attributes say so: `#[cfg(test)]`, or a condition that cannot be true without `test`; or `#[test]`.
pub(super) fn is_test_only(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) if list.path.is_ident("cfg") => list.parse_args::<Meta>().is_ok_and(|meta| needs_test(&meta)),
        _ => false,
    })
}

fn needs_test(condition: &Meta) -> bool {
    let Meta::List(list) = condition else { return condition.path().is_ident("test") };
    let Ok(parts) = list.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated) else { return false };
    if list.path.is_ident("all") {
        parts.iter().any(needs_test)
    } else {
        list.path.is_ident("any") && !parts.is_empty() && parts.iter().all(needs_test)
    }
}

/// The attributes of a node that has one of many forms.
macro_rules! attributes {
    ($node:expr, $kind:ident: $($form:ident)*) => {
        match $node {
            $($kind::$form(form) => &form.attrs,)*
            _ => &[],
        }
    };
}

pub(super) fn of_item(item: &Item) -> &[Attribute] {
    attributes!(item, Item: Const Enum ExternCrate Fn ForeignMod Impl Macro Mod Static Struct Trait TraitAlias Type Union Use)
}

pub(super) fn of_impl_item(item: &ImplItem) -> &[Attribute] {
    attributes!(item, ImplItem: Const Fn Macro Type)
}

pub(super) fn of_trait_item(item: &TraitItem) -> &[Attribute] {
    attributes!(item, TraitItem: Const Fn Macro Type)
}

pub(super) fn of_statement(statement: &Stmt) -> &[Attribute] {
    attributes!(statement, Stmt: Local Macro)
}

pub(super) fn of_expression(expression: &Expr) -> &[Attribute] {
    attributes!(expression, Expr: Assign Async Await Binary Block Break Call Continue ForLoop If Loop Macro Match MethodCall
        Return Unsafe While)
}
