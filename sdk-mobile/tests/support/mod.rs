//! What the tests share: a real collector, a scripted server, clocks and transports that do as they are told.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod collector;
pub mod fakes;
pub mod server;
