// The server under test, named by SERVER_BIN, and how scenarios are played to it: started and stopped here, reached over
// TCP or, with TRANSPORT=websocket, over a WebSocket. Prints `ok NAME` or `FAIL NAME reason` for each scenario.

import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer, connect as dial } from "node:net";
import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { wsconnect } from "@nats-io/nats-core";
import { connect } from "@nats-io/transport-node";
import { WebSocket } from "ws";

const overWebSocket = process.env.TRANSPORT === "websocket";
// Newer Nodes have one of their own.
globalThis.WebSocket ??= WebSocket;

export const WAIT_MS = 20_000;
// Scenarios are given up by then; a large object takes its time.
const LIMIT_S = 60 + Number(process.env.OBJECT_MB ?? 0);

async function freePort() {
  const probe = createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

class Server {
  constructor(jetstream) {
    this.directory = mkdtempSync(join(tmpdir(), "client-"));
    this.jetstream = jetstream;
  }

  async start() {
    this.port ??= await freePort();
    const args = ["-a", "127.0.0.1", "-p", overWebSocket ? "-1" : `${this.port}`];
    if (overWebSocket) {
      const file = join(this.directory, "server.conf");
      writeFileSync(file, `websocket { listen: "127.0.0.1:${this.port}", no_tls: true }\n`);
      args.push("-c", file);
    }
    if (this.jetstream) args.push("-js", "-sd", join(this.directory, "store"));
    this.process = spawn(process.env.SERVER_BIN, args, { stdio: "ignore" });
    for (let i = 0; i < 2000; i++) {
      const listens = await new Promise((resolve) => {
        const socket = dial(this.port, "127.0.0.1", () => { socket.destroy(); resolve(true); });
        socket.on("error", () => resolve(false));
      });
      if (listens) return;
      await sleep(10);
    }
    throw new Error("the server does not listen");
  }

  async stop() {
    const exit = once(this.process, "exit");
    this.process.kill("SIGKILL");
    await exit;
  }

  clean() {
    rmSync(this.directory, { recursive: true });
  }

  connect(options = {}) {
    if (overWebSocket) return wsconnect({ servers: `ws://127.0.0.1:${this.port}`, ...options });
    return connect({ servers: `127.0.0.1:${this.port}`, ...options });
  }
}

// Exits with the result.
export async function play(scenarios, jetstream = false) {
  const server = new Server(jetstream);
  await server.start();
  let failed = 0;
  for (const [name, scenario] of Object.entries(scenarios)) {
    const limit = sleep(LIMIT_S * 1000, "late", { ref: false });
    try {
      if ((await Promise.race([scenario(server), limit])) === "late") throw new Error(`not done within ${LIMIT_S} s`);
      console.log(`ok ${name}`);
    } catch (error) {
      failed++;
      console.log(`FAIL ${name} ${String(error.message ?? error).replaceAll("\n", " ")}`);
    }
  }
  await server.stop();
  server.clean();
  process.exit(failed ? 1 : 0);
}
