//! Data classes and labels: what is wrong with them and what becomes of them.

use mandate_domain::{DataClass, FieldPath, ToolDefinition};

use super::*;

const REFUND: &str = r#"
name = "refund"
description = "Pays back."
owner = "support@acme.example"
cost_micros = 2000
amounts = ["cents"]
mcp = { server = "refunds", tool = "refund_payment" }

[argument_classes]
"/to/name" = "contact"
"/to/*" = "unclassified"

[result_classes]
"" = "payment"
"/lines/*/name" = "contact"

[input_schema]
type = "object"
required = ["cents", "note"]

[input_schema.properties]
cents = { type = "integer" }
bonus_cents = { type = "integer" }
note = { type = "string" }
to = { type = "object", properties = { name = { type = "string" } } }
"#;

const CLASSES: &str = "
[data_classes]
contact = \"names of customers\"
payment = \"what was paid back\"
";

const REFUND_FILE: &str = "tools/refund.toml";

fn fixture(root: &str, tool: &str) -> Fixture {
    let fixture = Fixture::new();
    fixture.write("mandate.toml", root);
    fixture.write(REFUND_FILE, tool);
    fixture
}

/// Expects one problem at a place, with each of the words.
fn check(fixture: &Fixture, place: &str, words: &[&str]) {
    let errors = fixture.errors();
    let lines = errors.plain_lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].starts_with(&format!("{}/{place}: ", fixture.folder().display())), "{place}: {lines:#?}");
    for word in words {
        assert!(lines[0].contains(word) && rendered(&errors).contains(word), "{word}: {lines:#?}");
    }
}

#[test]
fn classes_and_labels_are_taken_as_written() {
    let config = fixture(&format!("{ROOT}{CLASSES}"), REFUND).load().map_err(|errors| rendered(&errors)).unwrap();
    let contact = DataClass::parse("contact").unwrap();
    assert_eq!(config.policy.registry().data_classes[&contact], "names of customers");
    assert_eq!(config.policy.registry().data_classes.len(), 2);
    let tool = &config.catalog.tools[&ToolName::parse("refund").unwrap()];
    assert_eq!((tool.cost_micros, tool.amounts.as_slice()), (2000, &["cents".to_owned()][..]));
    assert_eq!(tool.argument_classes[&FieldPath::parse("/to/name").unwrap()], contact);
    assert_eq!(tool.argument_classes[&FieldPath::parse("/to/*").unwrap()], DataClass::unclassified());
    assert_eq!(tool.result_classes.len(), 2);
    let summary = config.summary();
    let classes = |name: &str| {
        let tool = summary.tools.iter().find(|tool| tool.name.as_str() == name).unwrap();
        tool.result_classes.iter().map(DataClass::as_str).collect::<Vec<_>>()
    };
    assert_eq!(classes("refund"), ["contact", "payment"]);
    assert_eq!(classes("orders.read"), ["unclassified"]);
}

#[test]
fn a_bad_declaration_is_reported_where_it_is_bad() {
    let check = |old: &str, new: &str, place: &str, words: &[&str]| {
        check(&fixture(&format!("{CLASSES}{ROOT}").replacen(old, new, 1), REFUND), place, words);
    };
    check("payment =", "unclassified = \"all\"\npayment =", "mandate.toml:4:1", &["`unclassified` is built in"]);
    check("\"names of customers\"", "\" \"", "mandate.toml:3:11", &["`contact` is empty"]);
    check("\"names of customers\"", "7", "mandate.toml:3:11", &["`contact` must be a string, not an integer"]);
    check("payment =", "Card = \"cards\"\npayment =", "mandate.toml:4:1", &["`Card` is not a valid data class"]);
}

#[test]
fn a_bad_label_is_reported_where_it_is_bad() {
    let check = |old: &str, new: &str, place: &str, words: &[&str]| {
        assert!(REFUND.contains(old), "{old}");
        let place = format!("{REFUND_FILE}:{place}");
        check(&fixture(&format!("{ROOT}{CLASSES}"), &REFUND.replacen(old, new, 1)), &place, words);
    };
    check("= \"payment\"", "= \"paymnet\"", "14:6", &["data class `paymnet`", "did you mean `payment`?"]);
    check("= \"payment\"", "= \"zzz\"", "14:6", &["`zzz`", "known: `contact`, `payment`, `unclassified`"]);
    check("= \"payment\"", "= 1", "14:6", &["must be a string, not an integer"]);
    check("\"/to/name\"", "\"to/name\"", "10:1", &["`to/name` is not a valid field path", "did you mean `/to/name`?"]);
    check("\"/lines/*/name\"", "\"/lines/~2\"", "15:1", &["`/lines/~2` is not a valid field path"]);
    check("\"/to/name\"", "\"/to/nmae\"", "10:1", &["no field `/to/nmae`", "did you mean `/to/name`?"]);
    check("[\"cents\"]", "[\"cent\"]", "6:12", &["`cent` is no required integer", "did you mean `cents`?"]);
    check("[\"cents\"]", "[\"bonus_cents\"]", "6:12", &["`bonus_cents` is no required integer argument"]);
    check("[\"cents\"]", "[\"cents\", \"note\"]", "6:21", &["`note` is no required integer", "known: `cents`"]);
    check("[\"cents\"]", "[\"cents\", \"cents\"]", "6:21", &["listed twice"]);
    check("2000", "-1", "5:15", &["`cost_micros` must be a whole number from 0"]);
    check("2000", "1_000_000_000_001", "5:15", &["`cost_micros` must be from 0 to 1000000000000"]);
    let no_integer = "note = { type = \"string\" }\nto =";
    check(
        &format!("cents = {{ type = \"integer\" }}\nbonus_cents = {{ type = \"integer\" }}\n{no_integer}"),
        &format!("cents = {{ type = \"number\" }}\n{no_integer}"),
        "6:12",
        &["no argument of `input_schema` is"],
    );
}

#[test]
fn labels_that_are_not_there_do_not_change_a_digest() {
    let (_programs, config) = example();
    let labelled = &config.catalog.tools[&ToolName::parse("payments.refund").unwrap()];
    let plain = ToolDefinition {
        cost_micros: 0,
        amounts: Vec::new(),
        argument_classes: [].into(),
        result_classes: [].into(),
        ..labelled.clone()
    };
    let written = serde_json::to_value(&plain).unwrap();
    for key in ["cost_micros", "amounts", "argument_classes", "result_classes"] {
        assert!(written.get(key).is_none(), "{written}");
    }
    assert_eq!(serde_json::from_value::<ToolDefinition>(written).unwrap(), plain);
    assert_ne!(plain.digest(), labelled.digest());
}

#[test]
fn every_result_of_the_example_is_labelled() {
    let (_programs, config) = example();
    assert_eq!(config.policy.registry().data_classes.len(), 4);
    let unclassified = DataClass::unclassified();
    for tool in config.summary().tools {
        assert!(!tool.result_classes.contains(&unclassified), "{}", tool.name);
    }
    let whole = FieldPath::parse("").unwrap();
    for tool in config.catalog.tools.values().filter(|tool| !tool.argument_classes.contains_key(&whole)) {
        let fields = tool.input_schema["properties"].as_object().into_iter().flat_map(|fields| fields.keys());
        for field in fields {
            let path = FieldPath::parse(format!("/{field}")).unwrap();
            assert!(tool.argument_classes.contains_key(&path), "{}: {path}", tool.name);
        }
    }
}
