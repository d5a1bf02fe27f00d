//! Policy cases: what is read, and what no case can say.

use super::*;

const POLICY: &str = r#"
@id("read") @reason("reading is free") permit (principal, action == Mandate::Action::"orders.read", resource);
@id("act") permit (principal, action in Mandate::Action::"operate", resource);
"#;

const CASES: &str = "policies/tests/all.toml";

/// The head of a case about a call.
const CALL: &str = "[[case]]\nname = \"one\"\nagent = \"acme/support/refunds\"\non_behalf_of = \"ana\"\n\
                    tool = \"orders.read\"\n";

fn fixture(cases: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("policies/all.cedar", POLICY);
    fixture.write(CASES, cases);
    fixture.write(TOOL_FILE, format!("{TOOL}required = [\"order_id\"]\nproperties.order_id.type = \"string\"\n"));
    fixture
}

fn read(cases: &str) -> Result<Vec<CaseAt>, ConfigErrors> {
    fixture(cases).load().unwrap().policy_cases(&[])
}

/// Asserts that a file of cases has one problem, with its place.
fn check_problem(cases: &str, expected: &str) {
    let errors = match read(cases) {
        Ok(cases) => panic!("{expected}: {cases:?}"),
        Err(errors) => errors.plain_lines(),
    };
    assert!(matches!(&errors[..], [one] if one.contains(expected)), "`{expected}`: {errors:#?}");
}

#[test]
fn cases_are_read_with_their_places_and_asked() {
    let cases = read(&format!(
        "# a remark\n{CALL}arguments = {{ order_id = \"o1\" }}\nexpect = \"allow\"\npolicies = [\"read\"]\n\
         reason = \"free\"\nfacts = {{ tokens = 5, classes = [\"unclassified\"] }}\n\n\
         [[case]]\nname = \"two\"\nperson = \"kim\"\nact = \"apply\"\nrollback = true\nexpect = \"deny\"\n"
    ))
    .unwrap();
    let fixture = fixture("");
    let policy = fixture.load().unwrap().policy;
    let came_to: Vec<_> = cases.iter().map(|at| (at.name.as_str(), at.line, at.case.check(&policy).1)).collect();
    let wrong = vec!["expected deny, got allow".to_owned()];
    assert_eq!(came_to, [("one", 3, vec![]), ("two", 14, wrong)]);
    assert_eq!(cases[0].file, Path::new(CASES));
}

#[test]
fn what_could_never_be_asked_is_a_problem_with_its_place() {
    let call = |rest: &str| format!("{CALL}arguments = {{ order_id = \"o1\" }}\n{rest}\n");
    for (rest, expected) in [
        ("expect = \"allowed\"", "all.toml:7:10: unknown answer `allowed` (did you mean `allow`?)"),
        ("", "all.toml:1:1: `expect` is missing"),
        ("expect = \"allow\"\nreasons = \"x\"", "all.toml:8:1: unknown key `reasons` (did you mean `reason`?)"),
        ("expect = \"allow\"\npolicies = [\"reed\"]", "all.toml:8:13: unknown policy `reed` (did you mean `read`?)"),
        ("expect = \"allow\"\napproved = [\"reed\"]", "unknown policy `reed`"),
        ("expect = \"allow\"\nfacts.token = 1", "unknown key `token` (did you mean `tokens`?)"),
        ("expect = \"allow\"\nfacts.tokens = -1", "`tokens` must be a whole number from 0"),
        ("expect = \"allow\"\nfacts.classes = [\"contact\"]", "unknown data class `contact`"),
        (
            "expect = \"allow\"\nfacts.tools.\"orders.red\" = {}",
            "unknown tool `orders.red` (did you mean `orders.read`?)",
        ),
        ("expect = \"allow\"\nfacts.tools.\"orders.read\".calls = 0", "`calls` must be from 1 to 10000"),
        ("expect = \"allow\"\nfacts.tools.\"orders.read\".failures = 2", "`failures` must be from 0 to 1"),
        (
            "expect = \"allow\"\nfacts.tools.\"orders.read\".amounts.cents = 2",
            "`cents` is no amount of tool `orders.read`",
        ),
        ("expect = \"allow\"\nmodel = \"support\"", "unknown key `model`"),
    ] {
        check_problem(&call(rest), expected);
    }
    check_problem(&format!("{CALL}expect = \"allow\"\n"), "no call of `orders.read` is like this");
    check_problem(&format!("{CALL}arguments = {{ order_id = 1 }}\nexpect = \"allow\"\n"), "all.toml:6:13: no call of");
    check_problem(&call("expect = \"allow\"").replace("orders.read", "orders.red"), "unknown tool `orders.red`");
    check_problem(&call("expect = \"allow\"").replace("refunds", "refund"), "unknown agent `acme/support/refund`");
    let twice = call("expect = \"allow\"").repeat(2);
    check_problem(&twice, "case `one` is in this file twice");
    check_problem("[[case]]\nname = \"x\"\nexpect = \"allow\"\n", "nothing says what is asked");
    check_problem("[[case]]\nexpect = \"allow\"\n", "`name` is missing");
    check_problem("[[cases]]\nname = \"x\"\n", "unknown key `cases` (did you mean `case`?)");
    check_problem("case = 1\n", "`case` must be an array of tables");
    check_problem("", "there are no policy cases");
}

#[test]
fn acts_and_looks_name_what_is_there() {
    let act = |rest: &str| format!("[[case]]\nname = \"x\"\nperson = \"kim\"\n{rest}\n");
    check_problem(&act("act = \"aply\"\nexpect = \"deny\""), "unknown act `aply` (did you mean `apply`?)");
    check_problem(&act("expect = \"deny\""), "`act` is missing");
    check_problem(&act("act = \"quarantine\"\ntarget = \"orders.read\"\nexpect = \"deny\""), "`tool:`");
    check_problem(&act("act = \"pase\"\nexpect = \"deny\""), "unknown act `pase` (did you mean `pause`?)");
    let run = "agent = \"acme/support/refunds\"\non_behalf_of = \"ana\"\nexpect = \"deny\"";
    check_problem(&act(&format!("act = \"answer\"\n{run}")), "`tool` is missing");
    check_problem(&act(&format!("act = \"steer\"\ntool = \"orders.read\"\n{run}")), "unknown key `tool`");
    let look = |rest: &str| format!("[[case]]\nname = \"x\"\non_behalf_of = \"ana\"\n{rest}\n");
    let unclassified = "reveal = [\"unclassified\"]";
    check_problem(&look(&format!("{unclassified}\nviewer = \"histroy\"\nexpect = []")), "did you mean `history`?");
    check_problem(
        &look(&format!("{unclassified}\nviewer = \"history\"\nexpect = \"deny\"")),
        "must be an array of strings",
    );
    let group = format!("{unclassified}\nviewer = \"group\"\ngroup = \"finance-lead\"\nexpect = []");
    check_problem(&look(&group), "unknown group `finance-lead` (did you mean `finance-leads`?)");
    let more = format!("{unclassified}\nviewer = \"answer\"\nexpect = [\"contact\"]");
    check_problem(&look(&more), "`contact` is expected and not among the classes of `reveal`");
}

#[test]
fn what_people_tell_a_run_can_be_asked_about() {
    let policy = fixture("").load().unwrap().policy;
    for (act, asked) in [
        ("answer", "answer orders.read"),
        ("resolve", "resolve orders.read"),
        ("steer", "steer acme/support/refunds"),
        ("pause", "pause acme/support/refunds"),
        ("resume", "resume acme/support/refunds"),
    ] {
        let tool = if asked.ends_with("orders.read") { "tool = \"orders.read\"\n" } else { "" };
        let cases = read(&format!(
            "[[case]]\nname = \"x\"\nperson = \"kim\"\nact = \"{act}\"\nagent = \"acme/support/refunds\"\n\
             on_behalf_of = \"ana\"\n{tool}expect = \"deny\"\npolicies = []\n"
        ))
        .unwrap();
        assert_eq!(cases[0].case.asked.to_string(), asked);
        assert_eq!(cases[0].case.check(&policy).1, Vec::<String>::new(), "{act}: nothing permits it");
    }
}

#[test]
fn files_and_folders_may_be_named() {
    let fixture = fixture(&format!("{CALL}arguments = {{ order_id = \"o1\" }}\nexpect = \"allow\"\n"));
    let config = fixture.load().unwrap();
    let file = fixture.folder().join(CASES);
    for path in [file.clone(), file.parent().unwrap().to_owned()] {
        let cases = config.policy_cases(std::slice::from_ref(&path)).unwrap();
        assert_eq!(cases[0].file, Path::new(CASES), "{}", path.display());
    }
    let missing = config.policy_cases(&["nowhere.toml".into()]).unwrap_err().plain_lines();
    assert!(matches!(&missing[..], [one] if one.contains("nowhere.toml: it cannot be read")), "{missing:?}");
}
