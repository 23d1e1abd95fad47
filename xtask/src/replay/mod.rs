//! `cargo xtask replay`: a log becomes traffic, through the real SDK, against a running collector.
//!
//! [`oracle`] computes what must come out by other means, and [`mod@check`] compares the two.

use std::io::Write;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

pub(crate) mod check;
pub(crate) mod collector;
#[cfg(test)]
mod end_to_end;
pub(crate) mod oracle;
mod plan;
mod player;
mod source;
mod traffic;

pub(crate) use plan::{Found, Share};
pub(crate) use player::{Played, Target};

/// What `cargo xtask help` says about this command's options.
pub(crate) const HELP: &str = "\
cargo xtask replay --log FILE --to URL --key KEY [options]

  --log FILE            a log in the common or combined format, plain or gzip
  --to URL              the collector's address, such as http://127.0.0.1:8080
  --key KEY             the app's key
  --secret-env NAME     the environment variable with the app's secret, if requests must be signed
  --parallel N          installs at once (default 16)
  --patience SECONDS    give up when nothing was acknowledged for so long (default 120)
  --only-every N        only the installs number 0, N, 2N, .. in the order of their first line
  --skip-every N        all but these
  --check FILE          afterwards compare page views, visitors, new users and events, hour by hour, with what the log
                        must come to; FILE holds the app's read token, KEY must be in Asia/Shanghai and empty before
";

/// Settings of one replay.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) log: PathBuf,
    pub(crate) target: Target,
    pub(crate) share: Share,
    /// A file with the app's read token, to compare the numbers afterwards.
    pub(crate) check: Option<PathBuf>,
}

impl Options {
    /// Plays the whole log to this collector.
    pub(crate) fn new(log: impl Into<PathBuf>, to: &str, key: &str) -> Self {
        let target = Target {
            to: to.to_owned(),
            key: key.to_owned(),
            secret: None,
            parallel: 16,
            patience: Duration::from_secs(120),
        };
        Self { log: log.into(), target, share: Share::All, check: None }
    }

    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::new("", "", "");
        let mut args = args.iter();
        while let Some(name) = args.next() {
            let value = args.next().with_context(|| format!("{name} needs a value\n\n{HELP}"))?;
            let number = || value.parse::<NonZeroU64>().with_context(|| format!("{name}: {value} is no count"));
            match name.as_str() {
                "--log" => options.log = value.into(),
                "--to" => options.target.to.clone_from(value),
                "--key" => options.target.key.clone_from(value),
                "--secret-env" => {
                    options.target.secret = Some(std::env::var(value).with_context(|| format!("variable {value}"))?);
                }
                "--parallel" => options.target.parallel = number()?.get().min(256) as usize,
                "--patience" => options.target.patience = Duration::from_secs(number()?.get()),
                "--only-every" => options.share = Share::Every(number()?),
                "--skip-every" => options.share = Share::AllBut(number()?),
                "--check" => options.check = Some(value.into()),
                other => bail!("no option {other}\n\n{HELP}"),
            }
        }
        for (name, value) in [
            ("--log", options.log.as_os_str()),
            ("--to", options.target.to.as_ref()),
            ("--key", options.target.key.as_ref()),
        ] {
            ensure!(!value.is_empty(), "{name} is required\n\n{HELP}");
        }
        Ok(options)
    }
}

/// What a replay came to. Its text is the summary line that scripts read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) found: Found,
    pub(crate) played: Played,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (found, played) = (self.found, self.played);
        write!(
            f,
            "replayed {} lines, {} views, {} installs, {} events, {} acknowledged, {} lost",
            found.lines, found.views, found.installs, played.events, played.acked, played.lost
        )
    }
}

/// `cargo xtask replay`: prints the summary line; an error if anything was lost.
pub(crate) fn command(args: &[String]) -> Result<()> {
    if args.iter().any(|arg| matches!(arg.as_str(), "-h" | "--help")) {
        print!("{HELP}");
        return Ok(());
    }
    let options = Options::parse(args)?;
    let summary = run(&options)?;
    let differences = match &options.check {
        Some(token) => check(&options, token)?,
        None => Vec::new(),
    };
    println!("{summary}");
    ensure!(summary.played.lost == 0, "{} events were lost", summary.played.lost);
    ensure!(differences.is_empty(), "the collector's numbers differ:\n{}", differences.join("\n"));
    Ok(())
}

/// Compares the collector's numbers with the oracle's and prints them. Returns what differs.
fn check(options: &Options, token: &Path) -> Result<Vec<String>> {
    let token = std::fs::read_to_string(token).with_context(|| format!("cannot read {}", token.display()))?;
    let reader = check::Reader {
        base: options.target.to.clone(),
        app: options.target.key.clone(),
        token: token.trim().to_owned(),
    };
    let found = check::compare(&reader, &options.log)?;
    let verdict = format!("{} numbers compared with the log, {} differ", found.compared, found.differences.len());
    println!("{}{verdict}", found.table);
    Ok(found.differences)
}

/// Replays a log. Progress and unreadable lines go to stderr.
pub(crate) fn run(options: &Options) -> Result<Summary> {
    let mut name = |text: &str| eprintln!("replay: {text}");
    let plan = plan::Plan::make(&options.log, options.share, &mut name)?;
    if plan.found.unreadable > 0 {
        name(&format!("{} lines were unreadable and are left out", plan.found.unreadable));
    }
    let played = player::play(&plan, &options.target)?;
    Ok(Summary { found: plan.found, played })
}

/// Writes what a share of the installs did as lines of JSON, for the JS SDK to play, in the order of the log:
///
/// ```json
/// {"install": "CLIENT", "theme": "view", "code": "page_view", "props": {}, "trueTs": 1431857103000,
/// "page": {"path": "/", "title": "", "referrer": ""}, "device": {"os": "..", "osVersion": ".."}}
/// ```
pub(crate) fn split(log: &Path, share: Share, out: &Path) -> Result<Found> {
    let file = std::fs::File::create(out).with_context(|| format!("cannot write {}", out.display()))?;
    let mut file = std::io::BufWriter::new(file);
    let found = plan::read_log(log, share, &mut |_| {}, &mut |request, _| {
        let (device, _) = traffic::device(request.agent.as_deref());
        for event in traffic::events(request) {
            let line = traffic::ndjson(&request.client, &event, &device);
            writeln!(file, "{line}").with_context(|| format!("cannot write {}", out.display()))?;
        }
        Ok(())
    })?;
    file.flush().with_context(|| format!("cannot write {}", out.display()))?;
    Ok(found)
}
