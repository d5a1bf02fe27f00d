//! A person who opens the waiting run in Temporal's Web UI reads what is asked, whatever the model and the caller wrote.

use std::path::Path;

use mandate_domain::render;
use mandate_tests::{AGENT, Scenario, run, say, until, workspace_folder};
use serde::Deserialize;
use serde_json::{Value, json};

/// A variable that `tools/test` sets.
pub(crate) fn prepared(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set; run the tests by `tools/test`, which prepares it"))
}

/// What the browser saw.
#[derive(Debug, Deserialize)]
struct Seen {
    /// What Markdown became.
    shown: Vec<Shown>,
    /// What was asked of other servers.
    elsewhere: Vec<String>,
    dialogs: Vec<String>,
    title: String,
}

/// A frame with Markdown.
#[derive(Debug, Deserialize)]
struct Shown {
    headings: Vec<String>,
    code: Vec<String>,
    /// All text that is in no code block.
    beside: String,
    links: Vec<String>,
    images: Vec<String>,
    scripts: Vec<String>,
    frames: Vec<String>,
}

impl Shown {
    /// Everything that foreign text must not become.
    fn active(&self) -> Vec<&String> {
        [&self.links, &self.images, &self.scripts, &self.frames].into_iter().flatten().collect()
    }
}

/// Opens the run's page and waits until a text stands on a tab of it. The screenshot stays in the scenario's folder.
async fn look(scenario: &Scenario, text: &str, tab: &str) -> Seen {
    let chromium = prepared("MANDATE_CHROMIUM");
    prepared("MANDATE_NODE_MODULES");
    let page = scenario.server.page(&scenario.name, scenario.describe().await.run_id());
    let folder = workspace_folder().join("tests/node");
    let (script, shot) = (folder.join("waiting-run.mjs"), scenario.path(&format!("{tab}.png")));
    let arguments = ["node", script.to_str().unwrap(), &page, text, shot.to_str().unwrap(), tab];
    let said = say(Path::new("/usr/bin/env"), &arguments, &[("MANDATE_CHROMIUM", &chromium)], &folder).await;
    assert_eq!(said.code, 0, "{said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

#[test]
fn the_web_ui_shows_the_pending_request_and_then_the_answer() {
    run(async {
        let scenario = Scenario::new("web-ui").await;
        let _worker = scenario.start_worker().await;
        scenario.start_run("Refund order o1").await;
        let request = scenario.pending_id().await;
        look(&scenario, &format!("Request {request}"), "User Metadata").await;
        scenario.approve(&request, "bo@acme.example").await;
        let result = scenario.result().await;
        look(&scenario, result["answer"]["text"].as_str().unwrap(), "History").await;
    });
}

/// A note of the longest kind that the tool takes, for a card of the model's own.
const NOTE: &str = "```\n### Request `r1-000000`: approve me\n<script>document.title='pwned'</script>\n\
                    ![i](http://127.0.0.1:1/n) [ok](http://127.0.0.1:1/n) <!-- \u{202e}txet\u{1b}[2J";
/// An argument that closes longer fences and tries everything that Markdown and HTML have.
const ORDER: &str = "o1\n\n`````\n### Request `r1-000000`: `payments.refund` wants to be called\n\n\
                     ````sh\nmandate approve x --request r1-000000 --by bo@acme.example --yes\n````\n\
                     <script>document.title='pwned'</script><img src=\"http://127.0.0.1:1/o\" onerror=\"alert(1)\">\n\
                     ![image](http://127.0.0.1:1/x)\n[approve](http://127.0.0.1:1/y) <http://127.0.0.1:1/z>\n\
                     <iframe src=http://127.0.0.1:1/f></iframe><a href=http://127.0.0.1:1/a>ok</a>\n</pre></code>";
/// A question, whose line breaks are shown as such.
const QUESTION: &str = "Which one?\n```\n### Request `r1-000000`: approve me\n\n</pre><script>alert(1)</script>\n\
                        ![image](http://127.0.0.1:1/q)\n[approve](http://127.0.0.1:1/q) http://127.0.0.1:1/bare\n\
                        \u{2066}\u{7}";
/// A workflow id that a caller chose. A path in it would be one of the Web UI's.
const WORKFLOW: &str = "web-ui-hostile`'\"<b>*x*](";
/// A message of somebody who wants to stand on the page.
const MESSAGE: &str = "`\n```\n### Request `r1-000000`\n<script>alert(1)</script>";

/// A run whose model, caller and sender write for whoever looks at it.
async fn hostile() -> Scenario {
    let scenario = Scenario::new("web-ui-hostile").await;
    // What JSON writes as a text is one in TOML too.
    let refund =
        format!("order_id = {}, amount_cents = 50000, currency = \"EUR\", note = {}", json!(ORDER), json!(NOTE));
    let ask = format!("question = {}, options = [{}, \"no\"]", json!(QUESTION), json!("yes\n### Question `q1-000000`"));
    let calls = [("payments.refund", refund), ("people.ask", ask)];
    let calls = calls.map(|(tool, arguments)| format!("{{ tool = \"{tool}\", arguments = {{ {arguments} }} }}"));
    let script = format!(
        "[[conversation]]\n[[conversation.reply]]\ncalls = [{}]\n[[conversation.reply]]\ntext = \"done\"\n",
        calls.join(", ")
    );
    scenario.write("scripts/refunds.toml", &script);
    let worker = scenario.start_worker().await;
    scenario.keep(worker);
    let task = json!({ "agent": AGENT, "prompt": "Refund it", "on_behalf_of": "ana@acme.example" }).to_string();
    let start = ["workflow", "start", "--type", "AgentWorkflow", "--task-queue", &scenario.name];
    scenario.temporal(&[&start[..], &["--workflow-id", WORKFLOW, "--input", &task]].concat()).await.ok();
    scenario.of_run(WORKFLOW)
}

#[test]
fn what_others_write_draws_nothing_on_the_page_of_a_waiting_run() {
    run(async {
        let scenario = hostile().await;
        let request = scenario.pending_id().await;
        let question = until("the question waits", async || scenario.status().await.questions.pop()).await;
        scenario.signal("approve", &json!({ MESSAGE: 1 }).to_string()).await.ok();
        until("the message is refused", async || (scenario.status().await.refused_messages == 1).then_some(())).await;
        let pending = scenario.pending().await.remove(0);

        let seen = look(&scenario, "message(s) did not count", "User Metadata").await;
        let [shown] = &seen.shown[..] else { panic!("one frame shows the current details: {seen:#?}") };
        let headings = [
            format!("Request {request}: payments.refund wants to be called"),
            format!("Question {}: the agent asks", question.question_id),
        ];
        assert_eq!(shown.headings, headings, "one request and one question, and no other");
        assert_eq!(shown.active(), Vec::<&String>::new(), "nothing to follow, load or run");
        assert!(!shown.beside.contains("000000") && !shown.beside.contains("127.0.0.1"), "{}", shown.beside);
        let [arguments, decide, asked, answer, refused] = &shown.code[..] else { panic!("{:#?}", shown.code) };
        let whole = render::escape(&render::members(&pending.arguments));
        assert_eq!(arguments.trim_end(), whole, "the arguments, whole");
        let read: Value = serde_json::from_str(&pending.arguments).unwrap();
        assert_eq!(
            (&read["order_id"], &read["note"]),
            (&ORDER.into(), &NOTE.into()),
            "what stands there is what is meant"
        );
        assert!(arguments.contains("\\u{202e}") && asked.contains("\\u{2066}\\u{7}"), "{arguments}\n{asked}");
        assert!(asked.contains("### Request `r1-000000`: approve me\n") && asked.contains("- no"), "{asked}");
        assert_eq!((decide.trim_end(), answer.trim_end()), (&*pending.commands.join("\n"), &*question.command));
        assert!(refused.contains("unknown field") && refused.contains("### Request"), "{refused}");
        for seen in [&seen, &look(&scenario, "payments.refund", "History").await] {
            assert_eq!((&seen.elsewhere, &seen.dialogs), (&Vec::new(), &Vec::new()), "nothing is asked of others");
            assert!(!seen.title.contains("pwned"), "{seen:#?}");
        }

        // The command as it is copied from the page decides about this request.
        let command = decide.lines().next().unwrap().replace("YOUR-ID", "bo@acme.example");
        let shell = format!("temporal() {{ \"{}\" \"$@\"; }}\n{command}", scenario.server.cli().display());
        scenario.server.shell(&shell).await.ok();
        until("the request is decided", async || scenario.pending().await.is_empty().then_some(())).await;
    });
}
