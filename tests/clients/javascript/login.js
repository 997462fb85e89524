// Proves to a server who it is, in one way, and sends itself a message: login.js WAY URL, in the directory of the keys.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, errors, nkeyAuthenticator } from "@nats-io/transport-node";

const [way, url] = process.argv.slice(2);

const options = {
  token: () => ({ token: "s3cret" }),
  password: () => ({ user: "plain", pass: "secret" }),
  hashed: () => ({ user: "hashed", pass: "secret" }),
  nkey: () => ({ authenticator: nkeyAuthenticator(readFileSync("user.nk")) }),
  wrong: () => ({ user: "hashed", pass: "secre" }),
  tls: () => ({ tls: { caFile: "ca.pem" } }),
  certificate: () => ({ tls: { caFile: "ca.pem", certFile: "client.pem", keyFile: "client-key.pem" } }),
};

async function main() {
  const connecting = connect({ servers: url, reconnect: false, timeout: 20_000, ...options[way]() });
  if (way === "wrong") {
    await assert.rejects(connecting, (error) => error instanceof errors.AuthorizationError);
    return;
  }
  const nc = await connecting;
  const sub = nc.subscribe("joe.hello", { max: 1 });
  nc.publish("joe.hello", "hello");
  for await (const message of sub) assert.equal(message.string(), "hello");
  await nc.close();
}

try {
  await main();
  console.log(`ok ${way}`);
} catch (error) {
  console.log(`FAIL ${way} ${error}`);
  process.exit(1);
}
