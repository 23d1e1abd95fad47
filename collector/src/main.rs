//! The collector's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    subway_collector::main()
}
