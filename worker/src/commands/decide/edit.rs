//! Other arguments in place of the agent's: written in an editor, or given. Only what is shown whole can be changed.

use std::{fs, io::Write as _, path::Path, process::Command};

use anyhow::Context as _;
use mandate_domain::{canonical, render, reveal};
use mandate_workflows::{lenient::TEXT_BYTES_MAX, snapshot::PendingRequest};
use serde_json::{Map, Value};

use crate::{
    bundle::difference::text_difference,
    commands::ask,
    output::{self, Refused, UsageError},
};

/// The environment variables that name an editor, the first that is set.
const EDITORS: [&str; 2] = ["VISUAL", "EDITOR"];

/// Whether the arguments are to be changed, and how.
pub(super) enum Change {
    /// They stay.
    Nothing,
    /// In the person's editor.
    Editor,
    /// To this JSON object, or to that of this file.
    Given(String),
}

/// What became of the arguments.
pub(super) enum Edited {
    /// They are those of the request.
    Kept,
    /// They are others.
    Changed(Map<String, Value>),
    /// The person wanted to change them and did not.
    GivenUp,
}

/// Has the arguments changed, and shows what differs.
///
/// # Errors
/// [`Refused`] when the arguments are not shown whole; [`UsageError`] for arguments that cannot be sent.
pub(super) fn arguments(change: &Change, request: &PendingRequest) -> anyhow::Result<Edited> {
    let (before, after) = match change {
        Change::Nothing => return Ok(Edited::Kept),
        Change::Editor => {
            let before = shown(request)?;
            let Some(after) = in_editor(&before)? else { return Ok(Edited::GivenUp) };
            (before, after)
        }
        Change::Given(given) => (shown(request)?, parse(&read(given)?).map_err(UsageError)?),
    };
    if before == after {
        output::note("the arguments are the same as before; leave the option out to approve them as they are");
        return Ok(Edited::GivenUp);
    }
    check(&after)?;
    output::note(format_args!("What changes:\n\n{}\n", difference(&before, &after).join("\n")));
    Ok(Edited::Changed(after))
}

/// The arguments of a request, if all of them are shown.
fn shown(request: &PendingRequest) -> Result<Map<String, Value>, Refused> {
    let refused = |why: &str| {
        Refused(format!("{why}, and what is not seen cannot be changed; approve or reject the arguments as they are"))
    };
    let shown: Value = serde_json::from_str(&request.arguments).unwrap_or_default();
    if reveal::may_be_masked(&shown) {
        return Err(refused("a part of the arguments is withheld from those who decide"));
    }
    match shown {
        Value::Object(arguments) => Ok(arguments),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(refused("only the beginning of the arguments is shown"))
        }
    }
}

/// The JSON that was given, or the content of the file that was named.
fn read(given: &str) -> Result<String, UsageError> {
    if given.trim_start().starts_with('{') {
        return Ok(given.to_owned());
    }
    fs::read_to_string(given).map_err(|error| UsageError(format!("cannot read the arguments from `{given}`: {error}")))
}

fn parse(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(arguments)) => Ok(arguments),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err("the arguments are no JSON object".to_owned())
        }
        Err(error) => Err(format!("the arguments are no JSON: {error}")),
    }
}

/// Checks arguments before they are sent: the run would refuse them for the same reasons.
fn check(arguments: &Map<String, Value>) -> Result<(), UsageError> {
    let canonical = canonical::to_canonical(arguments);
    canonical.map_err(|error| UsageError(format!("the arguments cannot be sent: {error}")))?;
    let bytes = Value::Object(arguments.clone()).to_string().len();
    if bytes > TEXT_BYTES_MAX {
        return Err(UsageError(format!("the arguments have {bytes} bytes; at most {TEXT_BYTES_MAX} are taken")));
    }
    Ok(())
}

/// Opens the editor until it leaves an object; `None` when the person gives up.
fn in_editor(arguments: &Map<String, Value>) -> anyhow::Result<Option<Map<String, Value>>> {
    ask::needs_terminal("give the arguments with --arguments")?;
    let set = |name: &&str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = EDITORS.iter().find_map(set);
    let editor = editor.ok_or_else(|| UsageError("neither VISUAL nor EDITOR is set".to_owned()))?;
    let mut text = pretty(arguments);
    loop {
        text = edited(&editor, &text)?;
        match parse(&text) {
            Ok(arguments) => return Ok(Some(arguments)),
            Err(why) => output::note(render::escape_line(&why)),
        }
        if !ask::confirm("edit them again?")? {
            return Ok(None);
        }
    }
}

/// What an editor makes of a text. Its file is the person's alone and is gone afterwards.
fn edited(editor: &str, text: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().prefix("arguments-").suffix(".json").tempfile()?;
    file.write_all(text.as_bytes()).context("cannot write the file to edit")?;
    open(editor, file.path())?;
    // By its name: many editors put a new file in the place of the old one.
    fs::read_to_string(file.path()).context("cannot read what was edited")
}

/// The variable holds a command with its arguments, as for git.
fn open(editor: &str, file: &Path) -> anyhow::Result<()> {
    let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file).status();
    let status = status.with_context(|| format!("cannot start `{editor}`"))?;
    anyhow::ensure!(status.success(), "`{editor}` ended with {status}; nothing was sent");
    Ok(())
}

/// The lines that differ. Members in another order are the same arguments.
fn difference(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<String> {
    let sorted = |arguments: &Map<String, Value>| {
        let canonical = canonical::to_canonical(arguments).ok();
        canonical.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_else(|| arguments.clone())
    };
    text_difference(&pretty(&sorted(before)), &pretty(&sorted(after)))
}

/// As people read and write it: one member a line, and nothing that moves the cursor or hides itself. JSON has escapes
/// for such characters, so it is the same value.
fn pretty(arguments: &Map<String, Value>) -> String {
    let mut shown = String::new();
    for c in format!("{:#}\n", Value::Object(arguments.clone())).chars() {
        let one = c.to_string();
        if render::escape(&one) == one {
            shown.push(c);
        } else {
            shown.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands::decide::tests::pending;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    fn request(arguments: &str) -> PendingRequest {
        PendingRequest { arguments: arguments.to_owned(), ..pending("r1-7f3a9c") }
    }

    #[test]
    fn what_is_not_shown_whole_cannot_be_changed() {
        assert!(shown(&request(r#"{"amount":1,"to":{"name":"Ana"}}"#)).is_ok());
        let check = |arguments: &str, expected: &str| {
            let error = shown(&request(arguments)).unwrap_err().to_string();
            assert!(error.contains(expected), "{arguments}: {error}");
        };
        check(r#"{"amount":1,"note":"aaaa… (5000 bytes in all; only the beginning is shown)"#, "only the beginning");
        check("[1]", "only the beginning");
        check(r#"{"amount":1,"to":{"name":"[withheld: contact]"}}"#, "withheld");
        check(r#"{"[withheld: contact] 2":1}"#, "withheld");
    }

    #[test]
    fn arguments_are_given_as_json_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("changed.json");
        fs::write(&file, "{\"amount\": 2}").unwrap();
        let given = |given: &str| read(given).map(|text| parse(&text)).map_err(|error| error.to_string());
        let two = object(&json!({ "amount": 2 }));
        assert_eq!(given(" {\"amount\":2}"), Ok(Ok(two.clone())));
        assert_eq!(given(&file.display().to_string()), Ok(Ok(two)));
        assert!(given("nowhere.json").unwrap_err().contains("nowhere.json"));
        assert!(parse("[1]").unwrap_err().contains("no JSON object"));
        assert!(parse("{\n\"a\" 1}").unwrap_err().contains("line 2"));
    }

    #[test]
    fn what_the_run_would_refuse_is_refused_before() {
        assert!(check(&object(&json!({ "amount": 2 }))).is_ok());
        let long = check(&object(&json!({ "note": "x".repeat(5000) }))).unwrap_err().to_string();
        assert!(long.contains("at most 4096"), "{long}");
        assert!(check(&object(&json!({ "amount": u64::MAX }))).is_err());
    }

    #[test]
    fn the_same_arguments_are_no_change() {
        let request = request(r#"{"amount":1}"#);
        let given = |text: &str| arguments(&Change::Given(text.to_owned()), &request).unwrap();
        assert!(matches!(given("{ \"amount\": 1 }"), Edited::GivenUp));
        assert!(matches!(given("{ \"amount\": 2 }"), Edited::Changed(_)));
        assert!(matches!(arguments(&Change::Nothing, &request), Ok(Edited::Kept)));
    }

    #[test]
    fn an_editor_is_a_command_with_arguments() {
        let text = pretty(&object(&json!({ "amount": 50000, "order": "o1" })));
        let after = edited("sed -i -e 's/50000/40000/'", &text).unwrap();
        assert_eq!(parse(&after), Ok(object(&json!({ "amount": 40000, "order": "o1" }))));
        let error = edited("false", &text).unwrap_err().to_string();
        assert!(error.contains("`false` ended with") && error.contains("nothing was sent"), "{error}");
    }

    #[test]
    fn what_differs_is_shown_line_by_line() {
        let before = object(&json!({ "amount": 50000, "order": "o1", "reason": "late" }));
        let after = object(&json!({ "order": "o1", "reason": "late", "amount": 40000 }));
        let expected = ["  {", "-   \"amount\": 50000,", "+   \"amount\": 40000,", "    \"order\": \"o1\","];
        assert_eq!(difference(&before, &after), expected);
    }

    #[test]
    fn hidden_characters_become_visible_and_stay_the_same_value() {
        let hidden = object(&json!({ "to": "a\u{202e}b\u{1b}[2J\u{e0041}", "name": "Björn €" }));
        let shown = pretty(&hidden);
        assert!(shown.contains("a\\u202eb\\u001b[2J\\udb40\\udc41") && shown.contains("Björn €"), "{shown}");
        assert_eq!(parse(&shown), Ok(hidden));
    }
}
