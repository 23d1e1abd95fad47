//! What implementations and this crate are tested with: one conformance suite for every [`crate::Store`], and a seeded
//! simulation of client, network, collector and host.

pub mod store_suite;
