//! Command line: parses the arguments and runs one command.

mod commands;
mod dead_letters;
mod ledger;
mod log;
mod output;
mod parse;
mod schema;
mod serve;
mod sinks;

use std::process::ExitCode;

use output::Failure;
pub(crate) use parse::{Command, USAGE, parse};

/// Exit code of wrong usage or configuration.
const USAGE_ERROR: u8 = 2;

/// Runs the command that the process's arguments name.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.
#[must_use]
pub fn main() -> ExitCode {
    let command = match parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(why) => {
            eprintln!("subway-collector: {why}\n\n{USAGE}");
            return ExitCode::from(USAGE_ERROR);
        }
    };
    match commands::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Config(error)) => {
            eprintln!("subway-collector: {error}");
            ExitCode::from(USAGE_ERROR)
        }
        Err(Failure::Runtime(why)) => {
            eprintln!("subway-collector: {why}");
            ExitCode::FAILURE
        }
    }
}
