//! Data classes: those that `mandate.toml` declares, and what a tool's file says of its fields.

use mandate_domain::{DataClass, FieldClasses, FieldPath};
use serde_json::Value;

use super::{
    input_schema::{field_paths, has_field, required_integers},
    problems::{Problems, suggestion},
    reader::{At, Table, parse},
    root::Named,
};

/// Reads `[data_classes]`.
pub(super) fn read_declared(table: Option<Table<'_>>) -> Named<DataClass, String> {
    let Some(mut table) = table else { return Named::default() };
    let (problems, mut declared) = (table.problems, Named::default());
    for name in table.names() {
        declared.written.push(name.value.clone());
        let description = table.required_text(&name.value);
        let Some(class) = parse::<DataClass>(problems, name) else { continue };
        if class.value.is_unclassified() {
            let message = format!("data class `{}` is built in: it is every field without a label", class.value);
            problems.at(&class.place, message, "remove this", None);
        }
        declared.usable.extend(description.map(|description| (class.value, description.value)));
    }
    declared
}

/// What a tool's file says of its fields, before it is held against the input schema.
pub(super) struct Written {
    amounts: Vec<At<String>>,
    arguments: Vec<(At<String>, At<String>)>,
    results: Vec<(At<String>, At<String>)>,
}

/// What a tool's file says of its fields.
pub(super) struct Labels {
    pub(super) amounts: Vec<String>,
    pub(super) arguments: FieldClasses,
    pub(super) results: FieldClasses,
}

/// A label and where its path stands.
struct Label {
    path: At<FieldPath>,
    class: DataClass,
}

impl Written {
    /// Takes `amounts`, `argument_classes` and `result_classes`.
    pub(super) fn take(table: &mut Table<'_>) -> Self {
        let amounts = table.texts("amounts").map(|amounts| amounts.value).unwrap_or_default();
        let mut labels = |key: &str| table.table(key).map(Table::free_texts).unwrap_or_default();
        Self { amounts, arguments: labels("argument_classes"), results: labels("result_classes") }
    }

    /// Checks them against the declared classes and, if it is usable, the input schema.
    pub(super) fn check(self, problems: &Problems, declared: &[String], schema: Option<&Value>) -> Labels {
        let arguments = read_labels(problems, self.arguments, declared);
        let results = read_labels(problems, self.results, declared);
        if let Some(schema) = schema {
            for label in &arguments {
                report_unknown_field(problems, schema, &label.path);
            }
            report_amounts(problems, schema, &self.amounts);
        }
        let collected = |labels: Vec<Label>| labels.into_iter().map(|label| (label.path.value, label.class)).collect();
        Labels {
            amounts: self.amounts.into_iter().map(|amount| amount.value).collect(),
            arguments: collected(arguments),
            results: collected(results),
        }
    }
}

fn read_labels(problems: &Problems, written: Vec<(At<String>, At<String>)>, declared: &[String]) -> Vec<Label> {
    let label = |(path, class): (At<String>, At<String>)| {
        let (path, class) = (read_path(problems, path), read_class(problems, class, declared));
        Some(Label { path: path?, class: class? })
    };
    written.into_iter().filter_map(label).collect()
}

fn read_path(problems: &Problems, text: At<String>) -> Option<At<FieldPath>> {
    match FieldPath::parse(text.value.as_str()) {
        Ok(value) => Some(At { value, place: text.place }),
        Err(error) => {
            let with_slash = FieldPath::parse(format!("/{}", text.value)).ok();
            let help = with_slash.map(|path| format!("did you mean `{path}`?"));
            problems.at(&text.place, error.to_string(), "not a JSON pointer", help);
            None
        }
    }
}

fn read_class(problems: &Problems, text: At<String>, declared: &[String]) -> Option<DataClass> {
    let class = parse::<DataClass>(problems, text)?;
    let is_known = class.value.is_unclassified() || declared.iter().any(|name| name == class.value.as_str());
    if !is_known {
        let built_in = DataClass::unclassified();
        let known = declared.iter().map(String::as_str).chain([built_in.as_str()]);
        let help = suggestion(class.value.as_str(), known);
        let message = format!("unknown data class `{}`", class.value);
        problems.at(&class.place, message, "not declared in `mandate.toml`", Some(help));
    }
    Some(class.value)
}

fn report_unknown_field(problems: &Problems, schema: &Value, path: &At<FieldPath>) {
    if has_field(schema, &path.value) {
        return;
    }
    let known = field_paths(schema);
    let help = (!known.is_empty()).then(|| suggestion(path.value.as_str(), known.iter().map(String::as_str)));
    let message = format!("`input_schema` has no field `{}`", path.value);
    problems.at(&path.place, message, "no such argument", help);
}

fn report_amounts(problems: &Problems, schema: &Value, amounts: &[At<String>]) {
    let known = required_integers(schema);
    for (index, amount) in amounts.iter().enumerate() {
        let name = amount.value.as_str();
        if amounts.iter().take(index).any(|before| before.value == name) {
            problems.at(&amount.place, format!("amount `{name}` is listed twice"), "listed twice", None);
        } else if !known.contains(&name) {
            let none = || "no argument of `input_schema` is a required integer".to_owned();
            let help = if known.is_empty() { none() } else { suggestion(name, known.iter().copied()) };
            let message = format!("amount `{name}` is no required integer argument");
            problems.at(&amount.place, message, "cannot be summed", Some(help));
        }
    }
}
