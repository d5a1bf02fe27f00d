//! Stored histories of each behaviour replay without a server, and a changed workflow fails that same replay.
//!
//! `UPDATE_HISTORIES=1 cargo test --workspace --test it` stores them anew, once a workflow change is meant and patched.

use std::{fs, path::PathBuf};

use mandate_domain::AgentResult;
use mandate_tests::{run, workspace_folder};
use mandate_workflows::{AgentWorkflow, lenient::Lenient};
use temporalio_client::WorkflowHistory;
use temporalio_macros::{workflow, workflow_methods};
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use temporalio_workflow::{WorkflowContext, WorkflowResult};

/// One stored history for each behaviour.
const BEHAVIOURS: [&str; 19] = [
    "approval",
    "cancelled",
    "compensated",
    "completes",
    "continued",
    "continues",
    "escalated",
    "expired",
    "failed-start",
    "five-calls",
    "halted",
    "parallel",
    "paused",
    "question",
    "rejected",
    "revised",
    "server-question",
    "unknown-outcome",
    "update-decide",
];

fn stored() -> Vec<(String, PathBuf)> {
    let files = fs::read_dir(workspace_folder().join("tests/histories")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "json")).collect();
    files.sort();
    files.into_iter().map(|file| (file.file_stem().unwrap().to_string_lossy().into_owned(), file)).collect()
}

fn read(file: &PathBuf) -> WorkflowHistory {
    WorkflowHistory::from_json(&fs::read(file).unwrap()).unwrap()
}

/// Replays on the workflow as it is.
pub(super) fn replayer() -> WorkflowReplayer {
    let options = WorkflowReplayerOptions::new().register_workflow::<AgentWorkflow>().unwrap().build();
    WorkflowReplayer::new(options).unwrap()
}

#[test]
fn stored_histories_of_each_behaviour_replay() {
    run(async {
        let stored = stored();
        let names: Vec<_> = stored.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, BEHAVIOURS);
        let replayer = replayer();
        for (name, file) in &stored {
            replayer.replay_workflow(read(file)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    });
}

/// `AgentWorkflow` as somebody may change it by mistake: another first command.
#[workflow]
#[derive(Default)]
struct Changed;

#[workflow_methods]
impl Changed {
    #[run(name = "AgentWorkflow")]
    async fn run(ctx: &mut WorkflowContext<Self>, _input: Lenient) -> WorkflowResult<Option<AgentResult>> {
        ctx.timer(std::time::Duration::from_secs(1)).await;
        Ok(None)
    }
}

#[test]
fn a_changed_workflow_fails_the_same_replay() {
    run(async {
        let options = WorkflowReplayerOptions::new().register_workflow::<Changed>().unwrap().build();
        let replayer = WorkflowReplayer::new(options).unwrap();
        for (name, file) in stored() {
            let failure = replayer.replay_workflow(read(&file)).await;
            let failure = failure.err().unwrap_or_else(|| panic!("{name} replays on a changed workflow")).to_string();
            let text = failure.to_lowercase();
            assert!(text.contains("nondeterminis") || text.contains("non-determinis"), "{name}: {failure}");
        }
    });
}
