// The dashboard in a headless browser, under live traffic: every view is clicked through, by mouse and by keyboard, wide
// and as narrow as a phone, light and dark.
//
//   node dashboard.mjs RINGMAIN RINGMAIN_BENCH [SCREENSHOTS_DIRECTORY]
//
// Prints `ok` or `FAIL` for each scenario. A scenario has a page of its own; whatever the page writes into the browser's
// console, and whatever it asks of anybody but its server, makes the scenario fail.

import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { find, launch } from './browser.mjs';
import { Client, Server, load, until } from './processes.mjs';

const [binary, bench, screenshots] = process.argv.slice(2).map((path) => resolve(path));
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const views = ['overview', 'connections', 'closed', 'subscriptions', 'accounts', 'server'];
const wide = { width: 1360, height: 900 };
const phone = { width: 360, height: 740, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
const idleClients = 60;

/** A page that is watched. */
async function open(browser, server, path = '/', viewport = wide, login = null) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const complaints = [];
  const requests = [];
  const expected = [];
  page.on('console', (message) => {
    // The browser's own word for a server that is not there, or that refuses.
    if (expected.some((text) => message.text().includes(text))) return;
    if (['error', 'warn'].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (url.protocol === 'data:') return;
    requests.push({ path: url.pathname + url.search, at: Date.now() });
    if (url.origin !== server.origin) complaints.push(`asks elsewhere: ${url}`);
  });
  await page.setViewport(viewport);
  if (login !== null) await page.authenticate(login);
  await page.goto(server.origin + path, { waitUntil: 'load' });
  const say = (path) => until(path, () => page.$eval('main', (main) => main.innerText).catch(() => ''));
  await say('the page');
  return {
    page,
    requests,
    expects: (complaint) => expected.push(complaint),
    go: async (view) => {
      await page.click(`nav.views a[href="#/${view}"]`);
      await page.waitForSelector(`nav.views a[href="#/${view}"][aria-current=page]`);
      await settled(page);
    },
    has: (text) =>
      until(`the page says ${text}`, () =>
        page.$eval('main', (main, text) => main.innerText.toLowerCase().includes(text), text.toLowerCase()),
      ),
    close: async () => {
      await context.close();
      if (complaints.length > 0) throw new Error([...new Set(complaints)].join('\n'));
    },
  };
}

/** Until nothing of the view says that it waits. */
async function settled(page) {
  await until('the view is there', () => page.$eval('main', (main) => !main.innerText.includes('Waiting for the server')));
}

function assert(condition, text) {
  if (!condition) throw new Error(text);
}

/** The rows of the panel of latencies. */
function latencyRows(page) {
  return page.$$eval('table[aria-label^=Latency] tbody tr', (rows) =>
    rows.map((row) => {
      const [part, ...cells] = [...row.querySelectorAll('.value')].map(({ innerText }) => innerText);
      return { part, counted: cells.pop(), quantiles: cells };
    }),
  );
}

/** What the page makes of a time, in microseconds. */
function micros(text) {
  const [, number, unit] = /^(?:[<>] )?([\d.]+) (µs|ms|s)$/.exec(text) ?? [];
  return Number(number) * { 'µs': 1, ms: 1e3, s: 1e6 }[unit];
}

/** As much of `/metrics` as the panel of latencies reads. */
function metrics({ start, ...histograms }) {
  const lines = Object.entries(histograms).flatMap(([part, buckets]) => {
    // Keys that look like integers come first in an object.
    const inOrder = Object.entries(buckets).sort(([a], [b]) => (a === '+Inf') - (b === '+Inf') || a - b);
    return inOrder.map(([bound, upTo]) => `ringmain_${part}_seconds_bucket{le="${bound}"} ${upTo}`);
  });
  return [`process_start_time_seconds ${start}`, ...lines, ''].join('\n');
}

/** Nothing is wider than the screen, and nothing is too small for a finger. */
async function isNotWider(page, place) {
  const outside = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    const isScrolled = (element) => element.closest('.views, thead, .skip') !== null;
    const wider = [...document.querySelectorAll('body *')].filter(
      (element) => !isScrolled(element) && element.getBoundingClientRect().right > width + 1,
    );
    return { over: document.scrollingElement.scrollWidth - width, wider: wider.map((element) => element.outerHTML.slice(0, 120)) };
  });
  assert(outside.over <= 0 && outside.wider.length === 0, `${place}: ${JSON.stringify(outside)}`);
  const small = await page.$$eval('button, select, input', (controls) =>
    controls.filter((control) => control.checkVisibility() && !control.closest('thead') && control.getBoundingClientRect().height < 32).map((control) => control.outerHTML),
  );
  assert(small.length === 0, `${place}: too small for a finger: ${small}`);
}

/** The rules of accessibility hold. */
async function isByTheRules(page, place) {
  const { violations } = await page.evaluate(`${axe}; axe.run(document, { resultTypes: ['violations'] })`);
  const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).slice(0, 2)}`);
  assert(told.length === 0, `${place}:\n${told.join('\n')}`);
}

const number = (text) => Number(text.replace(/[^\d.]/g, ''));

const scenarios = {
  async 'browsers get the dashboard, and others the links'({ server }) {
    const accept = { accept: 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8' };
    const [page, links, dashboard] = await Promise.all([
      fetch(server.origin, { headers: accept }),
      fetch(server.origin, { headers: { accept: '*/*' } }),
      fetch(`${server.origin}/dashboard`),
    ]);
    assert((await page.text()) === (await dashboard.text()), 'two dashboards');
    assert((await links.text()).includes('/varz'), 'no links');
  },

  async 'the overview shows live traffic'({ browser, server }) {
    const view = await open(browser, server);
    const tile = (label) =>
      view.page.$$eval('.tile', (tiles, label) => {
        const found = tiles.find((tile) => tile.querySelector('dt').textContent === label);
        return found?.querySelector('dd').textContent ?? '';
      }, label);
    await until('messages come in', async () => number(await tile('Messages in')) > 500);
    await until('more go out than come in', async () => number(await tile('Messages out')) > number(await tile('Messages in')));
    await until('bytes', async () => /[KM]iB\/s/.test(await tile('Bytes out')));
    assert(number(await tile('Connections')) >= idleClients, 'connections');
    assert((await view.page.$$('.plot canvas')).length === 5, 'five charts');
    await view.close();
  },

  async 'the latency of messages is told in parts, and over time'({ browser, server }) {
    const view = await open(browser, server);
    const rows = () => latencyRows(view.page);
    await until('messages were routed and sent', async () => {
      const [routing, , sending] = await rows();
      return /^\d.* messages$/.test(routing?.counted) && /^\d.* pieces$/.test(sending.counted);
    });
    for (const { part, quantiles, counted } of await rows()) {
      if (counted === 'no messages') {
        // With one worker nothing is handed over.
        assert(part.startsWith('handing over') && quantiles.every((text) => text === '–'), `${part}: ${quantiles}`);
        continue;
      }
      const [p50, p99, p999] = quantiles.map(micros);
      assert(0 < p50 && p50 <= p99 && p99 <= p999, `${part}: ${quantiles}`);
    }
    const plot = 'figure.chart .plot[aria-label^="p99"]';
    const values = () => view.page.$eval(plot, (plot) => 1 + Number(plot.getAttribute('aria-valuemax')));
    await until('two values over time', async () => (await values()) >= 2);
    const value = await view.page.$eval(plot, (plot) => plot.getAttribute('aria-valuetext'));
    assert(/routing \d.*[mµ]?s, handing over .+, sending \d.*[mµ]?s$/.test(value), value);
    await view.go('server');
    await view.has('99 % of turns');
    await view.go('overview');
    assert((await values()) >= 2, 'what was read before is still in the chart');
    await view.close();
  },

  async 'where there were no messages there is no latency'({ browser }) {
    const quiet = await Server.start(binary);
    try {
      const view = await open(browser, quiet);
      await until('all parts say so', async () => {
        const rows = await latencyRows(view.page);
        return rows.length === 3 && rows.every(({ counted, quantiles }) => counted === 'no messages' && quantiles.every((text) => text === '–'));
      });
      const legend = await view.page.$$eval('figure.chart .legend', (legends) => legends.map(({ innerText }) => innerText).find((text) => text.includes('routing')));
      assert(!/\d/.test(legend), `the chart says ${legend}`);
      await view.close();
    } finally {
      await quiet.stop();
    }
  },

  async 'latencies are those of the last interval, read as Prometheus reads them'({ browser, server }) {
    const view = await open(browser, server, '/#/accounts');
    let reading = {};
    await view.page.setRequestInterception(true);
    view.page.on('request', async (request) => {
      const { pathname } = new URL(request.url());
      if (pathname === '/metrics') await request.respond({ contentType: 'text/plain; version=0.0.4', body: metrics(reading) });
      else await request.continue();
    });
    const rows = () => latencyRows(view.page);
    const none = { 0.001: 0, 0.002: 0, 0.01: 0, 10: 0, '+Inf': 0 };
    const long = { ...none, 10: 70, '+Inf': 70 };
    reading = { start: 1, route: { 0.001: 0, 0.002: 40, 0.01: 40, 10: 40, '+Inf': 40 }, handover: none, send: long };
    await view.go('overview');
    await view.has('known after two readings');
    // Of these 100 there were 40 before.
    reading = { start: 1, route: { 0.001: 0, 0.002: 70, 0.01: 98, 10: 99, '+Inf': 100 }, handover: none, send: { ...long, '+Inf': 73 } };
    await until('the second reading', async () => (await rows())[0]?.counted === '60 messages');
    const [routing, handing, sending] = await rows();
    // 30 up to 2 ms, 28 up to 10 ms, one up to 10 s, one longer: the 59.4th of 60 is among the last.
    assert(`${routing.quantiles}` === '2 ms,> 10 s,> 10 s', `routing: ${routing.quantiles}`);
    assert(handing.counted === 'no messages', handing.counted);
    assert(sending.counted === '3 pieces' && `${sending.quantiles}` === '> 10 s,> 10 s,> 10 s', `sending: ${sending.quantiles}`);
    reading = { start: 1, route: { 0.001: 0, 0.002: 70, 0.01: 298, 10: 299, '+Inf': 300 }, handover: none, send: { ...long, '+Inf': 73 } };
    await until('the third', async () => (await rows())[0].counted === '200 messages');
    // All 200 between 2 and 10 ms: half of them by 6 ms.
    assert(`${(await rows())[0].quantiles}` === '6 ms,9.92 ms,9.99 ms', `routing: ${(await rows())[0].quantiles}`);
    reading = { start: 2, route: { ...none, '+Inf': 900 }, handover: none, send: none };
    await view.has('known after two readings');
    assert((await rows()).every(({ quantiles }) => quantiles.every((text) => text === '–')), 'another run of the server is another count');
    await view.close();
  },

  async 'every view is reached by a click, and says what there is'({ browser, server }) {
    const view = await open(browser, server);
    const expected = {
      connections: ['ringmain-bench', 'worker-', `of ${(await server.json('varz')).connections} connections`],
      closed: ['gone-early', 'Client Closed'],
      subscriptions: ['jobs.', 'Largest fan-out'],
      accounts: ['$G', 'Slow consumers'],
      server: ['nats-server 2.15', 'Workers', 'healthy', 'Write deadline', '99 % of turns', '≤'],
      overview: ['Messages per second', 'Slow consumers'],
    };
    for (const [name, texts] of Object.entries(expected)) {
      await view.go(name);
      for (const text of texts) await view.has(text);
    }
    await view.close();
  },

  async 'connections are put in order, looked for, turned over, and opened'({ browser, server }) {
    const view = await open(browser, server, '/#/connections');
    await settled(view.page);
    const rows = () => view.page.$$eval('tbody tr', (rows) => rows.map((row) => row.innerText));
    const order = (title) =>
      view.page.$$eval('th button', (buttons, title) => buttons.find((button) => button.innerText.startsWith(title)).click(), title);
    await order('Messages out');
    await view.page.waitForSelector('th[aria-sort=descending]');
    await until('the busiest first', async () => (await rows())[0]?.includes('ringmain-bench'));
    await order('Connection');
    await until('the oldest first', async () => {
      const numbers = (await rows()).map((row) => Number.parseInt(row, 10));
      return numbers.every((number, at) => at === 0 || numbers[at - 1] < number);
    });
    const first = (await rows())[0];
    await view.page.$$eval('.pager button', (buttons) => buttons.find((button) => button.innerText === 'Next').click());
    await until('the second page', async () => (await rows())[0] !== first);
    await view.has('26–50 of');
    await view.page.type('input[type=search]', 'WORKER-17');
    await until('what was looked for', async () => {
      const found = await rows();
      return found.length === 1 && found[0].includes('worker-17');
    });
    await view.has('1–1 of 1');
    await view.page.click('tbody tr a');
    await view.has('jobs.17.>');
    await view.has('Producers held back');
    await view.page.goBack();
    await until('the search is still there', async () => (await rows()).length === 1);
    await view.page.type('input[type=search]', ' nobody');
    await view.has('No connection has that in it');
    await view.close();
  },

  async 'subscriptions are found by a part of them, and by a subject that reaches them'({ browser, server }) {
    const view = await open(browser, server, '/#/subscriptions');
    await settled(view.page);
    const [find, reached] = await view.page.$$('input[type=search]');
    const rows = () => view.page.$$eval('tbody tr', (rows) => rows.map((row) => row.innerText));
    await find.type('OBS.23');
    await until('one', async () => (await rows()).length === 1);
    await find.focus();
    for (let erased = 0; erased < 6; erased += 1) await view.page.keyboard.press('Backspace');
    await reached.type('jobs.31.x');
    await until('the one that it reaches', async () => {
      const found = await rows();
      return found.length === 1 && found[0].includes('jobs.31.>');
    });
    view.expects('status of 400');
    await reached.type('.*');
    await view.has('invalid test subject');
    await view.close();
  },

  async 'a slow consumer is found while it is slow, and after it was cut off'({ browser }) {
    const server = await Server.start(binary, 'write_deadline: "5s"\n');
    const clients = [];
    try {
      const slow = await Client.connect(server, 'billing-consumer');
      const publisher = await Client.connect(server, 'orders-publisher');
      clients.push(slow, publisher);
      slow.send('SUB flood 1\r\n');
      await slow.flush();
      slow.stopReading();
      const payload = 'x'.repeat(64 * 1024);
      const view = await open(browser, server);
      await view.has('Every connection keeps up');
      for (let sent = 0; sent < 160; sent += 1) publisher.send(`PUB flood ${payload.length}\r\n${payload}\r\n`);
      await view.has('billing-consumer');
      const row = await view.page.waitForSelector('tr.marked');
      const text = await row.evaluate((row) => row.innerText);
      assert(/Slow consumer/.test(text) && /\$G/.test(text), `who: ${text}`);
      assert(/\d MiB/.test(text), `how much: ${text}`);
      assert(/\d\d:\d\d:\d\d/.test(text) && /for \d/.test(text), `since when: ${text}`);
      await view.page.click('tr.marked a');
      await view.has('are waiting for it');
      await view.has('taken nothing for');
      await view.has('Cut off as a slow consumer');
      await view.has('Slow Consumer (Write Deadline)');
      await view.has('were waiting for it');
      await view.go('closed');
      await view.page.click('.toggle');
      await view.has('Slow Consumer (Write Deadline)');
      assert((await view.page.$$('tbody tr')).length === 1, 'only slow consumers');
      await view.go('overview');
      await view.has('1 cut off since the start');
      await view.has('billing-consumer');
      await view.close();
    } finally {
      for (const client of clients) client.close();
      await server.stop();
    }
  },

  async 'everything is done without a mouse'({ browser, server }) {
    const view = await open(browser, server, '/#/connections');
    await settled(view.page);
    const focused = () =>
      view.page.evaluate(() => {
        const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
        const text = document.activeElement.innerText || document.activeElement.getAttribute('aria-label') || '';
        return { tag: document.activeElement.tagName, text, seen: outlineStyle !== 'none' && outlineWidth !== '0px' };
      });
    const reached = [];
    await view.page.keyboard.press('Tab');
    assert((await focused()).text.startsWith('Skip'), 'the first stop skips to the content');
    for (let presses = 0; presses < 70; presses += 1) {
      const at = await focused();
      if (at.tag === 'BODY') break;
      assert(at.seen, `focus is not seen on ${at.tag} ${at.text}`);
      reached.push(`${at.tag} ${at.text}`);
      await view.page.keyboard.press('Tab');
    }
    // Which number a client has depends on who was faster.
    for (const stop of [/^SELECT/, /^A Overview/, /^A Server/, /^INPUT/, /^BUTTON Pending/, /^A \d+ (worker-|ringmain-bench)/, /^BUTTON Next/]) {
      assert(reached.some((text) => stop.test(text)), `${stop} is not reached: ${reached.join(', ')}`);
    }
    await view.page.focus('nav.views a[href="#/overview"]');
    await view.page.keyboard.press('Enter');
    await view.has('Messages per second');
    await until('the focus is in the view', () => view.page.evaluate(() => document.activeElement.tagName === 'MAIN'));
    await until('samples', () => view.page.$eval('.plot', (plot) => Number(plot.getAttribute('aria-valuemax')) > 2));
    const value = () => view.page.$eval('.plot', (plot) => plot.getAttribute('aria-valuetext'));
    await view.page.focus('.plot');
    await view.page.keyboard.press('End');
    const last = await value();
    await view.page.keyboard.press('Home');
    assert((await value()) !== last, 'the arrow keys move over the chart');
    await view.close();
  },

  async 'nothing is wider than a phone'({ browser, server }) {
    const view = await open(browser, server, '/', phone);
    const { cid } = (await server.json('connz?limit=1')).connections[0];
    for (const place of [...views, `connections/${cid}`]) {
      await view.page.evaluate((place) => (location.hash = `#/${place}`), place);
      await view.page.waitForFunction((view) => document.querySelector(`nav.views a[href="#/${view}"][aria-current]`), {}, place.split('/')[0]);
      await settled(view.page);
      if (place === 'overview') await view.has('of the last');
      await isNotWider(view.page, place);
      if (screenshots) await view.page.screenshot({ path: join(screenshots, `${place.split('/').join('-').replace(/\d+/, 'one')}-phone.png`), fullPage: true });
    }
    await view.close();
  },

  async 'the accessibility rules hold, light and dark'({ browser, server }) {
    const view = await open(browser, server);
    const { cid } = (await server.json('connz?limit=1')).connections[0];
    for (const theme of ['light', 'dark']) {
      const choice = await view.page.$('.settings .field:last-child select');
      await choice.select(theme);
      assert((await view.page.evaluate(() => getComputedStyle(document.documentElement).colorScheme)) === theme, theme);
      for (const place of [...views, `connections/${cid}`]) {
        await view.page.evaluate((place) => (location.hash = `#/${place}`), place);
        await view.page.waitForFunction((view) => document.querySelector(`nav.views a[href="#/${view}"][aria-current]`), {}, place.split('/')[0]);
        await settled(view.page);
        if (place === 'overview') await view.has('of the last');
        await isByTheRules(view.page, `${theme} ${place}`);
        if (screenshots) await view.page.screenshot({ path: join(screenshots, `${place.replace(/\/\d+/, '-one')}-${theme}.png`), fullPage: true });
      }
    }
    await view.page.reload();
    await view.has('Messages per second');
    assert((await view.page.evaluate(() => document.documentElement.dataset.theme)) === 'dark', 'the choice is kept');
    await view.close();
  },

  async 'the system decides between light and dark until somebody does'({ browser, server }) {
    const view = await open(browser, server);
    const back = async (value) => {
      await view.page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value }]);
      return view.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    };
    assert((await back('light')) !== (await back('dark')), 'no difference');
    await view.close();
  },

  async 'it asks little, and nothing while it cannot be seen'({ browser, server }) {
    const view = await open(browser, server);
    const asked = (path) => view.requests.filter((request) => request.path.startsWith(path)).length;
    await until('three rounds', () => asked('/varz') >= 3);
    const limits = view.requests.filter(({ path }) => /^\/(connz|subsz)/.test(path)).map(({ path }) => Number(/limit=(\d+)/.exec(path)?.[1] ?? Infinity));
    assert(limits.every((limit) => limit <= 100), `pages of ${limits}`);
    const times = view.requests.filter(({ path }) => path === '/varz').map(({ at }) => at);
    assert(times.at(-1) - times[0] >= 1500 * (times.length - 1), `rounds at ${times}`);
    const turn = (hidden) =>
      view.page.evaluate((hidden) => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
      }, hidden);
    await turn(true);
    // What was under way may still end; then the server's own count stands still for longer than two rounds.
    await new Promise((done) => setTimeout(done, 500));
    const before = view.requests.length;
    await new Promise((done) => setTimeout(done, 5000));
    assert(view.requests.length === before, 'it asks while it is hidden');
    await turn(false);
    await until('it goes on', () => view.requests.length > before);
    await view.page.select('.settings select', '0');
    await new Promise((done) => setTimeout(done, 500));
    const paused = view.requests.length;
    await new Promise((done) => setTimeout(done, 3000));
    assert(view.requests.length === paused, 'it asks while it is paused');
    await view.go('accounts');
    await view.has('$G');
    await view.close();
  },

  async 'a server that goes away is missed at once, and back when it comes back'({ browser }) {
    let server = await Server.start(binary);
    const { ports, origin } = server;
    const view = await open(browser, server);
    await view.has('Messages per second');
    view.expects('net::ERR_');
    await server.stop();
    await view.has('The server cannot be reached');
    await until('and in the head', () => view.page.$eval('.health', (health) => health.innerText.includes('Unreachable')));
    const before = view.requests.length;
    await new Promise((done) => setTimeout(done, 7000));
    const tries = view.requests.length - before;
    assert(tries <= 6, `${tries} requests in seven seconds`);
    server = await Server.start(binary, '', ports);
    assert(server.origin === origin, 'the same place');
    try {
      await view.page.$$eval('.lost button', (buttons) => buttons[0].click());
      await until('the notice is gone', async () => (await view.page.$('.lost')) === null);
      await until('healthy', () => view.page.$eval('.health', (health) => health.innerText.includes('Healthy')));
      await view.close();
    } finally {
      await server.stop();
    }
  },

  async 'a password that holds no more is told from a server that is gone'({ browser }) {
    const config = (password) => `monitor { authorization { user: ops, password: ${password} } }\n`;
    const server = await Server.start(binary, config('one'));
    try {
      assert((await fetch(`${server.origin}/dashboard`)).status === 401, 'without a password');
      const view = await open(browser, server, '/', wide, { username: 'ops', password: 'one' });
      await view.has('Messages per second');
      view.expects('status of 401');
      await server.reload(config('two'));
      await view.has('The server wants to know who asks');
      await view.close();
    } finally {
      await server.stop();
    }
  },

  async 'it works below a base path, and at /dashboard'({ browser, server }) {
    const below = await Server.start(binary, 'http_base_path: "/nats"\n');
    try {
      for (const [on, path] of [[below, '/nats'], [below, '/nats/dashboard'], [server, '/dashboard']]) {
        const view = await open(browser, on, path);
        await view.has('Messages per second');
        await view.go('server');
        await view.has('nats-server 2.15');
        await view.close();
      }
    } finally {
      await below.stop();
    }
  },

  async 'without JetStream nothing is said of it'({ browser, server }) {
    const view = await open(browser, server);
    assert((await view.page.$('nav.views a[href="#/jetstream"]')) === null, 'a view of nothing');
    assert((await view.page.$('.alarms')) === null, 'alarms of nothing');
    await until('some rounds', () => view.requests.filter(({ path }) => path === '/varz').length >= 3);
    assert(!view.requests.some(({ path }) => /jsz|streamz|consumerz/.test(path)), 'it is asked for');
    await view.close();
  },

  async 'a stuck consumer is found within a minute, and why it is stuck'({ browser, jetstream: { server } }) {
    const view = await open(browser, server);
    const began = Date.now();
    const alarm = await view.page.waitForSelector('.alarms a[href="#/jetstream"]', { timeout: 60_000 });
    assert(/^\d consumers stuck$/.test(await alarm.evaluate((alarm) => alarm.innerText)), 'how many');
    await alarm.click();
    await view.has('Stuck consumers');
    const rows = () => view.page.$$eval('table[aria-label="Stuck consumers"] tbody tr', (rows) => rows.map(({ innerText }) => innerText));
    const row = await until('it is named', async () => (await rows()).find((row) => row.includes('forgotten')));
    assert(Date.now() - began < 60_000, 'within a minute');
    assert(/Stuck/.test(row) && /for (\d+ min )?\d+ s: no client asks for messages/.test(row), `why: ${row}`);
    assert(/of ORDERS, account SHOP/.test(row) && /oldest \d/.test(row), `where, and how old: ${row}`);
    const full = await until('the other one', async () => (await rows()).find((row) => row.includes('never-acknowledges')));
    assert(/as many wait for acknowledgement as may/.test(full), `why: ${full}`);
    assert(!(await rows()).some((row) => /keeps-up|on-holiday/.test(row)), 'those that are not stuck');
    await view.page.click('table[aria-label="Stuck consumers"] a');
    await view.has('forgotten');
    await view.has('Messages kept');
    await view.close();
  },

  async 'streams are searched, put in order and opened, under live traffic'({ browser, jetstream: { server } }) {
    const view = await open(browser, server);
    await view.go('jetstream');
    const rows = () => view.page.$$eval('table[aria-label=Streams] tbody tr', (rows) => rows.map(({ innerText }) => innerText));
    await view.has('1–25 of 32 streams');
    assert((await rows())[0].startsWith('ARCHIVE-0'), 'by name');
    for (const label of ['Streams', 'Consumers', 'Disk free', 'API requests']) await view.has(label);
    const order = (title) =>
      view.page.$$eval('table[aria-label=Streams] th button', (buttons, title) => buttons.find((button) => button.innerText.startsWith(title)).click(), title);
    await order('Messages');
    await view.page.waitForSelector('table[aria-label=Streams] th[aria-sort=descending]');
    await until('the largest first', async () => (await rows())[0].startsWith('ORDERS'));
    await order('Use of limits');
    await until('the fullest first', async () => (await rows())[0].startsWith('SESSIONS'));
    assert(/100 %/.test((await rows())[0]), 'how full it is');
    await order('Stream');
    await view.page.$$eval('.pager button', (buttons) => buttons.find((button) => button.innerText === 'Next').click());
    await view.has('26–32 of 32 streams');
    await view.page.type('input[type=search]', 'ORDERS.>');
    await until('the one with this subject', async () => (await rows()).length === 1 && (await rows())[0].startsWith('ORDERS'));
    await until('messages come and go', async () => /\d\/s\s+\d[\d.]*\/s/.test((await rows())[0]));
    if (screenshots) await view.page.screenshot({ path: join(screenshots, 'jetstream-rates.png'), fullPage: true });
    await view.page.click('table[aria-label=Streams] tbody a');
    await view.page.waitForFunction(() => location.hash === '#/jetstream/ORDERS?acc=SHOP');
    for (const text of ['orders.>', 'Sequences', 'keeps-up', 'on-holiday', 'Paused', '1–4 of 4 consumers']) await view.has(text);
    const consumers = () => view.page.$$eval('table[aria-label=Consumers] tbody tr', (rows) => rows.map(({ innerText }) => innerText));
    await until('acknowledgements are timed', async () => (await consumers()).some((row) => row.startsWith('keeps-up') && /≤ [\d.]+ [mµ]?s/.test(row)));
    if (screenshots) await view.page.screenshot({ path: join(screenshots, 'jetstream-stream-live.png'), fullPage: true });
    assert(/the most there may be/.test((await consumers()).find((row) => row.startsWith('never-acknowledges'))), 'the limit is reached');
    await view.page.$$eval('table[aria-label=Consumers] th button', (buttons) => buttons.find((button) => button.innerText.startsWith('Consumer')).click());
    await until('by name', async () => (await consumers())[0].startsWith('forgotten') && (await consumers())[1].startsWith('keeps-up'));
    await view.page.type('input[type=search]', 'HOLIDAY');
    await view.has('1–1 of 1 consumers');
    await view.page.goBack();
    await view.has('Stuck consumers');
    await view.page.evaluate(() => (location.hash = '#/jetstream/NONE?acc=SHOP'));
    await view.has('has no stream NONE');
    await view.close();
  },

  async 'streams that cannot be written are told in the head of every page'({ browser, jetstream: { server } }) {
    const view = await open(browser, server);
    const error = 'write error: Input/output error (os error 5)';
    await view.page.setRequestInterception(true);
    view.page.on('request', async (request) => {
      const { pathname, search } = new URL(request.url());
      if (pathname !== '/streamz') return request.continue();
      const answer = await server.json(`streamz${search}`);
      answer.read_only = 1;
      answer.store_errors = 3;
      const [stream] = answer.streams;
      if (stream) Object.assign(stream, { write_error: error, store_errors: 3 });
      return request.respond({ contentType: 'application/json', body: JSON.stringify(answer) });
    });
    const alarms = () => view.page.$$eval('.alarms a', (alarms) => alarms.map(({ innerText }) => innerText));
    await until('both are told', async () => (await alarms()).includes('1 stream read only') && (await alarms()).includes('3 store errors'));
    await view.page.click('.alarms a');
    await view.has('Read only');
    await view.has(error);
    await view.page.waitForSelector('table[aria-label=Streams] tr.marked');
    assert(await view.page.evaluate(() => location.hash === '#/jetstream?sort=errors'), 'those with errors first');
    if (screenshots) await view.page.screenshot({ path: join(screenshots, 'jetstream-readonly.png'), fullPage: true });
    await view.page.click('table[aria-label=Streams] tr.marked a');
    await view.has('It cannot be written any more');
    await view.close();
  },

  async 'JetStream is shown without a mouse, on a phone, by the rules, light and dark'({ browser, jetstream: { server } }) {
    const places = ['jetstream', 'jetstream/ORDERS?acc=SHOP'];
    const at = async (view, place) => {
      await view.page.evaluate((place) => (location.hash = `#/${place}`), place);
      await view.page.waitForSelector('nav.views a[href="#/jetstream"][aria-current]');
      await settled(view.page);
      await view.has(place === 'jetstream' ? 'ARCHIVE-0' : 'never-acknowledges');
      await view.page.waitForSelector('.alarms a', { timeout: 60_000 });
    };
    const narrow = await open(browser, server, '/', phone);
    for (const place of places) {
      await at(narrow, place);
      await isNotWider(narrow.page, place);
      if (screenshots) await narrow.page.screenshot({ path: join(screenshots, `${place.replace(/\W.*/, '')}${place.includes('/') ? '-stream' : ''}-phone.png`), fullPage: true });
    }
    await narrow.close();
    const view = await open(browser, server);
    for (const theme of ['light', 'dark']) {
      const choice = await view.page.$('.settings .field:last-child select');
      await choice.select(theme);
      for (const place of places) {
        await at(view, place);
        await isByTheRules(view.page, `${theme} ${place}`);
        if (screenshots) await view.page.screenshot({ path: join(screenshots, `jetstream${place.includes('/') ? '-stream' : ''}-${theme}.png`), fullPage: true });
      }
    }
    await at(view, 'jetstream');
    // From the top of the page.
    await view.page.reload();
    await at(view, 'jetstream');
    const reached = [];
    for (let presses = 0; presses < 60; presses += 1) {
      await view.page.keyboard.press('Tab');
      const stop = await view.page.evaluate(() => {
        const { outlineStyle } = getComputedStyle(document.activeElement);
        return { text: document.activeElement.innerText ?? '', isBody: document.activeElement === document.body, seen: outlineStyle !== 'none' };
      });
      if (stop.isBody) break;
      assert(stop.seen, `focus is not seen on ${stop.text}`);
      reached.push(stop.text);
    }
    for (const stop of ['2 consumers stuck', 'ORDERS', 'Messages', 'ARCHIVE-0', 'Next']) {
      assert(reached.some((text) => text.startsWith(stop)), `${stop} is not reached: ${reached.join(', ')}`);
    }
    await view.page.$$eval('table[aria-label=Streams] tbody a', (links) => links[0].focus());
    await view.page.keyboard.press('Enter');
    await view.has('It has no consumers');
    await view.close();
  },
};

/** A server with many streams, of which one is published to all the time, and consumers that keep up and that do not. */
async function withJetStream() {
  const store = await mkdtemp(join(tmpdir(), 'dashboard-js-'));
  const config = `jetstream { store_dir: "${store}" }\naccounts { SHOP { jetstream: enabled, users: [ { user: shop, password: shop } ] } }\nno_auth_user: shop\n`;
  const server = await Server.start(binary, config);
  const client = await Client.connect(server, 'shop');
  client.send('SUB _I.> 1\r\n');
  const ask = async (subject, body) => {
    client.text = '';
    client.send(`PUB ${subject} _I.a ${body.length}\r\n${body}\r\n`);
    const answer = await until(`an answer to ${subject}`, () => /^MSG _I\.a[^]*\}\r\n/m.exec(client.text)?.[0]);
    if (answer.includes('"error"')) throw new Error(`${subject}: ${answer}`);
  };
  const stream = (name, more = {}) => ask(`$JS.API.STREAM.CREATE.${name}`, JSON.stringify({ name, subjects: [`${name.toLowerCase()}.>`], ...more }));
  const consumer = (name, more = {}) => {
    const config = { durable_name: name, ack_policy: 'explicit', ...more };
    return ask(`$JS.API.CONSUMER.CREATE.ORDERS.${name}`, JSON.stringify({ stream_name: 'ORDERS', config }));
  };
  await stream('ORDERS', { description: 'what customers have ordered' });
  await stream('SESSIONS', { storage: 'memory', max_msgs: 2 });
  for (let at = 0; at < 30; at += 1) await stream(`ARCHIVE-${at}`, { storage: 'memory' });
  for (const subject of ['sessions.a', 'sessions.b', 'orders.new', 'orders.new', 'orders.new']) await ask(subject, 'x');
  await consumer('forgotten', { description: 'its client was switched off' });
  await consumer('never-acknowledges', { max_ack_pending: 1, ack_wait: 600e9 });
  await consumer('on-holiday', { pause_until: '2999-01-01T00:00:00Z' });
  await consumer('keeps-up');
  client.send('PUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.never-acknowledges _I.n 1\r\n1\r\n');
  // Publishes, and acknowledges what it gets, until it is stopped.
  const worker = await Client.connect(server, 'worker');
  worker.send('SUB _W 1\r\n');
  worker.socket.on('data', (data) => {
    for (const [, reply] of data.toString('latin1').matchAll(/^MSG \S+ 1 (\$JS\.ACK\S+) \d+\r$/gm)) worker.send(`PUB ${reply} 0\r\n\r\n`);
  });
  const timer = setInterval(() => {
    worker.send('PUB orders.new 5\r\nhello\r\nPUB $JS.API.CONSUMER.MSG.NEXT.ORDERS.keeps-up _W 2\r\n10\r\n');
  }, 50);
  return {
    server,
    stop: async () => {
      clearInterval(timer);
      worker.close();
      client.close();
      await server.stop();
      await rm(store, { recursive: true, force: true });
    },
  };
}

async function main() {
  if (screenshots) await mkdir(screenshots, { recursive: true });
  const wanted = process.env.DASHBOARD_CASE ?? '';
  const played = Object.entries(scenarios).filter(([name]) => name.includes(wanted));
  if (played.length === 0) {
    console.log(`FAIL DASHBOARD_CASE: no scenario has '${wanted}' in its name`);
    console.log('\n0 passed, 1 failed, 0 skipped');
    return 1;
  }
  const executable = await find();
  if (executable === undefined) {
    console.log('SKIPPED the dashboard in a browser: no Chromium is installed');
    console.log('\n0 passed, 0 failed, 1 skipped');
    return 0;
  }
  let browser;
  try {
    browser = await launch(executable);
  } catch (error) {
    console.log(`FAIL the browser ${executable} does not start: ${error.message}`);
    console.log('\n0 passed, 1 failed, 0 skipped');
    return 1;
  }
  const server = await Server.start(binary);
  const jetstream = await withJetStream();
  const traffic = load(bench, server, ['latency', '--rate', '3000', '--subscribers', '3']);
  const clients = [];
  let passed = 0;
  let failed = 0;
  try {
    for (let at = 0; at < idleClients; at += 1) {
      const client = await Client.connect(server, `worker-${at}`);
      client.send(`SUB jobs.${at}.> 1\r\nSUB jobs.all workers 2\r\nUNSUB 2 100000\r\n`);
      clients.push(client);
    }
    const early = await Client.connect(server, 'gone-early');
    early.close();
    for (const [name, play] of played) {
      try {
        await play({ browser, server, jetstream });
        passed += 1;
        console.log(`ok ${name}`);
      } catch (error) {
        failed += 1;
        console.log(`FAIL ${name}: ${error.message}\n  replay: DASHBOARD_CASE='${name}' tests/dashboard/run.sh`);
      }
    }
  } finally {
    for (const client of clients) client.close();
    await traffic.stop();
    await jetstream.stop();
    await server.stop();
    await browser.close();
  }
  console.log(`\n${passed} passed, ${failed} failed, 0 skipped`);
  return failed === 0 ? 0 : 1;
}

process.exit(await main());
