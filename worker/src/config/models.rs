//! `[models.<name>]`: which provider and which model of it stands behind a name.

use std::path::Path;

use mandate_activities::catalog::{ModelSettings, Price};

use super::{
    problems::suggestion,
    reader::{At, Table},
    root::{existing_file, read_secret},
};

/// The providers.
const PROVIDERS: [&str; 2] = ["scripted", "openai"];

/// Longest answer unless the model says otherwise, in tokens.
const OUTPUT_TOKENS_MAX: u64 = 4096;

/// Reads one model.
pub(super) fn read(table: &mut Table<'_>, folder: &Path) -> Option<ModelSettings> {
    let provider = table.required_text("provider")?;
    match provider.value.as_str() {
        "scripted" => read_scripted(table, folder),
        "openai" => read_openai(table, folder),
        other => {
            let help = suggestion(other, PROVIDERS);
            table.problems.at(&provider.place, format!("unknown provider `{other}`"), "unknown provider", Some(help));
            table.ignore_rest();
            None
        }
    }
}

fn read_scripted(table: &mut Table<'_>, folder: &Path) -> Option<ModelSettings> {
    let script = table.required_text("script")?;
    Some(ModelSettings::Scripted { script: existing_file(table.problems, folder, &script)? })
}

fn read_openai(table: &mut Table<'_>, folder: &Path) -> Option<ModelSettings> {
    let base_url = table.required_text("base_url").and_then(|url| checked_url(table, &url));
    let model = table.required_text("model");
    let api_key = read_secret(table, "api_key", folder);
    let max_output_tokens = table.number_within("max_output_tokens", 1..=10_000_000, OUTPUT_TOKENS_MAX);
    let price = table.table("price").and_then(read_price);
    Some(ModelSettings::OpenAi {
        base_url: base_url?,
        model: model?.value,
        api_key: api_key.map(|key| key.value),
        max_output_tokens,
        price,
    })
}

fn checked_url(table: &Table<'_>, url: &At<String>) -> Option<String> {
    let rest = url.value.strip_prefix("https://").or_else(|| url.value.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split('/').next()).unwrap_or_default();
    if host.contains('@') {
        table.problems.hide(&url.place);
        table.problems.at(&url.place, "`base_url` carries credentials; use `api_key`", "credentials", None);
        return None;
    }
    if host.is_empty() {
        let message = "`base_url` must be a URL that starts with `https://` or `http://`";
        table.problems.at(&url.place, message, "not such a URL", None);
        return None;
    }
    Some(url.value.trim_end_matches('/').to_owned())
}

fn read_price(mut table: Table<'_>) -> Option<Price> {
    let mut required = |key: &str| {
        let missing = !table.has(key);
        let number = table.number(key).map(|number| number.value);
        if missing {
            table.missing(key);
        }
        number
    };
    let (input, output) = (required("input_micros_per_million"), required("output_micros_per_million"));
    table.finish();
    Some(Price { input_micros_per_million: input?, output_micros_per_million: output? })
}
