//! Does each tool server start or take connections, and are the registered tools there as the registry states them? No
//! tool is called.

use mandate_activities::{
    catalog::{Catalog, Speaks},
    tools::{PrepareToolError, ToolSet},
};
use mandate_domain::{ServerName, ToolDefinition};

use super::Finding;

/// Starts or reaches all servers at once, each within its own time to connect, and ends them again.
pub(super) async fn checks(catalog: &Catalog) -> Vec<Finding> {
    let tools = ToolSet::new(catalog.servers.clone()).with_remotes(catalog.remotes.clone());
    let names = catalog.servers.keys().chain(catalog.remotes.keys());
    let servers = names.map(|server| of_server(&tools, server, catalog));
    let found = futures::future::join_all(servers).await;
    tools.close().await;
    let built_in = catalog.tools.values().filter(|tool| tool.reach.server().is_none());
    let built_in = built_in.map(|tool| Finding::ok(format!("tool {}", tool.name), "built in"));
    found.into_iter().flatten().chain(built_in).collect()
}

async fn of_server(tools: &ToolSet, server: &ServerName, catalog: &Catalog) -> Vec<Finding> {
    let check = format!("server {server}");
    let own: Vec<_> = catalog.tools.values().filter(|tool| tool.reach.server() == Some(server)).collect();
    if let Err(error) = tools.connect(server).await {
        let names: Vec<_> = own.iter().map(|tool| tool.name.as_str()).collect();
        let detail = format!("{error}; tools that need it: {}", names.join(", "));
        let advice = if catalog.remotes.contains_key(server) {
            format!("Correct `[servers.{server}]`, or see to it that this machine reaches the server")
        } else {
            format!(
                "Start the program of `[servers.{server}] command` by hand in the operating folder and mend what it says"
            )
        };
        return vec![Finding::fail(check, detail, advice)];
    }
    let how = match catalog.remotes.get(server).map(|remote| remote.speaks) {
        Some(Speaks::Http) => "takes connections; nothing was sent",
        Some(Speaks::Mcp) => "answers and lists its tools",
        None => "starts and lists its tools",
    };
    let mut found = vec![Finding::ok(check, how)];
    for tool in own {
        found.push(of_tool(tools, server, tool).await);
    }
    found
}

async fn of_tool(tools: &ToolSet, server: &ServerName, tool: &ToolDefinition) -> Finding {
    let check = format!("tool {}", tool.name);
    let file = format!("`tools/{}.toml`", tool.name);
    let Err(error) = tools.prepare(tool).await else {
        return Finding::ok(check, format!("on server `{server}`, as registered"));
    };
    let advice = match &error {
        PrepareToolError::Unreachable { .. } => format!("Find out why server `{server}` ended"),
        PrepareToolError::Unknown { .. } => format!("Correct `[mcp] tool` in {file}, or give the server that tool"),
        PrepareToolError::Changed { .. } => {
            format!("Write the schema of the server into {file} if it is right, or go back to the server that fits")
        }
    };
    Finding::fail(check, error.to_string(), advice)
}
