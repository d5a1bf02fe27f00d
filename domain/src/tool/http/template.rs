//! The template of a path: literal text and `{names}`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{FillTemplateError, encode, scalar};

/// A path below a server's base URL, perhaps with a query, such as `/orders/{order_id}?expand={expand}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathTemplate {
    // INVARIANT (plain template): begins with a slash; no segment is empty, `.` or begins with `..`; literal text holds
    // neither `%` nor anything else that a URL parser would change. Made by `from_str` alone.
    text: String,
}

/// The text is no template. Correct it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTemplateError {
    /// It is not a path below the base URL.
    #[error("a path begins with `/`")]
    NotAPath,
    /// A brace without its other half, or something else than a name between them.
    #[error("`{0}` is no placeholder: write `{{name}}` with the name of an argument")]
    Placeholder(String),
    /// A character that would have to be encoded, or that ends the path.
    #[error("`{0}` cannot stand in a path here; letters, digits and `-._~!$'()*+,;:@&=` can")]
    Character(char),
    /// A segment that is empty or a way up.
    #[error("the path has a segment that is empty, `.` or begins with `..`")]
    Segment,
    /// A part of the query without a name or value.
    #[error("`{0}` in the query is not of the form `name=value`")]
    Query(String),
}

/// A piece of a template.
enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

impl PathTemplate {
    /// The template as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names between braces, in order.
    pub fn placeholders(&self) -> impl Iterator<Item = &str> {
        pieces(&self.text).filter_map(|piece| match piece {
            Ok(Piece::Placeholder(name)) => Some(name),
            Ok(Piece::Literal(_)) | Err(_) => None,
        })
    }

    /// Whether the query of the template has a value of this name.
    #[must_use]
    pub fn states(&self, name: &str) -> bool {
        self.query().any(|pair| pair.split('=').next() == Some(name))
    }

    fn query(&self) -> impl Iterator<Item = &str> {
        self.text.split_once('?').map(|(_, query)| query).into_iter().flat_map(|query| query.split('&'))
    }

    /// The path, and the parts of the query, with the arguments in their places.
    pub(super) fn fill(&self, arguments: &Map<String, Value>) -> Result<(String, Vec<String>), FillTemplateError> {
        let path = self.text.split('?').next().unwrap_or_default();
        let segments = path.split('/').skip(1).map(|segment| fill_segment(segment, arguments));
        let segments: Vec<String> = segments.collect::<Result<_, _>>()?;
        let query = self.query().map(|pair| Ok(expand(pair, arguments)?.encoded));
        Ok((format!("/{}", segments.join("/")), query.collect::<Result<_, _>>()?))
    }
}

/// A part with the arguments in their places.
struct Expanded {
    encoded: String,
    plain: String,
    last: String,
}

fn expand(text: &str, arguments: &Map<String, Value>) -> Result<Expanded, FillTemplateError> {
    let mut expanded = Expanded { encoded: String::new(), plain: String::new(), last: String::new() };
    // INVARIANT (plain template): every piece is one.
    for piece in pieces(text).flatten() {
        match piece {
            Piece::Literal(literal) => {
                expanded.encoded.push_str(literal);
                expanded.plain.push_str(literal);
            }
            Piece::Placeholder(name) => {
                let value = arguments.get(name).ok_or_else(|| FillTemplateError::Missing(name.to_owned()))?;
                let value = scalar(value).ok_or_else(|| FillTemplateError::NotScalar(name.to_owned()))?;
                expanded.encoded.push_str(&encode(&value));
                expanded.plain.push_str(&value);
                name.clone_into(&mut expanded.last);
            }
        }
    }
    Ok(expanded)
}

/// A segment of the path. Checked as the server would see it decoded: some decode before they route.
fn fill_segment(segment: &str, arguments: &Map<String, Value>) -> Result<String, FillTemplateError> {
    let expanded = expand(segment, arguments)?;
    let is_way = |c: char| c == '/' || c == '\\' || c.is_control();
    if !expanded.last.is_empty() && (is_no_segment(&expanded.plain) || expanded.plain.contains(is_way)) {
        return Err(FillTemplateError::NotASegment(expanded.last));
    }
    Ok(expanded.encoded)
}

fn is_no_segment(text: &str) -> bool {
    text.is_empty() || text == "." || text.starts_with("..")
}

/// Splits a text into its pieces.
fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, ParseTemplateError>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = match rest.strip_prefix('{') {
            _ if rest.is_empty() => return None,
            Some(inside) => match inside.split_once('}') {
                Some((name, after)) if is_name(name) => (Ok(Piece::Placeholder(name)), after),
                Some((name, _)) => (Err(ParseTemplateError::Placeholder(format!("{{{name}}}"))), ""),
                None => (Err(ParseTemplateError::Placeholder(rest.to_owned())), ""),
            },
            None => {
                let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                (Ok(Piece::Literal(literal)), after)
            }
        };
        rest = after;
        Some(piece)
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn may_stand(c: char, separators: &[char]) -> bool {
    c.is_ascii_alphanumeric() || "-._~!$'()*+,;:@".contains(c) || separators.contains(&c)
}

fn check_literals(text: &str, separators: &[char]) -> Result<(), ParseTemplateError> {
    for piece in pieces(text) {
        match piece? {
            Piece::Literal(literal) => match literal.chars().find(|c| !may_stand(*c, separators)) {
                Some('}') => return Err(ParseTemplateError::Placeholder("}".to_owned())),
                Some(c) => return Err(ParseTemplateError::Character(c)),
                None => {}
            },
            Piece::Placeholder(_) => {}
        }
    }
    Ok(())
}

impl FromStr for PathTemplate {
    type Err = ParseTemplateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let segments = path.strip_prefix('/').ok_or(ParseTemplateError::NotAPath)?;
        check_literals(path, &['/', '&', '='])?;
        if segments.split('/').any(is_no_segment) {
            return Err(ParseTemplateError::Segment);
        }
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let parts = pair.split_once('=').filter(|(name, _)| !name.is_empty() && !name.contains('{'));
            let (name, value) = parts.ok_or_else(|| ParseTemplateError::Query(pair.to_owned()))?;
            check_literals(name, &[])?;
            check_literals(value, &['/'])?;
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl TryFrom<String> for PathTemplate {
    type Error = ParseTemplateError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PathTemplate> for String {
    fn from(template: PathTemplate) -> Self {
        template.text
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
