//! Support for the tests: a real collector, a scripted server, scripted clocks and transports.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

pub mod collector;
pub mod fakes;
pub mod server;
