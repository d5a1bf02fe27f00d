"""An MCP server over streamable HTTP, with the SDK of the protocol's authors for Python, which speaks the revision of
2026-07-28: no session, each request says all of it. It keeps its own record of what it did, one JSON line a cancellation,
in the file that it is given, and prints its port. With the session id of a request it writes down whether there was one.
"""

import asyncio
import json
import socket
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.transport_security import TransportSecuritySettings

record = sys.argv[1]
server = MCPServer("orders")


@server.tool()
def cancel_order(order_id: str, ctx: Context) -> str:
    """Cancel an order."""
    request = ctx.request_context
    done = {
        "order": order_id,
        "key": request.meta.get("dev.mandate/idempotency-key"),
        "revision": request.protocol_version,
        "session": request.request.headers.get("mcp-session-id"),
    }
    with open(record, "a", encoding="utf-8") as file:
        file.write(json.dumps(done) + "\n")
    return f"order {order_id} is cancelled"


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
# It listens on this machine, behind a way that has another port.
behind = TransportSecuritySettings(enable_dns_rebinding_protection=False)
app = server.streamable_http_app(transport_security=behind)
asyncio.run(uvicorn.Server(uvicorn.Config(app, log_level="warning")).serve(sockets=[listener]))
