//! Runs the `temporal` program as a development server and waits until it answers.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use temporalio_client::envconfig::ClientConfigProfile;
use temporalio_client::{Client, ClientOptions, Connection, ConnectionOptions, WorkflowCountOptions};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, MissedTickBehavior};

use super::{DevServerOptions, StartServerError};
use crate::search_attributes::SEARCH_ATTRIBUTES;

/// How long a server may take to answer. A second is usual; a busy machine opening a large database takes longer.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How often the conditions are looked at.
const POLL_EVERY: Duration = Duration::from_millis(50);
/// How long one question to the server may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the log an error shows.
const TAIL_LINES_MAX: usize = 20;

/// Ends the server when the pipe to its owner closes, which the kernel does however the owner ends. The alternative,
/// a parent-death signal, fires when the *thread* that started the server ends, and test threads do end.
const SUPERVISOR: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r _ <&3; kill -TERM "$server"; } 2>/dev/null &
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
exit "$status"
"#;

/// The ports of one server, all on the loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) grpc: u16,
    pub(super) ui: u16,
    pub(super) http: u16,
    pub(super) metrics: u16,
}

impl Ports {
    /// Four free ports.
    pub(super) fn reserve() -> std::io::Result<Self> {
        let [grpc, ui, http, metrics] = free_ports()?;
        Ok(Self { grpc, ui, http, metrics })
    }
}

/// Free ports on the loopback address. They are held together until all are known, so they differ. Somebody may take one
/// before the program does that they are for: such a program ends at once, see [`port_was_taken`], and is started again.
///
/// # Errors
/// When the machine has no port left.
pub fn free_ports<const COUNT: usize>() -> std::io::Result<[u16; COUNT]> {
    let mut ports = [0; COUNT];
    let mut held = Vec::with_capacity(COUNT);
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Why a started server is not ready.
pub(super) enum ReadyError {
    /// It ended.
    Ended(ExitStatus),
    /// It runs but did not answer in this time.
    TimedOut(Duration),
}

/// Starts the program in its own process group, so that a Ctrl-C at the terminal reaches the owner alone, which then
/// stops the server after its workers.
pub(super) fn spawn(program: &Path, options: &DevServerOptions, ports: Ports) -> Result<Child, StartServerError> {
    let unwritable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| StartServerError::Unwritable { path, source }
    };
    for file in options.database.iter().chain([&options.log_file]) {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder).map_err(unwritable(folder))?;
        }
    }
    let log = OpenOptions::new().create(true).append(true).open(&options.log_file);
    let log = log.map_err(unwritable(&options.log_file))?;
    let errors = log.try_clone().map_err(unwritable(&options.log_file))?;
    // The supervisor always starts, so a program that does not exist is looked for here, where the error can say so.
    fs::metadata(program).map_err(|source| StartServerError::NotRun { program: program.to_path_buf(), source })?;
    Command::new("/bin/sh")
        .args(["-c", SUPERVISOR, "temporal-supervisor"])
        .arg(program)
        .args(arguments(options, ports))
        .stdin(Stdio::piped())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(|source| StartServerError::NotRun { program: program.to_path_buf(), source })
}

/// The program's arguments. Ports that are not given are picked at random and cannot be told to anybody.
pub(super) fn arguments(options: &DevServerOptions, ports: Ports) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["server", "start-dev", "--ip", "127.0.0.1", "--log-level", "error"].map(str::to_owned).into();
    let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
    option("--port", ports.grpc.to_string());
    option("--http-port", ports.http.to_string());
    option("--metrics-port", ports.metrics.to_string());
    // Off by default in this server, and it halves the latency of a lone run.
    option("--dynamic-config-value", "system.enableActivityEagerExecution=true".to_owned());
    for (name, kind) in SEARCH_ATTRIBUTES {
        option("--search-attribute", format!("{name}={kind}"));
    }
    if let Some(database) = &options.database {
        option("--db-filename", database.display().to_string());
    }
    if options.ui {
        option("--ui-ip", "127.0.0.1".to_owned());
        option("--ui-port", ports.ui.to_string());
    } else {
        arguments.push("--headless".to_owned());
    }
    arguments
}

/// Waits until the server answers a question that needs the namespace, the visibility store and a search attribute.
pub(super) async fn wait_until_ready(child: &mut Child, ports: Ports, ui: bool) -> Result<(), ReadyError> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut ticks = tokio::time::interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // An error of `try_wait` leaves the state unknown; the deadline then decides.
        if let Ok(Some(status)) = child.try_wait() {
            return Err(ReadyError::Ended(status));
        }
        if tokio::time::timeout(QUESTION_TIMEOUT, is_ready(ports, ui)).await == Ok(true) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(ReadyError::TimedOut(READY_WITHIN));
        }
    }
}

/// The cheap questions come first: a refused connection costs nothing, and the client would retry it for seconds.
async fn is_ready(ports: Ports, ui: bool) -> bool {
    accepts(ports.grpc).await && (!ui || accepts(ports.ui).await) && answers(ports.grpc).await
}

async fn accepts(port: u16) -> bool {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

async fn answers(port: u16) -> bool {
    let mut profile = ClientConfigProfile::default();
    profile.address = Some(format!("http://127.0.0.1:{port}"));
    let Ok(options) = ConnectionOptions::try_from(profile) else { return false };
    let Ok(connection) = Connection::connect(options).await else { return false };
    let Ok(client) = Client::new(connection, ClientOptions::new("default").build()) else { return false };
    client.count_workflows("MandateState = 'Running'", WorkflowCountOptions::default()).await.is_ok()
}

/// Whether the log says that a port was taken between its reservation and the start.
#[must_use]
pub fn port_was_taken(tail: &str) -> bool {
    let tail = tail.to_ascii_lowercase();
    tail.contains("address already in use") || tail.contains("can't set port")
}

/// The last lines of a log; what cannot be read is no reason to hide the error it belongs to.
pub(super) fn log_tail(path: &Path) -> String {
    let log = fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().rev().take(TAIL_LINES_MAX).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
