//! One server as a process: started, waited for, killed, started again, and never left behind.
//!
//! A server runs under a small `sh` whose standard input is a pipe that this process holds. However this process dies,
//! the pipe closes, and the shell kills its whole process group.

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

/// How often a server is asked whether it is ready.
const ASK: Duration = Duration::from_millis(20);
/// How long a killed process may need to be gone.
const GONE: Duration = Duration::from_secs(30);
/// How many lines of a server's own log an error carries.
const TAIL: usize = 25;
/// Ports are chosen below the range from which systems take the ports of outgoing connections (32768 on Linux): else a
/// port could be lost, or a client could connect to itself, while its server is down.
const PORTS: std::ops::Range<u16> = 12_000..32_000;

/// How to start a server.
pub(crate) struct Plan {
    /// What it is called in messages.
    pub(crate) name: String,
    /// Program and arguments.
    pub(crate) command: Vec<OsString>,
    /// Added to the environment.
    pub(crate) env: Vec<(String, OsString)>,
    /// Where its output goes.
    pub(crate) log: PathBuf,
    /// Where it writes the ID of its real process, if the one that is started is only a launcher.
    pub(crate) pidfile: Option<PathBuf>,
    /// The longest time from the start to being ready.
    pub(crate) limit: Duration,
}

/// A server that runs or was killed.
pub(crate) struct Process {
    plan: Plan,
    running: Mutex<Option<Running>>,
}

struct Running {
    supervisor: Child,
    /// Closing it ends the server.
    _hold: ChildStdin,
    /// What the supervisor started: the server or its launcher.
    child: Pid,
}

impl Process {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, running: Mutex::new(None) }
    }

    /// Starts the server and waits until `ready` says so; `ready` is asked again and again.
    pub(crate) fn start(&self, ready: &dyn Fn() -> bool) -> Result<()> {
        let mut running = self.lock();
        ensure!(running.is_none(), "{} runs already", self.plan.name);
        let mut new = self.spawn()?;
        let end = Instant::now() + self.plan.limit;
        let problem = loop {
            if let Some(status) = new.supervisor.try_wait()? {
                break format!("{} ended with {status} before it was ready", self.plan.name);
            }
            if ready() {
                *running = Some(new);
                return Ok(());
            }
            if Instant::now() > end {
                break format!("{} was not ready within {} s", self.plan.name, self.plan.limit.as_secs());
            }
            std::thread::sleep(ASK);
        };
        self.end(new);
        bail!("{problem}:\n{}", self.log_tail())
    }

    fn spawn(&self) -> Result<Running> {
        if let Some(file) = &self.plan.pidfile {
            let _ = fs::remove_file(file);
        }
        let log = File::options().create(true).append(true).open(&self.plan.log)?;
        let errors = log.try_clone()?;
        // File descriptor 4 is the supervisor's standard output; the server's output goes to the log.
        let script = format!("exec 4>&1 >>\"$LOG\"\n{SUPERVISOR}");
        let mut supervisor = Command::new("sh")
            .args(["-c", &script, "supervisor"])
            .args(&self.plan.command)
            .envs(self.plan.env.iter().cloned())
            .env("LOG", &self.plan.log)
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
        let child = child.with_context(|| format!("cannot start {}: {}", self.plan.name, self.log_tail()))?;
        Ok(Running { supervisor, _hold: hold, child })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ID of the server's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        let running = self.lock();
        running.as_ref().map(|running| id(self.server(running)))
    }

    /// The server itself, not its launcher.
    fn server(&self, running: &Running) -> Pid {
        let file = self.plan.pidfile.as_ref();
        let written = file.and_then(|file| fs::read_to_string(file).ok());
        written.and_then(|text| text.trim().parse().ok()).and_then(Pid::from_raw).unwrap_or(running.child)
    }

    /// Kills the server as `kill -9` does, and waits until it is gone. Its data stays.
    pub(crate) fn kill(&self) {
        let running = self.lock().take();
        if let Some(running) = running {
            self.end(running);
        }
    }

    fn end(&self, mut running: Running) {
        let server = self.server(&running);
        // The server first, so that nothing of it can react to the death of its launcher.
        let _ = rustix::process::kill_process(server, Signal::KILL);
        let _ = rustix::process::kill_process(running.child, Signal::KILL);
        // What the launcher had started besides, and the supervisor, which leads the group.
        if let Some(group) = Pid::from_raw(running.supervisor.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = running.supervisor.wait();
        let end = Instant::now() + GONE;
        while (is_alive(id(server)) || is_alive(id(running.child))) && Instant::now() < end {
            std::thread::sleep(ASK);
        }
    }

    /// Stops the server's process without ending it, as a machine that hangs; connections stay open.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused server go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let running = self.lock();
        let running = running.as_ref().with_context(|| format!("{} does not run", self.plan.name))?;
        Ok(rustix::process::kill_process(self.server(running), signal)?)
    }

    /// The last lines that the server wrote.
    fn log_tail(&self) -> String {
        let log = fs::read(&self.plan.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
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

/// A free port on loopback.
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

/// Tries again, with other ports, when another process took a port between the choice and the start.
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
