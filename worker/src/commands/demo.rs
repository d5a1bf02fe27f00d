//! `mandate demo`: one real run on a real Temporal server, from the start through an approval to the audit verdict.
//!
//! It finds or starts Temporal, starts a worker as a process of its own, and drives one run of the refunds example with
//! its scripted model. It ends only the processes that it started.

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    pin::pin,
};

use anyhow::Context as _;
use mandate_domain::{AgentTask, Evidence, render};
use mandate_workflows::snapshot::PendingRequest;
use serde_json::json;
use tokio::time::{Duration, Instant, sleep};

use super::{ask, decide, explain, load, open_store, run, verify, worker};
use crate::{
    bundle,
    cli::{self, Global},
    connection::{self, Handle, Temporal},
    dev_server::{self, DevServer, DevServerOptions, Found},
    output::{self, Exit, UsageError},
    shutdown,
};

mod process;

use process::WorkerProcess;

const AGENT: &str = "acme/support/refunds";
const PROMPT: &str = "Please refund order o1: the customer sent the dough mixer back.";
const REQUESTER: &str = "ana@acme.example";
const APPROVER: &str = "bo@acme.example";
/// A task queue of its own: on a shared server, other workers must not take the demo's run.
const TASK_QUEUE: &str = "mandate-demo";
/// How long the run may take to ask for the approval.
const ASKED_WITHIN: Duration = Duration::from_secs(90);
const POLL_EVERY: Duration = Duration::from_millis(300);

/// Runs the demo.
///
/// # Errors
/// [`UsageError`] without a terminal and without `--approve`; whatever keeps server, worker or run from going on.
pub async fn demo(global: &Global, options: &cli::Demo) -> anyhow::Result<Exit> {
    let terminal = io::stdin().is_terminal();
    if !terminal && !options.approve {
        return Err(
            UsageError("there is no terminal to ask on; let the demo approve by itself: --approve".into()).into()
        );
    }
    let place = Place::prepare(global, options)?;
    let (server, global) = find_or_start(global, &place).await?;
    let shown = show(&global, options, &place, server.as_ref()).await;
    if shown.is_ok() && terminal && server.is_some() {
        output::note("\nThe server stays until Ctrl-C.");
        shutdown::requested().await?;
    }
    if let Some((server, program)) = server {
        server.stop().await;
        output::note(format_args!("\nOpen the same database with the Web UI again:\n  {}", reopen(&program, &place)));
    }
    shown
}

/// Where the demo keeps its files.
struct Place {
    state: PathBuf,
    folder: PathBuf,
}

impl Place {
    /// Copies the example into the state folder and checks it. The payments start anew, so that the order can be
    /// refunded again; store and Temporal's database stay.
    fn prepare(global: &Global, options: &cli::Demo) -> anyhow::Result<Self> {
        let state = match &options.state {
            Some(state) => std::path::absolute(state)?,
            None => state_folder()?.join("mandate/demo"),
        };
        let folder = state.join("refunds");
        let example = example(&global.folder);
        copy_folder(&example, &folder)
            .with_context(|| format!("cannot copy `{}` to `{}`", example.display(), folder.display()))?;
        for name in ["payments.db", "payments.db-wal", "payments.db-shm"] {
            match fs::remove_file(folder.join("var").join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove `{name}` of an earlier demo"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        load(&folder)?;
        Ok(Self { state, folder })
    }

    fn database(&self) -> PathBuf {
        self.state.join("temporal.db")
    }
}

fn state_folder() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("XDG_STATE_HOME")
        .filter(|folder| folder.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/state")))
        .context("neither XDG_STATE_HOME nor HOME is set; name a folder with --state")
}

/// The folder that was named, else the example in the source tree that this program was built from.
fn example(named: &Path) -> PathBuf {
    if named.join("mandate.toml").exists() {
        return named.to_owned();
    }
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/refunds")
}

/// Copies files over those that are there. What a worker wrote (`var`) and the server's source stay behind.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, target) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            if name != "var" && name != "server" {
                copy_folder(&entry.path(), &target)?;
            }
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

type Started = (DevServer, PathBuf);

/// A server, and the options that lead every later connection to it.
async fn find_or_start(global: &Global, place: &Place) -> anyhow::Result<(Option<Started>, Global)> {
    let mut global = global.clone();
    global.folder.clone_from(&place.folder);
    let target = connection::target(&global)?;
    if target.configured {
        output::note(format_args!("Temporal: the configured server at {}", target.address));
        return Ok((None, global));
    }
    match dev_server::find().await? {
        Found::Existing { address, namespace } => {
            output::note(format_args!("Temporal: the configured server at {address}, namespace {namespace}"));
            Ok((None, global))
        }
        Found::Program(program) => {
            let log_file = place.state.join("temporal.log");
            let options = DevServerOptions { database: Some(place.database()), ui: true, log_file };
            let server = DevServer::start(&program, options).await?;
            output::note(format_args!("Temporal: started {} at {}", program.display(), server.address()));
            global.address = Some(server.address());
            Ok((Some((server, program)), global))
        }
    }
}

async fn show(global: &Global, options: &cli::Demo, place: &Place, server: Option<&Started>) -> anyhow::Result<Exit> {
    let temporal = connection::connect(global).await?;
    apply(global).await?;
    let mut worker = WorkerProcess::start(global, TASK_QUEUE, &place.state.join("worker.log"), &temporal)?;
    let exit = tokio::select! {
        exit = walk(global, options, &temporal, server) => exit,
        error = worker.ended_early() => Err(error),
        asked = shutdown::requested() => asked.map_err(Into::into).map(|()| Exit::Failure),
    };
    worker.stop().await;
    exit
}

/// The demo's policies are those of its folder, whatever profile that names.
async fn apply(global: &Global) -> anyhow::Result<()> {
    let config = load(&global.folder)?;
    let store = open_store(&config).await?;
    let applied = bundle::apply_folder(&config, &store, &worker::identity()).await;
    store.close().await;
    applied
}

/// Starts the run, decides, and prints result, timeline, verdict and link.
async fn walk(
    global: &Global,
    options: &cli::Demo,
    temporal: &Temporal,
    server: Option<&Started>,
) -> anyhow::Result<Exit> {
    let task = AgentTask {
        agent: AGENT.parse()?,
        prompt: PROMPT.to_owned(),
        on_behalf_of: REQUESTER.parse()?,
        started_by: None,
        proof: Evidence::none(),
        started_by_proof: Evidence::none(),
    };
    let workflow_id = format!("demo-{}", run::made_up_id(&task.agent));
    let handle = temporal.start(&workflow_id, TASK_QUEUE, &task).await?;
    let run_id = handle.info().run_id.clone().unwrap_or_default();
    output::note(format_args!("Run: {workflow_id}, {REQUESTER} asks {AGENT}: {PROMPT}"));
    let link = server.and_then(|(server, _)| server.workflow_url(&temporal.namespace, &workflow_id, &run_id));
    if let Some(link) = &link {
        output::note(format_args!("Web UI: {link}"));
    }
    let mut rejected = false;
    if let Some(request) = first_request(temporal, &handle).await? {
        output::note(format_args!("\nThe run waits for a person:\n\n{}", request.card));
        rejected = !answer(options, temporal, &handle, &request).await?;
    }
    let ended = run::follow(temporal, &handle).await?;
    let shown = run::show(&ended)?;
    let holds = audit(global, temporal, &handle).await?;
    if let Some(link) = link {
        output::data(format_args!("\nWeb UI: {link}"))?;
    }
    Ok(match (holds, rejected) {
        (false, _) => Exit::Failure,
        (true, true) => Exit::Denied,
        (true, false) => shown,
    })
}

/// Waits until the run asks; `None` when it ends without.
async fn first_request(temporal: &Temporal, handle: &Handle) -> anyhow::Result<Option<PendingRequest>> {
    let deadline = Instant::now() + ASKED_WITHIN;
    let mut ended = pin!(temporal.ended(handle));
    loop {
        let asked = temporal.pending(handle);
        tokio::select! {
            ended = &mut ended => return ended.map(|_| None),
            pending = asked => {
                if let Some(request) = pending.unwrap_or_default().into_iter().next() {
                    return Ok(Some(request));
                }
            }
        }
        anyhow::ensure!(Instant::now() < deadline, "the run did not ask for the approval within {ASKED_WITHIN:?}");
        sleep(POLL_EVERY).await;
    }
}

/// Decides about the request; whether it was approved.
async fn answer(
    options: &cli::Demo,
    temporal: &Temporal,
    handle: &Handle,
    request: &PendingRequest,
) -> anyhow::Result<bool> {
    let id = request.request_id.clone();
    let question = format!("You are {APPROVER}, a finance lead. Approve {id}?");
    let approve =
        options.approve || tokio::task::spawn_blocking(move || ask::confirm(&question)).await.unwrap_or(Ok(false))?;
    let verdict = if approve { "approve" } else { "reject" };
    let decision = json!({ "request_id": request.request_id, "verdict": verdict, "by": APPROVER });
    let answer = decide::send(temporal, handle, &decision).await?;
    output::note(format_args!("{APPROVER} says {verdict}: {}", serde_json::to_string(&answer)?));
    Ok(approve)
}

/// Prints timeline and verdict; whether the record holds.
async fn audit(global: &Global, temporal: &Temporal, handle: &Handle) -> anyhow::Result<bool> {
    let config = load(&global.folder)?;
    let store = open_store(&config).await?;
    let info = handle.info();
    output::data("\nTimeline, from the audit log:")?;
    let chain = mandate_domain::RunChain {
        workflow_id: info.workflow_id.clone(),
        first_run_id: info.run_id.clone().unwrap_or_default(),
    };
    for record in explain::records(&store, &chain).await? {
        output::data(explain::line(&record))?;
    }
    output::data("\nAudit verdict:")?;
    let verdicts = verify::verdicts(&store, Some(&info.workflow_id), Some(temporal)).await?;
    for verdict in &verdicts {
        output::data(verify::text(verdict))?;
    }
    store.close().await;
    Ok(!verdicts.is_empty() && verdicts.iter().all(verify::Verdict::holds))
}

fn reopen(program: &Path, place: &Place) -> String {
    let quoted = |path: &Path| render::shell_quote(&path.display().to_string());
    format!("{} server start-dev --db-filename {}", quoted(program), quoted(&place.database()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_leaves_what_a_worker_wrote() {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        for file in ["mandate.toml", "tools/clock.toml", "var/mandate.db", "server/Cargo.toml"] {
            fs::create_dir_all(from.join(file).parent().unwrap()).unwrap();
            fs::write(from.join(file), file).unwrap();
        }
        copy_folder(&from, &to).unwrap();
        copy_folder(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("tools/clock.toml")).unwrap(), "tools/clock.toml");
        assert!(!to.join("var").exists() && !to.join("server").exists());
    }

    #[test]
    fn the_command_that_reopens_the_database_is_quoted() {
        let place = Place { state: "/tmp/my state".into(), folder: "/tmp/f".into() };
        let shown = reopen(Path::new("/usr/bin/temporal"), &place);
        assert_eq!(shown, "/usr/bin/temporal server start-dev --db-filename '/tmp/my state/temporal.db'");
    }

    #[test]
    fn the_example_stands_in_the_source_tree() {
        assert!(example(Path::new("/nowhere")).join("mandate.toml").exists());
    }
}
