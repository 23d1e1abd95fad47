//! The write path as the world sees it: the built binary over HTTP, in temporary directories, on ports that the system
//! chooses.
#![allow(clippy::unwrap_used, clippy::panic)]

mod commands;
mod durability;
mod embedded;
mod fixtures;
mod openapi;
mod operations;
mod outcomes;
mod overload;
mod requests;
mod share;
mod signatures;
mod support;
