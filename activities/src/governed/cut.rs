//! What a model is given of a result that is larger than it may be given: its beginning, how much there is, and how the
//! rest is read. The whole stands in the store.

use mandate_domain::{BuiltinTool, ToolCallId, ToolDefinition};

use super::Admitted;

/// The text, or its beginning with a word about the rest, within the run's bound.
pub(super) fn cut_for_model(run: &Admitted, call: ToolCallId, text: String) -> String {
    let most = usize::try_from(run.row.opened.limits.result_max_bytes).unwrap_or(usize::MAX);
    let reads = |tool: &&ToolDefinition| tool.reach.builtin() == Some(BuiltinTool::ReadResult);
    let reader = run.row.tools.iter().find(reads).map(|tool| tool.name.as_str());
    cut(text, most, call, reader)
}

fn cut(text: String, most: usize, call: ToolCallId, reader: Option<&str>) -> String {
    let bytes = text.len();
    if bytes <= most {
        return text;
    }
    let rest = match reader {
        Some(reader) => format!("`{reader}` with call `{call}` reads all of it, page by page"),
        None => "the rest cannot be read".to_owned(),
    };
    let word = |shown: usize| format!("\n\n[The first {shown} of the {bytes} bytes of this result; {rest}.]");
    // The number that is shown in the end has no more digits than this one.
    let shown = text.floor_char_boundary(most.saturating_sub(word(bytes).len()));
    text.get(..shown).unwrap_or_default().to_owned() + &word(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, reader: Option<&str>, expected: &str) {
        let cut = cut(text.to_owned(), 130, ToolCallId::new(3, 1), reader);
        assert_eq!(cut, expected);
        assert!(cut.len() <= 130, "{}", cut.len());
    }

    #[test]
    fn what_fits_is_given_whole_and_of_the_rest_is_told() {
        let fits = "x".repeat(130);
        check(&fits, None, &fits);
        let word = "\n\n[The first 18 of the 200 bytes of this result; `read_result` with call `t3.1` reads all of it, page by page.]";
        check(&"ä".repeat(100), Some("read_result"), &("ä".repeat(9) + word));
        let word = "\n\n[The first 55 of the 131 bytes of this result; the rest cannot be read.]";
        check(&"x".repeat(131), None, &("x".repeat(55) + word));
    }
}
