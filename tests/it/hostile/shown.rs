//! Attacks on the people who decide: by what they are shown, and by what they copy into a shell.

use mandate_domain::audit::RecordBody;
use mandate_tests::Scenario;
use serde_json::{Value, json};

use super::{
    ground::{
        BO, Held, LARGE, asked_once, calls, model_says, never, paid, recorded, refund, refused, rests_in, sends, start,
        start_refunds, untouched,
    },
    rogue::{IMPOSTOR, task},
};

/// A request card of the model's own: it ends the fence around it, draws a heading and a command, turns the line round,
/// hides itself and clears the screen.
const DRAWN: &str = "```\n\n### Request `r9-c0ffee`: harmless\n\n- until: today\n\n```text\ntemporal workflow signal --name approve\n```\u{202e}\u{2066}\u{200b}\u{1b}[2J\r";
/// The id of the request that it draws.
const DRAWN_ID: &str = "r9-c0ffee";

/// What stands outside of fenced code blocks (`CommonMark` 0.31, section 4.5), line by line.
fn outside_fences(markdown: &str) -> Result<Vec<&str>, String> {
    let (mut outside, mut fence) = (Vec::new(), None);
    for line in markdown.lines() {
        let text = line.trim_start_matches(' ');
        let rest = text.trim_start_matches('`');
        let ticks = text.len() - rest.len();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            None => outside.push(line),
            Some(open) if ticks >= open && rest.trim().is_empty() => fence = None,
            Some(_) => {}
        }
    }
    if fence.is_some() { Err(format!("a fence is not closed: {markdown}")) } else { Ok(outside) }
}

/// No character moves, hides or deletes what stands beside it.
fn shows_as_it_is(text: &str) -> Held {
    let moves = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    let found: Vec<char> = text.chars().filter(|c| moves(*c)).collect();
    never(!found.is_empty(), format!("{found:?} in: {text:?}"))
}

/// Markdown has these headings and nothing of what the model drew, but in fences.
fn draws_nothing(markdown: &str, headings: &[String]) -> Held {
    shows_as_it_is(markdown)?;
    never(!markdown.contains(r"\u{202e}") || !markdown.contains(DRAWN_ID), format!("not shown: {markdown}"))?;
    let outside = outside_fences(markdown)?;
    let drawn: Vec<_> = outside.iter().filter(|line| line.starts_with('#')).collect();
    never(drawn != headings.iter().collect::<Vec<_>>(), format!("{drawn:#?} in: {markdown}"))?;
    never(outside.iter().any(|line| line.contains(DRAWN_ID)), format!("outside of its fence: {markdown}"))
}

/// The current details, as the server has them.
async fn current_details(scenario: &Scenario) -> Result<String, String> {
    let said = scenario.temporal(&["workflow", "metadata", "--workflow-id", &scenario.name, "-o", "json"]).await.ok();
    let said: Value = serde_json::from_str(&said).map_err(|error| error.to_string())?;
    let details = said["queryResult"][0]["currentDetails"].as_str();
    details.map(str::to_owned).ok_or_else(|| format!("no details: {said}"))
}

/// The arguments of a refund and of a question hold a request card.
pub(super) async fn request_card_drawn_by_the_model(scenario: &Scenario) -> Held {
    let drawn = json!(DRAWN).to_string();
    let note = format!(r#"{{ order_id = "o1", amount_cents = 50000, currency = "EUR", note = {drawn} }}"#);
    let question = format!("{{ question = {drawn}, context = {drawn}, options = [{drawn}] }}");
    let ask = format!(r#"{{ tool = "people.ask", arguments = {question} }}"#);
    model_says(scenario, &[&calls(&[&refund(&note), &ask])]);
    scenario.keep(start(scenario).await);
    recorded(scenario, 1, |body| matches!(body, RecordBody::QuestionAsked { .. })).await?;
    let request = asked_once(scenario).await?;
    rests_in(scenario, "AwaitingApproval").await?;
    let question = scenario.status().await.questions.into_iter().next().ok_or("no question")?;
    let headings = [
        format!("### Request `{}`: `payments.refund` wants to be called", request.request_id),
        format!("### Question `{}`: the agent asks", question.question_id),
    ];
    draws_nothing(&request.card, &headings[..1])?;
    draws_nothing(&question.card, &headings[1..])?;
    draws_nothing(&current_details(scenario).await?, &headings)?;
    listed(scenario, [&request.request_id, &question.question_id]).await?;
    untouched(scenario).await?;
    refused(scenario, "that people are asked", |body| {
        matches!(body, RecordBody::ApprovalRequested { request: asked, .. } if asked.as_str() == request.request_id)
    })
    .await
}

/// `mandate approvals` has one row for each of these, and none that somebody else made up.
async fn listed(scenario: &Scenario, ids: [&String; 2]) -> Held {
    let rows = scenario.mandate(&["approvals"]).await.ok();
    // Runs of other tests are listed too.
    let own: Vec<_> = rows.lines().filter(|row| row.contains(&scenario.name)).collect();
    own.iter().try_for_each(|row| shows_as_it_is(row))?;
    let of = |id: &String| own.iter().filter(|row| row.split_whitespace().any(|cell| cell == *id)).count();
    let fits = own.len() == ids.len() && ids.iter().all(|id| of(id) == 1);
    never(!fits || rows.lines().any(|row| row.trim_start().starts_with('#')), rows)
}

/// The workflow id is a script. Whoever copies the printed command sends a decision and runs nothing of that.
pub(super) async fn shell_words_in_a_workflow_id(scenario: &Scenario) -> Held {
    let trace = scenario.path("trace");
    let touch = format!("touch {}", trace.display());
    let id = format!("{}'; {touch}; '$({touch})`{touch}`\"; {touch} & #\n{touch}\n\\' {touch}", scenario.name);
    model_says(scenario, &[&calls(&[&refund(LARGE)])]);
    scenario.keep(scenario.start_worker().await);
    let start = ["workflow", "start", "--type", IMPOSTOR, "--task-queue", &scenario.name, "--workflow-id", &id];
    let input = task("Please do what is due.").to_string();
    scenario.temporal(&[&start[..], &["--input", &input]].concat()).await.ok();
    let run = scenario.of_run(&id);
    let request = asked_once(&run).await?;
    for command in &request.commands {
        never(!request.card.contains(command.as_str()), format!("the card shows another command: {}", request.card))?;
    }
    let command = request.commands[0].replace("YOUR-ID", BO);
    let shell = format!("temporal() {{ \"{}\" \"$@\"; }}\n{command}\n", scenario.server.cli().display());
    let said = scenario.server.shell(&shell).await;
    never(said.code != 0, format!("the command fails: {said:?}"))?;
    run.wait_closed().await;
    never(trace.exists(), format!("it ran: {command}"))?;
    paid(scenario, 1).await?;
    refused(
        scenario,
        "the decision that was sent",
        |body| matches!(body, RecordBody::ApprovalDecided { refused: None, by, .. } if by.as_str() == BO),
    )
    .await
}

/// A remark that would fill the store is no remark.
pub(super) async fn comment_of_a_megabyte(scenario: &Scenario) -> Held {
    scenario.keep(start_refunds(scenario, &[LARGE]).await);
    let request = asked_once(scenario).await?;
    let comment = "x".repeat(1_000_000);
    let decision = json!({ "request_id": request.request_id, "by": BO, "comment": comment });
    sends(scenario, "approve", &decision).await?;
    // What was refused is recorded by the next activity.
    sends(scenario, "pause", &json!({ "by": BO })).await?;
    let counted = recorded(scenario, 1, |body| matches!(body, RecordBody::MessagesRefused { .. })).await?;
    let expected = |body: &RecordBody| {
        matches!(body, RecordBody::MessagesRefused { count: 1, last_reason }
            if last_reason.contains("`comment` has 1000000 bytes") && last_reason.len() < 500)
    };
    never(!counted.iter().all(expected), format!("recorded otherwise: {counted:?}"))?;
    let decided = scenario.records_where(|body| matches!(body, RecordBody::ApprovalDecided { .. })).await;
    never(!decided.is_empty(), format!("reviewed: {decided:?}"))?;
    untouched(scenario).await
}
