//! A person who opens the waiting run in Temporal's Web UI reads what is asked.

use std::path::Path;

use mandate_tests::{Scenario, run, say, workspace_folder};

/// A variable that `tools/test` sets.
pub(crate) fn prepared(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; run the tests by `tools/test`, which prepares it"))
}

#[test]
fn the_web_ui_shows_the_pending_request_and_then_the_answer() {
    run(async {
        let chromium = prepared("MANDATE_CHROMIUM");
        prepared("MANDATE_NODE_MODULES");
        let scenario = Scenario::new("web-ui").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        let page = scenario.server.page(&scenario.name, scenario.describe().await.run_id());
        let script = workspace_folder().join("tests/node/waiting-run.mjs");
        let shot = scenario.path("page.png");
        let folder = workspace_folder().join("tests/node");
        let shows = async |text: &str, tab: &str| {
            let arguments = ["node", script.to_str().unwrap(), &page, text, shot.to_str().unwrap(), tab];
            let said = say(Path::new("/usr/bin/env"), &arguments, &[("MANDATE_CHROMIUM", &chromium)], &folder).await;
            assert_eq!(said.code, 0, "{said:?}");
        };
        shows(&format!("Request {request}"), "User Metadata").await;
        scenario.approve(&request, "bo@acme.example").await;
        let result = scenario.result().await;
        shows(result["answer"]["text"].as_str().unwrap(), "History").await;
    });
}
