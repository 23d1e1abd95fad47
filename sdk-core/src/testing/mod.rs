//! What implementations and this crate are tested with: one conformance suite for every [`crate::Store`], and a seeded
//! simulation of client, network, collector and host.

// Assertions are what this module is for.
#![allow(clippy::panic)]

pub mod simulation;
pub mod store_suite;
