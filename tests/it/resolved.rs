//! A person says what became of a call whose outcome nobody knows, with the program: the payment was made, and the worker
//! that waited for its answer is dead.

use mandate_domain::{
    Resolution,
    audit::{Proof, RecordBody},
};
use mandate_tests::{Process, Scenario, run, until};
use serde_json::Value;

use crate::frozen::registered_as;

const BO: &str = "bo@acme.example";
const CALL: &str = "t2.0";
/// A tool that is never called again, and that nothing can be asked about.
pub(super) const PLAIN: &str = "read_only = false\nidempotent = false\ntimeout_secs = 10";

/// Pays, and loses the answer: the run's first worker is killed while the tool holds it. Returns the second one.
pub(super) async fn paid_without_an_answer(run: &Scenario) -> Process {
    let before = run.payments().await.len();
    run.server_command(&["--delay-ms", "60000"]);
    let first = run.start_worker().await;
    run.start("Refund order o2").await;
    until("it is paid", async || (run.payments().await.len() > before).then_some(())).await;
    first.kill().await;
    run.server_command(&[]);
    let second = run.start_worker().await;
    run.wait_state("OutcomeUnknown").await;
    second
}

/// The only word about a call, as (resolution, who, how they were proved, why it does not count).
async fn word(scenario: &Scenario) -> (Resolution, String, Proof, Option<String>) {
    let recorded = scenario.records_where(|body| matches!(body, RecordBody::Resolved { .. })).await;
    let [record] = &recorded[..] else { panic!("{recorded:#?}") };
    let RecordBody::Resolved { effect, resolution, by, proof, refused, .. } = &record.body else {
        panic!("{record:?}")
    };
    assert_eq!((effect.to_string().as_str(), record.who.on_behalf_of.as_str()), (CALL, "ana@acme.example"));
    (*resolution, by.to_string(), *proof, refused.clone())
}

#[test]
fn a_person_says_that_it_happened_with_the_card_in_view() {
    run(async {
        let scenario = Scenario::new("resolve-command").await;
        registered_as(&scenario, PLAIN);
        let told = "when = \"refunded\"\ntext = \"I refunded 45.00";
        scenario.edit("scripts/refunds.toml", told, &told.replace("\"refunded\"", "\"was performed\""));
        let _worker = paid_without_an_answer(&scenario).await;
        let listed = scenario.mandate(&["approvals", "--output", "json"]).await.ok();
        let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        let own = listed.iter().find(|one| one["workflow_id"] == scenario.name.as_str());
        assert!(own.is_some_and(|own| own["kind"] == "unknown_outcome" && own["call"] == CALL), "{listed:?}");
        let card = scenario.status().await.unknown_calls.remove(0).card;
        assert!(card.contains(CALL) && card.contains("payments.refund"), "{card}");

        let resolve = ["resolve", &scenario.name, CALL, "happened", "--by", BO];
        let said = scenario.mandate(&resolve).await;
        assert!(said.code == 2 && said.stderr.contains(card.trim()), "there is nobody to ask: {said:?}");
        let nothing_yet = async || {
            let recorded = scenario.records_where(|body| matches!(body, RecordBody::Resolved { .. })).await;
            assert!(recorded.is_empty(), "nothing is sent unasked: {recorded:?}");
        };
        let said = scenario.mandate_at_terminal(&resolve, nothing_yet, "y").await;
        assert_eq!(said.code, 0, "{said:?}");
        let places = [card.trim(), "say that t2.0 happened? [y/N]"].map(|part| said.stderr.find(part));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "the card, then the question: {said:?}");

        assert!(scenario.answer().await.contains("I refunded 45.00 EUR"), "the agent is told");
        assert_eq!(word(&scenario).await, (Resolution::Happened, BO.into(), Proof::Claimed, None));
        assert_eq!(
            (scenario.payments().await.len(), scenario.refund_calls().await.len()),
            (1, 1),
            "it is not sent again"
        );
        let late = scenario.mandate(&[&resolve[..], &["--yes"]].concat()).await;
        assert!(late.code == 3 && late.stderr.contains("is not unknown in this run"), "{late:?}");
        scenario.audit_verify().await.ok();
    });
}

#[test]
fn a_person_who_is_proved_lets_the_run_go_on_without_it() {
    run(async {
        let scenario = Scenario::new("resolve-key").await;
        scenario.accept_keys();
        registered_as(&scenario, PLAIN);
        let _worker = paid_without_an_answer(&scenario).await;
        let key = "keys/bo@acme.example.pem";
        scenario.mandate(&["resolve", &scenario.name, CALL, "skip", "--by", BO, "--key", key, "--yes"]).await.ok();
        scenario.answer().await;
        assert_eq!(word(&scenario).await, (Resolution::Skip, BO.into(), Proof::Key, None));
        assert_eq!(scenario.refund_calls().await.len(), 1, "it is not sent again");
        scenario.audit_verify().await.ok();
    });
}
