//! Runs each command.

use super::ledger::ledger;
use super::output::{Failure, print, runtime};
use super::serve::{self, ConfigSource};
use super::{Command, USAGE, dead_letters, schema, sinks};
use crate::config::Config;
use crate::serve::refuse_newer_at_rest;

pub(super) fn run(command: Command) -> Result<(), Failure> {
    if let Command::Export { data_dir, .. }
    | Command::Ledger { data_dir }
    | Command::DeadLetters { data_dir, .. }
    | Command::Sinks { data_dir, .. } = &command
    {
        refuse_newer_at_rest(data_dir).map_err(runtime)?;
    }
    match command {
        Command::Serve { config, listen, data_dir } => serve::run(ConfigSource { config, listen, data_dir }),
        Command::Check { config } => {
            Config::read(&config)?;
            print(&format!("{} is valid\n", config.display()))
        }
        Command::Export { data_dir, app, from, to } => {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            // `export` flushes by itself, and a closed pipe is no error to it.
            let missing = crate::export::run(&data_dir, app.as_deref(), from.as_deref(), to.as_deref(), &mut out);
            let missing = missing.map_err(runtime)?;
            if missing > 0 {
                let why = "retention deleted them, or the embedded store was off, or dropped them";
                eprintln!("subway-collector: {missing} stored events are no longer here: {why}");
            }
            Ok(())
        }
        Command::Ledger { data_dir } => {
            let ledger = ledger(&data_dir)?;
            print(&format!("{}\n", serde_json::to_string(&ledger).map_err(runtime)?))
        }
        Command::DeadLetters { action, data_dir, sink, config } => {
            dead_letters::run(action, &data_dir, sink.as_deref(), config.as_deref())
        }
        Command::Sinks { ending, data_dir, sink } => sinks::run(ending, &data_dir, sink.as_deref()),
        Command::Schema { action, config, sink } => schema::run(action, &config, &sink),
        Command::Help => print(USAGE),
        Command::Version => print(concat!("subway-collector ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}
