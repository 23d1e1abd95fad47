//! The first reading of a log: counts, names what is unreadable, and sorts the lines by client into parts that fit into
//! memory, so that a log of any size can be played install by install.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufWriter, Write};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::source::{Lines, Next};
use subway_access_log::{Request, parse};

/// Aimed at for each part, bytes of log. A part may be larger when one client has written most of the log.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Most parts: each is an open file during the first reading.
const PARTS: u64 = 256;
/// How much larger a log is than its gzip file, about.
const GZIP_RATIO: u64 = 12;
/// So many unreadable lines are named; the rest are only counted.
const NAMED: u64 = 1000;
/// How much of an unreadable line is shown, characters.
const SHOWN: usize = 80;

/// Which installs are meant. Installs are numbered from 0 in the order of their first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    /// Those whose number is a multiple of this.
    Every(NonZeroU64),
    /// All the others.
    AllBut(NonZeroU64),
}

impl Share {
    fn has(self, number: u64) -> bool {
        match self {
            Share::All => true,
            Share::Every(every) => number.is_multiple_of(every.get()),
            Share::AllBut(every) => !number.is_multiple_of(every.get()),
        }
    }
}

/// What the first reading found, of the installs that are meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Readable lines.
    pub(crate) lines: u64,
    pub(crate) views: u64,
    pub(crate) installs: u64,
    /// Lines of the whole log that could not be read.
    pub(crate) unreadable: u64,
}

/// The lines of a log, by client.
pub(crate) struct Plan {
    pub(crate) found: Found,
    parts: Vec<PathBuf>,
    _dir: TempDir,
}

/// Reads a log and calls `visit` for every line that belongs to `share`, with the raw line. Unreadable lines are named
/// to `name`.
pub(crate) fn read_log(
    log: &Path,
    share: Share,
    name: &mut dyn FnMut(&str),
    visit: &mut dyn FnMut(&Request, &[u8]) -> Result<()>,
) -> Result<Found> {
    let mut lines = Lines::open(log)?;
    let mut found = Found::default();
    let mut installs: HashMap<String, bool> = HashMap::new();
    let mut line = Vec::new();
    loop {
        let read = match lines.next(&mut line)? {
            Next::End => break,
            Next::TooLong => Err("longer than any request"),
            Next::Line => parse(&line),
        };
        let request = match read {
            Ok(request) => request,
            Err(why) => {
                found.unreadable += 1;
                name_unreadable(found.unreadable, lines.number(), why, &line, name);
                continue;
            }
        };
        let number = installs.len() as u64;
        let meant = match installs.get(&request.client) {
            Some(meant) => *meant,
            None => {
                let meant = share.has(number);
                found.installs += u64::from(meant);
                installs.insert(request.client.clone(), meant);
                meant
            }
        };
        if meant {
            found.lines += 1;
            found.views += u64::from(request.is_view());
            visit(&request, &line)?;
        }
    }
    if found.unreadable > NAMED {
        name(&format!("{} more unreadable lines are not named", found.unreadable - NAMED));
    }
    Ok(found)
}

fn name_unreadable(count: u64, number: u64, why: &str, line: &[u8], name: &mut dyn FnMut(&str)) {
    if count <= NAMED {
        let text = String::from_utf8_lossy(&line[..line.len().min(SHOWN * 4)]);
        let beginning: String = text.chars().take(SHOWN).collect();
        name(&format!("line {number} is unreadable: {why}: {beginning:?}"));
    }
}

impl Plan {
    pub(crate) fn make(log: &Path, share: Share, name: &mut dyn FnMut(&str)) -> Result<Self> {
        let dir = TempDir::with_prefix("subway-replay-").context("no room for temporary files")?;
        let count = parts(log)?;
        let parts: Vec<PathBuf> = (0..count).map(|number| dir.path().join(format!("part-{number}"))).collect();
        let mut files = Vec::new();
        for part in &parts {
            files.push(BufWriter::new(File::create(part).context("cannot write temporary files")?));
        }
        let found = read_log(log, share, name, &mut |request, line| {
            let mut hasher = DefaultHasher::new();
            request.client.hash(&mut hasher);
            let file = &mut files[(hasher.finish() % count) as usize];
            file.write_all(line).and_then(|()| file.write_all(b"\n")).context("cannot write temporary files")
        })?;
        for mut file in files {
            file.flush().context("cannot write temporary files")?;
        }
        Ok(Self { found, parts, _dir: dir })
    }

    /// The parts, one after the other; only one needs to be in memory at a time.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Result<Part>> {
        self.parts.iter().map(|path| Part::load(path))
    }
}

fn parts(log: &Path) -> Result<u64> {
    let size = std::fs::metadata(log).with_context(|| format!("cannot open {}", log.display()))?.len();
    let gzip = log.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gz"));
    let bytes = if gzip { size.saturating_mul(GZIP_RATIO) } else { size };
    Ok((bytes / PART_BYTES + 1).min(PARTS))
}

/// All lines of some clients.
pub(crate) struct Part {
    bytes: Vec<u8>,
    /// In the order of their first line; each with where its lines are, in order.
    installs: Vec<Vec<Range<usize>>>,
}

impl Part {
    fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).context("cannot read temporary files")?;
        let mut installs: Vec<Vec<Range<usize>>> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut at = 0;
        while let Some(length) = bytes[at..].iter().position(|c| *c == b'\n') {
            let range = at..at + length;
            at = range.end + 1;
            if let Ok(request) = parse(&bytes[range.clone()]) {
                let number = *numbers.entry(request.client).or_insert(installs.len());
                if number == installs.len() {
                    installs.push(Vec::new());
                }
                installs[number].push(range);
            }
        }
        Ok(Self { bytes, installs })
    }

    pub(crate) fn installs(&self) -> usize {
        self.installs.len()
    }

    /// The requests of one install, in the order of the log.
    pub(crate) fn requests(&self, install: usize) -> impl Iterator<Item = Request> {
        self.installs[install].iter().filter_map(|range| parse(&self.bytes[range.clone()]).ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(client: &str, path: &str) -> String {
        format!("{client} - - [17/May/2015:10:05:03 +0000] \"GET {path} HTTP/1.1\" 200 1\n")
    }

    fn log(dir: &TempDir) -> PathBuf {
        let path = dir.path().join("log");
        let text: String = (0..100).map(|n| line(&format!("10.0.0.{}", n % 10), &format!("/{n}"))).collect();
        std::fs::write(&path, format!("rubbish\n{text}\nhalf of a li")).unwrap();
        path
    }

    fn plan(share: Share) -> (Plan, Vec<String>) {
        let dir = TempDir::new().unwrap();
        let mut named = Vec::new();
        let plan = Plan::make(&log(&dir), share, &mut |text| named.push(text.to_owned())).unwrap();
        (plan, named)
    }

    #[test]
    fn every_line_is_found_under_its_client_in_order() {
        let (plan, _) = plan(Share::All);
        assert_eq!(plan.found, Found { lines: 100, views: 100, installs: 10, unreadable: 3 });
        let mut installs = 0;
        for part in plan.parts() {
            let part = part.unwrap();
            for install in 0..part.installs() {
                installs += 1;
                let requests: Vec<Request> = part.requests(install).collect();
                let last: u64 = requests[0].client.rsplit('.').next().unwrap().parse().unwrap();
                let paths: Vec<String> = requests.iter().map(|request| request.url.clone()).collect();
                assert_eq!(paths, (0..10).map(|round| format!("/{}", round * 10 + last)).collect::<Vec<_>>());
            }
        }
        assert_eq!(installs, 10);
    }

    #[test]
    fn unreadable_lines_are_named_with_number_reason_and_beginning() {
        let (_, named) = plan(Share::All);
        assert_eq!(
            named,
            [
                r#"line 1 is unreadable: no ident after the client: "rubbish""#,
                r#"line 102 is unreadable: no client: """#,
                r#"line 103 is unreadable: no [time] as the fourth field: "half of a li""#,
            ]
        );
    }

    #[test]
    fn two_shares_make_the_whole() {
        let every = NonZeroU64::new(4).unwrap();
        let (some, _) = plan(Share::Every(every));
        let (others, _) = plan(Share::AllBut(every));
        assert_eq!((some.found.installs, others.found.installs), (3, 7));
        assert_eq!((some.found.lines, others.found.lines), (30, 70));
    }
}
