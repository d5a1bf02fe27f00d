//! What docs/operations.md tells an operator to type does what it says there.

use std::{fs, os::unix::fs::symlink};

use mandate_tests::{Scenario, run};
use serde_json::Value;

use crate::docs::{Desk, blocks};

/// The digest that the page shows, which is another in every folder.
const SHOWN: &str = "3f9c2a71";

#[test]
fn policies_are_applied_and_rolled_back_and_tools_locked_up_as_the_page_says() {
    run(async {
        let scenario = Scenario::new("operations").await;
        scenario.in_production();
        let desk = Desk::new("operator").await;
        fs::create_dir(desk.path().join("examples")).unwrap();
        symlink(scenario.path(""), desk.path().join("examples/refunds")).unwrap();
        let blocks = blocks("docs/operations.md");
        let [apply, rollback, quarantine] = &blocks[..] else { panic!("{blocks:#?}") };
        let says = async |typed: &str, parts: &[&str]| {
            let said = desk.types(typed).await.ok();
            for part in parts {
                assert!(said.contains(part), "`{part}` is missing:\n{said}");
            }
        };
        says(apply, &["none → version 1", "+ policy refund.large", "active now: version 1", "the first policies"])
            .await;

        let listed = scenario.mandate(&["bundles", "--output", "json"]).await.ok();
        let first = serde_json::from_str::<Value>(&listed).unwrap()[0]["digest"].as_str().unwrap()[..8].to_owned();
        scenario.edit("policies/refunds.cedar", "amount_cents > 10000", "amount_cents > 5000");
        scenario.mandate(&["apply", "--by", "kim@acme.example", "--yes"]).await.ok();
        assert!(rollback.contains(SHOWN), "{rollback}");
        says(&rollback.replace(SHOWN, &first), &["~ policy refund.large", &format!("active now: version 3, {first}")])
            .await;

        let target = "tool:payments.refund";
        let [locked, freed] =
            ["is in quarantine", "is not in quarantine any more"].map(|what| format!("{target} {what}"));
        says(quarantine, &[&locked, "pays twice", &freed]).await;
    });
}
