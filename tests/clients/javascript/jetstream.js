// What users of JetStream do with the NATS client for Node, against the server binary named by SERVER_BIN; with
// TRANSPORT=websocket what users of the client for browsers do. Prints `ok NAME` or `FAIL NAME reason` for each scenario.
// OBJECT_MB says how large the large object is.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { jetstream } from "@nats-io/jetstream";
import { Kvm } from "@nats-io/kv";
import { Objm } from "@nats-io/obj";
import { headers as newHeaders } from "@nats-io/transport-node";
import { WAIT_MS, play } from "./server.js";

const MS_NS = 1_000_000;
const { equal, deepEqual, ok } = assert;
const numbers = (count) => [...Array(count).keys()];
const number = (msg) => Number(msg.string());

// The promise ends with the error of the API that has this code.
const refused = (promise, code) => assert.rejects(promise, (error) => {
  equal(error.code, code, String(error));
  return true;
});

// Waits for a state of the server that nothing announces.
async function until(condition, what) {
  for (let i = 0; i < WAIT_MS / 10; i++) {
    if (await condition()) return;
    await sleep(10);
  }
  throw new Error(`never: ${what}`);
}

async function take(messages, count) {
  const got = [];
  for await (const msg of messages) {
    got.push(msg);
    if (got.length === count) break;
  }
  return got;
}

async function all(lister) {
  const got = [];
  for await (const item of lister) got.push(item);
  return got;
}

const fill = (js, subject, count) => Promise.all(numbers(count).map((i) => js.publish(subject, `${i}`)));
const next = (consumer) => consumer.next({ expires: WAIT_MS });

const scenarios = {
  async streams({ js, jsm }) {
    const { config } = await jsm.streams.add({ name: "S", subjects: ["s.>"], max_msgs: 1000, metadata: { k: "v" } });
    deepEqual([config.name, config.subjects, config.max_msgs], ["S", ["s.>"], 1000]);
    deepEqual([config.retention, config.storage, config.metadata.k], ["limits", "file", "v"]);
    equal(JSON.stringify((await jsm.streams.add(config)).config), JSON.stringify(config));
    await refused(jsm.streams.add({ name: "S", subjects: ["other"] }), 10058);
    await refused(jsm.streams.add({ name: "T", subjects: ["s.x"] }), 10065);
    const changed = await jsm.streams.update("S", { subjects: ["s.>", "more"] });
    deepEqual(changed.config.subjects, ["s.>", "more"]);
    await refused(jsm.streams.update("S", { storage: "memory" }), 10052);
    for (const subject of ["s.a", "s.a", "s.b", "more"]) await js.publish(subject, "x");
    const { state } = await jsm.streams.info("S", { subjects_filter: ">" });
    deepEqual({ ...state.subjects }, { "s.a": 2, "s.b": 1, more: 1 });
    deepEqual([state.messages, state.first_seq, state.last_seq, state.num_subjects], [4, 1, 4, 3]);
    await jsm.streams.add({ name: "M", subjects: ["m"], storage: "memory" });
    deepEqual((await all(jsm.streams.names())).sort(), ["M", "S"]);
    deepEqual((await all(jsm.streams.list("m"))).map((info) => info.config.name), ["M"]);
    equal(await jsm.streams.find("s.x"), "S");
    ok(await jsm.streams.delete("M"));
    await refused(jsm.streams.info("M"), 10059);
    await refused(jsm.streams.delete("M"), 10059);
    await assert.rejects(js.publish("m"), /no responders|jetstream is not enabled/i);
  },

  async publishing({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["p.>"] });
    const first = await js.publish("p.a", "1", { msgID: "one" });
    deepEqual([first.stream, first.seq, first.duplicate], ["S", 1, false]);
    const again = await js.publish("p.a", "1", { msgID: "one" });
    deepEqual([again.seq, again.duplicate], [1, true]);
    equal((await js.publish("p.a", "2", { expect: { lastSequence: 1 } })).seq, 2);
    await refused(js.publish("p.a", "3", { expect: { lastSequence: 1 } }), 10071);
    await refused(js.publish("p.b", "3", { expect: { lastSubjectSequence: 1 } }), 10071);
    equal((await js.publish("p.b", "3", { expect: { lastSubjectSequence: 0 } })).seq, 3);
    await refused(js.publish("p.b", "4", { expect: { lastMsgID: "other" } }), 10070);
    await refused(js.publish("p.b", "4", { expect: { streamName: "T" } }), 10060);
    const many = await fill(js, "p.many", 2000);
    deepEqual(many.map((ack) => ack.seq), numbers(2000).map((i) => i + 4));
    equal((await jsm.streams.info("S")).state.messages, 2003);
  },

  async batches({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["b.>"], allow_atomic: true });
    const batch = await js.startBatch("b.a", "0");
    for (const i of [1, 2, 3]) batch.add("b.a", `${i}`);
    equal((await jsm.streams.info("S")).state.messages, 0);
    const ack = await batch.commit("b.a", "4");
    deepEqual([ack.seq, ack.count, ack.batch], [5, 5, batch.id]);
    const consumer = await js.consumers.get("S");
    deepEqual((await take(await consumer.consume(), 5)).map(number), numbers(5));
  },

  async limits({ js, jsm }) {
    await jsm.streams.add({ name: "OLD", subjects: ["old.*"], max_msgs: 5, max_msgs_per_subject: 2 });
    for (const i of numbers(10)) await js.publish(`old.${i % 2}`, `${i}`);
    const { state } = await jsm.streams.info("OLD", { subjects_filter: ">" });
    deepEqual([state.messages, state.first_seq, state.last_seq], [4, 7, 10]);
    deepEqual({ ...state.subjects }, { "old.0": 2, "old.1": 2 });
    await jsm.streams.add({ name: "NEW", subjects: ["new"], max_msgs: 1, discard: "new", max_msg_size: 10 });
    await js.publish("new", "1");
    await refused(js.publish("new", "2"), 10077);
    await refused(js.publish("new", "x".repeat(11)), 10054);
    await jsm.streams.add({ name: "AGE", subjects: ["age"], max_age: 300 * MS_NS, duplicate_window: 300 * MS_NS });
    await js.publish("age");
    await until(async () => (await jsm.streams.info("AGE")).state.messages === 0, "the message is too old");
  },

  async getting({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["g.>"], allow_direct: true });
    for (const [i, subject] of ["g.a", "g.b", "g.a", "g.c"].entries()) {
      const headers = newHeaders();
      headers.set("N", `${i}`);
      await js.publish(subject, `${i}`, { headers });
    }
    for (const api of [jsm.streams, jsm.direct]) {
      const second = await api.getMessage("S", { seq: 2 });
      deepEqual([second.subject, second.seq, second.string(), second.header.get("N")], ["g.b", 2, "1", "1"]);
      equal((await api.getMessage("S", { last_by_subj: "g.a" })).seq, 3);
      equal((await api.getMessage("S", { seq: 2, next_by_subj: "g.a" })).seq, 3);
      equal(await api.getMessage("S", { seq: 9 }), null);
      equal(await api.getMessage("S", { last_by_subj: "g.none" }), null);
    }
    deepEqual((await all(await jsm.direct.getBatch("S", { seq: 2, batch: 10 }))).map((m) => m.seq), [2, 3, 4]);
    const last = await jsm.direct.getLastMessagesFor("S", { multi_last: ["g.a", "g.b"] });
    deepEqual((await all(last)).map((m) => m.seq), [2, 3]);
    ok(await jsm.streams.deleteMessage("S", 2));
    equal(await jsm.streams.getMessage("S", { seq: 2 }), null);
    await refused(jsm.streams.deleteMessage("S", 2), 10043);
    const { state } = await jsm.streams.info("S", { deleted_details: true });
    deepEqual([state.messages, state.num_deleted, state.deleted], [3, 1, [2]]);
  },

  async purging({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["g.*"] });
    for (const i of numbers(30)) await js.publish(`g.${i % 3}`, `${i}`);
    const subjects = async () => ({ ...(await jsm.streams.info("S", { subjects_filter: ">" })).state.subjects });
    equal((await jsm.streams.purge("S", { filter: "g.1" })).purged, 10);
    deepEqual(await subjects(), { "g.0": 10, "g.2": 10 });
    equal((await jsm.streams.purge("S", { filter: "g.0", keep: 3 })).purged, 7);
    deepEqual(await subjects(), { "g.0": 3, "g.2": 10 });
    equal((await jsm.streams.purge("S", { seq: 29 })).purged, 12);
    equal((await jsm.streams.purge("S")).purged, 1);
    const { state } = await jsm.streams.info("S");
    deepEqual([state.messages, state.first_seq, state.last_seq], [0, 31, 30]);
    equal((await js.publish("g.0")).seq, 31);
  },

  async pull({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["w.>"] });
    await fill(js, "w.a", 300);
    await jsm.consumers.add("S", { durable_name: "D", ack_policy: "explicit" });
    const consumer = await js.consumers.get("S", "D");
    const got = [];
    while (got.length < 100) {
      for await (const msg of await consumer.fetch({ max_messages: 20, expires: WAIT_MS })) {
        got.push(msg);
        msg.ack();
      }
    }
    const { info } = got[41];
    deepEqual([info.stream, info.consumer, info.deliveryCount], ["S", "D", 1]);
    deepEqual([info.streamSequence, info.deliverySequence, info.pending], [42, 42, 258]);
    // As they come, with requests for more of them in between.
    const messages = await consumer.consume({ max_messages: 30 });
    for await (const msg of messages) {
      got.push(msg);
      msg.ack();
      if (got.length === 300) break;
    }
    deepEqual(got.map(number), numbers(300));
    await until(async () => {
      const state = await consumer.info();
      return state.ack_floor.stream_seq === 300 && state.num_ack_pending === 0;
    }, "all acknowledged");
    equal(await consumer.next({ expires: 1000 }), null);
    const bytes = await jsm.consumers.add("S", { durable_name: "BYTES", ack_policy: "none" });
    const limited = await js.consumers.get("S", bytes.name);
    const some = [];
    await assert.rejects(async () => {
      for await (const msg of await limited.fetch({ max_bytes: 1000, expires: 1000 })) some.push(msg);
    }, /message size exceeds maxbytes/);
    ok(some.length > 5 && some.length < 40, `${some.length} messages in 1000 bytes`);
  },

  async acknowledging({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["a"] });
    await fill(js, "a", 5);
    // One at a time, so that what comes next is what came back.
    const config = { durable_name: "D", ack_policy: "explicit", ack_wait: 1000 * MS_NS, max_deliver: 3, max_ack_pending: 1 };
    await jsm.consumers.add("S", config);
    const consumer = await js.consumers.get("S", "D");
    const takeOne = async (sequence, delivered) => {
      const msg = await next(consumer);
      deepEqual([msg.seq, msg.info.deliveryCount], [sequence, delivered]);
      return msg;
    };
    ok(await (await takeOne(1, 1)).ackAck({ timeout: WAIT_MS }));
    equal((await consumer.info()).ack_floor.stream_seq, 1);
    // Refused: it comes at once, then after a delay, and then no more.
    (await takeOne(2, 1)).nak();
    (await takeOne(2, 2)).nak(200);
    (await takeOne(2, 3)).nak();
    // Not acknowledged in time: it comes again. Still worked on: it does not.
    await takeOne(3, 1);
    const third = await takeOne(3, 2);
    const waiting = consumer.next({ expires: 1500 });
    for (let i = 0; i < 8; i++) {
      await sleep(200);
      third.working();
    }
    equal(await waiting, null);
    ok(await third.ackAck({ timeout: WAIT_MS }));
    (await takeOne(4, 1)).term("no more of it");
    ok(await (await takeOne(5, 1)).ackAck({ timeout: WAIT_MS }));
    const info = await consumer.info();
    deepEqual([info.num_ack_pending, info.num_pending, info.ack_floor.stream_seq], [0, 0, 5]);
    equal(await consumer.next({ expires: 1200 }), null);
  },

  async ordered({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["o.*"] });
    await fill(js, "o.a", 3000);
    const consumer = await js.consumers.get("S", { filter_subjects: ["o.a"] });
    const messages = await consumer.consume({ idle_heartbeat: 500 });
    const reader = messages[Symbol.asyncIterator]();
    for (const i of numbers(3000)) equal(number((await reader.next()).value), i);
    // The consumer goes: another one goes on behind the last message.
    await jsm.consumers.delete("S", (await consumer.info()).name);
    await js.publish("o.a", "3000");
    equal(number((await reader.next()).value), 3000);
    messages.stop();
    const pushed = await js.consumers.getPushConsumer("S", { deliver_policy: "last" });
    deepEqual((await take(await pushed.consume(), 1)).map(number), [3000]);
  },

  async push({ js, jsm, server }) {
    await jsm.streams.add({ name: "S", subjects: ["q"] });
    const group = { durable_name: "D", ack_policy: "explicit", deliver_subject: "to.workers", deliver_group: "workers" };
    await jsm.consumers.add("S", group);
    const got = [[], [], []];
    let done;
    const complete = new Promise((resolve) => (done = resolve));
    const connections = await Promise.all(got.map(() => server.connect()));
    for (const [i, connection] of connections.entries()) {
      const consumer = await jetstream(connection).consumers.getPushConsumer("S", "D");
      await consumer.consume({
        callback: (msg) => {
          got[i].push(number(msg));
          msg.ack();
          if (got.flat().length >= 300) done();
        },
      });
      await connection.flush();
    }
    await fill(js, "q", 300);
    await complete;
    deepEqual(got.flat().sort((a, b) => a - b), numbers(300));
    ok(got.every((mine) => mine.length > 0), "a member got nothing");
    await until(async () => (await jsm.consumers.info("S", "D")).ack_floor.stream_seq === 300, "all acknowledged");
    equal((await jsm.consumers.info("S", "D")).push_bound, true);
    for (const connection of connections) await connection.close();
    await until(async () => !(await jsm.consumers.info("S", "D")).push_bound, "no longer bound");

    await jsm.consumers.add("S", {
      durable_name: "E", ack_policy: "all", deliver_subject: "to.me", idle_heartbeat: 500 * MS_NS, flow_control: true,
    });
    const alone = await take(await (await js.consumers.getPushConsumer("S", "E")).consume(), 300);
    deepEqual(alone.map(number), numbers(300));
    alone.at(-1).ack();
    await until(async () => (await jsm.consumers.info("S", "E")).ack_floor.stream_seq === 300, "all acknowledged at once");
  },

  // More than a consumer is given before it has said that it keeps up.
  async flow_control({ js, jsm, server }) {
    await jsm.streams.add({ name: "S", subjects: ["f"] });
    const filler = "x".repeat(8192);
    await Promise.all(numbers(1500).map((i) => js.publish("f", `${i} ${filler}`, { timeout: WAIT_MS })));
    const watching = await server.connect();
    const answers = watching.subscribe("$JS.FC.>");
    await watching.flush();
    await jsm.consumers.add("S", {
      durable_name: "D", ack_policy: "all", max_ack_pending: -1, deliver_subject: "to.me", idle_heartbeat: 500 * MS_NS,
      flow_control: true,
    });
    const got = await take(await (await js.consumers.getPushConsumer("S", "D")).consume(), 1500);
    deepEqual(got.map((msg) => parseInt(msg.string())), numbers(1500));
    ok(await got.at(-1).ackAck({ timeout: WAIT_MS }));
    // The library answers what asks it whether it keeps up.
    await take(answers, 1);
    equal((await jsm.consumers.info("S", "D")).ack_floor.stream_seq, 1500);
    await watching.close();
  },

  async work_queue({ js, jsm, server }) {
    await jsm.streams.add({ name: "S", subjects: ["jobs.*"], retention: "workqueue" });
    await fill(js, "jobs.a", 200);
    await jsm.consumers.add("S", { durable_name: "D", ack_policy: "explicit", filter_subject: "jobs.*" });
    const got = [[], []];
    await Promise.all(got.map(async (mine) => {
      const connection = await server.connect();
      const consumer = await jetstream(connection).consumers.get("S", "D");
      for (;;) {
        const before = mine.length;
        for await (const msg of await consumer.fetch({ max_messages: 5, expires: 4000 })) {
          mine.push(number(msg));
          ok(await msg.ackAck({ timeout: WAIT_MS }));
        }
        if (mine.length === before) break;
      }
      await connection.close();
    }));
    deepEqual(got.flat().sort((a, b) => a - b), numbers(200));
    ok(got.every((mine) => mine.length > 0), "a worker got nothing");
    equal((await jsm.streams.info("S")).state.messages, 0);
    const other = { durable_name: "E", filter_subject: "jobs.a" };
    await refused(jsm.consumers.add("S", { ...other, ack_policy: "explicit" }), 10100);
    await refused(jsm.consumers.add("S", { ...other, ack_policy: "none" }), 10084);
  },

  // Twenty workers, of which five die with jobs in hand: another one gets those, and no job is lost.
  async failing_workers({ js, jsm, server }) {
    const count = 1000;
    await jsm.streams.add({ name: "S", subjects: ["jobs.*"], retention: "workqueue" });
    await fill(js, "jobs.a", count);
    await jsm.consumers.add("S", { durable_name: "D", ack_policy: "explicit", ack_wait: 2000 * MS_NS });
    const confirmed = new Set();
    let abandoned = 0;
    await Promise.all(numbers(20).map(async (worker) => {
      let life = worker < 5 ? 1 + Math.floor(Math.random() * 29) : Infinity;
      const connection = await server.connect();
      const consumer = await jetstream(connection).consumers.get("S", "D");
      while (confirmed.size < count && life > 0) {
        for await (const msg of await consumer.fetch({ max_messages: 5, expires: 1000 })) {
          if (--life <= 0) {
            abandoned++;
            continue;
          }
          ok(await msg.ackAck({ timeout: WAIT_MS }));
          confirmed.add(number(msg));
        }
      }
      await connection.close();
    }));
    deepEqual([...confirmed].sort((a, b) => a - b), numbers(count));
    ok(abandoned >= 5, "five died with a job in hand");
    equal((await jsm.streams.info("S")).state.messages, 0);
    equal((await jsm.consumers.info("S", "D")).num_ack_pending, 0);
  },

  async interest({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["i"], retention: "interest" });
    equal((await js.publish("i", "nobody")).seq, 1);
    const stored = async () => (await jsm.streams.info("S")).state.messages;
    equal(await stored(), 0);
    for (const durable_name of ["ONE", "TWO"]) await jsm.consumers.add("S", { durable_name, ack_policy: "explicit" });
    await fill(js, "i", 10);
    const fetch = async (name) => all(await (await js.consumers.get("S", name)).fetch({ max_messages: 10, expires: WAIT_MS }));
    for (const msg of await fetch("ONE")) ok(await msg.ackAck({ timeout: WAIT_MS }));
    equal(await stored(), 10);
    for (const msg of (await fetch("TWO")).slice(0, 4)) ok(await msg.ackAck({ timeout: WAIT_MS }));
    equal(await stored(), 6);
    ok(await jsm.consumers.delete("S", "TWO"));
    await until(async () => (await stored()) === 0, "nobody is interested");
  },

  async consumers({ js, jsm }) {
    await jsm.streams.add({ name: "S", subjects: ["c.>"] });
    for (const i of numbers(6)) await js.publish(`c.${i % 2}`, `${i}`);
    const config = { durable_name: "D", ack_policy: "explicit", filter_subject: "c.1", metadata: { k: "v" } };
    const created = await jsm.consumers.add("S", config);
    deepEqual([created.name, created.stream_name, created.num_pending], ["D", "S", 3]);
    deepEqual((await jsm.consumers.info("S", "D")).config, created.config);
    const two = { name: "E", filter_subjects: ["c.0", "c.1"], deliver_policy: "last_per_subject", ack_policy: "none" };
    await jsm.consumers.add("S", two);
    const listed = await all(jsm.consumers.list("S"));
    deepEqual(listed.map((info) => [info.name, info.num_pending]).sort(), [["D", 3], ["E", 2]]);
    equal((await jsm.streams.info("S")).state.consumer_count, 2);
    equal((await jsm.consumers.update("S", "D", { description: "changed" })).config.description, "changed");
    await refused(jsm.consumers.add("S", { ...config, deliver_policy: "new" }), 10148);
    for (const [deliver_policy, opt_start_seq, first] of [["last", 0, 5], ["by_start_sequence", 3, 2], ["last_per_subject", 0, 4]]) {
      const policy = { name: `P${first}`, ack_policy: "none", filter_subject: "c.>", deliver_policy };
      await jsm.consumers.add("S", opt_start_seq ? { ...policy, opt_start_seq } : policy);
      equal(number(await next(await js.consumers.get("S", `P${first}`))), first);
    }
    await jsm.consumers.add("S", { name: "H", ack_policy: "none", headers_only: true });
    const bare = await next(await js.consumers.get("S", "H"));
    deepEqual([bare.string(), bare.headers.get("Nats-Msg-Size")], ["", "1"]);

    ok((await jsm.consumers.pause("S", "D", new Date(Date.now() + 3_600_000))).paused);
    ok((await jsm.consumers.info("S", "D")).paused);
    const consumer = await js.consumers.get("S", "D");
    equal(await consumer.next({ expires: 1000 }), null);
    equal((await jsm.consumers.resume("S", "D")).paused, false);
    const fetch = async (max_messages) => all(await consumer.fetch({ max_messages, expires: WAIT_MS }));
    deepEqual((await fetch(3)).map(number), [1, 3, 5]);
    equal((await jsm.consumers.reset("S", "D", 4)).reset_seq, 4);
    deepEqual((await fetch(2)).map(number), [3, 5]);
    ok(await jsm.consumers.delete("S", "D"));
    await refused(jsm.consumers.info("S", "D"), 10014);
    await refused(jsm.consumers.delete("S", "D"), 10014);
    await refused(jsm.consumers.add("NONE", config), 10059);
    // Without anybody who asks, it goes by itself.
    await jsm.consumers.add("S", { name: "BRIEF", ack_policy: "none", inactive_threshold: 200 * MS_NS });
    const names = async () => (await all(jsm.consumers.list("S"))).map((info) => info.name);
    await until(async () => !(await names()).includes("BRIEF"), "an idle consumer goes");
  },

  async account({ js, jsm }) {
    const before = await jsm.getAccountInfo();
    await jsm.streams.add({ name: "F", subjects: ["f"] });
    await jsm.streams.add({ name: "M", subjects: ["m"], storage: "memory" });
    await jsm.consumers.add("F", { durable_name: "D", ack_policy: "explicit" });
    await js.publish("f", "x".repeat(1000));
    await js.publish("m", "x".repeat(2000));
    const info = await jsm.getAccountInfo();
    deepEqual([info.streams, info.consumers], [2, 1]);
    ok(info.storage >= 1000 && info.memory >= 2000, JSON.stringify(info));
    deepEqual([info.limits.max_streams, info.limits.max_consumers], [-1, -1]);
    ok(info.api.total > before.api.total);
    await refused(jsm.streams.info("NONE"), 10059);
    equal((await jsm.getAccountInfo()).api.errors, info.api.errors + 1);
  },

  async key_value({ js }) {
    const kvm = new Kvm(js);
    const kv = await kvm.create("K", { history: 5 });
    deepEqual([await kv.put("a", "1"), await kv.put("a", "2"), await kv.put("b.c", "3")], [1, 2, 3]);
    const entry = await kv.get("a");
    deepEqual([entry.bucket, entry.key, entry.string(), entry.revision], ["K", "a", "2", 2]);
    equal((await kv.get("a", { revision: 1 })).string(), "1");
    equal(await kv.update("a", "4", 2), 4);
    await refused(kv.update("a", "5", 2), 10071);
    await refused(kv.create("a", "5"), 10071);
    equal(await kv.create("new", "5"), 5);
    equal(await kv.get("none"), null);

    const watch = await kv.watch();
    const updates = watch[Symbol.asyncIterator]();
    const update = async () => {
      const { value } = await updates.next();
      return [value.key, value.operation, value.revision];
    };
    const first = [await update(), await update(), await update()];
    deepEqual(first, [["b.c", "PUT", 3], ["a", "PUT", 4], ["new", "PUT", 5]]);
    await kv.put("a", "6");
    deepEqual(await update(), ["a", "PUT", 6]);
    await kv.delete("a");
    deepEqual(await update(), ["a", "DEL", 7]);
    watch.stop();
    equal((await kv.get("a")).operation, "DEL");
    deepEqual((await all(await kv.keys())).sort(), ["b.c", "new"]);
    deepEqual((await all(await kv.history({ key: "a" }))).map((e) => e.string()), ["1", "2", "4", "6", ""]);
    const history = await kv.watch({ key: "a", include: "history" });
    deepEqual((await take(history, 5)).map((e) => e.revision), [1, 2, 4, 6, 7]);
    equal(await kv.create("a", "8"), 8);
    await kv.purge("a");
    deepEqual((await all(await kv.history({ key: "a" }))).map((e) => [e.operation, e.revision]), [["PURGE", 9]]);
    const status = await kv.status();
    deepEqual([status.bucket, status.values, status.history], ["K", 3, 5]);
    await kv.purgeDeletes(0);
    equal((await kv.status()).values, 2);
    ok(await kv.destroy());
    await assert.rejects(kvm.open("K", { bindOnly: false }).then((bucket) => bucket.status()), /stream not found/);
  },

  async key_value_ttl({ js }) {
    const kvm = new Kvm(js);
    const aging = await kvm.create("AGE", { ttl: 2000 });
    await aging.put("a", "1");
    equal((await aging.get("a")).string(), "1");
    await until(async () => (await aging.get("a")) === null, "the entry is too old");
    const kv = await kvm.create("EACH", { markerTTL: 2000 });
    await kv.create("short", "1", "1s");
    await kv.create("long", "2");
    const seen = (await take(await kv.watch({ key: "short" }), 2)).map((e) => [e.key, e.operation]);
    deepEqual(seen, [["short", "PUT"], ["short", "PURGE"]]);
    await until(async () => (await kv.get("short")) === null, "the marker is too old");
    equal((await kv.get("long")).string(), "2");
  },

  async object_store({ js, nc }) {
    const objm = new Objm(js);
    const store = await objm.create("O");
    const megabytes = Number(process.env.OBJECT_MB ?? 5);
    const data = randomBytes(megabytes * 1024 * 1024);
    const headers = newHeaders();
    headers.set("H", "v");
    const put = await store.putBlob({ name: "large", description: "large", headers }, data);
    deepEqual([put.size, put.chunks, put.bucket], [data.length, 8 * megabytes, "O"]);
    ok(data.equals(await store.getBlob("large")), "the object changed on its way");
    const { info } = await store.get("large");
    deepEqual([info.description, info.headers.get("H"), info.digest], ["large", "v", put.digest]);
    await store.putBlob({ name: "small" }, Buffer.from("1"));
    await store.putBlob({ name: "small" }, Buffer.from("22"));
    equal(Buffer.from(await store.getBlob("small")).toString(), "22");
    deepEqual((await store.list()).map((o) => o.name).sort(), ["large", "small"]);
    const updates = (await store.watch({ includeHistory: true }))[Symbol.asyncIterator]();
    const update = async () => {
      const { value } = await updates.next();
      return [value.name, value.deleted ?? false];
    };
    deepEqual([await update(), await update()], [["large", false], ["small", false]]);
    await store.putBlob({ name: "empty" }, Buffer.alloc(0));
    deepEqual(await update(), ["empty", false]);
    await store.delete("large");
    deepEqual(await update(), ["large", true]);
    equal(await store.getBlob("large"), null);
    await store.link("to", await store.info("small"));
    equal(Buffer.from(await store.getBlob("to")).toString(), "22");
    ok((await store.status()).size < 10_000, "the chunks are still there");
    ok((await store.seal()).sealed);
    await refused(store.putBlob({ name: "late" }, Buffer.from("1")), 10109);
    ok(await store.destroy());
    ok(!nc.isClosed());
  },

  async crash({ js, jsm, nc, server }) {
    await jsm.streams.add({ name: "S", subjects: ["r"] });
    await fill(js, "r", 500);
    await jsm.consumers.add("S", { durable_name: "D", ack_policy: "explicit", ack_wait: 10_000 * MS_NS });
    const consumer = await js.consumers.get("S", "D");
    for await (const msg of await consumer.fetch({ max_messages: 50, expires: WAIT_MS })) {
      ok(await msg.ackAck({ timeout: WAIT_MS }));
    }
    const unconfirmed = await consumer.consume();
    const before = (await take(unconfirmed, 5)).map(number);
    deepEqual(before, [50, 51, 52, 53, 54]);
    const back = (async () => {
      for await (const status of nc.status()) if (status.type === "reconnect") return;
    })();
    await server.stop();
    await server.start();
    await back;
    equal((await jsm.streams.info("S")).state.messages, 500);
    // nats-server writes the position a little later than it confirms it, so that a kill can take it back.
    const { stream_seq: floor } = (await jsm.consumers.info("S", "D")).ack_floor;
    ok(floor === 50 || !("ringmain" in nc.info), `the position is ${floor}`);
    const got = new Set();
    for await (const msg of await consumer.consume()) {
      got.add(number(msg));
      msg.ack();
      if (got.size === 500 - floor) break;
    }
    deepEqual([...got].sort((a, b) => a - b), numbers(500).slice(floor));
  },
};

// Each on a connection of its own, and without anything left behind by the one before.
const alone = (scenario) => async (server) => {
  const nc = await server.connect({ reconnectTimeWait: 50, maxReconnectAttempts: -1 });
  const js = jetstream(nc, { timeout: WAIT_MS });
  const jsm = await js.jetstreamManager();
  try {
    for (const name of await all(jsm.streams.names())) await jsm.streams.delete(name);
    await scenario({ js, jsm, nc, server });
  } finally {
    await nc.close();
  }
};

await play(Object.fromEntries(Object.entries(scenarios).map(([name, scenario]) => [name, alone(scenario)])), true);
