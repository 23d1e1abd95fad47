//! The project's only scripts. `cargo xtask help` lists them.

use std::process::ExitCode;

mod architecture;
mod bench;
mod console;
mod demo;
mod fuzz;
mod replay;

mod test;
mod wasm;

use subway_servers::tools;

const HELP: &str = "\
cargo xtask <command>

  demo [--exit]                   the whole path on real traffic; keeps the console open
  test [step..]                   formatting, rooms, lints, docs, every test (or the steps whose names contain a word)
  bench [part..] [--compare-otel]        speed and sizes, one table; the parts are ingest, idle, native, javascript, sinks (real
                                  servers, some minutes); with the OpenTelemetry Collector beside ours
  wasm [build|test|sizes|bench]   the npm package: build it (default), run its tests, show sizes, time track()
  replay --log FILE --to URL --key KEY [..]
                                  a log becomes traffic, through the real SDK (`replay --help`)
  fuzz [--seconds N] [target..]   coverage-guided runs of every reader of outside text (nightly; `fuzz --help`)
  help                            this list
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = args.split_first().map_or(("help", &[][..]), |(c, r)| (c.as_str(), r));
    let done = match command {
        "demo" => demo::run(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "replay" => replay::command(rest),
        "fuzz" => fuzz::command(rest),
        "wasm" => wasm::command(rest),
        "help" | "-h" | "--help" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(anyhow::anyhow!("no command `{other}`; see `cargo xtask help`")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
