//! What a script says, turn by turn.

use mandate_domain::ToolCallId;
use serde_json::json;

use super::*;

const SCRIPT: &str = r#"
[[conversation]]
when = "order o1"
[[conversation.reply]]
repeat = 2
text = "Look {n}."
calls = [{ tool = "orders.read", arguments = { order_id = "o{n}", deep = { list = ["{n}", 7] } } }]
[[conversation.reply]]
when = "denied"
text = "That is not allowed."
[[conversation.reply]]
tool = "orders.read"
malformed = "not json {n}"

[[conversation]]
[[conversation.reply]]
text = "Hello."
"#;

/// The replies of a run that asks `user` and whose calls return `results`, one turn each.
fn replies(user: &str, results: &[&str]) -> Vec<Result<ModelReply, ModelError>> {
    let script = Script::parse(SCRIPT).unwrap();
    let system = Message::System { text: "order o1".to_owned() };
    let mut request =
        ModelRequest { messages: vec![system, Message::User { text: user.to_owned() }], tools: Vec::new() };
    let mut replies = vec![script.reply_to(&request)];
    for (turn, text) in (1..).zip(results) {
        request.messages.push(Message::Assistant { text: None, calls: Vec::new() });
        let (call, text) = (ToolCallId::new(turn, 0), (*text).to_owned());
        request.messages.push(Message::Tool { call, text, is_error: false });
        replies.push(script.reply_to(&request));
    }
    replies
}

fn texts(user: &str, results: &[&str]) -> Vec<String> {
    let text = |reply: Result<ModelReply, ModelError>| match reply {
        Ok(reply) => reply.text.unwrap_or_else(|| format!("{:?}", reply.calls.first().map(|call| &call.arguments))),
        Err(error) => error.to_string(),
    };
    replies(user, results).into_iter().map(text).collect()
}

#[test]
fn replies_come_in_order_and_skip_what_does_not_apply() {
    let left = "the model refuses: the script has no reply left in this conversation";
    let malformed = |n| format!("Some(Malformed(\"not json {n}\"))");
    let refund = "Refund ORDER O1";
    assert_eq!(texts(refund, &["ok", "it was Denied"]), ["Look 1.", "Look 2.", "That is not allowed."]);
    assert_eq!(texts(refund, &["denied", "ok"]), ["Look 1.", "Look 2.", &malformed(3)]);
    assert_eq!(
        texts(refund, &["ok", "denied", "ok", "ok"]),
        ["Look 1.", "Look 2.", "That is not allowed.", &malformed(4), left]
    );
    assert_eq!(texts("hi", &["ok"]), ["Hello.", left]);
}

#[test]
fn the_turn_number_goes_into_strings_only() {
    let reply = replies("order o1", &["ok"]).pop().unwrap().unwrap();
    let Arguments::Object(arguments) = &reply.calls[0].arguments else { panic!("{reply:?}") };
    assert_eq!(Value::Object(arguments.clone()), json!({ "order_id": "o2", "deep": { "list": ["2", 7] } }));
}

#[test]
fn usage_is_the_same_for_the_same_request() {
    let usage = || replies("order o1", &["ok"]).into_iter().map(|reply| reply.unwrap().usage).collect::<Vec<_>>();
    assert_eq!(usage(), usage());
    assert!(usage().iter().all(|usage| usage.input_tokens > 0 && usage.output_tokens > 0));
    assert_eq!((tokens(""), tokens("a"), tokens("äöüß"), tokens("abcde")), (0, 1, 1, 2));
}

#[test]
fn a_conversation_without_match_is_a_refusal() {
    let script = Script::parse("[[conversation]]\nwhen = \"x\"\nreply = [{ text = \"x\" }]").unwrap();
    let request = ModelRequest { messages: vec![Message::User { text: "y".to_owned() }], tools: Vec::new() };
    assert!(matches!(script.reply_to(&request), Err(ModelError::Refused { .. })));
}

#[test]
fn mistakes_are_named_with_their_line() {
    let check = |text: &str, line: usize, part: &str| {
        let (at, reason) = Script::parse(text).unwrap_err();
        assert!(at == line && reason.contains(part), "{text}: line {at}: {reason}");
    };
    check("[[conversation]]\n[[conversation.reply]]\ntxt = \"a\"\n", 3, "txt");
    check("[[conversation]]\n[[conversation.reply]]\nrepeat = 2\n", 2, "no `text`");
    check("[[conversation]]\n\n[[conversation.reply]]\ntext = \"a\"\ntool = \"b\"\n", 3, "go together");
    check("[[conversation]]\n[[conversation.reply]]\ntext = \"a\"\nrepeat = 0\n", 2, "repeat");
    check("x = 1\n", 1, "x");
    check("[[conversation]]\nreply = [{ text = \"a\", calls = [{ tol = \"b\" }] }]\n", 2, "tol");
}
