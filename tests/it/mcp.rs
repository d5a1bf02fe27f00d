//! Tools over MCP against the real server of the refunds example: lost answers, dead and mute servers, keys, drift, and
//! nothing left behind.

use std::{collections::BTreeMap, path::PathBuf};

use mandate_activities::{
    catalog::{EnvValue, ProcessLimits, SecretRef, ServerSettings},
    governed::RecordedPermit,
    tools::{CallToolError, PrepareToolError, PreparedTool, ToolAnswer, ToolSet},
};
use mandate_domain::{EffectId, PersonId, ServerName, ToolCallId, ToolDefinition, ToolName, ToolReach};
use mandate_tests::{program, until_it_holds};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// A tool server in a folder of its own.
pub(crate) struct Fixture {
    pub(crate) folder: TempDir,
    pub(crate) tools: ToolSet,
}

impl Fixture {
    /// A server started as `sh -c SCRIPT`, in which `$SERVER` starts the real one on a database of its own.
    pub(crate) fn of(script: &str, args: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let script = script.replace("$SERVER", &format!("{} {args}", server_of(&folder).join(" ")));
        let settings = settings(&folder, "/bin/sh".into(), vec!["-c".to_owned(), script]);
        Self::with(folder, settings)
    }

    /// The real server behind `rogue-mcp` with these words before it, and other settings.
    pub(crate) fn rogue(words: &[&str], change: impl FnOnce(&mut ServerSettings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = words.iter().map(|word| (*word).to_owned()).chain(server_of(&folder)).collect();
        let mut settings = settings(&folder, program("rogue-mcp"), words);
        change(&mut settings);
        Self::with(folder, settings)
    }

    fn with(folder: TempDir, settings: ServerSettings) -> Self {
        let tools = ToolSet::new(BTreeMap::from([(ServerName::parse("refunds").unwrap(), settings)]));
        Self { folder, tools }
    }

    pub(crate) async fn call(
        &self,
        tool: &ToolDefinition,
        index: u32,
        arguments: Value,
    ) -> Result<ToolAnswer, CallToolError> {
        let prepared = self.tools.prepare(tool).await.unwrap();
        self.call_prepared(prepared, index, arguments).await
    }

    pub(crate) async fn call_prepared(
        &self,
        prepared: PreparedTool,
        index: u32,
        arguments: Value,
    ) -> Result<ToolAnswer, CallToolError> {
        self.tools.call(&permit(index), prepared, &object(arguments)).await
    }

    /// Rows of a table of the system of record.
    pub(crate) async fn count(&self, table: &'static str) -> i64 {
        let options = SqliteConnectOptions::new().filename(self.folder.path().join("data/refunds.db")).read_only(true);
        let Ok(mut database) = SqliteConnection::connect_with(&options).await else { return 0 };
        let query = match table {
            "payments" => "SELECT count(*) FROM payments",
            _ => "SELECT count(*) FROM calls",
        };
        sqlx::query_scalar(query).fetch_one(&mut database).await.unwrap_or(0)
    }

    pub(crate) fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder.path().join("pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

/// The command of the real server on a database in the folder.
fn server_of(folder: &TempDir) -> [String; 3] {
    let database = folder.path().join("data/refunds.db");
    [program("refunds-mcp").display().to_string(), "--database".to_owned(), database.display().to_string()]
}

fn settings(folder: &TempDir, started: PathBuf, args: Vec<String>) -> ServerSettings {
    ServerSettings {
        program: started,
        args,
        env: BTreeMap::from([("PLAIN".to_owned(), EnvValue::Plain("1".to_owned()))]),
        directory: folder.path().to_owned(),
        connect_timeout_secs: 20,
        answer_max_bytes: 32 << 20,
        supervisor: program("mandate"),
        limits: ProcessLimits::default(),
    }
}

fn permit(index: u32) -> RecordedPermit {
    RecordedPermit::unrecorded(EffectId::Tool(ToolCallId::new(1, index)))
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

fn tool(name: &str, remote: &str, properties: Value, required: &[&str]) -> ToolDefinition {
    ToolDefinition {
        name: ToolName::parse(name).unwrap(),
        description: name.to_owned(),
        owner: PersonId::parse("ana@acme.example").unwrap(),
        read_only: false,
        destructive: true,
        idempotent: false,
        open_world: false,
        check: None,
        settles_within_secs: None,
        undo: None,
        timeout_secs: 20,
        cost_micros: 0,
        amounts: Vec::new(),
        argument_classes: [].into(),
        result_classes: [].into(),
        input_schema: json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        }),
        reach: ToolReach::Mcp { server: ServerName::parse("refunds").unwrap(), tool: remote.to_owned() },
    }
}

pub(crate) fn refund() -> ToolDefinition {
    let properties = json!({
        "order_id": { "type": "string" },
        "amount_cents": { "type": "integer", "minimum": 1 },
        "currency": { "type": "string", "enum": ["EUR", "USD"] },
        "note": { "type": "string", "maxLength": 200 },
    });
    tool("payments.refund", "refund_payment", properties, &["order_id", "amount_cents", "currency"])
}

pub(crate) fn status() -> ToolDefinition {
    let properties = json!({ "idempotency_key": { "type": "string" } });
    tool("payments.refund_status", "refund_status", properties, &["idempotency_key"])
}

pub(crate) fn read_order() -> ToolDefinition {
    tool("orders.read", "read_order", json!({ "order_id": { "type": "string" } }), &["order_id"])
}

pub(crate) fn cents(amount: i64) -> Value {
    json!({ "order_id": "o1", "amount_cents": amount, "currency": "EUR" })
}

/// A process that ended but was not yet fetched by its parent counts as ended.
pub(crate) fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

#[tokio::test]
async fn one_key_pays_once_and_the_server_refuses_what_it_must() {
    let fixture = Fixture::of("exec $SERVER", "");
    let first = fixture.call(&refund(), 0, cents(50_000)).await.unwrap();
    assert!(first.text.contains(r#""status":"refunded""#) && !first.is_error, "{first:?}");
    assert_eq!(fixture.call(&refund(), 0, cents(50_000)).await.unwrap(), first);
    assert_eq!((fixture.count("payments").await, fixture.count("calls").await), (1, 2));

    let usd = json!({ "order_id": "o1", "amount_cents": 1, "currency": "USD" });
    let nowhere = json!({ "order_id": "o99", "amount_cents": 1, "currency": "EUR" });
    for (index, arguments) in [(0, cents(50_001)), (1, cents(40_001)), (2, usd), (3, nowhere), (4, cents(0))] {
        let answer = fixture.call(&refund(), index, arguments.clone()).await.unwrap();
        assert!(answer.is_error, "{arguments}: {answer:?}");
    }
    assert_eq!(fixture.count("payments").await, 1);
    assert!(!fixture.call(&refund(), 5, cents(40_000)).await.unwrap().is_error);
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_server_killed_in_a_call_leaves_the_outcome_unknown_and_the_check_knows_it() {
    let fixture = Fixture::of("echo $$ > pid; exec $SERVER", "--delay-ms 60000");
    let prepared = fixture.tools.prepare(&refund()).await.unwrap();
    let stale = fixture.tools.prepare(&refund()).await.unwrap();
    let kill_it = async {
        until_it_holds("the payment is written", async || fixture.count("payments").await == 1).await;
        kill(fixture.pid().unwrap(), Signal::SIGKILL).unwrap();
    };
    let (ended, ()) = tokio::join!(fixture.call_prepared(prepared, 0, cents(50_000)), kill_it);
    assert!(matches!(ended, Err(CallToolError::OutcomeUnknown { .. })), "{ended:?}");
    // The connection is known to be gone, so this one never left.
    let ended = fixture.call_prepared(stale, 1, cents(1)).await;
    assert!(matches!(ended, Err(CallToolError::NotSent { .. })), "{ended:?}");

    let asked = async |index| {
        let check = fixture.tools.prepare(&status()).await.unwrap();
        fixture.tools.check(&permit(9), check, &permit(index).idempotency_key()).await.unwrap()
    };
    let happened = asked(0).await;
    assert!(happened.happened && happened.result.unwrap()["amount_cents"] == 50_000);
    assert!(!asked(1).await.happened);
    let again = fixture.call(&refund(), 0, cents(50_000)).await.unwrap();
    assert!(again.text.contains("rf-0001"), "{again:?}");
    assert_eq!((fixture.count("payments").await, fixture.count("calls").await), (1, 2));
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_timeout_leaves_the_outcome_unknown_and_the_connection_usable() {
    let fixture = Fixture::of("exec $SERVER", "--delay-ms 60000");
    let slow = ToolDefinition { timeout_secs: 1, ..refund() };
    let ended = fixture.call(&slow, 0, cents(50_000)).await;
    assert!(matches!(ended, Err(CallToolError::OutcomeUnknown { .. })), "{ended:?}");
    let order = fixture.call(&read_order(), 1, json!({ "order_id": "o1" })).await.unwrap();
    assert!(order.text.contains(r#""refunded_cents":50000"#), "{order:?}");
    fixture.tools.close().await;
}

#[tokio::test]
async fn parallel_calls_share_one_server() {
    let fixture = Fixture::of("echo started >> starts; exec $SERVER", "");
    let read = read_order();
    let calls = (0..20).map(|index| fixture.call(&read, index, json!({ "order_id": "o2" })));
    let answers = futures::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| !answer.is_error)), "{answers:?}");
    let starts = std::fs::read_to_string(fixture.folder.path().join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 1);
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_mute_server_and_a_crash_are_outages_and_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |script: &str, secs| ServerSettings {
        connect_timeout_secs: secs,
        ..settings(&folder, "/bin/sh".into(), vec!["-c".to_owned(), script.to_owned()])
    };
    let reason = async |settings: ServerSettings| {
        let fixture = Fixture::with(tempfile::tempdir().unwrap(), settings);
        match fixture.tools.prepare(&refund()).await {
            Err(PrepareToolError::Unreachable { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    let mute = reason(settings("echo $$ > pid; exec sleep 1000", 1)).await;
    assert!(mute.contains("within 1 s"), "{mute}");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap().trim().parse().map(Pid::from_raw).unwrap();
    until_it_holds("the mute server is gone", async || !is_running(pid)).await;
    let crashed = reason(settings("echo the database is locked >&2; exit 3", 20)).await;
    assert!(crashed.contains("exit code 3") && crashed.contains("the database is locked"), "{crashed}");
    let missing = ServerSettings { program: "/nowhere/server".into(), ..settings("", 20) };
    assert!(reason(missing).await.contains("/nowhere/server"));
    let mut secret = settings("", 20);
    secret.env.insert("TOKEN".to_owned(), EnvValue::Secret(SecretRef::Env("MANDATE_TEST_UNSET".to_owned())));
    assert!(reason(secret).await.contains("TOKEN"));
}

#[tokio::test]
async fn a_tool_that_is_not_as_registered_is_refused() {
    let fixture = Fixture::of("exec $SERVER", "");
    let changed = tool("orders.read", "read_order", json!({ "order_id": { "type": "integer" } }), &["order_id"]);
    let ended = fixture.tools.prepare(&changed).await;
    assert!(matches!(ended, Err(PrepareToolError::Changed { .. })), "{ended:?}");
    let ended = fixture.tools.prepare(&tool("orders.drop", "drop_order", json!({}), &[])).await;
    assert!(matches!(ended, Err(PrepareToolError::Unknown { .. })), "{ended:?}");
    for tool in [refund(), status(), read_order()] {
        fixture.tools.prepare(&tool).await.unwrap();
    }
    fixture.tools.close().await;
}

#[tokio::test]
async fn nothing_that_a_server_started_outlives_the_close() {
    let stubborn = r#"setsid sh -c 'trap "" TERM HUP; echo $$ > pid; sleep 1000 & wait; sleep 1000' < /dev/null > /dev/null 2>&1 &
        exec $SERVER"#;
    let fixture = Fixture::of(stubborn, "");
    fixture.tools.prepare(&refund()).await.unwrap();
    until_it_holds("the grandchild runs", async || fixture.pid().is_some()).await;
    let pid = fixture.pid().unwrap();
    assert!(is_running(pid));
    fixture.tools.close().await;
    until_it_holds("the grandchild is gone", async || !is_running(pid)).await;
}
