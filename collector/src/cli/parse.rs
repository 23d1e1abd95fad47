//! Parses the arguments to a command.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use lexopt::ValueExt;
use lexopt::prelude::{Long, Short, Value};

use crate::config::resolve;
use crate::spool::SinkRemoval;

/// What `--help` prints.
pub(crate) const USAGE: &str = "\
usage:
  subway-collector serve [--config FILE] [--listen ADDR] [--data-dir DIR]
      receive events until SIGTERM or SIGINT; SIGHUP reads FILE again; without --config: one app with the key `demo`,
      SQLite in ./subway-data, on 127.0.0.1:8080
  subway-collector check --config FILE
      say whether the file is valid, or which line and key is not
  subway-collector export --data-dir DIR [--app KEY] [--from T] [--to T]
      stored events to stdout, one JSON object a line; T is a date or RFC 3339, --to exclusive
  subway-collector ledger --data-dir DIR
      where every event is, as JSON
  subway-collector dead-letters list|show|replay --data-dir DIR [--sink NAME] [--config FILE]
      events that a sink refused: how many and why, or each in full; or deliver them again, through the
      running collector, or without one with FILE (default: the configuration it last ran with)
  subway-collector sinks list|retire|forget --data-dir DIR [--sink NAME]
      every sink that ever was, one JSON object a line; retire one that the configuration no longer has, so that its
      figures stay as they are and no alert fires; forget a retired one with its dead letters, so that a new one
      may begin under its name; also beside a running collector
  subway-collector schema show|apply --config FILE --sink NAME
      what a sink needs in its store: print it, or create and migrate what is missing
  subway-collector --help | --version

exit codes: 0 done, 1 failed, 2 wrong usage or configuration; RUST_LOG overrides [log] level
";

/// One command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Serve until a signal arrives.
    Serve {
        /// Configuration file; the embedded default if absent.
        config: Option<PathBuf>,
        /// Addresses that replace those of the configuration.
        listen: Option<Vec<SocketAddr>>,
        /// Data directory that replaces that of the configuration.
        data_dir: Option<PathBuf>,
    },
    /// Check a configuration.
    Check {
        /// The file.
        config: PathBuf,
    },
    /// Write stored events.
    Export {
        /// Where they are.
        data_dir: PathBuf,
        /// Only this app's.
        app: Option<String>,
        /// Only those at or after this time.
        from: Option<String>,
        /// Only those before this time.
        to: Option<String>,
    },
    /// Print the ledger.
    Ledger {
        /// Where it is.
        data_dir: PathBuf,
    },
    /// Print dead letters, or deliver them again.
    DeadLetters {
        /// What to do with them.
        action: DeadLettersAction,
        /// Where they are.
        data_dir: PathBuf,
        /// Only this sink's.
        sink: Option<String>,
        /// The configuration to replay with when no collector runs.
        config: Option<PathBuf>,
    },
    /// Print the sinks, or end one that the configuration no longer has.
    Sinks {
        /// What to do with it; `None` prints all.
        ending: Option<SinkRemoval>,
        /// Where they are.
        data_dir: PathBuf,
        /// Which one.
        sink: Option<String>,
    },
    /// Print what a sink needs in its store, or create it.
    Schema {
        /// What to do with it.
        action: SchemaAction,
        /// The configuration.
        config: PathBuf,
        /// The sink's name.
        sink: String,
    },
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
}

/// What to do with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeadLettersAction {
    /// Count them by sink and reason.
    List,
    /// Print each in full.
    Show,
    /// Deliver them again.
    Replay,
}

/// What to do with a sink's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SchemaAction {
    /// Print it.
    Show,
    /// Create and migrate what is missing.
    Apply,
}

#[derive(Default)]
struct Options {
    config: Option<PathBuf>,
    listen: Option<Vec<SocketAddr>>,
    data_dir: Option<PathBuf>,
    app: Option<String>,
    from: Option<String>,
    to: Option<String>,
    sink: Option<String>,
}

/// The arguments are wrong; its text says how.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct UsageError(#[from] lexopt::Error);

/// Parses the arguments after the program's name.
///
/// # Errors
/// If they are not a command with its options.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    Ok(read(lexopt::Parser::from_args(args))?)
}

fn read(mut parser: lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut words: Vec<String> = Vec::new();
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("version") | Short('V') => return Ok(Command::Version),
            Value(word) => words.push(word.string()?),
            Long(name) => {
                let name = name.to_owned();
                let allowed = allowed_options(&words);
                if !allowed.contains(&name.as_str()) {
                    return Err(Long(&name).unexpected());
                }
                set_option(&mut options, &name, &mut parser)?;
            }
            other => return Err(other.unexpected()),
        }
    }
    build_command(&words.iter().map(String::as_str).collect::<Vec<_>>(), options).map_err(lexopt::Error::from)
}

fn allowed_options(words: &[String]) -> &'static [&'static str] {
    match words.first().map(String::as_str) {
        Some("serve") => &["config", "listen", "data-dir"],
        Some("check") => &["config"],
        Some("export") => &["data-dir", "app", "from", "to"],
        Some("ledger") => &["data-dir"],
        Some("dead-letters") => &["data-dir", "sink", "config"],
        Some("sinks") => &["data-dir", "sink"],
        Some("schema") => &["config", "sink"],
        _ => &[],
    }
}

fn set_option(options: &mut Options, name: &str, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
    match name {
        "config" => options.config = Some(parser.value()?.into()),
        "listen" => options.listen = Some(parser.value()?.parse_with(resolve)?),
        "data-dir" => options.data_dir = Some(parser.value()?.into()),
        "app" => options.app = Some(parser.value()?.string()?),
        "from" => options.from = Some(parser.value()?.string()?),
        "to" => options.to = Some(parser.value()?.string()?),
        _ => options.sink = Some(parser.value()?.string()?),
    }
    Ok(())
}

fn build_command(words: &[&str], options: Options) -> Result<Command, String> {
    let Options { config, listen, data_dir, app, from, to, sink } = options;
    let dir = |dir: Option<PathBuf>| dir.ok_or_else(|| "--data-dir is missing".to_owned());
    match words {
        ["serve"] => Ok(Command::Serve { config, listen, data_dir }),
        ["check"] => Ok(Command::Check { config: config.ok_or("--config is missing")? }),
        ["export"] => Ok(Command::Export { data_dir: dir(data_dir)?, app, from, to }),
        ["ledger"] => Ok(Command::Ledger { data_dir: dir(data_dir)? }),
        ["dead-letters", word @ ("list" | "show" | "replay")] => {
            let action = match *word {
                "list" => DeadLettersAction::List,
                "show" => DeadLettersAction::Show,
                _ => DeadLettersAction::Replay,
            };
            Ok(Command::DeadLetters { action, data_dir: dir(data_dir)?, sink, config })
        }
        ["sinks", "list"] => Ok(Command::Sinks { ending: None, data_dir: dir(data_dir)?, sink }),
        ["sinks", word @ ("retire" | "forget")] => {
            let ending = Some(if *word == "retire" { SinkRemoval::Retire } else { SinkRemoval::Forget });
            Ok(Command::Sinks { ending, data_dir: dir(data_dir)?, sink: Some(sink.ok_or("--sink is missing")?) })
        }
        ["sinks"] => Err("sinks needs list, retire or forget".into()),
        ["schema", word @ ("show" | "apply")] => {
            let action = if *word == "show" { SchemaAction::Show } else { SchemaAction::Apply };
            let (config, sink) = (config.ok_or("--config is missing")?, sink.ok_or("--sink is missing")?);
            Ok(Command::Schema { action, config, sink })
        }
        ["schema"] => Err("schema needs show or apply".into()),
        ["dead-letters"] => Err("dead-letters needs list, show or replay".into()),
        [] => Err("no command".into()),
        [first, ..] => Err(format!("unknown command {first}, or too many words")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, String> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_command_of_the_usage_is_understood() {
        let dir = PathBuf::from("d");
        assert_eq!(
            words("serve --config c --listen 127.0.0.1:0 --data-dir=d"),
            Ok(Command::Serve {
                config: Some("c".into()),
                listen: Some(vec!["127.0.0.1:0".parse().unwrap()]),
                data_dir: Some(dir.clone())
            })
        );
        assert_eq!(words("serve"), Ok(Command::Serve { config: None, listen: None, data_dir: None }));
        assert_eq!(words("check --config c"), Ok(Command::Check { config: "c".into() }));
        assert_eq!(
            words("export --data-dir d --app a --from 2015-05-17 --to x"),
            Ok(Command::Export {
                data_dir: dir.clone(),
                app: Some("a".into()),
                from: Some("2015-05-17".into()),
                to: Some("x".into())
            })
        );
        assert_eq!(words("ledger --data-dir d"), Ok(Command::Ledger { data_dir: dir.clone() }));
        assert_eq!(
            words("dead-letters show --data-dir d --sink s"),
            Ok(Command::DeadLetters {
                action: DeadLettersAction::Show,
                data_dir: dir.clone(),
                sink: Some("s".into()),
                config: None
            })
        );
        assert_eq!(
            words("dead-letters replay --data-dir d --config c"),
            Ok(Command::DeadLetters {
                action: DeadLettersAction::Replay,
                data_dir: dir,
                sink: None,
                config: Some("c".into())
            })
        );
        assert_eq!(
            words("schema apply --config c --sink s"),
            Ok(Command::Schema { action: SchemaAction::Apply, config: "c".into(), sink: "s".into() })
        );
        assert_eq!(
            words("sinks list --data-dir d"),
            Ok(Command::Sinks { ending: None, data_dir: PathBuf::from("d"), sink: None })
        );
        for (word, ending) in [("retire", SinkRemoval::Retire), ("forget", SinkRemoval::Forget)] {
            assert_eq!(
                words(&format!("sinks {word} --data-dir d --sink s")),
                Ok(Command::Sinks { ending: Some(ending), data_dir: PathBuf::from("d"), sink: Some("s".into()) })
            );
        }
        assert_eq!(words("serve --help"), Ok(Command::Help));
        assert_eq!(words("--version"), Ok(Command::Version));
    }

    #[test]
    fn everything_else_is_refused() {
        for line in [
            "",
            "sreve",
            "serve x",
            "serve --port 1",
            "serve --listen x",
            "serve --listen localhost",
            "check",
            "ledger",
            "ledger --app x --data-dir d",
            "dead-letters --data-dir d",
            "dead-letters eat --data-dir d",
            "sinks --data-dir d",
            "sinks retire --data-dir d",
            "sinks list",
            "schema --config c --sink s",
            "schema show --config c",
            "schema drop --config c --sink s",
            "serve --config",
            "--config x serve",
            "-x",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
