//! Tool servers under `mandate sandbox-exec`: nothing of them outlives its worker, their processes stay within limits,
//! their environment is what configuration names, and how they ended is said.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use mandate_activities::{
    catalog::{EnvValue, SecretRef, ServerSettings},
    tools::CallToolError,
};
use mandate_domain::ToolDefinition;
use mandate_tests::{Process, Scenario, program, run, say, until, until_it_holds};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::mcp::{Fixture, cents, is_running, read_order, refund};

/// Starts, beside the server, a child that is deaf to polite signals, and one more in a session of its own.
const FAMILY: &str = r#"mkdir -p var; echo $$ > var/server.pid
sh -c 'trap "" TERM HUP; echo $$ > var/child.pid; sleep 1000 & wait; sleep 1000' < /dev/null > /dev/null 2>&1 &
setsid sh -c 'trap "" TERM HUP INT; echo $$ > var/deaf.pid; sleep 1000 & wait; sleep 1000' < /dev/null > /dev/null 2>&1 &
(setsid sh -c 'echo $$ > var/orphan.pid; exec sleep 1000' < /dev/null > /dev/null 2>&1 &)
exec $SERVER"#;
const MEMBERS: [&str; 4] = ["server", "child", "deaf", "orphan"];

fn pid_in(file: &Path) -> Option<Pid> {
    fs::read_to_string(file).ok()?.trim().parse().ok().map(Pid::from_raw)
}

/// The parent of a process.
fn parent(pid: Pid) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
    Pid::from_raw(parent.parse().unwrap())
}

/// A worker whose tool server has a family, and everybody in it, with the supervisor.
async fn with_family(scenario: &Scenario) -> (Process, Vec<Pid>) {
    let server = format!("{} --database var/payments.db --delay-ms 600000", program("refunds-mcp").display());
    scenario.set_server(&["sh", "-c", &FAMILY.replace("$SERVER", &server)]);
    let worker = scenario.start_worker().await;
    let file = |name: &str| scenario.path(&format!("var/{name}.pid"));
    scenario.start_run("Refund order o2").await;
    let mut pids = Vec::new();
    for name in MEMBERS {
        pids.push(until(name, async || pid_in(&file(name))).await);
    }
    let payment = async || (!scenario.payments().await.is_empty()).then_some(());
    until("the payment is written and the call is not answered", payment).await;
    assert!(pids.iter().all(|pid| is_running(*pid)), "{pids:?}");
    pids.push(parent(pids[0]));
    (worker, pids)
}

async fn all_gone(pids: Vec<Pid>) {
    let left = || pids.iter().filter(|pid| is_running(**pid)).collect::<Vec<_>>();
    until("nothing of the tool server is left", async || left().is_empty().then_some(())).await;
}

#[test]
fn nothing_of_a_tool_server_outlives_a_worker_that_was_killed() {
    run(async {
        let scenario = Scenario::new("sandbox-killed").await;
        let (worker, pids) = with_family(&scenario).await;
        worker.kill().await;
        all_gone(pids).await;
        assert_eq!(scenario.payments().await.len(), 1);
    });
}

#[test]
fn nothing_of_a_tool_server_outlives_a_worker_that_was_asked_to_stop() {
    run(async {
        let scenario = Scenario::new("sandbox-stopped").await;
        let (worker, pids) = with_family(&scenario).await;
        assert_eq!(worker.stop().await, 0);
        // The worker waited for it.
        assert!(pids.iter().all(|pid| !is_running(*pid)), "{pids:?}");
    });
}

#[tokio::test]
async fn a_server_that_dies_takes_what_it_started_along() {
    let orphan = "(setsid sh -c 'echo $$ > pid; exec sleep 1000' < /dev/null > /dev/null 2>&1 &); echo $$ > server; exec $SERVER";
    let fixture = Fixture::of(orphan, "");
    fixture.tools.prepare(&refund()).await.unwrap();
    until_it_holds("the orphan runs", async || fixture.pid().is_some()).await;
    let orphan = fixture.pid().unwrap();
    kill(pid_in(&fixture.folder.path().join("server")).unwrap(), Signal::SIGKILL).unwrap();
    until_it_holds("the orphan is gone", async || !is_running(orphan)).await;
}

/// A supervisor that is killed takes the program along: the kernel sees to it.
#[tokio::test]
async fn a_server_does_not_outlive_its_supervisor() {
    let fixture = Fixture::of("echo $$ > pid; exec $SERVER", "");
    fixture.tools.prepare(&refund()).await.unwrap();
    let server = fixture.pid().unwrap();
    kill(parent(server), Signal::SIGKILL).unwrap();
    until_it_holds("the server is gone", async || !is_running(server)).await;
    // The next call starts another one.
    let order = async || fixture.call(&read_order(), 0, serde_json::json!({ "order_id": "o1" })).await;
    until_it_holds("another one answers", async || order().await.is_ok_and(|order| !order.is_error)).await;
    fixture.tools.close().await;
}

/// Why a call of a server that misbehaves so under these settings has no answer.
async fn failure(mode: &str, change: impl FnOnce(&mut ServerSettings)) -> String {
    let fixture = Fixture::rogue(&[mode, "refund_payment"], change);
    let slow = ToolDefinition { timeout_secs: 60, ..refund() };
    let ended = fixture.call(&slow, 0, cents(100)).await;
    assert_eq!(fixture.count("payments").await, 0);
    let Err(CallToolError::OutcomeUnknown { tool, reason, wrote }) = ended else { panic!("{mode}: {ended:?}") };
    assert_eq!(tool, "payments.refund");
    reason + &wrote
}

#[tokio::test]
async fn each_limit_holds_and_is_told() {
    let memory = failure("memory=300000000", |server| server.limits.memory_max_bytes = Some(100 << 20)).await;
    assert!(memory.contains("memory allocation of 300000000 bytes failed"), "{memory}");
    assert!(memory.contains("ended by SIGABRT; limits of each process: 104857600 bytes of memory"), "{memory}");
    let files = failure("files=100", |server| server.limits.open_files_max = Some(40)).await;
    assert!(files.contains("it ended with exit code 5"), "{files}");
    assert!(files.contains("Too many open files") && files.contains("40 open files"), "{files}");
    let file = failure("file=2000000", |server| server.limits.file_max_bytes = Some(1_000_000)).await;
    assert!(file.contains("ended by SIGXFSZ: a file of more than 1000000 bytes"), "{file}");
    let cpu = failure("cpu", |server| server.limits.cpu_max_secs = Some(1)).await;
    assert!(cpu.contains("more than 1 s of processor time"), "{cpu}");
}

#[tokio::test]
async fn exit_code_and_last_words_are_in_the_error() {
    let reason = failure("die-before", |_| {}).await;
    assert!(reason.contains("it ended with exit code 4"), "{reason}");
    assert!(reason.contains("its standard error ends: rogue: killed by its own hand"), "{reason}");
}

#[tokio::test]
async fn a_server_sees_no_more_of_the_environment_than_its_configuration_names() {
    assert!(std::env::vars_os().count() > 3, "there is something that could leak");
    let fixture = Fixture::rogue(&["env", "refund_payment"], |_| {});
    let answer = fixture.call(&refund(), 0, cents(100)).await.unwrap();
    let seen: BTreeMap<String, String> = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(seen.keys().map(String::as_str).collect::<Vec<_>>(), ["HOME", "PATH", "PLAIN"]);
    fixture.tools.close().await;
}

#[tokio::test]
async fn a_secret_that_a_server_repeats_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "s3cret-token").unwrap();
    let reference = SecretRef::File(folder.path().join("token"));
    let fixture = Fixture::rogue(&["env", "refund_payment"], |settings| {
        settings.env.insert("TOKEN".to_owned(), EnvValue::Secret(reference));
    });
    let answer = fixture.call(&refund(), 0, cents(100)).await.unwrap();
    let seen: BTreeMap<String, String> = serde_json::from_str(&answer.text).unwrap();
    assert_eq!((seen["TOKEN"].as_str(), seen["PLAIN"].as_str()), ("[secret]", "1"));
    fixture.tools.close().await;
}

/// What the kernel says of a program that runs under the supervisor.
async fn said(arguments: &[&str], script: &str) -> mandate_tests::Said {
    let all = [&["sandbox-exec"], arguments, &["--", "/bin/sh", "-c", script]].concat();
    say(&program("mandate"), &all, &[], &std::env::temp_dir()).await
}

#[tokio::test]
async fn a_program_gains_no_privileges_dumps_no_core_and_keeps_its_exit_code() {
    let seen = said(&[], "grep NoNewPrivs /proc/self/status; ulimit -c; exit 7").await;
    assert_eq!((seen.code, seen.stdout.as_str()), (7, "NoNewPrivs:\t1\n0\n"), "{seen:?}");
    assert!(seen.stderr.contains("the program ended with exit code 7"), "{seen:?}");
    let limits = said(&["--open-files-max", "50", "--file-max-bytes", "1048576"], "ulimit -n; ulimit -f").await;
    assert_eq!((limits.code, limits.stdout.as_str(), limits.stderr.as_str()), (0, "50\n2048\n", ""), "{limits:?}");
    let killed = said(&[], "kill -SEGV $$").await;
    assert!(killed.code == 139 && killed.stderr.contains("ended by SIGSEGV"), "{killed:?}");
}

#[tokio::test]
async fn what_cannot_be_started_is_named() {
    let missing = PathBuf::from("/nowhere/server");
    let arguments = ["sandbox-exec", "--", missing.to_str().unwrap()];
    let seen = say(&program("mandate"), &arguments, &[], Path::new("/")).await;
    assert_eq!(seen.code, 127, "{seen:?}");
    assert!(seen.stderr.contains("cannot start `/nowhere/server`: No such file"), "{seen:?}");
    let wrong = say(&program("mandate"), &["sandbox-exec"], &[], Path::new("/")).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
}
