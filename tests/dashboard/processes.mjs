// What the tests start: servers, load, and clients that read or do not. All of it ends with the test that started it.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const readyWithinMs = 20_000;

/** Waits until `condition` gives something, and returns that. */
export async function until(what, condition, withinMs = 20_000) {
  const giveUp = Date.now() + withinMs;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > giveUp) throw new Error(`not within ${withinMs} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 25));
  }
}

/** A server on free ports, or on those of one that has ended. */
export class Server {
  static async start(binary, config = '', ports = { clients: -1, monitoring: -1 }) {
    const server = new Server();
    server.directory = await mkdtemp(join(tmpdir(), 'dashboard-'));
    const log = join(server.directory, 'log');
    await server.configure(config);
    const args = ['-a', '127.0.0.1', '-p', ports.clients, '-m', ports.monitoring];
    server.child = spawn(binary, [...args, '-c', 'server.conf', '-l', log].map(String), {
      cwd: server.directory,
      stdio: 'ignore',
    });
    server.ended = new Promise((done) => server.child.once('exit', done));
    const text = await until(
      'the server is ready',
      async () => {
        const text = await readFile(log, 'utf8').catch(() => '');
        if (server.child.exitCode !== null) throw new Error(`the server ended:\n${text}`);
        return text.includes('Server is ready') && text;
      },
      readyWithinMs,
    );
    const port = (words) => Number(text.match(new RegExp(`${words} .*:(\\d+)`))?.[1]);
    server.ports = {
      clients: port('Listening for client connections on'),
      monitoring: port('Starting http monitor on'),
      websocket: port('Listening for websocket clients on'),
    };
    return server;
  }

  configure(config) {
    return writeFile(join(this.directory, 'server.conf'), `server_name: harbour\n${config}`);
  }

  async reload(config) {
    await this.configure(config);
    this.child.kill('SIGHUP');
  }

  /** Where clients connect by WebSocket, if it is told to have them. */
  get websocket() {
    return `ws://127.0.0.1:${this.ports.websocket}`;
  }

  get origin() {
    return `http://127.0.0.1:${this.ports.monitoring}`;
  }

  async json(path) {
    return (await fetch(`${this.origin}/${path}`)).json();
  }

  async stop() {
    if (this.child.exitCode === null) this.child.kill('SIGKILL');
    await this.ended;
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Load at a fixed rate, until it is stopped. */
export function load(binary, server, args) {
  const address = `127.0.0.1:${server.ports.clients}`;
  const child = spawn(binary, [...args, '--server', address, '--quiet', '--duration', '10m'], { stdio: 'ignore' });
  const ended = new Promise((done) => child.once('exit', done));
  return {
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

/** A client that says what it is told to, and reads until it is told to stop. */
export class Client {
  static async connect(server, name, more = {}) {
    const client = new Client();
    client.socket = connect(server.ports.clients, '127.0.0.1');
    // Being cut off is what some of them are there for.
    client.socket.on('error', () => {});
    client.text = '';
    client.socket.on('data', (data) => (client.text = (client.text + data.toString('latin1')).slice(-4096)));
    const options = { verbose: false, pedantic: false, name, lang: 'javascript', version: '1.0.0', ...more };
    client.send(`CONNECT ${JSON.stringify(options)}\r\n`);
    await client.flush();
    return client;
  }

  send(text) {
    this.socket.write(text);
  }

  async flush() {
    this.text = '';
    this.send('PING\r\n');
    await until('a PONG', () => this.text.includes('PONG'));
  }

  stopReading() {
    this.socket.pause();
  }

  close() {
    this.socket.destroy();
  }
}
