//! One server as a child process: started, awaited, killed, restarted, and never left behind.
//!
//! A server runs under a small `sh` whose standard input is a pipe that this process holds. When this process dies in
//! any way, the pipe closes, and the shell kills its whole process group.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal};

use crate::tools::is_alive;

/// Starts `"$@"`, names its process ID, and ends it when standard input ends.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- 4>&- &
server=$!
echo $server >&4
exec 4>&-
( read -r _ <&3; kill -9 0 ) &
watcher=$!
wait $server
code=$?
kill -9 $watcher
exit $code
"#;

/// Interval between two checks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Timeout for a killed process to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);
/// Lines of a server's log that an error contains.
const LOG_TAIL_LINES: usize = 25;
/// Range of ports, below the range that systems use for outgoing connections (32768 on Linux). Otherwise a port could
/// be lost, or a client could connect to itself, while its server is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// Parameters of a server's process.
pub(crate) struct LaunchSpec {
    /// Name for messages.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// Additions to the environment.
    pub(crate) env: Vec<(String, OsString)>,
    /// File for its output.
    pub(crate) log: PathBuf,
    /// File with the ID of the server's process, if the started one is only a launcher.
    pub(crate) pidfile: Option<PathBuf>,
    /// Timeout from the start to being ready.
    pub(crate) limit: Duration,
}

/// A server that is running or was killed.
pub(crate) struct Process {
    spec: LaunchSpec,
    running: Mutex<Option<Running>>,
}

struct Running {
    supervisor: Child,
    /// Closing it ends the server.
    _hold: ChildStdin,
    /// Process that the supervisor started: the server or its launcher.
    child: Pid,
}

impl Process {
    pub(crate) fn new(spec: LaunchSpec) -> Self {
        Self { spec, running: Mutex::new(None) }
    }

    /// Starts the server and waits until `ready` returns true.
    pub(crate) fn start(&self, ready: &dyn Fn() -> bool) -> Result<()> {
        let mut running = self.lock();
        ensure!(running.is_none(), "{} runs already", self.spec.name);
        let mut new = self.spawn()?;
        let end = Instant::now() + self.spec.limit;
        let problem = loop {
            if let Some(status) = new.supervisor.try_wait()? {
                break format!("{} ended with {status} before it was ready", self.spec.name);
            }
            if ready() {
                *running = Some(new);
                return Ok(());
            }
            if Instant::now() > end {
                break format!("{} was not ready within {} s", self.spec.name, self.spec.limit.as_secs());
            }
            std::thread::sleep(POLL_INTERVAL);
        };
        self.kill_group(new);
        bail!("{problem}:\n{}", self.log_tail())
    }

    fn spawn(&self) -> Result<Running> {
        if let Some(file) = &self.spec.pidfile {
            let _ = fs::remove_file(file);
        }
        let log = File::options().create(true).append(true).open(&self.spec.log)?;
        let errors = log.try_clone()?;
        // File descriptor 4 is the supervisor's standard output; the server's output goes to the log.
        let script = format!("exec 4>&1 >>\"$LOG\"\n{SUPERVISOR}");
        let mut supervisor = Command::new("sh")
            .args(["-c", &script, "supervisor"])
            .args(&self.spec.command)
            .envs(self.spec.env.iter().cloned())
            .env("LOG", &self.spec.log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let hold = supervisor.stdin.take().context("no pipe to the supervisor")?;
        let mut line = String::new();
        BufReader::new(supervisor.stdout.take().context("no pipe from the supervisor")?).read_line(&mut line)?;
        let child = line.trim().parse().ok().and_then(Pid::from_raw);
        let child = child.with_context(|| format!("cannot start {}: {}", self.spec.name, self.log_tail()))?;
        Ok(Running { supervisor, _hold: hold, child })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the ID of the server's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        let running = self.lock();
        running.as_ref().map(|running| id(self.server(running)))
    }

    /// Returns the server itself, not its launcher.
    fn server(&self, running: &Running) -> Pid {
        let file = self.spec.pidfile.as_ref();
        let written = file.and_then(|file| fs::read_to_string(file).ok());
        written.and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw).unwrap_or(running.child)
    }

    /// Kills the server as `kill -9` does, and waits until it has exited. Its data stays.
    pub(crate) fn kill(&self) {
        let running = self.lock().take();
        if let Some(running) = running {
            self.kill_group(running);
        }
    }

    fn kill_group(&self, mut running: Running) {
        let server = self.server(&running);
        // The server first, so that it cannot react to the death of its launcher.
        let _ = rustix::process::kill_process(server, Signal::KILL);
        let _ = rustix::process::kill_process(running.child, Signal::KILL);
        // Then the launcher's other children, and the supervisor, which leads the group.
        if let Some(group) = Pid::from_raw(running.supervisor.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = running.supervisor.wait();
        let end = Instant::now() + EXIT_TIMEOUT;
        while (is_alive(id(server)) || is_alive(id(running.child))) && Instant::now() < end {
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Pauses the server's process, like a machine that hangs; connections stay open.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes a paused server.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.lock();
        let running = running.as_ref().with_context(|| format!("{} does not run", self.spec.name))?;
        Ok(rustix::process::kill_process(self.server(running), signal)?)
    }

    /// Returns the last lines of the server's log.
    fn log_tail(&self) -> String {
        let log = fs::read(&self.spec.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn id(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// Returns a free port on loopback.
pub(crate) fn free_port() -> Result<u16> {
    use std::hash::{BuildHasher, Hasher};
    for _ in 0..100 {
        // The standard library's only source of randomness.
        let random = std::hash::RandomState::new().build_hasher().finish();
        let span = u64::from(PORTS.end - PORTS.start);
        let port = PORTS.start + u16::try_from(random % span)?;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on loopback between {} and {}", PORTS.start, PORTS.end)
}

/// Retries with other ports if another process took a port before the start.
pub(crate) fn retry_taken_port<T>(start: impl Fn() -> Result<T>) -> Result<T> {
    let taken = |said: &str| ["address already in use", "failed to bind"].iter().any(|words| said.contains(words));
    for _ in 0..2 {
        match start() {
            Err(error) if taken(&error.to_string().to_lowercase()) => {}
            other => return other,
        }
    }
    start()
}
