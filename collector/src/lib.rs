//! The collector: receives events, keeps them durably, feeds the stores and answers questions about them.

pub mod record;
