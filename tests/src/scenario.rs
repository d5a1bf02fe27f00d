//! One test's world: an operating folder, a task queue and workflow ids of its own, real workers, and looks from outside.

mod accepted;
mod many;
mod payments;
mod person;
mod reconciled;
mod stored;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mandate_activities::test_postgres;
use mandate_domain::{
    Verdict,
    audit::{AuditRecord, RecordBody},
};
use mandate_workflows::snapshot::{PendingRequest, Status};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use temporalio_client::{
    UntypedQuery, UntypedSignal, UntypedWorkflow, UntypedWorkflowHandle, WorkflowDescribeOptions,
    WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowFetchHistoryOptions, WorkflowHistory,
    WorkflowQueryOptions, WorkflowSignalOptions,
};
use temporalio_common::data_converters::RawValue;

pub use many::{Execution, Told, Way};

use crate::{
    History, LONG, On, Process, Receiver, Said, Server, StoreFile, program, say, say_at_terminal, server, until,
    workspace_folder,
};

/// The agent of the refunds example.
pub const AGENT: &str = "acme/support/refunds";

/// What a worker says when it polls.
const READY: &str = "worker ready";

/// An operating folder with its workers and runs.
#[derive(Debug)]
pub struct Scenario {
    /// The test's name; task queue and default workflow id.
    pub name: String,
    /// The Temporal server, as whoever acts here sees it.
    pub server: &'static Server,
    world: Arc<World>,
    /// Environment that every program of this test has more.
    more: Vec<(String, String)>,
}

/// Lets runs tell the webhook.
const MAY_NOTIFY: &str = r#"
@id("notify.people")
permit (
  principal in Mandate::Tenant::"acme",
  action == Mandate::Action::"notify",
  resource == Mandate::Webhook::"notifications"
);
"#;

/// What is the same whoever acts.
#[derive(Debug)]
struct World {
    /// Before the folder, so that the workers end first.
    kept: Mutex<Vec<Process>>,
    folder: TempDir,
    workers: AtomicUsize,
    task_queue: String,
    store: StoreFile,
}

fn texts(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Scenario {
    /// A copy of the refunds example.
    pub async fn new(name: &str) -> Self {
        Self::at(server().await, name)
    }

    /// The same with its store on an engine.
    pub async fn on(on: On, name: &str) -> Self {
        match on {
            On::Sqlite => Self::new(name).await,
            On::Postgres => {
                let url = test_postgres::shared().database().await;
                Self::new(name).await.in_database(&url)
            }
        }
    }

    /// The same with its store in this database, of which all programs are told by `MANDATE_DATABASE_URL`.
    #[must_use]
    pub fn in_database(mut self, url: &str) -> Self {
        self.edit("mandate.toml", r#"path = "var/mandate.db""#, r#"url = "env:MANDATE_DATABASE_URL""#);
        let world = Arc::get_mut(&mut self.world).expect("nobody acts yet");
        world.store = StoreFile::Postgres(url.to_owned());
        self.with_env("MANDATE_DATABASE_URL", url)
    }

    /// The URL of its database; nothing for a file.
    #[must_use]
    pub fn database_url(&self) -> String {
        match &self.world.store {
            StoreFile::Sqlite(_) => String::new(),
            StoreFile::Postgres(url) => url.clone(),
        }
    }

    fn at(server: &'static Server, name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&server.folder).expect("a folder");
        let example = workspace_folder().join("examples/refunds");
        for part in ["mandate.toml", "policies", "scripts", "tenants", "tools"] {
            copy(&example.join(part), &folder.path().join(part));
        }
        let (workers, task_queue) = (AtomicUsize::new(0), name.to_owned());
        let store = StoreFile::Sqlite(folder.path().join("var/mandate.db"));
        let world = Arc::new(World { kept: Mutex::default(), folder, workers, task_queue, store });
        let scenario = Self { name: name.to_owned(), server, world, more: Vec::new() };
        scenario.edit("mandate.toml", r#"task_queue = "mandate""#, &format!(r#"task_queue = "{name}""#));
        scenario.server_command(&[]);
        // Tests of other things are not to meet it.
        let folder = fs::read_to_string(scenario.path("mandate.toml")).expect("mandate.toml");
        scenario.write("mandate.toml", &format!("{folder}\n[reconciler]\nenabled = false\n"));
        scenario
    }

    /// The same with more environment for every program.
    #[must_use]
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.more.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with a webhook at `url`, which is told of requests and questions.
    #[must_use]
    pub fn telling(self, url: &str) -> Self {
        let notify = format!("[notify]\nurl = \"{url}\"\nsecret = \"env:HOOK_SECRET\"\n\n[groups]");
        self.edit("mandate.toml", "[groups]", &notify);
        self.write("policies/notify.cedar", MAY_NOTIFY);
        self.with_env("HOOK_SECRET", Receiver::SECRET)
    }

    /// A file of the operating folder.
    #[must_use]
    pub fn path(&self, file: &str) -> PathBuf {
        self.world.folder.path().join(file)
    }

    /// Writes a file of the operating folder.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("the file");
    }

    /// Replaces a text that stands in a file exactly once.
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path(file)).expect(file);
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        self.write(file, &text.replace(from, to));
    }

    /// Sets the arguments of the refunds server.
    pub fn server_command(&self, extra: &[&str]) {
        let server = program("refunds-mcp");
        let mut command = vec![server.to_str().expect("text"), "--database", "var/payments.db"];
        command.extend(extra);
        self.set_server(&command);
    }

    /// Sets the whole command of the tool server.
    pub fn set_server(&self, command: &[&str]) {
        let text = fs::read_to_string(self.path("mandate.toml")).expect("mandate.toml");
        let new = format!("command = {}", json!(command));
        let lines = text.lines().map(|line| if line.starts_with("command = ") { new.as_str() } else { line });
        let text: Vec<&str> = lines.collect();
        self.write("mandate.toml", &(text.join("\n") + "\n"));
    }

    /// Environment of every program of this test.
    fn env(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        self.told(self.server.env(), more)
    }

    fn told(&self, server: Vec<(String, String)>, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        server.into_iter().chain(self.more.clone()).chain(more).collect()
    }

    /// Starts a worker and waits until it polls.
    pub async fn start_worker(&self) -> Process {
        self.worker_with_env(&[]).await
    }

    /// Starts a worker with more environment and waits until it polls.
    pub async fn worker_with_env(&self, env: &[(&str, &str)]) -> Process {
        self.polling(self.worker_process(env).await).await
    }

    /// Starts a worker with more arguments and waits until it polls.
    pub async fn worker_with(&self, arguments: &[&str]) -> Process {
        self.polling(self.worker_process_with(arguments, &[]).await).await
    }

    async fn polling(&self, mut worker: Process) -> Process {
        until("the worker polls", async || {
            assert_eq!(worker.ended(), None, "the worker ended:\n{}", worker.log());
            worker.log().contains(READY).then_some(())
        })
        .await;
        worker
    }

    /// Starts a worker.
    pub async fn worker_process(&self, env: &[(&str, &str)]) -> Process {
        self.worker_process_with(&[], env).await
    }

    /// Starts a worker with more arguments and environment.
    pub async fn worker_process_with(&self, more: &[&str], env: &[(&str, &str)]) -> Process {
        let number = self.world.workers.fetch_add(1, Ordering::Relaxed);
        let env = self.told(self.server.worker_env(), env);
        let folder = self.world.folder.path();
        let arguments = [&["worker", "--folder", folder.to_str().expect("text")], more].concat();
        let log = self.path(&format!("worker-{number}.log"));
        Process::start(&program("mandate"), &arguments, &texts(&env), folder, log).await
    }

    /// Starts a worker as a shell script does, which has the program and its arguments, and waits until it polls.
    pub async fn worker_behind(&self, script: &str) -> Process {
        let number = self.world.workers.fetch_add(1, Ordering::Relaxed);
        let (env, folder) = (self.told(self.server.worker_env(), &[]), self.world.folder.path());
        let program = program("mandate");
        let arguments =
            ["-c", script, program.to_str().expect("text"), "worker", "--folder", folder.to_str().expect("text")];
        let log = self.path(&format!("worker-{number}.log"));
        self.polling(Process::start(Path::new("/bin/sh"), &arguments, &texts(&env), folder, log).await).await
    }

    /// Lets a worker run until the test ends.
    pub fn keep(&self, worker: Process) {
        self.world.kept.lock().expect("no panic").push(worker);
    }

    /// The program `mandate` with this folder.
    pub async fn mandate(&self, arguments: &[&str]) -> Said {
        self.mandate_with_env(&[], arguments).await
    }

    /// The program `mandate` with this folder and more environment.
    pub async fn mandate_with_env(&self, env: &[(&str, &str)], arguments: &[&str]) -> Said {
        let (env, folder) = (self.env(env), self.world.folder.path());
        say(&program("mandate"), &self.with_folder(arguments), &texts(&env), folder).await
    }

    fn with_folder<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let folder = self.world.folder.path().to_str().expect("text");
        arguments.iter().copied().chain(["--folder", folder]).collect()
    }

    /// The same at a terminal: once it asks, something else happens, then the answer is typed.
    pub async fn mandate_at_terminal(&self, arguments: &[&str], meanwhile: impl AsyncFnOnce(), answer: &str) -> Said {
        let (env, folder) = (self.env(&[]), self.world.folder.path());
        let arguments = self.with_folder(arguments);
        say_at_terminal(&program("mandate"), &arguments, &texts(&env), folder, meanwhile, answer).await
    }

    /// The Temporal CLI.
    pub async fn temporal(&self, arguments: &[&str]) -> Said {
        self.server.temporal(arguments).await
    }

    /// Starts a run of the refunds agent whose workflow id is the test's name.
    pub async fn start_run(&self, prompt: &str) {
        let ana = "ana@acme.example";
        let task = if self.accepts_keys() {
            self.signed_task(prompt, ana)
        } else {
            json!({ "agent": AGENT, "prompt": prompt, "on_behalf_of": ana })
        };
        self.start_input(&task.to_string()).await;
    }

    /// Starts a run with an input as written.
    pub async fn start_input(&self, input: &str) {
        let (queue, id) = (self.world.task_queue.as_str(), self.name.as_str());
        let start = ["workflow", "start", "--type", "AgentWorkflow", "--task-queue", queue, "--workflow-id", id];
        self.temporal(&[&start[..], &["--input", input]].concat()).await.ok();
    }

    /// Sends a signal as a person does, who sends it again when the server says that it was too busy to take it.
    pub async fn signal(&self, signal: &str, input: &str) -> Said {
        let send = ["workflow", "signal", "--workflow-id", &self.name, "--name", signal];
        until("the server takes the signal", async || {
            let said = self.temporal(&[&send[..], &["--input", input]].concat()).await;
            (!said.stderr.contains("Workflow is busy")).then_some(said)
        })
        .await
    }

    /// Sends a signal through the client: many at once are faster that way. Whether it was taken.
    pub async fn handle_signal(&self, signal: &str, input: &str) -> bool {
        let (signal, options) = (UntypedSignal::new(signal), WorkflowSignalOptions::default());
        self.handle().signal(signal, many::raw(input), options).await.is_ok()
    }

    /// Approves a request, with a signature where the folder accepts keys.
    pub async fn approve(&self, request: &str, by: &str) {
        self.decide(request, Verdict::Approve, by, None).await;
    }

    /// Rejects a request, with a signature where the folder accepts keys.
    pub async fn reject(&self, request: &str, by: &str) {
        self.decide(request, Verdict::Reject, by, Some("not now")).await;
    }

    /// The run.
    #[must_use]
    pub fn handle(&self) -> UntypedWorkflowHandle<temporalio_client::Client> {
        self.server.client.get_workflow_handle::<UntypedWorkflow>(&self.name)
    }

    /// What Temporal says of the run.
    pub async fn describe(&self) -> WorkflowExecutionDescription {
        self.handle().describe(WorkflowDescribeOptions::default()).await.expect("the run")
    }

    /// A search attribute of the run.
    pub async fn attribute(&self, name: &str) -> Option<Value> {
        let description = self.describe().await;
        serde_json::from_slice(&description.search_attributes().raw_payload(name)?.data).ok()
    }

    /// Waits until `MandateState` has a value.
    pub async fn wait_state(&self, state: &str) {
        let terminal = ["Completed", "Stopped", "Failed", "Cancelled"];
        let mut last = None;
        let reached = crate::until_within(LONG, async || {
            last = self.attribute("MandateState").await;
            let shown = last.as_ref().and_then(Value::as_str).unwrap_or_default();
            (shown == state || terminal.contains(&shown)).then(|| shown == state)
        });
        if reached.await != Some(true) {
            let said = self.temporal(&["workflow", "result", "--workflow-id", &self.name]).await;
            self.give_up(&format!("`{}` is {last:?} and not {state}: {said:?}", self.name));
        }
    }

    /// Waits until the execution chain closed.
    pub async fn wait_closed(&self) -> WorkflowExecutionStatus {
        self.wait_closed_within(LONG).await
    }

    /// Waits until the execution chain closed, for a given time.
    pub async fn wait_closed_within(&self, limit: Duration) -> WorkflowExecutionStatus {
        let closed = crate::until_within(limit, async || {
            let status = self.describe().await.status();
            let open = [WorkflowExecutionStatus::Running, WorkflowExecutionStatus::ContinuedAsNew];
            (!open.contains(&status)).then_some(status)
        });
        match closed.await {
            Some(status) => status,
            None => self.give_up(&format!("`{}` does not close", self.name)),
        }
    }

    /// The result of the run, which must have one.
    pub async fn result(&self) -> Value {
        let status = self.wait_closed().await;
        let said = self.temporal(&["workflow", "result", "--workflow-id", &self.name, "-o", "json"]).await;
        if status != WorkflowExecutionStatus::Completed {
            self.give_up(&format!("the run is {status:?}: {said:?}"));
        }
        let said: Value = serde_json::from_str(&said.stdout).expect("JSON");
        said["result"].clone()
    }

    /// The text of the answer of a run that completed.
    pub async fn answer(&self) -> String {
        let result = self.result().await;
        assert_eq!(result["state"], "Completed", "{result}");
        result["answer"].to_string()
    }

    /// A query of the run.
    pub async fn query<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        let query = UntypedQuery::new(name);
        let answer = self.handle().query(query, RawValue::new(Vec::new()), WorkflowQueryOptions::default()).await;
        let payload = answer.ok()?.payloads.into_iter().next()?;
        serde_json::from_slice(&payload.data).ok()
    }

    /// What the query `status` answers.
    pub async fn status(&self) -> Status {
        until("the query `status` answers", async || self.query::<Option<Status>>("status").await.flatten()).await
    }

    /// Requests that wait for a decision.
    pub async fn pending(&self) -> Vec<PendingRequest> {
        until("the query `pending` answers", async || self.query("pending").await).await
    }

    /// Requests that wait for a decision, if a worker answers now.
    pub async fn pending_now(&self) -> Option<Vec<PendingRequest>> {
        self.query("pending").await
    }

    /// The id of the only request that waits.
    pub async fn pending_id(&self) -> String {
        self.wait_state("AwaitingApproval").await;
        let pending = self.pending().await;
        assert_eq!(pending.len(), 1, "{pending:?}");
        pending[0].request_id.clone()
    }

    /// The current details, as the Web UI shows them.
    pub async fn details(&self) -> String {
        self.temporal(&["workflow", "metadata", "--workflow-id", &self.name]).await.ok()
    }

    /// Characters of all messages of the store.
    pub async fn transcript_bytes(&self) -> i64 {
        self.world.store.message_bytes().await
    }

    /// Changes the store behind everybody's back: how many rows.
    pub async fn tamper(&self, statement: &'static str, value: &str) -> u64 {
        self.world.store.change(statement, value).await
    }

    /// All audit records of the store.
    pub async fn records(&self) -> Vec<AuditRecord> {
        self.world.store.records().await
    }

    /// All audit records of another store, in a file.
    pub async fn records_in(&self, store: &str) -> Vec<AuditRecord> {
        StoreFile::Sqlite(self.path(store)).records().await
    }

    /// The audit records that a predicate picks.
    pub async fn records_where(&self, pick: impl Fn(&RecordBody) -> bool) -> Vec<AuditRecord> {
        self.records().await.into_iter().filter(|record| pick(&record.body)).collect()
    }

    /// Verifies the run's chain, also against Temporal's history.
    pub async fn audit_verify(&self) -> Said {
        self.mandate(&["audit", "verify", &self.name, "--witness", "temporal"]).await
    }

    /// The history of the last execution.
    pub async fn history(&self) -> History {
        let events = self.raw_history().into_events().await.expect("the history");
        History::of(&events)
    }

    /// The history of the last execution, to be stored or replayed.
    #[must_use]
    pub fn raw_history(&self) -> WorkflowHistory {
        self.handle().fetch_history(WorkflowFetchHistoryOptions::default())
    }

    /// Fails the test with what the workers said last.
    pub fn give_up(&self, why: &str) -> ! {
        let mut logs = String::new();
        for number in 0..self.world.workers.load(Ordering::Relaxed) {
            let log = fs::read_to_string(self.path(&format!("worker-{number}.log"))).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.iter().skip(lines.len().saturating_sub(25)).copied().collect::<Vec<_>>().join("\n");
            logs = format!("{logs}\n--- worker {number} ---\n{tail}");
        }
        panic!("{why}{logs}");
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).expect("a folder");
        for entry in fs::read_dir(from).expect("a folder").flatten() {
            copy(&entry.path(), &to.join(entry.file_name()));
        }
    } else {
        fs::copy(from, to).expect("a file");
    }
}
