//! Elasticsearch and OpenSearch, from the archives that their own integration tests use.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::process::{self, Plan, Process};
use crate::rundir::RunDir;
use crate::user::User;
use crate::{Shared, maven, tools};

/// From the start to yellow; 14 to 33 s when nothing else runs.
const START_LIMIT: Duration = Duration::from_secs(240);
/// The Java heap: what a small node needs, fixed so that runs are alike.
const HEAP: &str = "-Xms512m -Xmx512m";

/// What differs between the two.
struct Flavour {
    name: &'static str,
    artifact: &'static str,
    /// The program below `bin`, the settings' file below `config` without `.yml`, and the prefix of the environment.
    program: &'static str,
    prefix: &'static str,
    settings: &'static str,
}

const ELASTICSEARCH: Flavour = Flavour {
    name: "Elasticsearch",
    artifact: "org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.21:zip",
    program: "elasticsearch",
    prefix: "ES",
    settings: "xpack.security.enabled: false\n",
};

const OPENSEARCH: Flavour = Flavour {
    name: "OpenSearch",
    artifact: "org.opensearch.distribution.integ-test-zip:opensearch:2.19.4:zip",
    program: "opensearch",
    prefix: "OPENSEARCH",
    settings: "",
};

/// Starts Elasticsearch 8.19; the server is an [`Elastic`].
pub struct Elasticsearch;

impl Elasticsearch {
    /// Fetches it if need be and starts a fresh single node; that takes 14 to 33 s.
    ///
    /// # Errors
    /// What is missing to fetch or run it, and why it does not start.
    pub fn start() -> Result<Elastic> {
        Elastic::start(&ELASTICSEARCH)
    }

    /// The node that all tests of this process share: each test takes an index of its own.
    ///
    /// # Errors
    /// As [`Elasticsearch::start`].
    pub fn shared() -> Result<&'static Elastic> {
        static SHARED: Shared<Elastic> = Shared::new();
        crate::shared(&SHARED, Self::start)
    }
}

/// Starts OpenSearch 2.19; the server is an [`Elastic`].
pub struct OpenSearch;

impl OpenSearch {
    /// Fetches it if need be and starts a fresh single node; that takes about 12 s.
    ///
    /// # Errors
    /// What is missing to fetch or run it, and why it does not start.
    pub fn start() -> Result<Elastic> {
        Elastic::start(&OPENSEARCH)
    }

    /// The node that all tests of this process share: each test takes an index of its own.
    ///
    /// # Errors
    /// As [`OpenSearch::start`].
    pub fn shared() -> Result<&'static Elastic> {
        static SHARED: Shared<Elastic> = Shared::new();
        crate::shared(&SHARED, Self::start)
    }
}

/// One node of Elasticsearch or OpenSearch on loopback, without security, with data of its own.
///
/// The archives lack what is not open source or not in the core: ILM, painless, reindex, delete_by_query, data streams.
pub struct Elastic {
    process: Process,
    port: u16,
    node: String,
    agent: ureq::Agent,
    _dir: RunDir,
}

impl Elastic {
    fn start(flavour: &Flavour) -> Result<Self> {
        let why = || format!("{} cannot be had", flavour.name);
        let java = maven::java_home().with_context(why)?;
        let user = User::unprivileged().with_context(why)?;
        let dir = maven::unpack(flavour.program, flavour.artifact).with_context(why)?;
        let home = installation(&dir, flavour.program)?;
        process::retry_taken_port(|| Self::start_from(flavour, &home, &java, user))
    }

    fn start_from(flavour: &Flavour, home: &Path, java: &Path, user: User) -> Result<Self> {
        let (dir, port, transport) = (RunDir::new()?, process::free_port()?, process::free_port()?);
        let node = format!("subway-{port}-{}", std::process::id());
        let home = reachable(home, &dir, flavour, user)?;
        for folder in ["config", "data", "logs", "tmp"] {
            fs::create_dir(dir.join(folder))?;
        }
        configure(flavour, &home, &dir, &node, (port, transport))?;
        user.own(dir.path())?;
        ensure!(
            user.can_read(&dir.join("config")),
            "the user nobody cannot reach {}; point TMPDIR elsewhere",
            dir.path().display()
        );
        let mut command = user.prefix();
        command.extend([home.join("bin").join(flavour.program).into(), "-p".into(), dir.join("pid").into()]);
        let plan = Plan {
            name: flavour.name.to_owned(),
            command,
            env: environment(flavour, java, &dir),
            log: dir.join("log"),
            pidfile: Some(dir.join("pid")),
            limit: START_LIMIT,
        };
        let server = Self { process: Process::new(plan), port, node, agent: http::agent(), _dir: dir };
        server.restart()?;
        Ok(server)
    }

    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// `GET path`; the path begins with a slash and may carry a query.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<Answer> {
        self.send("GET", path, None)
    }

    /// `POST path` with a body of JSON, or of lines of JSON.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, path: &str, body: &str) -> Result<Answer> {
        self.send("POST", path, Some(body))
    }

    /// `PUT path` with a body of JSON.
    ///
    /// # Errors
    /// No answer.
    pub fn put(&self, path: &str, body: &str) -> Result<Answer> {
        self.send("PUT", path, Some(body))
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// No answer.
    pub fn delete(&self, path: &str) -> Result<Answer> {
        self.send("DELETE", path, None)
    }

    fn send(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        let body = body.map(|body| ("application/json", body.as_bytes()));
        http::send(&self.agent, method, &format!("{}{path}", self.url()), body)
    }

    /// How many documents the indices hold, after a refresh; 0 if there is no such index.
    ///
    /// # Errors
    /// No answer, or another than a count.
    pub fn count(&self, indices: &str) -> Result<u64> {
        self.post(&format!("/{indices}/_refresh?ignore_unavailable=true"), "")?.ok()?;
        let answer = self.get(&format!("/{indices}/_count?ignore_unavailable=true"))?.json()?;
        answer["count"].as_u64().with_context(|| format!("no count: {answer}"))
    }

    /// Kills it as `kill -9` does; the data stays.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts it again after [`Elastic::kill`], on the same port and the same data, and waits for yellow.
    ///
    /// # Errors
    /// It runs already, or why it does not start.
    pub fn restart(&self) -> Result<()> {
        let quick = http::agent_within(Duration::from_secs(5));
        self.process.start(&|| self.is_ready(&quick))
    }

    /// True if this very node answers and every primary shard is there.
    fn is_ready(&self, agent: &ureq::Agent) -> bool {
        let get = |path: &str| {
            let answer = http::send(agent, "GET", &format!("{}{path}", self.url()), None);
            answer.and_then(Answer::json).unwrap_or(Value::Null)
        };
        let names = get("/_nodes/_local?filter_path=nodes.*.name");
        let health = get("/_cluster/health?wait_for_status=yellow&timeout=2s");
        names.to_string().contains(&format!("\"{}\"", self.node))
            && health["timed_out"] == false
            && matches!(health["status"].as_str(), Some("yellow" | "green"))
    }

    /// Stops it without ending it, as a machine that hangs: connections are accepted, nothing is answered.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets it go on after [`Elastic::pause`].
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// The ID of its process while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }
}

/// The folder in `dir` that the archive made: `NAME-VERSION`.
fn installation(dir: &Path, name: &str) -> Result<PathBuf> {
    let found = fs::read_dir(dir)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) && entry.path().is_dir());
    Ok(found.with_context(|| format!("no {name} in {}", dir.display()))?.path())
}

/// The installation, or a copy of it where its user cannot reach it (a checkout under root's home).
fn reachable(home: &Path, dir: &RunDir, flavour: &Flavour, user: User) -> Result<PathBuf> {
    if user.can_read(&home.join("bin").join(flavour.program)) {
        return Ok(home.to_path_buf());
    }
    let copy = dir.join("home");
    tools::output(Command::new("cp").arg("-R").arg(home).arg(&copy))?;
    Ok(copy)
}

/// Writes the instance's own configuration.
fn configure(flavour: &Flavour, home: &Path, dir: &RunDir, node: &str, (http, transport): (u16, u16)) -> Result<()> {
    let config = dir.join("config");
    for entry in fs::read_dir(home.join("config"))? {
        let entry = entry?;
        if entry.path().is_file() {
            fs::copy(entry.path(), config.join(entry.file_name()))?;
        }
    }
    let settings = format!(
        "cluster.name: {node}\nnode.name: {node}\nnetwork.host: 127.0.0.1\nhttp.port: {http}\ntransport.port: {transport}\n\
         discovery.type: single-node\npath.data: {}\npath.logs: {}\n\
         cluster.routing.allocation.disk.threshold_enabled: false\naction.destructive_requires_name: false\n{}",
        dir.join("data").display(),
        dir.join("logs").display(),
        flavour.settings,
    );
    fs::write(config.join(format!("{}.yml", flavour.program)), settings)?;
    // The paths in it are relative to the installation, which is not the instance's to write to.
    let options = fs::read_to_string(config.join("jvm.options"))?;
    let kept =
        options.lines().filter(|line| !["gc.log", "HeapDump", "ErrorFile"].iter().any(|word| line.contains(word)));
    let mut kept: String = kept.map(|line| format!("{line}\n")).collect();
    kept.push_str(&format!("-XX:ErrorFile={}\n", dir.join("logs/hs_err.log").display()));
    fs::write(config.join("jvm.options"), kept)?;
    Ok(())
}

fn environment(flavour: &Flavour, java: &Path, dir: &RunDir) -> Vec<(String, OsString)> {
    [
        ("JAVA_HOME", java.as_os_str().to_owned()),
        ("PATH_CONF", dir.join("config").into()),
        ("TMPDIR", dir.join("tmp").into()),
        ("JAVA_OPTS", HEAP.into()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{}_{name}", flavour.prefix), value))
    .collect()
}
