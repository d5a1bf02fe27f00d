# The worker: `mandate` and the example's MCP server, run by a user without rights.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p mandate-worker -p refunds-mcp

FROM debian:bookworm-slim
# The models' endpoints are verified with the system's certificates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home mandate \
    && install -d -o mandate -g mandate /etc/mandate /etc/mandate/var
COPY --from=build /src/target/release/mandate /src/target/release/refunds-mcp /usr/local/bin/
USER 10001
# The operating folder; its `var` holds the store and is a volume of its own.
WORKDIR /etc/mandate
ENTRYPOINT ["mandate"]
CMD ["worker"]
