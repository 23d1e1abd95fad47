//! Elasticsearch and OpenSearch, from the archives that their own integration tests use.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::http::{self, HttpResponse};
use crate::process::{self, LaunchSpec, Process};
use crate::rundir::RunDir;
use crate::user::User;
use crate::{Shared, maven, tools};

/// Timeout from the start to status yellow; 14 to 33 s when nothing else runs.
const START_TIMEOUT: Duration = Duration::from_secs(240);
/// Java heap: enough for a small node, fixed so that runs are alike.
const HEAP: &str = "-Xms512m -Xmx512m";

/// Differences between the two distributions.
struct Distribution {
    name: &'static str,
    artifact: &'static str,
    /// Program below `bin`, settings file below `config` without `.yml`, and prefix of the environment.
    program: &'static str,
    prefix: &'static str,
    settings: &'static str,
}

const ELASTICSEARCH: Distribution = Distribution {
    name: "Elasticsearch",
    artifact: "org.elasticsearch.distribution.integ-test-zip:elasticsearch:8.19.21:zip",
    program: "elasticsearch",
    prefix: "ES",
    settings: "xpack.security.enabled: false\n",
};

const OPENSEARCH: Distribution = Distribution {
    name: "OpenSearch",
    artifact: "org.opensearch.distribution.integ-test-zip:opensearch:2.19.4:zip",
    program: "opensearch",
    prefix: "OPENSEARCH",
    settings: "",
};

/// Starts Elasticsearch 8.19; the server is an [`Elastic`].
pub struct Elasticsearch;

impl Elasticsearch {
    /// Fetches it if necessary and starts a fresh single node, which takes 14 to 33 s.
    ///
    /// # Errors
    /// If it cannot be fetched or run, or does not start.
    pub fn start() -> Result<Elastic> {
        Elastic::start(&ELASTICSEARCH)
    }

    /// Returns the node that all tests of this process share. Each test uses an index of its own.
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
    /// Fetches it if necessary and starts a fresh single node, which takes about 12 s.
    ///
    /// # Errors
    /// If it cannot be fetched or run, or does not start.
    pub fn start() -> Result<Elastic> {
        Elastic::start(&OPENSEARCH)
    }

    /// Returns the node that all tests of this process share. Each test uses an index of its own.
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
/// The archives contain only the open-source core: no ILM, painless, reindex, delete_by_query, data streams.
pub struct Elastic {
    process: Process,
    port: u16,
    node: String,
    agent: ureq::Agent,
    _dir: RunDir,
}

impl Elastic {
    fn start(distribution: &Distribution) -> Result<Self> {
        let why = || format!("{} cannot be had", distribution.name);
        let java = maven::java_home().with_context(why)?;
        let user = User::unprivileged().with_context(why)?;
        let dir = maven::unpack(distribution.program, distribution.artifact).with_context(why)?;
        let home = installation(&dir, distribution.program)?;
        process::retry_taken_port(|| Self::start_from(distribution, &home, &java, user))
    }

    fn start_from(distribution: &Distribution, home: &Path, java: &Path, user: User) -> Result<Self> {
        let (dir, port, transport) = (RunDir::new()?, process::free_port()?, process::free_port()?);
        let node = format!("subway-{port}-{}", std::process::id());
        let home = accessible_home(home, &dir, distribution, user)?;
        for folder in ["config", "data", "logs", "tmp"] {
            fs::create_dir(dir.join(folder))?;
        }
        configure(distribution, &home, &dir, &node, (port, transport))?;
        user.take_ownership(dir.path())?;
        ensure!(
            user.can_read(&dir.join("config")),
            "the user nobody cannot reach {}; point TMPDIR elsewhere",
            dir.path().display()
        );
        let mut command = user.prefix();
        command.extend([home.join("bin").join(distribution.program).into(), "-p".into(), dir.join("pid").into()]);
        let plan = LaunchSpec {
            name: distribution.name.to_owned(),
            command,
            env: environment(distribution, java, &dir),
            log: dir.join("log"),
            pidfile: Some(dir.join("pid")),
            limit: START_TIMEOUT,
        };
        let server = Self { process: Process::new(plan), port, node, agent: http::agent(), _dir: dir };
        server.restart()?;
        Ok(server)
    }

    /// Returns the address, as `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Sends `GET path`; the path begins with a slash and can contain a query.
    ///
    /// # Errors
    /// No answer.
    pub fn get(&self, path: &str) -> Result<HttpResponse> {
        self.send("GET", path, None)
    }

    /// Sends `POST path` with a body of JSON, or of lines of JSON.
    ///
    /// # Errors
    /// No answer.
    pub fn post(&self, path: &str, body: &str) -> Result<HttpResponse> {
        self.send("POST", path, Some(body))
    }

    /// Sends `PUT path` with a body of JSON.
    ///
    /// # Errors
    /// No answer.
    pub fn put(&self, path: &str, body: &str) -> Result<HttpResponse> {
        self.send("PUT", path, Some(body))
    }

    /// Sends `DELETE path`.
    ///
    /// # Errors
    /// No answer.
    pub fn delete(&self, path: &str) -> Result<HttpResponse> {
        self.send("DELETE", path, None)
    }

    fn send(&self, method: &str, path: &str, body: Option<&str>) -> Result<HttpResponse> {
        let body = body.map(|body| ("application/json", body.as_bytes()));
        http::send(&self.agent, method, &format!("{}{path}", self.url()), body)
    }

    /// Returns the number of documents in the indices, after a refresh; 0 if there is no such index.
    ///
    /// # Errors
    /// No response, or one other than a count.
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
    /// If it is running, or does not start.
    pub fn restart(&self) -> Result<()> {
        let quick = http::agent_with_timeout(Duration::from_secs(5));
        self.process.start(&|| self.is_ready(&quick))
    }

    /// Returns whether this node responds and every primary shard is active.
    fn is_ready(&self, agent: &ureq::Agent) -> bool {
        let get = |path: &str| {
            let answer = http::send(agent, "GET", &format!("{}{path}", self.url()), None);
            answer.and_then(HttpResponse::json).unwrap_or(Value::Null)
        };
        let names = get("/_nodes/_local?filter_path=nodes.*.name");
        let health = get("/_cluster/health?wait_for_status=yellow&timeout=2s");
        names.to_string().contains(&format!("\"{}\"", self.node))
            && health["timed_out"] == false
            && matches!(health["status"].as_str(), Some("yellow" | "green"))
    }

    /// Pauses the process, like a machine that hangs: connections are accepted, but there is no response.
    ///
    /// # Errors
    /// If it is not running.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Resumes it after [`Elastic::pause`].
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
}

/// Returns the folder in `dir` that the archive created: `NAME-VERSION`.
fn installation(dir: &Path, name: &str) -> Result<PathBuf> {
    let found = fs::read_dir(dir)?
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{name}-")) && entry.path().is_dir());
    Ok(found.with_context(|| format!("no {name} in {}", dir.display()))?.path())
}

/// Returns the installation, or a copy if its user has no access to it (a checkout under root's home).
fn accessible_home(home: &Path, dir: &RunDir, distribution: &Distribution, user: User) -> Result<PathBuf> {
    if user.can_read(&home.join("bin").join(distribution.program)) {
        return Ok(home.to_path_buf());
    }
    let copy = dir.join("home");
    tools::output(Command::new("cp").arg("-R").arg(home).arg(&copy))?;
    Ok(copy)
}

/// Writes the instance's own configuration.
fn configure(
    distribution: &Distribution,
    home: &Path,
    dir: &RunDir,
    node: &str,
    (http, transport): (u16, u16),
) -> Result<()> {
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
        distribution.settings,
    );
    fs::write(config.join(format!("{}.yml", distribution.program)), settings)?;
    // The paths in it are relative to the installation, which the instance cannot write to.
    let options = fs::read_to_string(config.join("jvm.options"))?;
    let kept =
        options.lines().filter(|line| !["gc.log", "HeapDump", "ErrorFile"].iter().any(|word| line.contains(word)));
    let mut kept: String = kept.map(|line| format!("{line}\n")).collect();
    kept.push_str(&format!("-XX:ErrorFile={}\n", dir.join("logs/hs_err.log").display()));
    fs::write(config.join("jvm.options"), kept)?;
    Ok(())
}

fn environment(distribution: &Distribution, java: &Path, dir: &RunDir) -> Vec<(String, OsString)> {
    [
        ("JAVA_HOME", java.as_os_str().to_owned()),
        ("PATH_CONF", dir.join("config").into()),
        ("TMPDIR", dir.join("tmp").into()),
        ("JAVA_OPTS", HEAP.into()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{}_{name}", distribution.prefix), value))
    .collect()
}
