//! Binary of the collector.

use std::process::ExitCode;

fn main() -> ExitCode {
    subway_collector::main()
}
