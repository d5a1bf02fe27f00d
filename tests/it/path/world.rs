//! An operating folder of its own for each test, and workers on it: a copy of the refunds example with what the test
//! changes in it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use mandate_activities::{
    AgentActivities, Metrics, Setup,
    executions::StartedExecution,
    store::{AddressKeySource, Store},
};
use mandate_domain::{
    AuditRecord, RecordBody, RunChain,
    audit::verify::{verify, verify_own},
};
use mandate_tests::{On, StoreFile, keys};
use mandate_worker::{bundle, config::Config};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;
use temporalio_sdk::testing::{ActivityEnvironment, TestActivityInfoOptions};

use super::histories::Histories;

pub(super) const WORKFLOW_ID: &str = "refund-1";
pub(super) const RUN_ID: &str = "run-1";

/// The execution that an activity task belongs to, as the server states it in the task.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) workflow_type: &'static str,
    pub(super) workflow_id: Option<&'static str>,
    pub(super) run_id: &'static str,
    pub(super) activity_id: &'static str,
    /// When the attempt was started, by the server's clock, since 1970-01-01 UTC.
    pub(super) started: Duration,
}

/// When the time of every request and question is over.
pub(super) const LATE: Duration = Duration::from_hours(24 * 365);

impl Default for Task {
    fn default() -> Self {
        let workflow_type = mandate_workflows::WORKFLOW_TYPE;
        Self {
            workflow_type,
            workflow_id: Some(WORKFLOW_ID),
            run_id: RUN_ID,
            activity_id: "1",
            started: Duration::ZERO,
        }
    }
}

/// An operating folder, its store, and a server that knows its executions.
pub(super) struct World {
    pub(super) folder: TempDir,
    pub(super) store: Store,
    pub(super) stored: StoreFile,
    /// What the Temporal server knows.
    pub(super) executions: Arc<Histories>,
}

tokio::task_local! {
    /// The engine that this test's stores are on.
    pub(super) static ENGINE: On;
}

/// Makes a test on each engine of functions that make their world themselves.
macro_rules! on_both_engines {
    ($($test:ident)+) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::path::world::ENGINE.scope(mandate_tests::On::Sqlite, super::$test()).await;
            })+
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::path::world::ENGINE.scope(mandate_tests::On::Postgres, super::$test()).await;
            })+
        }
    };
}
pub(super) use on_both_engines;

/// The example's folder, before anything runs on it.
pub(super) struct Folder(TempDir);

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_name().to_str() {
            Some("server" | "var") => {}
            _ if entry.file_type().unwrap().is_dir() => copy(&entry.path(), &target),
            _ => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

pub(super) fn programs() -> PathBuf {
    mandate_tests::program("mandate").parent().unwrap().to_owned()
}

impl Folder {
    /// The example, with a model that proposes these calls and then has one more reply.
    pub(super) fn proposing(calls: &[&str]) -> Self {
        Self::replying(&[&format!("calls = [{}]", calls.join(", ")), r#"text = "Done.""#])
    }

    /// The example, with a model that gives these replies.
    pub(super) fn replying(replies: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/refunds"), folder.path());
        let script =
            format!("[[conversation]]\n[[conversation.reply]]\n{}\n", replies.join("\n[[conversation.reply]]\n"));
        std::fs::write(folder.path().join("scripts/refunds.toml"), script).unwrap();
        Self(folder)
    }

    /// Replaces text in a file; it must be there.
    pub(super) fn edit(self, file: &str, from: &str, to: &str) -> Self {
        edit(self.0.path(), file, from, to);
        self
    }

    /// Lets people prove themselves with keys: decisions of the run are signed from then on.
    pub(super) fn with_keys(self) -> Self {
        mandate_tests::keys::accept_keys(self.0.path());
        self
    }

    pub(super) fn policy(self, name: &str, text: &str) -> Self {
        self.write(&format!("policies/{name}.cedar"), text)
    }

    pub(super) fn write(self, file: &str, text: &str) -> Self {
        std::fs::write(self.0.path().join(file), text).unwrap();
        self
    }

    /// The tool server by a shell script, in which `$SERVER` starts the real one. Its process id is in `var/pid`.
    pub(super) fn server(self, script: &str) -> Self {
        let script =
            script.replace("$SERVER", &format!("{}/refunds-mcp --database var/payments.db", programs().display()));
        let command = format!("command = ['sh', '-c', 'mkdir -p var; echo $$ > var/pid; {script}']");
        self.edit("mandate.toml", r#"command = ["refunds-mcp", "--database", "var/payments.db"]"#, &command)
    }

    pub(super) async fn world(self) -> World {
        let on = ENGINE.try_with(|on| *on).unwrap_or(On::Sqlite);
        std::fs::create_dir_all(self.0.path().join("var")).unwrap();
        let stored = StoreFile::new(on, self.0.path().join("var/mandate.db")).await;
        let store = open_store(self.0.path(), &stored).await;
        let world = World { folder: self.0, store, stored, executions: Arc::default() };
        world.start(RUN_ID, RUN_ID, mandate_workflows::WORKFLOW_TYPE, "mandate");
        world
    }
}

async fn open_store(folder: &Path, stored: &StoreFile) -> Store {
    Store::open(stored.settings(AddressKeySource::Folder(folder.join("var/keys")))).await.unwrap()
}

fn edit(folder: &Path, file: &str, from: &str, to: &str) {
    let path = folder.join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "`{file}` does not say `{from}`");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

impl World {
    /// The server knows one more execution of the workflow.
    pub(super) fn start(&self, run_id: &str, first_run_id: &str, workflow_type: &str, task_queue: &str) {
        self.start_with(run_id, first_run_id, workflow_type, task_queue, self.task(WORKFLOW_ID));
    }

    /// What a run is started with, signed where the folder accepts keys.
    fn task(&self, workflow_id: &str) -> String {
        let (agent, prompt, ana) = ("acme/support/refunds", "Please refund.", "ana@acme.example");
        let mut task = json!({ "agent": agent, "prompt": prompt, "on_behalf_of": ana });
        if keys::key_file(self.folder.path(), ana).exists() {
            let statement = keys::start(agent, prompt, ana, workflow_id);
            task["proof"] = json!({ "signature": keys::sign(&statement, ana, ana) });
        }
        task.to_string()
    }

    /// The server knows an execution of another workflow.
    pub(super) fn start_other(&self, workflow_id: &str, run_id: &str, first: &str) {
        let started = started(first, mandate_workflows::WORKFLOW_TYPE, "mandate", self.task(workflow_id));
        self.executions.know(workflow_id, run_id, started);
    }

    pub(super) fn start_with(&self, run_id: &str, first: &str, workflow_type: &str, task_queue: &str, input: String) {
        let started = started(first, workflow_type, task_queue, input);
        self.executions.know(WORKFLOW_ID, run_id, started);
    }

    /// A further handle on the store, as another process has it.
    pub(super) async fn another_handle(&self) -> Store {
        open_store(self.folder.path(), &self.stored).await
    }

    /// The folder as it is now.
    pub(super) fn config(&self) -> Config {
        Config::load(self.folder.path(), &programs()).unwrap_or_else(|errors| panic!("{errors:#?}"))
    }

    /// A worker that has read the folder as it is now, with an activity task of the run.
    pub(super) async fn worker(&self) -> ActivityEnvironment {
        self.worker_for(Task::default()).await
    }

    pub(super) async fn worker_for(&self, task: Task) -> ActivityEnvironment {
        self.worker_on(self.store.clone(), task).await
    }

    pub(super) async fn worker_on(&self, store: Store, task: Task) -> ActivityEnvironment {
        environment(self.activities_on(store).await, task)
    }

    /// What a worker on this store carries out, for the tasks of many runs.
    pub(super) async fn activities_on(&self, store: Store) -> AgentActivities {
        let config = self.config();
        let executions = Arc::<Histories>::clone(&self.executions);
        let policy = bundle::in_force(&config, &store, "test").await.unwrap();
        let activities = AgentActivities::new(Setup {
            store,
            catalog: config.catalog,
            policy,
            task_queue: config.task_queue,
            identity: "test".to_owned(),
            executions,
            metrics: Metrics::default(),
        });
        activities.unwrap()
    }

    /// Changes a file of the folder, for workers made from now on.
    pub(super) fn edit(&self, file: &str, from: &str, to: &str) {
        edit(self.folder.path(), file, from, to);
    }

    pub(super) fn policy(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(format!("policies/{name}.cedar")), text).unwrap();
    }

    /// Why intrusions were refused, in order. Their chain verifies.
    pub(super) async fn intrusions(&self) -> Vec<String> {
        let bodies = self.bodies(&self.store.own_chain()).await;
        let reason = |body| match body {
            RecordBody::Intrusion { reason, .. } => Some(reason),
            RecordBody::BundleApplied { .. } => None,
            other => panic!("{other:?}"),
        };
        bodies.into_iter().filter_map(reason).collect()
    }

    /// Raises what an order was worth, so that many runs can be paid from it.
    pub(super) async fn raise_order(&self, order: &str) {
        let mut database = self.open("var/payments.db").await.unwrap();
        let raise = sqlx::query::<sqlx::Sqlite>("UPDATE orders SET total_cents = 1000000000 WHERE order_id = $1");
        assert_eq!(raise.bind(order.to_owned()).execute(&mut database).await.unwrap().rows_affected(), 1);
    }

    /// Says what an order consists of.
    pub(super) async fn describe_order(&self, order: &str, items: &str) {
        let mut database = self.open("var/payments.db").await.unwrap();
        let change = sqlx::query::<sqlx::Sqlite>("UPDATE orders SET items = $2 WHERE order_id = $1");
        let done = change.bind(order.to_owned()).bind(items.to_owned()).execute(&mut database).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }

    /// What the records of a chain say, which verifies.
    pub(super) async fn bodies(&self, chain: &RunChain) -> Vec<RecordBody> {
        self.records(chain).await.into_iter().map(|record| record.body).collect()
    }

    /// The records of a chain, which verifies.
    pub(super) async fn records(&self, chain: &RunChain) -> Vec<AuditRecord> {
        let records = self.store.records(chain).await.unwrap();
        let own = *chain == self.store.own_chain();
        let verified = if own { verify_own(chain, &records, None) } else { verify(chain, &records, None) };
        assert!(verified.holds() || records.is_empty(), "{:?}", verified.findings);
        records.iter().map(|record| serde_json::from_slice(&record.canonical).unwrap()).collect()
    }

    /// What was paid: key and amount of each row, in order.
    pub(super) async fn payments(&self) -> Vec<(String, i64)> {
        let Ok(mut database) = self.open("var/payments.db").await else { return Vec::new() };
        let query = "SELECT idempotency_key, amount_cents FROM payments ORDER BY refund_id";
        sqlx::query_as(query).fetch_all(&mut database).await.unwrap_or_default()
    }

    /// How many refunds the system of record was asked for.
    pub(super) async fn requests_received(&self) -> i64 {
        let Ok(mut database) = self.open("var/payments.db").await else { return 0 };
        sqlx::query_scalar("SELECT count(*) FROM calls").fetch_one(&mut database).await.unwrap_or(0)
    }

    async fn open(&self, file: &str) -> sqlx::Result<SqliteConnection> {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join(file));
        SqliteConnection::connect_with(&options.busy_timeout(Duration::from_secs(10))).await
    }

    /// Changes the store behind everybody's back.
    pub(super) async fn write(&self, statement: &'static str, value: &str) {
        assert!(self.stored.change(statement, value).await > 0, "nothing to change: {statement}");
    }

    /// Claims of this effect ran out this many milliseconds ago.
    pub(super) async fn run_out(&self, effect: &str, millis: u64) {
        let now = self.store.now().await.unwrap().millis;
        self.sends_by(effect, now.checked_sub(millis).unwrap()).await;
    }

    /// Claims of this effect run out in so many milliseconds.
    pub(super) async fn run_on(&self, effect: &str, millis: u64) {
        let now = self.store.now().await.unwrap().millis;
        self.sends_by(effect, now + millis).await;
    }

    async fn sends_by(&self, effect: &str, millis: u64) {
        self.write("UPDATE effects SET send_by_millis = CAST($1 AS BIGINT)", &millis.to_string()).await;
        assert!(self.effect(effect).await.is_some());
    }

    /// As if the worker had died before it recorded the outcome: a claim, an intent and nothing after them. The audit
    /// chain's tail goes with it, back to the intent.
    pub(super) async fn lose_outcome(&self, effect: &str) {
        let key = format!("{effect}/intent/1");
        for statement in [
            "DELETE FROM records WHERE sequence > (SELECT sequence FROM records WHERE record_key = $1)",
            "UPDATE chains SET records = (SELECT sequence FROM records WHERE record_key = $1),
                 head = (SELECT hash FROM records WHERE record_key = $1)",
        ] {
            self.write(statement, &key).await;
        }
        self.write("UPDATE effects SET state = 'open', outcome = NULL, settled_epoch = NULL WHERE effect = $1", effect)
            .await;
        self.write("DELETE FROM replies WHERE $1 != ''", effect).await;
    }

    /// State and epoch of an effect.
    pub(super) async fn effect(&self, effect: &str) -> Option<(String, i64)> {
        self.stored.text_and_number("SELECT state, epoch FROM effects WHERE effect = $1", effect).await
    }

    pub(super) fn signal_server(&self, signal: Signal) {
        let text = std::fs::read_to_string(self.folder.path().join("var/pid")).unwrap();
        let sent = kill(Pid::from_raw(text.trim().parse().unwrap()), signal);
        // With its worker it may have gone already.
        assert!(sent.is_ok() || (signal == Signal::SIGKILL && sent == Err(Errno::ESRCH)), "{sent:?}");
    }
}

fn started(first_run_id: &str, workflow_type: &str, task_queue: &str, input: String) -> StartedExecution {
    StartedExecution {
        workflow_type: workflow_type.to_owned(),
        task_queue: task_queue.to_owned(),
        first_run_id: first_run_id.to_owned(),
        continued_run_id: None,
        original_run_id: String::new(),
        input: vec![input.into_bytes()],
        started_ms: 0,
        principal: None,
    }
}

/// A worker that carries out these activities for one task.
pub(super) fn environment(activities: AgentActivities, task: Task) -> ActivityEnvironment {
    let info = TestActivityInfoOptions::builder()
        .workflow_type(Some(task.workflow_type.to_owned()))
        .workflow_id(task.workflow_id.map(str::to_owned))
        .workflow_run_id(task.workflow_id.map(|_| task.run_id.to_owned()))
        .activity_id(task.activity_id)
        .activity_type("test")
        .started_time(Some(UNIX_EPOCH + task.started))
        .build();
    ActivityEnvironment::builder().register_activities(activities).info(info).build()
}

/// The run that every test has.
pub(super) fn chain() -> RunChain {
    RunChain { workflow_id: WORKFLOW_ID.to_owned(), first_run_id: RUN_ID.to_owned() }
}
