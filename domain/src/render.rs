//! What people are shown of a run: the current details in the Web UI and the request card on a terminal.
//!
//! INVARIANT (foreign text): whatever a model, a tool or a caller wrote is escaped, bounded and inside a code fence
//! that it cannot close, and every value in a printed command is quoted for a POSIX shell. A model must not be able to
//! draw a request card or to change the command that a person copies.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    AgentRun, Proof, Question, RunState, ToolCallId,
    agent_run::{Call, CallState, WaitingRequest},
};

/// Longest foreign text shown in one place, in characters.
const SHOWN_CHARS_MAX: usize = 4096;

/// Makes foreign text harmless: control, bidirectional and invisible characters become visible escapes, and the length
/// is bounded. Line breaks stay.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(SHOWN_CHARS_MAX));
    for (count, c) in text.chars().enumerate() {
        if count == SHOWN_CHARS_MAX {
            shown.push('…');
            break;
        }
        if is_harmless(c) { shown.push(c) } else { shown.extend(c.escape_unicode()) }
    }
    shown
}

/// Whether a character shows as what it is. Unicode TR 36 names the others: they reorder or hide what is beside them, or
/// look like nothing at all (Unicode's `Default_Ignorable_Code_Point`, and the braille blank).
fn is_harmless(c: char) -> bool {
    c == '\n'
        || !(c.is_control()
            || matches!(c, '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'))
}

/// Foreign text on one line.
#[must_use]
pub fn escape_line(text: &str) -> String {
    escape(text).replace('\n', "\\n")
}

/// Foreign text in a Markdown code fence longer than any run of backticks in it (the `CommonMark` specification 0.31, section 4.5).
#[must_use]
pub fn fence(text: &str) -> String {
    let text = escape(text);
    let ticks = "`".repeat(longest_backticks(&text).max(2) + 1);
    format!("{ticks}text\n{text}\n{ticks}\n")
}

/// Foreign text as a Markdown code span that it cannot close.
#[must_use]
pub fn code_span(text: &str) -> String {
    let text = escape_line(text);
    let ticks = "`".repeat(longest_backticks(&text) + 1);
    // A space on both sides belongs to the syntax when the text begins or ends with a backtick.
    let pad = if text.starts_with('`') || text.ends_with('`') || text.is_empty() { " " } else { "" };
    format!("{ticks}{pad}{text}{pad}{ticks}")
}

fn longest_backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A JSON object as its text says it, with each of its members on its own line. Other text stays as it is.
#[must_use]
pub fn members(json: &str) -> String {
    let Some(inner) = json.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else { return json.to_owned() };
    if inner.is_empty() {
        return json.to_owned();
    }
    let mut shown = String::from("{\n  ");
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for c in inner.chars() {
        shown.push(c);
        if quoted {
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => quoted = true,
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => shown.push_str("\n  "),
            ':' if depth == 0 => shown.push(' '),
            _ => {}
        }
    }
    shown.push_str("\n}");
    shown
}

/// A value quoted for a POSIX shell (IEEE Std 1003.1, 2.2.2 Single-Quotes). Plain words stay as they are.
#[must_use]
pub fn shell_quote(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':' | '@' | '=' | ',' | '+');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// How whoever types a command shows who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// They say so.
    Says,
    /// The server they send it to knows them.
    Known,
    /// They sign, or bring a token, which `mandate` does for them.
    Proves(&'static str),
}

impl Shown {
    /// The first way that is accepted and that a person can type.
    fn of(accepts: &[Proof]) -> Self {
        if accepts.contains(&Proof::Principal) {
            Self::Known
        } else if accepts.contains(&Proof::Key) {
            Self::Proves("--by YOUR-ID --key YOUR-KEY-FILE")
        } else if accepts.contains(&Proof::Jwt) {
            Self::Proves("--token file:YOUR-TOKEN-FILE")
        } else {
            Self::Says
        }
    }

    /// What a person has to put into the command before they type it.
    fn advice(self) -> &'static str {
        match self {
            Self::Says => ", with your id in place of YOUR-ID",
            Self::Known => ", with your own access to Temporal",
            Self::Proves(_) => ", with what is yours in place of YOUR-…",
        }
    }

    /// A signal by the Temporal CLI where that is enough, else the command of `mandate` with what it needs.
    fn command(self, workflow_id: &str, signal: &str, fields: &str, mandate: &Typed) -> String {
        match self {
            Self::Says => signal_command(workflow_id, signal, &format!(r#"{{{fields},"by":"YOUR-ID"}}"#)),
            Self::Known => signal_command(workflow_id, signal, &format!("{{{fields}}}")),
            Self::Proves(how) => mandate.about(workflow_id, how),
        }
    }
}

/// A command of `mandate` about a run, without the run.
struct Typed {
    verb: &'static str,
    /// What stands behind the workflow id.
    words: String,
    options: String,
}

impl Typed {
    fn about(&self, workflow_id: &str, how: &str) -> String {
        let Self { verb, words, options } = self;
        let id = shell_quote(workflow_id);
        // An id that looks like an option is none behind `--`.
        let parts = if workflow_id.starts_with('-') {
            ["mandate", verb, options, how, "--", &id, words]
        } else {
            ["mandate", verb, &id, words, options, how, ""]
        };
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// The commands that decide a request: approve and reject.
#[must_use]
pub fn decide_commands(workflow_id: &str, request_id: &str, accepts: &[Proof]) -> [String; 2] {
    ["approve", "reject"].map(|verb| {
        let mandate = Typed { verb, words: String::new(), options: format!("--request {request_id}") };
        let fields = format!(r#""request_id":"{request_id}""#);
        Shown::of(accepts).command(workflow_id, verb, &fields, &mandate)
    })
}

/// The command that answers a question.
#[must_use]
pub fn answer_command(workflow_id: &str, question_id: &str, accepts: &[Proof]) -> String {
    let fields = format!(r#""question_id":"{question_id}","text":"YOUR ANSWER""#);
    let (words, options) = ("'YOUR ANSWER'".to_owned(), format!("--question {question_id}"));
    let mandate = Typed { verb: "answer", words, options };
    Shown::of(accepts).command(workflow_id, "answer", &fields, &mandate)
}

/// The command that says what became of a call: that it happened, which whoever types it changes to what is true.
#[must_use]
pub fn resolve_command(workflow_id: &str, call: ToolCallId, accepts: &[Proof]) -> String {
    let fields = format!(r#""call":"{call}","resolution":"happened""#);
    let mandate = Typed { verb: "resolve", words: format!("{call} happened"), options: String::new() };
    Shown::of(accepts).command(workflow_id, "resolve", &fields, &mandate)
}

fn signal_command(workflow_id: &str, signal: &str, input: &str) -> String {
    let (workflow_id, input) = (shell_quote(workflow_id), shell_quote(input));
    format!("temporal workflow signal --workflow-id {workflow_id} --name {signal} --input {input}")
}

/// One request as a card, in Markdown.
#[must_use]
pub fn request_card(workflow_id: &str, waiting: &WaitingRequest, accepts: &[Proof]) -> String {
    let request = &waiting.request;
    let gate = &request.gate;
    let groups: Vec<_> = waiting.deciders().iter().map(|group| group.as_str().to_owned()).collect();
    let mut card = format!("### Request `{}`: {} wants to be called\n\n", request.id, code_span(&request.tool));
    let _ = writeln!(card, "- call `{}`, gate `{}`: {}", request.call, gate.id, code_span(&gate.reason));
    if request.call.revision > 1 {
        let _ = writeln!(card, "- an approver changed the arguments of `{}`", request.call.proposed());
    }
    if let Some(undone) = request.call.undoes() {
        let _ = writeln!(card, "- it undoes `{undone}`, because the run does not complete");
    }
    let _ = writeln!(card, "- who may decide: {}; {} of {} approved", groups.join(", "), waiting.votes, gate.quorum);
    let _ = writeln!(card, "- until: {} (UTC)", utc(waiting.deadline_ms));
    let _ = writeln!(card, "- digest of the arguments: `{}`", request.arguments);
    if let Some(digest) = &request.digest {
        let _ = writeln!(card, "- digest of the request, for proofs: `{digest}`");
    }
    let _ = writeln!(card, "\nArguments:\n\n{}", fence(&members(&request.arguments_shown)));
    let commands = decide_commands(workflow_id, request.id.as_str(), accepts).join("\n");
    let _ = writeln!(card, "Approve or reject{}:\n\n{}", Shown::of(accepts).advice(), fence(&commands));
    card
}

/// One question as a card, in Markdown.
#[must_use]
pub fn question_card(workflow_id: &str, question: &Question, accepts: &[Proof]) -> String {
    let asks = if is_of_a_server(&question.asked) { "a tool's server asks" } else { "the agent asks" };
    let mut card = format!("### Question `{}`: {asks}\n\n", question.id);
    let _ = writeln!(card, "- call `{}`\n- until: {} (UTC)\n", question.call, utc(question.expires_ms));
    card.push_str(&fence(&question_text(&question.asked)));
    let command = answer_command(workflow_id, question.id.as_str(), accepts);
    let _ = writeln!(card, "\nAnswer{}:\n\n{}", Shown::of(accepts).advice(), fence(&command));
    card
}

/// A call of which nobody knows whether it happened, as a card, in Markdown.
#[must_use]
pub fn unknown_card(workflow_id: &str, call: &Call, reason: &str, accepts: &[Proof]) -> String {
    let mut card = format!("### Nobody knows whether `{}` {} happened\n\n", call.id, code_span(&call.tool));
    let _ = writeln!(card, "{}", fence(reason));
    let command = resolve_command(workflow_id, call.id, accepts);
    let advice = "Look in the system of record, then say `happened`, `did_not_happen` or `skip`";
    let _ = writeln!(card, "{advice}{}:\n\n{}", Shown::of(accepts).advice(), fence(&command));
    card
}

/// Whether a tool's server asks: the runtime writes that beside what the server wrote.
fn is_of_a_server(asked: &str) -> bool {
    serde_json::from_str::<Value>(asked).is_ok_and(|asked| asked.get("server_of").is_some())
}

/// What is asked, line by line: the question, its context, and what there is to choose from.
fn question_text(asked: &str) -> String {
    let Ok(Value::Object(asked)) = serde_json::from_str(asked) else { return asked.to_owned() };
    let text = |key: &str| asked.get(key).and_then(Value::as_str).map(str::to_owned);
    let options = asked.get("options").and_then(Value::as_array).into_iter().flatten();
    let options = options.filter_map(Value::as_str).map(|option| format!("- {option}"));
    text("question").into_iter().chain(text("context")).chain(options).collect::<Vec<_>>().join("\n")
}

/// What the run is doing or waits for, in Markdown: Temporal's current details.
#[must_use]
pub fn details(run: &AgentRun, workflow_id: &str) -> String {
    let usage = run.usage();
    let mut text = format!(
        "**{}** · agent `{}` · on behalf of {}\n\n",
        run.state().as_str(),
        run.agent(),
        code_span(run.on_behalf_of().as_str())
    );
    let _ = writeln!(
        text,
        "Turn {}, {} tool calls, {} tokens in, {} out, {} audit records\n",
        run.turn(),
        run.tool_calls(),
        usage.input_tokens,
        usage.output_tokens,
        run.audit().records
    );
    if run.is_paused() {
        text.push_str("A person paused this run: nothing new begins until it is resumed.\n\n");
    }
    let accepts = run.accepts();
    for waiting in run.waiting_requests() {
        text.push_str(&request_card(workflow_id, waiting, &accepts));
    }
    for waiting in run.waiting_questions() {
        text.push_str(&question_card(workflow_id, &waiting.question, &accepts));
    }
    for call in run.calls() {
        call_line(&mut text, workflow_id, call, &accepts, run.takes_words());
    }
    undo_lines(&mut text, run);
    if let (count @ 1.., Some(reason)) = run.refusals() {
        let _ = writeln!(text, "{count} message(s) did not count; the last one:\n\n{}", fence(reason));
    }
    if run.state().is_terminal() && run.state() != RunState::Completed {
        let result = run.result();
        let reason = result.reason.map_or("", crate::EndReason::as_str);
        let _ = writeln!(text, "Ended: {reason}\n\n{}", fence(&result.detail.unwrap_or_default()));
    }
    text
}

/// What was undone of a run that did not complete, and what is left.
fn undo_lines(text: &mut String, run: &AgentRun) {
    for undone in run.undone() {
        let _ = writeln!(text, "- `{}` is {} by {}", undone.call, undone.state.as_str(), code_span(&undone.tool));
        if let Some(reason) = &undone.reason {
            let _ = writeln!(text, "\n{}", fence(reason));
        }
    }
    if run.left_to_undo() > 0 {
        let _ = writeln!(text, "- {} more call(s) are to be undone", run.left_to_undo());
    }
}

fn call_line(text: &mut String, workflow_id: &str, call: &Call, accepts: &[Proof], takes_words: bool) {
    match &call.state {
        CallState::Calling => {
            let _ = writeln!(text, "- `{}` {}: under way", call.id, code_span(&call.tool));
        }
        CallState::LookingUp { .. } => {
            let _ =
                writeln!(text, "- `{}` {}: lost; the store is asked what became of it", call.id, code_span(&call.tool));
        }
        CallState::Held { .. } => {
            let _ = writeln!(text, "- `{}` {}: held until the run is resumed", call.id, code_span(&call.tool));
        }
        CallState::Unknown { reason } if !takes_words => {
            let _ = writeln!(text, "- nobody knows whether `{}` {} happened", call.id, code_span(&call.tool));
            let _ = writeln!(text, "\n{}", fence(reason));
        }
        CallState::Unknown { reason } => text.push_str(&unknown_card(workflow_id, call, reason, accepts)),
        CallState::Waiting | CallState::Asked | CallState::Ended { .. } | CallState::Abandoned => {}
    }
}

/// `2026-11-21 09:52:00` from milliseconds since 1970-01-01 UTC.
#[must_use]
pub fn utc(ms: u64) -> String {
    let secs = ms / 1000;
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest % 3600 / 60, rest % 60)
}

/// Days since 1970-01-01 to a date of the proleptic Gregorian calendar, counted in years that begin in March, so that
/// the leap day is the last day of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_FROM_MARCH_0000: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days + DAYS_FROM_MARCH_0000;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_run_of_backticks_inside() {
        let shown = fence("a ``` b\n`````\n### Request");
        assert!(shown.starts_with("``````text\n") && shown.ends_with("\n``````\n"), "{shown}");
        assert!(fence("plain").starts_with("```text\n"));
    }

    #[test]
    fn a_code_span_cannot_be_closed_from_inside() {
        assert_eq!(code_span("a`b"), "``a`b``");
        assert_eq!(code_span("`"), "`` ` ``");
        assert_eq!(code_span("a\nb"), "`a\\nb`");
    }

    #[test]
    fn control_and_bidi_characters_become_visible() {
        assert_eq!(escape("a\u{1b}[2J\u{202e}b\r"), "a\\u{1b}[2J\\u{202e}b\\u{d}");
        assert_eq!(escape("1\u{3164}0\u{fe0f}0\u{2800}"), "1\\u{3164}0\\u{fe0f}0\\u{2800}");
        assert_eq!(escape("äöü €"), "äöü €");
        assert_eq!(escape(&"x".repeat(5000)).chars().count(), SHOWN_CHARS_MAX + 1);
    }

    #[test]
    fn a_workflow_id_with_shell_metacharacters_stays_one_word() {
        assert_eq!(shell_quote("refund-o1"), "refund-o1");
        assert_eq!(shell_quote("a'; rm -rf $HOME; '"), r"'a'\''; rm -rf $HOME; '\'''");
        assert_eq!(shell_quote(""), "''");
    }

    #[test]
    fn the_printed_command_fits_how_people_are_proved() {
        let shown = |accepts: &[Proof]| decide_commands("refund-'1", "r1-7f3a9c", accepts)[0].clone();
        let signal = r"temporal workflow signal --workflow-id 'refund-'\''1' --name approve --input ";
        assert_eq!(shown(&[Proof::Claimed]), signal.to_owned() + r#"'{"request_id":"r1-7f3a9c","by":"YOUR-ID"}'"#);
        assert_eq!(shown(&[Proof::Principal]), signal.to_owned() + r#"'{"request_id":"r1-7f3a9c"}'"#);
        let signed = r"mandate approve 'refund-'\''1' --request r1-7f3a9c --by YOUR-ID --key YOUR-KEY-FILE";
        assert_eq!(shown(&[Proof::Key]), signed);
        assert!(shown(&[Proof::Jwt]).ends_with("--token file:YOUR-TOKEN-FILE"));
        let answer = answer_command("w", "q1-7f3a9c", &[Proof::Key]);
        let dashed = answer_command("--yes", "q1-7f3a9c", &[Proof::Jwt]);
        let behind = "mandate answer --question q1-7f3a9c --token file:YOUR-TOKEN-FILE -- --yes 'YOUR ANSWER'";
        assert_eq!(dashed, behind, "an id that looks like an option");
        assert_eq!(answer, "mandate answer w 'YOUR ANSWER' --question q1-7f3a9c --by YOUR-ID --key YOUR-KEY-FILE");
    }

    #[test]
    fn a_question_is_shown_with_what_there_is_to_choose_from() {
        let asked = r#"{"context":"he called twice","options":["yes","no"],"question":"Refund him?"}"#;
        assert_eq!(question_text(asked), "Refund him?\nhe called twice\n- yes\n- no");
        assert_eq!(question_text("no JSON"), "no JSON");
    }

    #[test]
    fn the_members_of_an_object_stand_on_lines_of_their_own() {
        let json = r#"{"a":1.50,"b":[{"c":1},2],"d":{"e":3,"f":4},"g\"\\":"h, {\"i\": \\","j":""}"#;
        let lines = ["{", r#"  "a": 1.50,"#, r#"  "b": [{"c":1},2],"#, r#"  "d": {"e":3,"f":4},"#];
        let lines = [&lines[..], &[r#"  "g\"\\": "h, {\"i\": \\","#, r#"  "j": """#, "}"]].concat();
        assert_eq!(members(json), lines.join("\n"));
        let same: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&members(json)).unwrap(), same);
        for other in ["{}", "[1,2]", "{", "no JSON", ""] {
            assert_eq!(members(other), other);
        }
    }

    #[test]
    fn times_are_read_as_utc() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_254_720_000), "2026-11-21 09:52:00");
    }
}
