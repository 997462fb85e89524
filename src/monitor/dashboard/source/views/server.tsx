// The server itself: what it is, its limits, its health, its workers.

import { useState } from 'preact/hooks';
import type { Healthz } from '../answers.ts';
import { Facts } from '../facts.tsx';
import { bytes, count, duration, exact, fullMoment, milli, nanoseconds, percent, rate, uptime } from '../format.ts';
import { Meters } from '../history.ts';
import { type Worker, boundOf, workersOf } from '../metrics.ts';
import { useAnswer, useMetrics, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';

const links = ['varz', 'connz', 'subsz', 'accountz', 'accstatz', 'jsz', 'streamz', 'consumerz', 'routez', 'leafz', 'gatewayz', 'healthz', 'metrics'];

export function ServerView() {
  const { poller, varz } = useServer();
  const health = useAnswer<Healthz>(poller, 'healthz', 5).value;
  if (varz === undefined) return null;
  const unlimited = (value: number | undefined, text: (value: number) => string): string =>
    value === undefined || value <= 0 ? 'no limit' : text(value);
  const problems = health?.errors?.map(({ error }) => error) ?? [];
  return (
    <>
      <div class="columns">
        <section class="panel" aria-labelledby="facts">
          <header>
            <h3 id="facts">Server</h3>
          </header>
          <Facts
            facts={[
              ['Health', health && (health.status === 'ok' ? 'Healthy' : [health.status, health.error, ...problems].filter(Boolean).join(': '))],
              ['Name', varz.server_name],
              ['Ringmain', varz.ringmain],
              ['In the place of', `nats-server ${varz.version}`],
              ['Built with', varz.go],
              ['Clients at', `${varz.host}:${varz.port}`],
              ['Started', fullMoment(Date.parse(varz.start))],
              ['Uptime', uptime(varz.uptime)],
              ['Configured', fullMoment(Date.parse(varz.config_load_time))],
              ['Cores', exact(varz.cores)],
              ['Workers', exact(varz.gomaxprocs)],
              ['Processor', percent(varz.cpu)],
              ['Memory', bytes(varz.mem)],
              ['Id', <code>{varz.server_id}</code>],
            ]}
          />
        </section>
        <section class="panel" aria-labelledby="limits">
          <header>
            <h3 id="limits">Limits and incidents</h3>
          </header>
          <Facts
            facts={[
              ['Login required', varz.auth_required ? 'yes' : 'no'],
              ['TLS required', varz.tls_required ? 'yes' : 'no'],
              ['Connections', unlimited(varz.max_connections, exact)],
              ['Subscriptions each', unlimited(varz.max_subscriptions, exact)],
              ['Payload', bytes(varz.max_payload)],
              ['Pending each', bytes(varz.max_pending)],
              ['Control line', bytes(varz.max_control_line)],
              ['Write deadline', nanoseconds(varz.write_deadline)],
              ['Ping interval', nanoseconds(varz.ping_interval)],
              ['Slow consumers cut off', exact(varz.slow_consumers)],
              ['Stale connections closed', exact(varz.stale_connections ?? 0)],
              ['Publishers held back', `${count(varz.stalled_clients ?? 0)} times`],
            ]}
          />
        </section>
      </div>
      <Workers />
      <section class="panel" aria-labelledby="links">
        <header>
          <h3 id="links">As JSON</h3>
        </header>
        <ul class="links">
          {links.map((path) => (
            <li key={path}>
              <a href={poller.url(path)}>/{path}</a>
            </li>
          ))}
        </ul>
      </section>
    </>
  );
}

function Workers() {
  const { varz } = useServer();
  const [meters] = useState(() => new Meters());
  const metrics = useMetrics();
  if (metrics === undefined) return null;
  const workers = workersOf(metrics.text);
  const rates = meters.read(
    metrics.at,
    workers.map(({ worker, values, turns }) => [
      worker,
      { ...values, ...Object.fromEntries(turns.map(([seconds, count]) => [`turns ${seconds}`, count])) },
    ]),
  );
  const grows = (row: Worker, name: string): number | undefined => rates.get(row.worker)?.[name];
  const perSecond = (row: Worker, name: string): string => {
    const value = grows(row, name);
    return value === undefined ? '–' : `${rate(value)}/s`;
  };
  const busy = (row: Worker): string => {
    const value = grows(row, 'busy_seconds_total');
    return value === undefined ? '–' : percent(Math.min(100, value * 100));
  };
  const turn = (row: Worker): string => {
    const lately = row.turns.map(([seconds]): [number, number] => [seconds, grows(row, `turns ${seconds}`) ?? 0]);
    const bound = boundOf(0.99, lately);
    if (bound === undefined) return '–';
    return bound === Infinity ? `> ${duration((row.turns.at(-2)?.[0] ?? 0) * 1000)}` : `≤ ${milli(bound * 1000)}`;
  };
  const value = (row: Worker, name: string): string => count(row.values[name] ?? 0);
  const columns: Column<Worker>[] = [
    { title: 'Worker', cell: ({ worker }) => worker },
    { title: 'Busy', numeric: true, cell: busy },
    { title: '99 % of turns', numeric: true, cell: turn },
    { title: 'Connections', numeric: true, cell: (row) => value(row, 'connections') },
    { title: 'Subscriptions', numeric: true, cell: (row) => value(row, 'subscriptions') },
    { title: 'Messages in', numeric: true, cell: (row) => perSecond(row, 'received_messages_total') },
    { title: 'Messages out', numeric: true, cell: (row) => perSecond(row, 'delivered_messages_total') },
    { title: 'From other workers', numeric: true, cell: (row) => perSecond(row, 'handed_over_total') },
    { title: 'Waiting batches', numeric: true, cell: (row) => value(row, 'batches_waiting') },
    {
      title: 'Read buffers in use',
      numeric: true,
      cell: (row) => `${value(row, 'read_buffers_leased')} of ${value(row, 'read_buffers')}`,
    },
    { title: 'Slow consumers', numeric: true, cell: (row) => value(row, 'slow_consumers_total') },
  ];
  return (
    <section class="panel" aria-labelledby="workers">
      <header>
        <h3 id="workers">Workers</h3>
        <p class="muted">{varz?.cores} cores</p>
      </header>
      <Table label="Workers" columns={columns} rows={workers} keyOf={({ worker }) => worker} empty="The server does not tell." />
    </section>
  );
}
