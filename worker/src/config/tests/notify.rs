//! `[notify]`: what is taken as written, what is refused, and whom nobody tells.

use mandate_activities::catalog::NotifySettings;

use super::*;

const NOTIFY: &str = "
[notify]
url = \"https://hooks.acme.example/mandate\"
secret = \"env:HOOK_SECRET\"
";

fn folder(notify: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("mandate.toml", format!("{notify}{ROOT}"));
    fixture
}

fn loaded(notify: &str) -> Config {
    folder(notify).load().map_err(|errors| rendered(&errors)).unwrap()
}

/// Expects one problem of a folder in which `old` was replaced: its line begins so, and has each of the words.
fn check(old: &str, new: &str, place: &str, words: &[&str]) {
    assert!(NOTIFY.contains(old), "{old}");
    let fixture = folder(&NOTIFY.replacen(old, new, 1));
    let errors = fixture.errors();
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with(&format!("{}/mandate.toml:{place}: ", fixture.folder().display())), "{lines:#?}");
    let all = format!("{}\n{}", lines[0], rendered(&errors));
    for word in words {
        assert!(lines[0].contains(word), "{word}: {lines:#?}");
    }
    assert!(!all.contains("whsec_c2VjcmV0"), "{all}");
}

#[test]
fn the_webhook_is_taken_as_written() {
    assert_eq!(loaded("").catalog.notify, None);
    let url = "https://hooks.acme.example/mandate".to_owned();
    let secrets = vec![SecretRef::Env("HOOK_SECRET".to_owned())];
    let expected = NotifySettings { url: url.clone(), secrets, allow_internal: Vec::new(), timeout_secs: 10 };
    assert_eq!(loaded(NOTIFY).catalog.notify, Some(expected));
    let several = NOTIFY.replace("\"env:HOOK_SECRET\"", "[\"env:NEW\", \"file:old\"]\ntimeout_secs = 25");
    let fixture = folder(&several);
    let config = fixture.load().unwrap();
    let secrets = vec![SecretRef::Env("NEW".to_owned()), SecretRef::File(config.folder.join("old"))];
    assert_eq!(
        config.catalog.notify,
        Some(NotifySettings { url, secrets, allow_internal: Vec::new(), timeout_secs: 25 })
    );
}

#[test]
fn what_cannot_be_a_webhook_is_reported_where_it_stands() {
    check("url =", "uri = 1\nurl =", "3:1", &["unknown key `uri`", "did you mean `url`?"]);
    check("url", "#", "2:1", &["`url` is missing"]);
    check("secret", "#", "2:1", &["`secret` is missing"]);
    let url = "\"https://hooks.acme.example/mandate\"";
    check(url, "\"\"", "3:7", &["`url` is empty"]);
    check(url, "\"hooks.acme.example\"", "3:7", &["starts with `https://`"]);
    check(url, "\"https://10.0.0.7/hook\"", "3:7", &["a private address", "`allow_internal`"]);
    let named =
        NOTIFY.replace("hooks.acme.example", "10.0.0.7").replace("secret", "allow_internal = [\"10.0.0.7\"]\nsecret");
    assert_eq!(loaded(&named).catalog.notify.unwrap().allow_internal.len(), 1);
    check(url, "\"http://hooks.acme.example\"", "3:7", &["`https://`", "this machine alone", "TLS"]);
    check(url, "\"https://u:whsec_c2VjcmV0@x.example\"", "3:7", &["carries credentials", "signature"]);
    check("secret =", "timeout_secs = 26\nsecret =", "4:16", &["`timeout_secs` must be from 1 to 25"]);
    check("secret =", "timeout_secs = 0\nsecret =", "4:16", &["`timeout_secs` must be from 1 to 25"]);
    let secret = "\"env:HOOK_SECRET\"";
    check(secret, "\"whsec_c2VjcmV0\"", "4:10", &["a secret reference is expected", "env:NAME"]);
    check(secret, "[\"env:NEW\", \"whsec_c2VjcmV0\"]", "4:22", &["a secret reference is expected"]);
    check(secret, "[\"whsec_c2VjcmV0\", 7]", "4:29", &["`secret` must be an array of strings"]);
    check(secret, "{ value = \"whsec_c2VjcmV0\" }", "4:10", &["`secret` must be a string"]);
    check(secret, "[]", "4:10", &["one reference, or a list of 1 to 4"]);
    let five = "[\"env:A\", \"env:B\", \"env:C\", \"env:D\", \"env:E\"]";
    check(secret, five, "4:10", &["one reference, or a list of 1 to 4"]);
}

/// A gate that reminds.
const REMINDS: &str = r#"
@id("orders.read")
@decision("require_approval")
@approvers("finance-leads")
@remind("PT1H")
forbid (principal, action == Mandate::Action::"orders.read", resource)
unless { context.approved.contains("orders.read") };
"#;

fn warnings(notify: &str, policies: &str) -> Vec<String> {
    let fixture = folder(notify);
    fixture.write("policies/a.cedar", policies);
    fixture.load().map_err(|errors| rendered(&errors)).unwrap().notify_warnings()
}

#[test]
fn a_reminder_that_nobody_gets_is_warned_of() {
    let expected = ["gate `orders.read` has `@remind` and nobody is reminded: there is no `[notify]`"];
    assert_eq!(warnings("", REMINDS), expected);
    assert_eq!(warnings("", &REMINDS.replace("@remind(\"PT1H\")", "")), Vec::<String>::new());
}

#[test]
fn a_webhook_that_no_policy_lets_be_told_is_warned_of() {
    let expected = ["the webhook of `[notify]` is told nothing: no policy names the action `notify`"];
    assert_eq!(warnings(NOTIFY, REMINDS), expected);
    for permits in [
        r#"@id("n") permit (principal, action == Mandate::Action::"notify", resource);"#,
        r#"@id("n") permit (principal, action == Mandate::Action::"notify", resource) when { context.kind == "asked" };"#,
        r#"@id("n") permit (principal is Mandate::Agent, action, resource is Mandate::Webhook);"#,
    ] {
        assert_eq!(warnings(NOTIFY, permits), Vec::<String>::new(), "{permits}");
    }
}
