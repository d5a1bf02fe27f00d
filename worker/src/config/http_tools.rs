//! `[http]` of a tool: what is sent to an HTTP server, held against the tool's own input schema.

use mandate_activities::catalog::Speaks;
use mandate_domain::{
    ServerName, ToolReach,
    tool::http::{ANSWER_BYTES, ANSWER_BYTES_MAX, ArgumentsIn, HttpMethod, HttpRequest, PathTemplate},
};
use serde_json::Value;

use super::{
    problems::{Place, Problems, suggestion},
    reader::{At, Table},
    remotes::Server,
    root::Named,
};

/// What is written in `[http]`, before it is held against the schema.
pub(super) struct Written {
    pub(super) reach: ToolReach,
    path: Place,
    method: Place,
}

/// Where the arguments may go, by the name that the registry uses.
const ARGUMENTS: [(&str, ArgumentsIn); 2] = [("body", ArgumentsIn::Body), ("query", ArgumentsIn::Query)];

/// Reads `[http]`.
pub(super) fn read(mut table: Table<'_>, servers: &Named<ServerName, Server>) -> Option<Written> {
    let server = table.required_parsed::<ServerName>("server");
    let method = table.required_parsed::<HttpMethod>("method");
    let path = table.required_parsed::<PathTemplate>("path");
    let arguments = table.required_text("arguments").and_then(|text| read_arguments(table.problems, &text));
    let answer_bytes_max = table.number_within("answer_bytes_max", 1..=ANSWER_BYTES_MAX, ANSWER_BYTES);
    let problems = table.problems;
    table.finish();
    let (server, method, path, arguments) = (server?, method?, path?, arguments?);
    check_server(problems, &server, servers, Speaks::Http);
    if arguments.value == ArgumentsIn::Body && !method.value.takes_body() {
        let message = format!("`{}` has no body", method.value);
        problems.at(&arguments.place, message, "no body", Some("write `arguments = \"query\"`".to_owned()));
    }
    let (path_place, method_place) = (path.place, method.place);
    let request = HttpRequest {
        server: server.value,
        method: method.value,
        path: path.value,
        arguments: arguments.value,
        answer_bytes_max,
    };
    Some(Written { reach: ToolReach::Http(request), path: path_place, method: method_place })
}

fn read_arguments(problems: &Problems, text: &At<String>) -> Option<At<ArgumentsIn>> {
    let found = ARGUMENTS.iter().find(|(known, _)| *known == text.value);
    if found.is_none() {
        let help = suggestion(&text.value, ARGUMENTS.iter().map(|(known, _)| *known));
        let message = format!("`arguments` is where those go that the path does not name, not `{}`", text.value);
        problems.at(&text.place, message, "unknown place", Some(help));
    }
    found.map(|(_, value)| At { value: *value, place: text.place.clone() })
}

/// Whether a server is configured, and speaks what its tool does.
pub(super) fn check_server(
    problems: &Problems,
    server: &At<ServerName>,
    servers: &Named<ServerName, Server>,
    speaks: Speaks,
) {
    let named = server.value.as_str();
    if !servers.written.iter().any(|name| name == named) {
        let help = suggestion(named, servers.written.iter().map(String::as_str));
        problems.at(&server.place, format!("unknown server `{named}`"), "unknown server", Some(help));
    }
    let does = match servers.usable.get(&server.value) {
        Some(Server::Started(_)) => Speaks::Mcp,
        Some(Server::Remote(remote)) => remote.speaks,
        None => return,
    };
    if does == speaks {
        return;
    }
    let (message, help) = match speaks {
        Speaks::Http => ("is an MCP server", "a server of HTTP tools has a `base_url`"),
        Speaks::Mcp => ("has HTTP tools", "an MCP server has a `command` or a `url`"),
    };
    problems.at(&server.place, format!("server `{named}` {message}"), "another kind", Some(help.to_owned()));
}

impl Written {
    /// Holds the request against the tool's schema, and against what the registry says that the tool does.
    pub(super) fn check(&self, problems: &Problems, schema: &Value, read_only: bool) {
        let ToolReach::Http(request) = &self.reach else { return };
        if request.method == HttpMethod::Get && !read_only {
            let message = "a tool that changes something cannot be a `GET`: whoever is on the way may repeat it";
            problems.at(&self.method, message, "changes something", Some("or write `read_only = true`".to_owned()));
        }
        let required: Vec<_> = schema.get("required").and_then(Value::as_array).into_iter().flatten().collect();
        for name in request.path.placeholders() {
            let property = schema.get("properties").and_then(|properties| properties.get(name));
            let message = match property {
                None => format!("`{{{name}}}` is no property of `input_schema`"),
                Some(_) if !required.iter().any(|required| *required == name) => {
                    format!("`{{{name}}}` is a part of the URL, so it must be `required`")
                }
                Some(property) if !is_scalar(property) => {
                    format!(
                        "`{{{name}}}` is a part of the URL, so its `type` must be string, integer, number or boolean"
                    )
                }
                Some(_) => continue,
            };
            problems.at(&self.path, message, "cannot be filled in", None);
        }
        if request.arguments == ArgumentsIn::Query {
            self.check_query(problems, request, schema);
        }
    }

    fn check_query(&self, problems: &Problems, request: &HttpRequest, schema: &Value) {
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        for (name, property) in properties {
            if request.path.placeholders().any(|placeholder| placeholder == name) {
                continue;
            }
            if request.path.states(name) {
                let message = format!("the query states `{name}` itself, and it is a property of `input_schema`");
                problems.at(&self.path, message, "said twice", None);
            }
            if property.get("type").is_some_and(|kind| kind == "object") {
                let message = format!("`{name}` is an object, and no query can hold one");
                problems.at(&self.path, message, "cannot be sent", Some("send it in a body".to_owned()));
            }
        }
    }
}

fn is_scalar(property: &Value) -> bool {
    let is_one = |kind: &Value| ["string", "integer", "number", "boolean"].iter().any(|scalar| kind == scalar);
    match property.get("type") {
        Some(Value::Array(kinds)) => !kinds.is_empty() && kinds.iter().all(is_one),
        Some(kind) => is_one(kind),
        None => false,
    }
}
