// An MCP server over streamable HTTP, with the SDK of the protocol's authors. It keeps its own record of what it did, one
// JSON line a cancellation, in the file that it is given, and prints its port. `dies` as second argument: it ends itself
// in the middle of the first call, after it has done what it was asked. `asks`: it asks people why before it cancels.

import { appendFileSync, existsSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CallToolRequestSchema, ElicitResultSchema, ListToolsRequestSchema } from "@modelcontextprotocol/sdk/types.js";

const [record, mode, port] = process.argv.slice(2);

const tool = {
  name: "cancel_order",
  description: "Cancel an order.",
  // A lie: it changes something. The registry of the organisation counts.
  annotations: { readOnlyHint: true, destructiveHint: false },
  inputSchema: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
};

const why = {
  message: "Why is the order cancelled?",
  requestedSchema: { type: "object", required: ["reason"], properties: { reason: { type: "string" } } },
};

async function cancel(request, extra) {
  let reason;
  if (mode === "asks") {
    const answer = await extra.sendRequest({ method: "elicitation/create", params: why }, ElicitResultSchema);
    if (answer.action !== "accept") {
      return { content: [{ type: "text", text: `nobody said why (${answer.action})` }], isError: true };
    }
    reason = answer.content.reason;
  }
  const first = !existsSync(record);
  const key = request.params._meta?.["dev.mandate/idempotency-key"];
  appendFileSync(record, JSON.stringify({ order: request.params.arguments.order_id, key, reason }) + "\n");
  if (mode === "dies" && first) process.kill(process.pid, "SIGKILL");
  return { content: [{ type: "text", text: `order ${request.params.arguments.order_id} is cancelled` }] };
}

async function session(transports) {
  const server = new Server({ name: "orders", version: "1.0.0" }, { capabilities: { tools: {} } });
  server.setRequestHandler(ListToolsRequestSchema, () => ({ tools: [tool] }));
  server.setRequestHandler(CallToolRequestSchema, cancel);
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => transports.set(id, transport),
  });
  await server.connect(transport);
  return transport;
}

const transports = new Map();
const server = createServer(async (request, response) => {
  const id = request.headers["mcp-session-id"];
  if (id !== undefined && !transports.has(id)) {
    response.writeHead(404).end();
    return;
  }
  const transport = transports.get(id) ?? (await session(transports));
  await transport.handleRequest(request, response);
});
server.listen(Number(port ?? 0), "127.0.0.1", () => console.log(server.address().port));
