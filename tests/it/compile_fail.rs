//! Calling a tool, a model or the webhook without a recorded permit does not compile; neither does a release with faults
//! to inject.

use std::{path::Path, process::Command, sync::OnceLock};

use mandate_tests::{cargo, profile_folder, workspace_folder};
use serde_json::Value;

/// `--extern` arguments for the crates of the present build.
fn externs() -> &'static [String] {
    static EXTERNS: OnceLock<Vec<String>> = OnceLock::new();
    EXTERNS.get_or_init(|| {
        let built = cargo(&["build", "--workspace", "--message-format=json", "--quiet"]).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let lines = String::from_utf8_lossy(&built.stdout).into_owned();
        let artefacts = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut externs = Vec::new();
        for artefact in artefacts.filter(|artefact| artefact["reason"] == "compiler-artifact") {
            let name = artefact["target"]["name"].as_str().unwrap_or_default().replace('-', "_");
            let files = artefact["filenames"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let library = files.into_iter().find(|file| Path::new(file).extension() == Some("rlib".as_ref()));
            if let (true, Some(library)) = (["mandate_activities", "mandate_domain"].contains(&name.as_str()), library)
            {
                externs.push(format!("{name}={library}"));
            }
        }
        assert_eq!(externs.len(), 2, "{externs:?}");
        externs
    })
}

/// What the compiler says of a function body.
fn compiled(arguments: &str, body: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snippet.rs");
    let text = format!(
        "#![allow(unused)]\nuse mandate_activities::{{governed::RecordedPermit, models::ModelProvider, \
         tools::{{PreparedTool, ToolSet}}, webhook::{{Keys, Message, Webhook}}}};\nuse mandate_domain::{{EffectId, ModelRequest, ToolCallId}};\n\
         pub async fn snippet({arguments}) {{ {body} }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let said = compiler(&file, folder.path()).output().unwrap();
    String::from_utf8_lossy(&said.stderr).into_owned()
}

fn compiler(file: &Path, folder: &Path) -> Command {
    let mut compiler = Command::new("rustc");
    compiler.args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "-o"]);
    compiler.arg(folder.join("snippet.rmeta")).arg(file);
    compiler.arg("-L").arg(format!("dependency={}", profile_folder().join("deps").display()));
    for one in externs() {
        compiler.args(["--extern", one]);
    }
    compiler
}

const TOOL: &str = "tools: &ToolSet, prepared: PreparedTool";
const MODEL: &str = "model: &dyn ModelProvider, request: &ModelRequest";
const WEBHOOK: &str = "webhook: &Webhook, keys: &Keys, message: &Message";

#[test]
fn with_a_recorded_permit_the_calls_compile() {
    let all = format!("{TOOL}, {MODEL}, {WEBHOOK}, permit: &RecordedPermit");
    let said = compiled(
        &all,
        "tools.call(permit, prepared, &Default::default()).await; model.complete(permit, request).await; \
         webhook.send(permit, keys, message).await;",
    );
    assert!(!said.contains("error"), "{said}");
}

#[test]
fn a_tool_without_a_permit_does_not_compile() {
    let said = compiled(TOOL, "tools.call(prepared, &Default::default()).await;");
    assert!(said.contains("this method takes 3 arguments but 2 arguments were supplied"), "{said}");
    assert!(said.contains("expected `&RecordedPermit`, found `PreparedTool`"), "{said}");
    let said = compiled(TOOL, "tools.call(&(), prepared, &Default::default()).await;");
    assert!(said.contains("expected `&RecordedPermit`, found `&()`"), "{said}");
}

#[test]
fn a_model_without_a_permit_does_not_compile() {
    let said = compiled(MODEL, "model.complete(request).await;");
    assert!(said.contains("argument #1 of type `&RecordedPermit` is missing"), "{said}");
}

#[test]
fn a_webhook_without_a_permit_does_not_compile() {
    let said = compiled(WEBHOOK, "webhook.send(keys, message).await;");
    assert!(said.contains("argument #1 of type `&RecordedPermit` is missing"), "{said}");
}

#[test]
fn nobody_else_makes_a_permit() {
    let effect = "EffectId::Tool(ToolCallId::new(1, 0))";
    let made =
        format!("RecordedPermit {{ run: todo!(), effect: {effect}, epoch: 1, send_by: todo!(), repeats: false }};");
    let said = compiled("", &made);
    assert!(said.contains("of struct `RecordedPermit` are private"), "{said}");
    let said = compiled("", &format!("RecordedPermit::new(todo!(), {effect}, 1, todo!());"));
    assert!(said.contains("associated function `new` is private"), "{said}");
    let said = compiled("permit: &RecordedPermit", "let second: RecordedPermit = permit.clone();");
    assert!(said.contains("mismatched types"), "{said}");
}

/// What the compiler says of the crate with the guards that can be turned off. Its dependencies are not given to it: it
/// always fails, and says what stands in its way.
fn with_faults_to_inject(optimised: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut compiler = Command::new("rustc");
    compiler.args(["--edition", "2024", "--crate-type", "lib", "--crate-name", "mandate_activities"]);
    compiler.args(["--emit", "metadata", "-o"]).arg(folder.path().join("activities.rmeta"));
    compiler.args(["--cfg", "feature=\"fault-injection\""]).args(optimised);
    let said = compiler.arg(workspace_folder().join("activities/src/lib.rs")).output().unwrap();
    String::from_utf8_lossy(&said.stderr).into_owned()
}

#[test]
fn a_release_with_faults_to_inject_does_not_compile() {
    let refused = "the feature `fault-injection` must not be compiled in release";
    let said = with_faults_to_inject(&["-C", "opt-level=3"]);
    assert!(said.contains(refused), "{said}");
    let said = with_faults_to_inject(&[]);
    assert!(!said.contains(refused) && said.contains("error"), "{said}");
    // The release profile is optimised and leaves debug assertions as that has them.
    let manifest: toml::Table =
        toml::from_str(&std::fs::read_to_string(workspace_folder().join("Cargo.toml")).unwrap()).unwrap();
    let release = manifest.get("profile").and_then(|profiles| profiles.get("release"));
    assert!(release.is_none_or(|release| release.get("debug-assertions").is_none()), "{release:?}");
}
