// What users of the NATS client for Node do, against the server binary named by SERVER_BIN; with TRANSPORT=websocket what
// users of the client for browsers do, over a WebSocket. Prints `ok NAME` or `FAIL NAME reason` for each scenario.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Svcm } from "@nats-io/services";
import { errors, headers as newHeaders } from "@nats-io/transport-node";
import { WAIT_MS, play } from "./server.js";

const text = (msg) => msg.string();

async function take(sub, count) {
  const got = [];
  for await (const msg of sub) {
    got.push(msg);
    if (got.length === count) break;
  }
  return got;
}

const scenarios = {
  async publish_subscribe(server) {
    const nc = await server.connect();
    const sub = nc.subscribe("greet", { max: 1000 });
    for (let i = 0; i < 1000; i++) nc.publish("greet", `${i}`);
    assert.deepEqual((await take(sub, 1000)).map(text), [...Array(1000).keys()].map(String));
    await nc.close();
  },

  async wildcards(server) {
    const nc = await server.connect();
    const star = nc.subscribe("a.*.c");
    const rest = nc.subscribe("a.>");
    for (const subject of ["a.b.c", "a.b.d", "a.c", "b.b.c", "a.x.c", "a.b.c.d", "a"]) nc.publish(subject);
    await nc.flush();
    assert.equal(star.getReceived(), 2);
    assert.equal(rest.getReceived(), 5);
    assert.deepEqual((await take(star, 2)).map((m) => m.subject), ["a.b.c", "a.x.c"]);
    assert.deepEqual((await take(rest, 5)).map((m) => m.subject), ["a.b.c", "a.b.d", "a.c", "a.x.c", "a.b.c.d"]);
    await nc.close();
  },

  async queue_groups(server) {
    const got = [[], [], []];
    let done;
    const all = new Promise((resolve) => (done = resolve));
    const workers = await Promise.all(got.map(() => server.connect()));
    for (const [i, worker] of workers.entries()) {
      worker.subscribe("jobs", {
        queue: "workers",
        callback: (_, msg) => {
          got[i].push(Number(msg.string()));
          if (got.flat().length >= 600) done();
        },
      });
      await worker.flush();
    }
    const nc = await server.connect();
    for (let i = 0; i < 600; i++) nc.publish("jobs", `${i}`);
    await all;
    assert.deepEqual(got.flat().sort((a, b) => a - b), [...Array(600).keys()]);
    assert.ok(got.every((mine) => mine.length > 0), "a member got nothing");
    for (const connection of [...workers, nc]) await connection.close();
  },

  async request_reply(server) {
    const service = await server.connect();
    const nc = await server.connect();
    service.subscribe("double", { callback: (_, msg) => msg.respond(msg.string().repeat(2)) });
    await service.flush();
    const asked = [...Array(200).keys()].map(String);
    const answers = await Promise.all(asked.map((i) => nc.request("double", i, { timeout: WAIT_MS })));
    assert.deepEqual(answers.map(text), asked.map((i) => i + i));
    await nc.close();
    await service.close();
  },

  async no_responders(server) {
    const nc = await server.connect();
    await assert.rejects(nc.request("nobody.home", "?", { timeout: WAIT_MS }), (error) => {
      const cause = error instanceof errors.NoRespondersError ? error : error.cause;
      assert.ok(cause instanceof errors.NoRespondersError, String(error));
      return true;
    });
    await nc.close();
  },

  async headers(server) {
    const nc = await server.connect();
    const sub = nc.subscribe("h");
    const sent = newHeaders();
    sent.append("Trace", "abc-123");
    sent.append("Trace", "second value");
    sent.append("Content-Type", "text/plain; charset=utf-8");
    sent.append("Long", "x".repeat(3000));
    nc.publish("h", "body", { headers: sent });
    nc.publish("h", "", { headers: sent });
    const [first, second] = await take(sub, 2);
    assert.equal(first.string(), "body");
    assert.equal(second.string(), "");
    for (const msg of [first, second]) {
      assert.deepEqual(msg.headers.values("Trace"), ["abc-123", "second value"]);
      assert.equal(msg.headers.get("Content-Type"), "text/plain; charset=utf-8");
      assert.equal(msg.headers.get("Long").length, 3000);
    }
    await nc.close();
  },

  async large_payload(server) {
    const nc = await server.connect();
    const other = await server.connect();
    const sub = other.subscribe("large");
    await other.flush();
    assert.equal(nc.info.max_payload, 1024 * 1024);
    const payload = randomBytes(nc.info.max_payload);
    for (let i = 0; i < 4; i++) nc.publish("large", payload);
    for (const msg of await take(sub, 4)) assert.ok(payload.equals(msg.data), "payload changed on its way");
    await nc.close();
    await other.close();
  },

  async drain(server) {
    const publisher = await server.connect();
    const nc = await server.connect();
    const sub = nc.subscribe("d");
    await nc.flush();
    let got = 0;
    const reading = (async () => {
      for await (const _ of sub) {
        await sleep(1);
        got++;
      }
    })();
    for (let i = 0; i < 100; i++) publisher.publish("d", `${i}`);
    await publisher.flush();
    await nc.flush();
    await nc.drain();
    await reading;
    assert.equal(got, 100);
    assert.ok(nc.isClosed());
    await publisher.close();
  },

  async flush(server) {
    const nc = await server.connect();
    for (let i = 0; i < 50; i++) {
      nc.publish("nobody", "x".repeat(1000));
      await nc.flush();
    }
    assert.equal(nc.stats().outMsgs, 50);
    await nc.close();
  },

  async many_subjects(server) {
    const nc = await server.connect();
    const subs = [...Array(2000).keys()].map((i) => nc.subscribe(`many.${i}.subject`, { max: 1 }));
    for (let i = 0; i < 2000; i++) nc.publish(`many.${i}.subject`, `${i}`);
    for (const [i, sub] of subs.entries()) assert.equal((await take(sub, 1))[0].string(), `${i}`);
    await nc.close();
  },

  async unsubscribe_after(server) {
    const nc = await server.connect();
    const sub = nc.subscribe("limited");
    sub.unsubscribe(5);
    for (let i = 0; i < 20; i++) nc.publish("limited", `${i}`);
    const got = [];
    for await (const msg of sub) got.push(msg.string());
    assert.deepEqual(got, ["0", "1", "2", "3", "4"]);
    await nc.flush();
    assert.equal(nc.stats().inMsgs, 5);
    await nc.close();
  },

  async services(server) {
    const nc = await server.connect();
    const instances = await Promise.all([1, 2, 3].map(async () => {
      const connection = await server.connect();
      const service = await new Svcm(connection).add({ name: "adder", version: "1.2.3", description: "adds one" });
      service.addGroup("math").addEndpoint("increment", (_, msg) => {
        const number = Number(msg.string());
        return Number.isNaN(number) ? msg.respondError(400, "no number") : msg.respond(`${number + 1}`);
      });
      await connection.flush();
      return { connection, service };
    }));
    const asked = [...Array(90).keys()];
    const answers = await Promise.all(asked.map((i) => nc.request("math.increment", `${i}`, { timeout: WAIT_MS })));
    assert.deepEqual(answers.map((msg) => Number(msg.string())), asked.map((i) => i + 1));
    const refused = await nc.request("math.increment", "x", { timeout: WAIT_MS });
    assert.equal(refused.headers.get("Nats-Service-Error-Code"), "400");
    assert.equal(refused.headers.get("Nats-Service-Error"), "no number");
    const client = new Svcm(nc).client();
    const ids = instances.map(({ service }) => service.info().id).sort();
    const stats = [];
    for await (const one of await client.stats("adder")) stats.push(one);
    assert.deepEqual(stats.map((one) => one.id).sort(), ids);
    const counts = stats.map((one) => one.endpoints[0].num_requests);
    assert.equal(counts.reduce((sum, count) => sum + count), 91);
    assert.ok(!counts.includes(0), "an instance was never asked");
    const gone = instances.pop();
    const { id } = gone.service.info();
    await gone.service.stop();
    await gone.connection.close();
    await assert.rejects(nc.request(`$SRV.PING.adder.${id}`, "", { timeout: WAIT_MS }), /no responders/i);
    const left = [];
    for await (const one of await client.ping()) left.push(one.id);
    assert.deepEqual(left.sort(), instances.map(({ service }) => service.info().id).sort());
    for (const connection of [...instances.map((one) => one.connection), nc]) await connection.close();
  },

  async reconnect(server) {
    const nc = await server.connect({ reconnectTimeWait: 50, maxReconnectAttempts: -1 });
    const back = (async () => {
      for await (const status of nc.status()) if (status.type === "reconnect") return;
    })();
    const messages = nc.subscribe("again")[Symbol.asyncIterator]();
    nc.publish("again", "before");
    assert.equal((await messages.next()).value.string(), "before");
    await server.stop();
    await server.start();
    await back;
    await nc.flush();
    nc.publish("again", "after");
    assert.equal((await messages.next()).value.string(), "after");
    await nc.close();
  },
};

await play(scenarios);
