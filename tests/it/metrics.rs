//! What a worker serves to Prometheus: the SDK's metrics and our own, on one address.

use std::net::TcpListener;

use mandate_tests::{Process, Scenario, run, until};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// One GET, with status line and headers.
pub(super) async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Where a worker serves them, as its log says.
pub(super) fn address(worker: &Process) -> String {
    let log = worker.log();
    log.split("address=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap().to_owned()
}

/// The value of the only series of this name whose labels contain all of these.
pub(super) fn value(served: &str, name: &str, labels: &[&str]) -> f64 {
    let is_one = |line: &&str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
    };
    let found: Vec<&str> = served.lines().filter(is_one).collect();
    let [line] = found[..] else { panic!("{name} {labels:?}: {found:?} in\n{served}") };
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_worker_serves_the_metrics_of_a_refund() {
    run(async {
        let scenario = Scenario::new("metrics").await;
        let worker = scenario.worker_with(&["--metrics-address", "127.0.0.1:0"]).await;
        let address = address(&worker);
        scenario.start_run("Refund order o2").await;
        assert!(scenario.answer().await.contains("45.00 EUR for order o2"));

        // The SDK counts a completion when the server has taken it, which the run's result may overtake.
        let completed = ("temporal_workflow_completed_total", ["workflow_type=\"AgentWorkflow\""]);
        let served = until("the SDK counts the run", async || {
            let served = get(&address, "/metrics").await;
            served.contains(completed.0).then_some(served)
        })
        .await;
        assert!(served.starts_with("HTTP/1.1 200"), "{served}");
        let count = |name: &str, labels: &[&str]| value(&served, name, labels);
        let check = |name: &str, labels: &[&str], expected: f64| {
            let found = count(name, labels);
            assert!((found - expected).abs() < f64::EPSILON, "{name} {labels:?}: {found} and not {expected}\n{served}");
        };
        check(completed.0, &completed.1, 1.0);
        assert!(count("temporal_request_total", &["operation=\"RespondWorkflowTaskCompleted\""]) >= 1.0);
        for (action, outcome, expected) in [
            ("invoke_model", "allow", 3.0),
            ("invoke_model", "deny", 0.0),
            ("invoke_model", "require_approval", 0.0),
            ("call_tool", "allow", 2.0),
            ("call_tool", "deny", 0.0),
            ("call_tool", "require_approval", 0.0),
        ] {
            let labels = [format!("action=\"{action}\""), format!("outcome=\"{outcome}\"")];
            check("mandate_decisions_total", &labels.each_ref().map(String::as_str), expected);
        }
        for (kind, result, expected) in [
            ("model", "answered", 3.0),
            ("model", "error", 0.0),
            ("tool", "answered", 2.0),
            ("tool", "error", 0.0),
            ("tool", "not_sent", 0.0),
            ("tool", "unknown", 0.0),
        ] {
            let labels = [format!("kind=\"{kind}\""), format!("result=\"{result}\"")];
            check("mandate_effects_total", &labels.each_ref().map(String::as_str), expected);
        }
        check("mandate_policy_load_failures_total", &[], 0.0);
        check("mandate_decision_seconds_count", &[], 5.0);
        let ours: String = served.lines().filter(|line| line.starts_with("mandate_")).collect();
        for never in ["acme", "ana", &scenario.name, "orders", "refund"] {
            assert!(!ours.contains(never), "`{never}` is a label: {ours}");
        }
        assert!(get(&address, "/").await.starts_with("HTTP/1.1 404"));
        assert_eq!(worker.stop().await, 0);
    });
}

#[test]
fn an_address_in_use_ends_the_worker_before_it_polls() {
    run(async {
        let scenario = Scenario::new("metrics-taken").await;
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let mut worker = scenario.worker_process_with(&["--metrics-address", &address], &[]).await;
        assert_eq!(worker.wait().await, 1, "{}", worker.log());
        let log = worker.log();
        let said: Vec<_> = log.lines().collect();
        let expected = format!("error: cannot serve metrics at `{address}`: Address already in use");
        assert!(matches!(said[..], [line] if line.starts_with(&expected)), "{said:#?}");
        assert!(!scenario.path("var").exists(), "nothing was begun");
    });
}
