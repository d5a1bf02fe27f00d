//! What is shown of values and texts, by cases; and, for values at random, that nothing withheld gets out.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn class(text: &str) -> DataClass {
    DataClass::parse(text).unwrap()
}

fn classes(names: &[&str]) -> BTreeSet<DataClass> {
    names.iter().map(|name| class(name)).collect()
}

fn labels(written: &[(&str, &str)]) -> FieldClasses {
    written.iter().map(|(path, name)| (FieldPath::parse(*path).unwrap(), class(name))).collect()
}

/// Masks and expects a value, what is shown and what is withheld.
fn check(value: &Value, written: &[(&str, &str)], revealed: &[&str], expect: (&Value, &[&str], &[&str])) {
    let labels = labels(written);
    let masked = mask(value, &labels, &classes(revealed));
    assert_eq!(&masked.value, expect.0, "{value} {written:?} {revealed:?}");
    assert_eq!(masked.shown, classes(expect.1), "{value} {written:?} {revealed:?}");
    assert_eq!(masked.withheld, classes(expect.2), "{value} {written:?} {revealed:?}");
}

#[test]
fn a_field_without_a_label_is_unclassified() {
    let labels = [("/id", "order")];
    let masked = json!({"id": "o1", "more": {"a": "[withheld: unclassified]"}});
    check(&json!({"id": "o1", "more": {"a": 1}}), &labels, &["order"], (&masked, &["order"], &["unclassified"]));
    check(&json!({"more": [1]}), &labels, &["unclassified"], (&json!({"more": [1]}), &["unclassified"], &[]));
    check(&json!(null), &[], &[], (&json!("[withheld: unclassified]"), &[], &["unclassified"]));
    check(&json!({}), &[("", "order")], &[], (&json!("[withheld: order]"), &[], &["order"]));
}

#[test]
fn what_is_masked_is_told_from_what_is_not() {
    let labels = labels(&[("/to", "contact"), ("/by/*", "contact")]);
    let value = json!({"id": "o1", "to": ["ana"], "by": {"ana": 1}, "none": null});
    let all = classes(&["contact", "unclassified"]);
    assert!(!may_be_masked(&mask(&value, &labels, &all).value));
    for revealed in [classes(&["contact"]), classes(&["unclassified"]), classes(&[])] {
        assert!(may_be_masked(&mask(&value, &labels, &revealed).value), "{revealed:?}");
    }
    assert!(may_be_masked(&json!({"note": ["see [withheld: contact] there"]})), "a model that wrote down what it saw");
}

#[test]
fn the_most_specific_label_wins() {
    let value = json!({"to": {"name": "Ana", "city": "Graz"}});
    let written = [("", "order"), ("/to", "contact"), ("/to/city", "place")];
    let masked = json!({"to": {"name": "[withheld: contact]", "city": "Graz"}});
    check(&value, &written, &["order", "place"], (&masked, &["place"], &["contact"]));
    let masked = json!({"to": "[withheld: contact]"});
    check(&value, &written, &["order"], (&masked, &[], &["contact", "place"]));
    check(&value, &written, &[], (&json!("[withheld: order]"), &[], &["contact", "place"]));
    let by_name = [("/to/*", "contact"), ("/*/city", "place")];
    let masked = json!({"to": {"city": "[withheld: contact]", "[withheld: contact]": "[withheld: contact]"}});
    check(&value, &by_name, &["place", "unclassified"], (&masked, &[], &["contact"]));
}

#[test]
fn a_star_stands_for_every_item_and_an_index_for_one() {
    let value = json!([{"id": 1, "by": "Ana"}, {"id": 2, "by": "Bo"}]);
    let masked = json!([{"id": 1, "by": "[withheld: contact]"}, {"id": 2, "by": "Bo"}]);
    let written = [("/*/id", "order"), ("/*/by", "contact"), ("/1/by", "order")];
    check(&value, &written, &["order"], (&masked, &["order"], &["contact"]));
}

#[test]
fn a_key_is_data_where_only_a_star_names_it() {
    let value = json!({"total": 5, "ana@acme.example": {"cents": 2}, "bo@acme.example": {"cents": 3}});
    let written = [("/total", "order"), ("/*", "contact"), ("/*/cents", "order")];
    let masked = json!({"total": 5, "[withheld: contact]": {"cents": 2}, "[withheld: contact] 2": {"cents": 3}});
    check(&value, &written, &["order"], (&masked, &["order"], &["contact"]));
    assert_eq!(mask(&masked, &labels(&written), &classes(&["order"])).value, masked);
    check(&value, &written, &["order", "contact"], (&value, &["order", "contact"], &[]));
    // A foreign key that looks like a replaced one replaces nothing.
    let value = json!({"[withheld: contact]": 1, "ana": 2});
    let written = [("/*", "contact"), ("/[withheld: contact]", "order")];
    let masked = json!({"[withheld: contact]": 1, "[withheld: contact] 2": "[withheld: contact]"});
    check(&value, &written, &["order"], (&masked, &["order"], &["contact"]));
}

#[test]
fn what_is_nested_too_deep_is_withheld_whatever_is_revealed() {
    let nested = |depth: usize| (0..depth).fold(json!("deep"), |value, _| json!([value]));
    let all = classes(&["order", "unclassified"]);
    let labels = labels(&[("", "order")]);
    let masked = mask(&nested(DEPTH_MAX), &labels, &all);
    assert_eq!((masked.value, masked.withheld), (nested(DEPTH_MAX), classes(&[])));
    let masked = mask(&nested(DEPTH_MAX + 1), &labels, &all);
    assert!(!masked.value.to_string().contains("deep"), "{}", masked.value);
    assert_eq!(masked.withheld, classes(&["unclassified"]));
    assert_eq!(classes_in(&nested(DEPTH_MAX + 1), &labels), classes(&["unclassified"]));
    // Text is never that deep: it is no JSON then.
    let text = nested(DEPTH_MAX).to_string();
    assert_eq!(mask_text(&text, None, &labels, &classes(&["order"])).text, text);
    let text = format!("{}\"deep\"{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(mask_text(&text, None, &labels, &classes(&[])).text, "[withheld: order]");
}

/// Masks a text with one set of labels and expects a text and what is withheld.
fn check_text(text: &str, structured: Option<&Value>, revealed: &[&str], expect: (&str, &[&str])) {
    let labels = labels(&[("", "order"), ("/email", "contact")]);
    let masked = mask_text(text, structured, &labels, &classes(revealed));
    assert_eq!(masked.text, expect.0, "{text} {revealed:?}");
    assert_eq!(masked.withheld, classes(expect.1), "{text} {revealed:?}");
}

#[test]
fn a_text_is_masked_by_its_fields_or_as_a_whole() {
    let json = " {\"id\": \"o1\",\n \"email\": \"a:b\\\"}@x\" } ";
    let masked = (r#"{"id":"o1","email":"[withheld: contact]"}"#, &["contact"][..]);
    check_text(json, None, &["order"], masked);
    check_text(json, None, &["order", "contact"], (json, &[]));
    check_text(json, None, &[], ("[withheld: order]", &["order", "contact"]));
    check_text("there is no order `o9`", None, &["order"], ("there is no order `o9`", &[]));
    check_text("there is no order `o9`", None, &["contact"], ("[withheld: order]", &["order"]));
    check_text("[withheld: contact]", None, &["order"], ("[withheld: contact]", &[]));
    check_text("", None, &["order"], ("", &[]));
    check_text("\"a\"", None, &["order"], ("\"a\"", &[]));
    let unlabelled = mask_text("prose", None, &FieldClasses::new(), &classes(&["order"]));
    assert_eq!(
        (unlabelled.text.as_str(), unlabelled.withheld),
        ("[withheld: unclassified]", classes(&["unclassified"]))
    );
}

#[test]
fn text_that_is_almost_json_may_hold_any_labelled_field() {
    for text in [
        r#"{"id": 1, "email": "ana@acme.exam"#,
        r#"{"to": {"email": 1}, "to": {"id": 2}}"#,
        r#"{"email": "ana@acme.example", "email": 1}"#,
        "\u{feff}{\"email\": 1}",
        r#"[{"email": 1}, "#,
        "[\n1, 2",
        r#"{"email": 1} trailing"#,
    ] {
        check_text(text, None, &["order"], ("[withheld: contact]", &["contact", "order"]));
        check_text(text, None, &["contact"], ("[withheld: order]", &["contact", "order"]));
        check_text(text, None, &["contact", "order"], (text, &[]));
    }
}

#[test]
fn text_beside_structured_content_is_judged_too() {
    let (public, whole) = (json!({"id": 1}), json!({"id": 1, "email": "a"}));
    check_text(r#"{ "id": 1 }"#, Some(&public), &["order"], (r#"{ "id": 1 }"#, &[]));
    check_text(&whole.to_string(), Some(&public), &["order"], (r#"{"id":1}"#, &["contact"]));
    check_text(
        &public.to_string(),
        Some(&whole),
        &["order"],
        (r#"{"id":1,"email":"[withheld: contact]"}"#, &["contact"]),
    );
    check_text("order 1", Some(&whole), &["order", "contact"], ("order 1", &[]));
    check_text("order 1", Some(&whole), &["order"], (r#"{"id":1,"email":"[withheld: contact]"}"#, &["contact"]));
}

const KEYS: [&str; 3] = ["a", "b", "0"];
const NAMES: [&str; 4] = ["contact", "order", "payment", "unclassified"];

/// Any value; each leaf is replaced by a text of its own, see [`numbered`].
fn values() -> impl Strategy<Value = Value> {
    let leaf = proptest::sample::select(vec![json!("leaf"), json!([]), json!({})]);
    leaf.prop_recursive(5, 40, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            proptest::collection::btree_map(proptest::sample::select(KEYS.to_vec()), inner, 0..3)
                .prop_map(|members| members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

fn label_sets() -> impl Strategy<Value = FieldClasses> {
    let token = proptest::sample::select(vec!["a", "b", "0", "1", "*"]);
    let path = proptest::collection::vec(token, 0..4).prop_map(|tokens| {
        let path = tokens.iter().flat_map(|token| ["/", token]).collect::<String>();
        FieldPath::parse(path).unwrap()
    });
    proptest::collection::btree_map(path, proptest::sample::select(NAMES.to_vec()).prop_map(class), 0..6)
}

fn revealed_sets() -> impl Strategy<Value = BTreeSet<DataClass>> {
    proptest::sample::subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_map(|names| classes(&names))
}

/// Gives each text leaf a number, and lists the places of all.
fn numbered(value: &mut Value, at: &[String], leaves: &mut Vec<(Vec<String>, String)>) {
    let inside = |token: String| at.iter().cloned().chain([token]).collect::<Vec<_>>();
    match value {
        Value::Array(items) => {
            items.iter_mut().enumerate().for_each(|(index, item)| numbered(item, &inside(index.to_string()), leaves));
        }
        Value::Object(members) => {
            members.iter_mut().for_each(|(key, member)| numbered(member, &inside(key.clone()), leaves));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let text = format!("<{}>", leaves.len());
            *value = json!(text);
            leaves.push((at.to_vec(), text));
        }
    }
}

/// The class of a place, said in another way than the code does.
fn class_at(place: &[String], labels: &FieldClasses) -> DataClass {
    let matching = labels.iter().filter_map(|(path, class)| {
        let tokens: Vec<String> = path.tokens().collect();
        let fits =
            tokens.len() <= place.len() && tokens.iter().zip(place).all(|(token, at)| token == "*" || token == at);
        fits.then(|| (tokens.len(), tokens.iter().map(|token| token != "*").collect::<Vec<_>>(), class.clone()))
    });
    matching.max().map_or(DataClass::unclassified(), |(_, _, class)| class)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_leaf_is_shown_if_and_only_if_its_class_is_revealed(
        mut value in values(), labels in label_sets(), revealed in revealed_sets(),
    ) {
        let mut leaves = Vec::new();
        numbered(&mut value, &[], &mut leaves);
        let masked = mask(&value, &labels, &revealed);
        let text = mask_text(&value.to_string(), None, &labels, &revealed);
        for (place, leaf) in leaves {
            let is_revealed = revealed.contains(&class_at(&place, &labels));
            prop_assert_eq!(masked.value.to_string().contains(&leaf), is_revealed, "{} {:?}", leaf, place);
            prop_assert!(is_revealed || !text.text.contains(&leaf) || !(value.is_array() || value.is_object()));
        }
        prop_assert!(masked.shown.is_subset(&revealed) && masked.withheld.is_disjoint(&revealed));
        let all: BTreeSet<_> = masked.shown.union(&masked.withheld).cloned().collect();
        prop_assert_eq!(all, classes_in(&value, &labels));
        prop_assert_eq!(masked.withheld.is_empty(), masked.value == value);
    }

    #[test]
    fn masking_again_hides_the_same(value in values(), labels in label_sets(), revealed in revealed_sets()) {
        let once = mask(&value, &labels, &revealed).value;
        prop_assert_eq!(mask(&once, &labels, &revealed).value, once);
    }

    #[test]
    fn with_everything_revealed_nothing_changes(value in values(), labels in label_sets()) {
        let all = classes(&NAMES);
        prop_assert_eq!(&mask(&value, &labels, &all).value, &value);
        let text = format!("{value:#}");
        prop_assert_eq!(mask_text(&text, Some(&value), &labels, &all).text, text.clone());
        prop_assert_eq!(mask_text(&text, None, &labels, &all).text, text);
    }

    #[test]
    fn any_text_is_shown_as_it_was_or_withheld(text in ".{0,40}|[\\[{}\\]\":,a0 ]{0,12}", revealed in revealed_sets()) {
        let labels = labels(&[("", "order"), ("/a", "contact")]);
        let masked = mask_text(&text, None, &labels, &revealed);
        prop_assert_eq!(masked.text == text, masked.withheld.is_empty());
    }
}
