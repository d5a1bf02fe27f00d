//! Who is shown what: the model, the event history, request cards, the final answer, a page of a stored result. What is
//! not revealed is masked everywhere, and the record says which classes were shown.

use mandate_domain::{Content, DataClass, RecordBody, ToolCallOutcome};
use mandate_workflows::contract::ModelCallOutcome;

use super::{
    run::{BO, READ, Run, refund},
    world::{Folder, on_both_engines},
};

const CUSTOMER: &str = r#"{ tool = "customers.read", arguments = { customer_id = "c1" } }"#;
const PAGE: &str = r#"{ tool = "read_result", arguments = { call = "t1.0" } }"#;
const EMAIL: &str = "office@bakery.example";
/// The agent sees what nobody else does.
const SEES_CONTACT: &str = "@id(\"see.contact\") permit (principal in Mandate::Tenant::\"acme\", \
    action == Mandate::Action::\"reveal\", resource == Mandate::DataClass::\"contact\");";

/// A model that proposes these calls, one turn each, and then says whether it read `word`.
fn looking_for(word: &str, calls: &[&str]) -> Folder {
    let mut replies: Vec<String> = calls.iter().map(|call| format!("calls = [{call}]")).collect();
    replies.push(format!("when = {word:?}\ntext = \"It is there.\""));
    replies.push("text = \"It is not there.\"".to_owned());
    Folder::replying(&replies.iter().map(String::as_str).collect::<Vec<_>>())
}

fn named(classes: &[DataClass]) -> Vec<&str> {
    classes.iter().map(DataClass::as_str).collect()
}

async fn said(run: &mut Run<'_>) -> String {
    run.turn().await.text.unwrap().shown().to_owned()
}

async fn a_field_that_is_not_revealed_is_masked_for_the_model_and_the_record_says_so() {
    let world = looking_for("[withheld: contact]", &[CUSTOMER]).world().await;
    let mut run = Run::proposed(&world).await;
    let shown = run.returned("t1.0").await;
    assert!(shown.contains("c1") && shown.contains("[withheld: contact]") && !shown.contains(EMAIL), "{shown}");
    assert_eq!(said(&mut run).await, "It is there.");
    let bodies = world.bodies(&run.opened.run).await;
    let outcome = bodies.iter().find_map(|body| match body {
        RecordBody::Outcome { effect, classes, withheld, result, .. } if effect.to_string() == "t1.0" => {
            Some((named(classes), named(withheld), result.clone()))
        }
        _ => None,
    });
    let (classes, withheld, result) = outcome.unwrap();
    assert_eq!((classes, withheld), (vec!["order"], vec!["contact"]));
    let stored = world.store.content("acme", &result).await.unwrap().unwrap();
    assert!(stored.contains(EMAIL), "the record points at what came back: {stored}");
}

async fn a_revealed_field_reaches_the_model_and_not_the_history() {
    let world = looking_for(EMAIL, &[CUSTOMER]).policy("contact", SEES_CONTACT).world().await;
    let mut run = Run::proposed(&world).await;
    let ToolCallOutcome::Returned { result, .. } = run.call("t1.0").await else { panic!("not returned") };
    assert_eq!((result.text.clone(), result.shown()), (None, "[withheld: contact]"), "{result:?}");
    // A reply carries what its model has read, and the final answer may not carry it.
    let answer: Content = run.turn().await.text.unwrap();
    assert_eq!((answer.text.clone(), answer.shown()), (None, "[withheld: contact]"), "{answer:?}");
    let stored = world.store.content("acme", &answer.address).await.unwrap();
    assert_eq!(stored.as_deref(), Some("It is there."));
}

async fn what_the_model_repeats_is_withheld_from_history_also_in_an_error_and_as_the_name_of_a_tool() {
    let repeats = format!(
        r#"{{ tool = "orders.read", arguments = {{ order_id = "{EMAIL}" }} }}, {{ tool = "{EMAIL}", arguments = {{}} }}"#
    );
    let world = looking_for(EMAIL, &[CUSTOMER, &repeats]).policy("contact", SEES_CONTACT).world().await;
    let mut run = Run::proposed(&world).await;
    run.call("t1.0").await;
    let turn = run.turn().await;
    let named: Vec<&str> = turn.calls.iter().map(|call| call.tool.as_str()).collect();
    assert_eq!(named, ["orders.read", "[withheld: contact]"]);
    let ToolCallOutcome::Returned { result, is_error: true } = run.call("t2.0").await else { panic!("no error") };
    assert_eq!((result.text.clone(), result.shown()), (None, "[withheld: contact]"));
    let ToolCallOutcome::Refused { result, refusal } = run.call("t2.1").await else { panic!("not refused") };
    assert!(result.shown().contains("tool `[withheld: contact]` is not offered"), "{result:?} {refusal:?}");
    let recorded = format!("{:?}", world.bodies(&run.opened.run).await);
    assert!(!recorded.contains(EMAIL), "{recorded}");
    assert_eq!(said(&mut run).await, "[withheld: contact]");
}

async fn what_is_revealed_no_more_is_withheld_from_the_next_model_call() {
    let world = looking_for("[withheld: order", &[READ]).world().await;
    let mut run = Run::proposed(&world).await;
    assert!(run.returned("t1.0").await.contains("EUR"));
    world.policy(
        "order",
        "@id(\"no.orders\") forbid (principal is Mandate::Agent, action == Mandate::Action::\"reveal\", \
         resource == Mandate::DataClass::\"order\");",
    );
    run.next_worker().await;
    assert_eq!(said(&mut run).await, "It is there.");
}

async fn a_page_of_a_stored_result_is_masked_like_the_result() {
    let world = looking_for("[withheld: contact]", &[CUSTOMER, PAGE]).world().await;
    let mut run = Run::proposed(&world).await;
    run.returned("t1.0").await;
    run.turn().await;
    let page = run.returned("t2.0").await;
    assert!(page.contains("\"pages\":1") && page.contains("[withheld: contact]") && !page.contains(EMAIL), "{page}");
    assert_eq!(said(&mut run).await, "It is there.");
}

async fn no_page_is_read_of_what_is_no_result_of_this_run() {
    for call in ["t9.0", "x", "t2.0"] {
        let page = PAGE.replace("t1.0", call);
        let world = Folder::proposing(&[READ, &page]).world().await;
        let mut run = Run::proposed(&world).await;
        run.returned("t1.0").await;
        let ToolCallOutcome::Returned { result, is_error: true } = run.call("t1.1").await else { panic!("{call}") };
        assert!(result.shown().starts_with("error: "), "{result:?}");
    }
}

async fn a_card_shows_what_all_of_its_approver_groups_may_see() {
    let world = Folder::proposing(&[&refund(50_000)])
        .policy(
            "cards",
            "@id(\"cards.payment\") forbid (principal is Mandate::Group, action == Mandate::Action::\"reveal\", \
             resource == Mandate::DataClass::\"payment\");",
        )
        .world()
        .await;
    let mut run = Run::proposed(&world).await;
    let asked = run.asked("t1.0").await;
    let card = &asked[0].arguments_shown;
    assert!(card.contains("[withheld: payment]") && card.contains("o1") && !card.contains("50000"), "{card}");
}

async fn a_provider_that_may_not_see_what_was_read_is_not_asked() {
    let world = Folder::proposing(&[READ])
        .policy(
            "providers",
            "@id(\"stay\") @reason(\"orders stay in the house\") forbid (principal, \
             action == Mandate::Action::\"invoke_model\", resource in Mandate::Provider::\"scripted\") \
             when { context.classes.contains(Mandate::DataClass::\"order\") };",
        )
        .world()
        .await;
    let mut run = Run::proposed(&world).await;
    run.returned("t1.0").await;
    let Ok(ModelCallOutcome::Denied { reason }) = run.try_turn().await else { panic!("asked") };
    assert_eq!(reason, "orders stay in the house");
}

/// The example with an agent that submits its answers, which people review below 80 percent.
fn submitting(replies: &[&str]) -> Folder {
    Folder::replying(replies)
        .write(
            "tools/submit_answer.toml",
            "name = \"submit_answer\"\ndescription = \"End with this answer.\"\nowner = \"platform@acme.example\"\n\
             read_only = true\nopen_world = false\nbuiltin = \"submit_answer\"\n",
        )
        .edit("tenants/acme/support/refunds/agent.toml", "\"clock\"]", "\"clock\", \"submit_answer\"]")
        .policy(
            "answers",
            "@id(\"answer.unsure\") @decision(\"require_approval\") @approvers(\"finance-leads\") \
             @reason(\"answers below 80 percent are reviewed\")\n\
             forbid (principal, action == Mandate::Action::\"submit_answer\", resource)\n\
             when { if context.input has confidence_percent then context.input.confidence_percent < 80 else true }\n\
             unless { context.approved.contains(\"answer.unsure\") };",
        )
}

fn submit(confidence: &str) -> String {
    format!(r#"calls = [{{ tool = "submit_answer", arguments = {{ answer = "Paid."{confidence} }} }}]"#)
}

async fn an_answer_is_submitted_through_the_same_gate_as_everything_else() {
    let sure = submit(", confidence_percent = 90");
    let world = submitting(&[&sure]).world().await;
    let mut run = Run::open(&world).await;
    assert!(run.turn().await.calls[0].submits_answer);
    assert_eq!(run.returned("t1.0").await, "Paid.");

    for unsure in [submit(", confidence_percent = 79"), submit(""), "text = \"Paid.\"".to_owned()] {
        let world = submitting(&[&unsure]).world().await;
        let mut run = Run::open(&world).await;
        let turn = run.turn().await;
        assert!(turn.text.is_none() && turn.calls[0].submits_answer, "{unsure}: {turn:?}");
        let asked = run.asked("t1.0").await;
        assert_eq!(asked[0].gate.id.as_str(), "answer.unsure", "{unsure}");
        run.approve(&asked[0], BO).await;
        assert_eq!(run.returned("t1.0").await, "Paid.", "{unsure}");
    }
}

on_both_engines! {
    a_field_that_is_not_revealed_is_masked_for_the_model_and_the_record_says_so
    a_revealed_field_reaches_the_model_and_not_the_history
    what_the_model_repeats_is_withheld_from_history_also_in_an_error_and_as_the_name_of_a_tool
    what_is_revealed_no_more_is_withheld_from_the_next_model_call
    a_page_of_a_stored_result_is_masked_like_the_result
    no_page_is_read_of_what_is_no_result_of_this_run
    a_card_shows_what_all_of_its_approver_groups_may_see
    a_provider_that_may_not_see_what_was_read_is_not_asked
    an_answer_is_submitted_through_the_same_gate_as_everything_else
}
