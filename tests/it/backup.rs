//! Backing up and restoring a store, by the commands on the page about operations; and an old copy, which is refused.

use std::{fs, path::Path};

use mandate_activities::test_postgres;
use mandate_tests::{On, Scenario, program, run, say, until, workspace_folder};

use crate::frozen::registered_as;

/// The commands of a block on the page that begins with this comment.
fn commands(first: &str) -> String {
    let page = fs::read_to_string(workspace_folder().join("docs/operations.md")).unwrap();
    let from = page.find(first).unwrap_or_else(|| panic!("`{first}` is not on the page"));
    let block = &page[from..];
    block[..block.find("```").unwrap()].to_owned()
}

/// Runs them as an operator does, in the operating folder.
async fn carry_out(scenario: &Scenario, script: &str, env: &[(&str, &str)]) {
    let shell = Path::new("/bin/sh");
    say(shell, &["-euc", script], env, &scenario.path("")).await.ok();
}

/// A backup is made while a run waits for two decisions and another for one. The first goes on, and the backup is put
/// back: that run is refused, and what it did since is not done again. The other one, which had not gone on, does.
async fn a_restored_store_serves_the_runs_that_it_knows_to_their_last_record(on: On, backup: &str, restore: &str) {
    let name = format!("backup-{on:?}").to_lowercase();
    let scenario = Scenario::on(on, &name).await;
    let path = format!("{}:{}", programs(on), std::env::var("PATH").unwrap());
    let url = scenario.database_url();
    let env = [("PATH", path.as_str()), ("MANDATE_DATABASE_URL", url.as_str())];
    let worker = scenario.start_worker().await;
    scenario.start_run("Refund order o5").await;
    let pending = until("both calls wait", async || {
        let pending = scenario.pending().await;
        (pending.len() == 2).then_some(pending)
    })
    .await;
    let untouched = scenario.of_run(&format!("{name}-untouched"));
    untouched.start("Refund order o1").await;
    let other = untouched.first_request().await.unwrap();
    carry_out(&scenario, &commands(backup), &env).await;
    carry_out(&scenario, &commands("# back up the keys"), &env).await;

    scenario.approve(&pending[0].request_id, "bo@acme.example").await;
    until("the first is recorded as paid", async || {
        (scenario.payments().await.len() == 1 && scenario.pending_now().await?.len() == 1).then_some(())
    })
    .await;
    worker.stop().await;
    carry_out(&scenario, &commands(restore), &env).await;
    fs::remove_dir_all(scenario.path("var/keys")).unwrap();
    carry_out(&scenario, &commands("# restore the keys"), &env).await;

    let _worker = scenario.start_worker().await;
    scenario.approve(&pending[1].request_id, "bo@acme.example").await;
    scenario.wait_closed().await;
    let history = scenario.temporal(&["workflow", "show", "--workflow-id", &name, "-o", "json"]).await.ok();
    assert!(history.contains("store_behind_run"), "{history}");
    assert_eq!(scenario.payments().await.len(), 1, "nothing was paid without the newer records");
    untouched.approve(&other, "bo@acme.example").await;
    untouched.answer().await;
    assert_eq!(scenario.payments().await.len(), 2);
}

fn programs(on: On) -> String {
    match on {
        On::Sqlite => String::new(),
        On::Postgres => test_postgres::shared().programs().display().to_string(),
    }
}

#[test]
fn a_file_is_backed_up_and_restored_by_the_commands_on_the_page() {
    run(a_restored_store_serves_the_runs_that_it_knows_to_their_last_record(
        On::Sqlite,
        "# back up a file",
        "# restore a file",
    ));
}

#[test]
fn a_database_is_backed_up_and_restored_by_the_commands_on_the_page() {
    run(a_restored_store_serves_the_runs_that_it_knows_to_their_last_record(
        On::Postgres,
        "# back up a database",
        "# restore a database",
    ));
}

/// A call waits for its server when the backup is made. It is performed after that, and the backup is put back before the
/// worker could say what came of it: the next attempt is told where the chain stood, and that this store has less.
#[test]
fn a_call_that_was_under_way_when_the_store_was_copied_is_not_sent_again() {
    run(async {
        let scenario = Scenario::new("backup-in-flight").await;
        // Of the kind that is never repeated, behind a server that starts late.
        registered_as(&scenario, "read_only = false\nidempotent = false");
        let refunds = program("refunds-mcp").display().to_string();
        let late = format!("test -e var/up || exit 3; exec '{refunds}' --database var/payments.db --delay-ms 60000");
        let first = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        first.stop().await;
        scenario.set_server(&["/bin/sh", "-c", &late]);
        let second = scenario.start_worker().await;
        scenario.approve(&request, "bo@acme.example").await;
        let attempts = async || {
            let raw = scenario.describe().await.into_raw();
            raw.pending_activities.into_iter().find(|activity| activity.attempt >= 2)
        };
        until("the call waits for its server", attempts).await;
        let path = std::env::var("PATH").unwrap();
        carry_out(&scenario, &commands("# back up a file"), &[("PATH", &path)]).await;

        fs::write(scenario.path("var/up"), "").unwrap();
        until("it is paid", async || (scenario.payments().await.len() == 1).then_some(())).await;
        until("the attempt has said where the chain stands", async || {
            let beats = attempts().await?.heartbeat_details?;
            String::from_utf8_lossy(&beats.payloads.first()?.data).contains("records").then_some(())
        })
        .await;
        second.kill().await;
        carry_out(&scenario, &commands("# restore a file"), &[("PATH", &path)]).await;

        scenario.server_command(&[]);
        let _third = scenario.start_worker().await;
        scenario.wait_closed().await;
        let history =
            scenario.temporal(&["workflow", "show", "--workflow-id", &scenario.name, "-o", "json"]).await.ok();
        assert!(history.contains("store_behind_run"), "{history}");
        assert_eq!((scenario.payments().await.len(), scenario.refund_calls().await.len()), (1, 1), "not sent again");
    });
}
