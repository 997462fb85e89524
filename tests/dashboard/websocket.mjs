// The official client in a page of a headless browser, over WebSocket: what a web application does, with compression and
// without, from origins that may and that may not, with a login in cookies.
//
//   node websocket.mjs RINGMAIN
//
// Prints `ok` or `FAIL` for each scenario. A scenario has servers and a page of its own; what the page writes into the
// browser's console makes it fail.

import { createServer } from 'node:http';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';
import { find, launch } from './browser.mjs';
import { Client, Server, until } from './processes.mjs';

const [binary] = process.argv.slice(2).map((path) => resolve(path));
const wanted = process.env.PAGE_CASE ?? '';

/** The client as one script, which gives the page `nats` and notes its sockets. */
async function bundle() {
  const here = createRequire(import.meta.url);
  // The bundler of the dashboard's sources.
  const { build } = createRequire(resolve('src/monitor/dashboard/build.mjs'))('esbuild');
  const { outputFiles } = await build({
    stdin: {
      contents: `
        import * as nats from '@nats-io/nats-core';
        const Socket = globalThis.WebSocket;
        const sockets = [];
        globalThis.WebSocket = class extends Socket {
          constructor(...args) {
            super(...args);
            sockets.push(this);
          }
        };
        Object.assign(globalThis, { nats, sockets });
      `,
      resolveDir: resolve(here.resolve('@nats-io/nats-core'), '..'),
    },
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
  });
  return outputFiles[0].text;
}

/** A host with an empty page that has the client. */
async function serve(script) {
  const host = createServer((request, response) => {
    if (request.url === '/client.js') {
      response.writeHead(200, { 'content-type': 'text/javascript' }).end(script);
    } else if (request.url === '/') {
      response.writeHead(200, { 'content-type': 'text/html' });
      response.end('<!doctype html><title>page</title><link rel="icon" href="data:,"><script src="/client.js"></script>');
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise((done) => host.listen(0, '127.0.0.1', done));
  return { origin: `http://127.0.0.1:${host.address().port}`, close: () => host.close() };
}

async function open(browser, host) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => {
    if (['error', 'warn'].includes(message.type())) complaints.push(message.text());
  });
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.goto(host.origin, { waitUntil: 'load' });
  return {
    page,
    complaints,
    close: async () => {
      await context.close();
      if (complaints.length > 0) throw new Error(`console: ${[...new Set(complaints)].join('\n')}`);
    },
  };
}

const websocket = (more = '') => `websocket { listen: "127.0.0.1:-1", no_tls: true ${more} }\n`;

function equal(found, expected, what) {
  const [left, right] = [found, expected].map((value) => JSON.stringify(value));
  if (left !== right) throw new Error(`${what}: ${left} instead of ${right}`);
}

/** Everything that an application does, played once with compression and once without. */
const talk = {
  'a page publishes, subscribes, asks and answers': async ({ page, url }) => {
    const seen = await page.evaluate(async (servers) => {
      const { wsconnect, headers } = globalThis.nats;
      const [app, service] = await Promise.all([wsconnect({ servers, name: 'app' }), wsconnect({ servers })]);
      const take = async (subscription, count) => {
        const got = [];
        for await (const message of subscription) if (got.push(message) === count) break;
        return got;
      };
      const numbers = app.subscribe('numbers');
      await app.flush();
      for (let at = 0; at < 5000; at += 1) service.publish('numbers', `${at}`);
      const got = await take(numbers, 5000);
      const inOrder = got.every((message, at) => message.string() === `${at}`);

      service.subscribe('double', {
        queue: 'workers',
        callback: (_, message) => {
          const back = headers();
          back.set('Asked-By', message.headers.get('By'));
          message.respond(message.string().repeat(2), { headers: back });
        },
      });
      await service.flush();
      const by = headers();
      by.set('By', 'page');
      const answers = await Promise.all(
        [...Array(100).keys()].map((at) => app.request('double', `${at};`, { headers: by, timeout: 20_000 })),
      );
      const answered = answers.every((answer, at) => answer.string() === `${at};${at};`);

      // Every length of a WebSocket frame, bytes that compress and bytes that do not.
      const lengths = [0, 1, 125, 126, 65_535, 65_536, 1_000_000];
      const echoes = [];
      service.subscribe('echo', { callback: (_, message) => message.respond(message.data) });
      await service.flush();
      for (const length of lengths) {
        const noise = new Uint8Array(length);
        for (let at = 0; at < length; at += 65_536) crypto.getRandomValues(noise.subarray(at, at + 65_536));
        for (const sent of [noise, new Uint8Array(length).fill(length)]) {
          const { data } = await app.request('echo', sent, { timeout: 20_000 });
          echoes.push(data.length === length && data.every((byte, at) => byte === sent[at]));
        }
      }
      const nobody = await app.request('nobody', '', { timeout: 20_000 }).then(
        () => false,
        (error) => error.isNoResponders(),
      );
      const asked = new Set(answers.map((answer) => answer.headers.get('Asked-By')));
      await Promise.all([app.drain(), service.close()]);
      return { inOrder, answered, asked: [...asked], echoes: echoes.every(Boolean), count: echoes.length, nobody };
    }, url);
    const expected = { inOrder: true, answered: true, asked: ['page'], echoes: true, count: 14, nobody: true };
    equal(seen, expected, 'the page');
  },

  'a page and a client over TCP hear each other': async ({ page, url, server }) => {
    const tcp = await Client.connect(server, 'tcp');
    tcp.send('SUB from.page 1\r\n');
    await tcp.flush();
    await page.evaluate(async (servers) => {
      const connection = await globalThis.nats.wsconnect({ servers, name: 'in a page' });
      globalThis.heard = [];
      connection.subscribe('from.tcp', { callback: (_, message) => globalThis.heard.push(message.string()) });
      connection.publish('from.page', 'grüße');
      await connection.flush();
      globalThis.connection = connection;
    }, url);
    // Read as Latin-1, byte by byte.
    const arrived = `MSG from.page 1 7\r\n${Buffer.from('grüße').toString('latin1')}\r\n`;
    await until('what the page has published', () => tcp.text.includes(arrived));
    const { connections } = await server.json('connz');
    equal(connections.map(({ type }) => type).sort(), ['nats', 'websocket'], 'the types of connections');
    tcp.send('PUB from.tcp 2\r\nhi\r\n');
    await until('what the client has published', () => page.evaluate(() => globalThis.heard.includes('hi')));
    await page.evaluate(() => globalThis.connection.close());
    tcp.close();
  },
};

const scenarios = {
  'a page is let in with the login in its cookies, and not without': async ({ browser, host }) => {
    const config =
      'authorization { user: app, password: secret }\n' + websocket(', user_cookie: who, pass_cookie: word');
    await withServer(config, async (server) => {
      const shown = await open(browser, host);
      const enter = (cookies) =>
        shown.page.evaluate(
          async (servers, cookies) => {
            for (const cookie of cookies) document.cookie = cookie;
            try {
              const connection = await globalThis.nats.wsconnect({ servers, reconnect: false });
              await connection.flush();
              await connection.close();
              return 'in';
            } catch (error) {
              return error.message;
            }
          },
          server.websocket,
          cookies,
        );
      const refused = await enter(['who=app', 'word=guess']);
      if (!/authorization violation/i.test(refused)) throw new Error(`with a wrong password: ${refused}`);
      equal(await enter(['word=secret']), 'in', 'with the right one');
      await shown.close();
    });
  },

  'pages of other origins are not let in': async ({ browser, host }) => {
    const enter = async (config) => {
      let entered;
      await withServer(config, async (server) => {
        const shown = await open(browser, host);
        entered = await shown.page.evaluate(async (servers) => {
          try {
            await (await globalThis.nats.wsconnect({ servers, reconnect: false })).close();
            return true;
          } catch {
            return false;
          }
        }, server.websocket);
        // The browser's own word for a refused handshake.
        if (!entered) equal(shown.complaints.splice(0).length > 0, true, 'a complaint of the browser');
        await shown.close();
      });
      return entered;
    };
    equal(await enter(websocket(`, allowed_origins: ["${host.origin}"]`)), true, 'the allowed origin');
    equal(await enter(websocket(', allowed_origins: ["https://example.org"]')), false, 'another origin');
    equal(await enter(websocket(', same_origin: true')), false, 'another port than that of the page');
  },

  'a page comes back after the server has been away': async ({ browser, host }) => {
    const shown = await open(browser, host);
    let port;
    await withServer(websocket(), async (server) => {
      port = new URL(server.websocket).port;
      await shown.page.evaluate(async (servers) => {
        const connection = await globalThis.nats.wsconnect({
          servers,
          reconnectTimeWait: 100,
          maxReconnectAttempts: -1,
        });
        globalThis.connection = connection;
        globalThis.heard = [];
        connection.subscribe('news', { callback: (_, message) => globalThis.heard.push(message.string()) });
        await connection.flush();
      }, server.websocket);
    });
    await withServer(`websocket { listen: "127.0.0.1:${port}", no_tls: true }\n`, async (server) => {
      const tcp = await Client.connect(server, 'tcp');
      await until('the page hears again', async () => {
        tcp.send('PUB news 4\r\nback\r\n');
        return shown.page.evaluate(() => globalThis.heard.includes('back'));
      });
      tcp.close();
      await shown.page.evaluate(() => globalThis.connection.close());
      // While it was away the browser said so.
      shown.complaints.splice(0);
      await shown.close();
    });
  },
};

for (const [words, more, compressed] of [
  ['', '', false],
  [', compressed', ', compression: true', true],
]) {
  for (const [name, play] of Object.entries(talk)) {
    scenarios[`${name}${words}`] = async ({ browser, host }) =>
      withServer(websocket(more), async (server) => {
        const shown = await open(browser, host);
        await play({ page: shown.page, url: server.websocket, server });
        const extensions = await shown.page.evaluate(() => globalThis.sockets.map((socket) => socket.extensions));
        equal(
          extensions.every((text) => text.includes('permessage-deflate') === compressed) && extensions.length > 0,
          true,
          `what was negotiated, ${extensions}`,
        );
        await shown.close();
      });
  }
}

async function withServer(config, use) {
  const server = await Server.start(binary, config);
  try {
    await use(server);
  } finally {
    await server.stop();
  }
}

async function main() {
  const played = Object.entries(scenarios).filter(([name]) => name.includes(wanted));
  if (played.length === 0) {
    console.log(`FAIL PAGE_CASE: no scenario has '${wanted}' in its name`);
    console.log('\n0 passed, 1 failed, 0 skipped');
    return 1;
  }
  const executable = await find();
  if (executable === undefined) {
    console.log('SKIPPED WebSocket in a browser: no Chromium is installed');
    console.log('\n0 passed, 0 failed, 1 skipped');
    return 0;
  }
  const host = await serve(await bundle());
  const browser = await launch(executable);
  let passed = 0;
  let failed = 0;
  for (const [name, play] of played) {
    try {
      await play({ browser, host });
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${error.message}\n  replay: PAGE_CASE='${name}' tests/dashboard/run.sh`);
    }
  }
  await browser.close();
  host.close();
  console.log(`\n${passed} passed, ${failed} failed, 0 skipped`);
  return failed === 0 ? 0 : 1;
}

process.exit(await main());
