//! Test support: the conformance suite for implementations of [`crate::Store`], and a seeded simulation of client,
//! network, collector and host.

// The suites report failures by assertions.
#![allow(clippy::panic)]

pub mod simulation;
pub mod store_suite;
