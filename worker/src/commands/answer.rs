//! `mandate answer`: answers a question of an agent, with the question in view. Needs Temporal, never the store.

use mandate_domain::{Instruction, QuestionId, render};
use mandate_workflows::snapshot::PendingQuestion;

use super::{ask, card, sender, tell::Conversation};
use crate::{
    cli::{Answer, Global, ToRun},
    output::{self, Exit, Refused, UsageError},
};

/// Shows the question, asks, and sends the answer.
///
/// # Errors
/// [`Refused`] when no such question waits or the answer does not count; [`UsageError`] for a way of proof that the run
/// does not accept, or without a terminal where something has to be asked.
pub async fn answer(global: &Global, options: Answer) -> anyhow::Result<Exit> {
    let Answer { run: ToRun { workflow_id, sender, yes }, text, question } = options;
    let run = Conversation::with(global, &workflow_id).await?;
    let question = choose(&run.status.questions, question.as_ref())?;
    let sender = run.sender(sender)?;
    output::note(card::question(question));
    let typed = text.is_none();
    let text = match text {
        Some(text) => text,
        None => ask::line("Your answer:", "give the answer behind the workflow id")?,
    };
    let text = meant(text, &card::options(question));
    sender::check_text(&text)?;
    let question: QuestionId = question.question_id.parse()?;
    let asked = format!("answer {question} with `{}`?", render::escape_line(&text));
    // Whoever has just typed it, below the question, has confirmed it.
    let asked = Some(asked.as_str()).filter(|_| !yes && !typed);
    run.tell(&sender, &Instruction::Answer { question, text }, asked).await
}

/// The question that is meant.
fn choose<'a>(waiting: &'a [PendingQuestion], wanted: Option<&QuestionId>) -> anyhow::Result<&'a PendingQuestion> {
    let ids = || waiting.iter().map(|question| question.question_id.as_str()).collect::<Vec<_>>().join(", ");
    match (waiting, wanted) {
        ([], _) => Err(Refused("no question waits in this run".to_owned()).into()),
        ([only], None) => Ok(only),
        (_, None) => Err(UsageError(format!("{} questions wait; add --question: {}", waiting.len(), ids())).into()),
        (_, Some(wanted)) => waiting
            .iter()
            .find(|question| question.question_id == wanted.as_str())
            .ok_or_else(|| Refused(format!("question `{wanted}` does not wait; waiting: {}", ids())).into()),
    }
}

/// The answer: the text, or the option with this number. A text that is an option itself is never a number.
fn meant(text: String, options: &[String]) -> String {
    let number = text.trim().parse::<usize>().ok().filter(|_| !options.contains(&text));
    match number.and_then(|number| options.get(number.checked_sub(1)?)) {
        Some(option) => option.clone(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::card::tests::waiting;

    fn check(ids: &[&str], wanted: Option<&str>) -> Result<String, String> {
        let all: Vec<_> = ids.iter().map(|id| waiting(id, &json!({ "question": "Refund him?" }))).collect();
        let wanted = wanted.map(|id| id.parse::<QuestionId>().unwrap());
        choose(&all, wanted.as_ref()).map(|one| one.question_id.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_question_may_be_left_out_while_only_one_waits() {
        assert_eq!(check(&["q1-aaaaaa"], None), Ok("q1-aaaaaa".into()));
        assert_eq!(check(&["q1-aaaaaa", "q2-bbbbbb"], Some("q2-bbbbbb")), Ok("q2-bbbbbb".into()));
        assert_eq!(check(&[], None), Err("no question waits in this run".into()));
        let both = Err("2 questions wait; add --question: q1-aaaaaa, q2-bbbbbb".into());
        assert_eq!(check(&["q1-aaaaaa", "q2-bbbbbb"], None), both);
        let missing = Err("question `q3-cccccc` does not wait; waiting: q1-aaaaaa".into());
        assert_eq!(check(&["q1-aaaaaa"], Some("q3-cccccc")), missing);
    }

    #[test]
    fn an_option_is_chosen_by_its_number() {
        let check = |text: &str, options: &[&str], expected: &str| {
            let options: Vec<_> = options.iter().map(|option| (*option).to_owned()).collect();
            assert_eq!(meant(text.to_owned(), &options), expected, "{text} of {options:?}");
        };
        check("2", &["yes", "no"], "no");
        check(" 1 ", &["yes", "no"], "yes");
        check("no", &["yes", "no"], "no");
        check("2", &[], "2");
        check("1", &["2", "1"], "1");
        for none in ["0", "3", "-1", "20 EUR"] {
            check(none, &["yes", "no"], none);
        }
    }
}
