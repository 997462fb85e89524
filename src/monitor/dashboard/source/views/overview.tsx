// The first look: how much goes through, what it takes, and who does not keep up.

import type { Connz } from '../answers.ts';
import { Chart } from '../chart.tsx';
import { Client, Owner } from '../client.tsx';
import { Tile } from '../facts.tsx';
import { address as addressOf, bytes, count, duration, exact, moment, percent, rate } from '../format.ts';
import type { Sample } from '../history.ts';
import { address } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { SlownessChip, lateSince, levelOf } from '../slowness.tsx';
import { Table } from '../table.tsx';
import { Latency } from './latency.tsx';

const shownMax = 5;

export function Overview() {
  const { varz, history } = useServer();
  const samples = history.samples;
  const latest = history.latest;
  if (varz === undefined) return null;
  const times = samples.map(({ at }) => at);
  const series = (name: Exclude<keyof Sample, 'at'>, label: string, color: string) => ({
    label,
    color,
    values: samples.map((sample) => sample[name]),
  });
  const perSecond = (value: number | null | undefined, format: (value: number) => string): string =>
    value === null || value === undefined ? '–' : `${format(value)}/s`;
  return (
    <>
      <dl class="tiles">
        <Tile label="Messages in" color="--in" value={perSecond(latest?.inMsgs, rate)} note={`${count(varz.in_msgs)} in all`} />
        <Tile label="Messages out" color="--out" value={perSecond(latest?.outMsgs, rate)} note={`${count(varz.out_msgs)} in all`} />
        <Tile label="Bytes in" color="--in" value={perSecond(latest?.inBytes, bytes)} note={`${bytes(varz.in_bytes)} in all`} />
        <Tile label="Bytes out" color="--out" value={perSecond(latest?.outBytes, bytes)} note={`${bytes(varz.out_bytes)} in all`} />
        <Tile
          label="Connections"
          value={<a href={address('connections')}>{exact(varz.connections)}</a>}
          note={`${count(varz.total_connections)} ever`}
        />
        <Tile label="Subscriptions" value={<a href={address('subscriptions')}>{exact(varz.subscriptions)}</a>} />
        <Tile label="Processor" value={percent(varz.cpu)} note={`of ${varz.cores * 100} %`} />
        <Tile label="Memory" value={bytes(varz.mem)} />
      </dl>
      <Late />
      <div class="charts">
        <Chart
          title="Messages per second"
          times={times}
          series={[series('inMsgs', 'in', '--in'), series('outMsgs', 'out', '--out')]}
          format={rate}
        />
        <Chart
          title="Bytes per second"
          times={times}
          series={[series('inBytes', 'in', '--in'), series('outBytes', 'out', '--out')]}
          format={bytes}
          least={1024}
          binary
        />
        <Latency />
        <Chart
          title="Connections"
          times={times}
          series={[series('connections', 'open', '--third')]}
          format={count}
        />
        <Chart
          title="Processor, per cent of a core"
          times={times}
          series={[series('cpu', 'used', '--fourth')]}
          format={percent}
        />
      </div>
    </>
  );
}

/** Slow consumers, those that are open and those that were cut off. */
function Late() {
  const { poller, varz } = useServer();
  const open = useAnswer<Connz>(poller, `connz?sort=pending&limit=${shownMax}&auth=1&ringmain=1`).value;
  const wasAnybodyCut = (varz?.slow_consumers ?? 0) > 0;
  const cutPath = `connz?state=closed&sort=stop&limit=${shownMax}&find=slow%20consumer&auth=1&ringmain=1`;
  const cut = useAnswer<Connz>(poller, wasAnybodyCut ? cutPath : undefined, 5).value;
  const late = (open?.connections ?? []).filter((connection) =>
    ['behind', 'waiting'].includes(levelOf(connection, open?.now ?? '')),
  );
  const cutOff = cut?.connections ?? [];
  const rows = [
    ...late.map((connection) => ({ connection, now: open?.now ?? '' })),
    ...cutOff.map((connection) => ({ connection, now: cut?.now ?? '' })),
  ];
  const total = varz?.slow_consumers ?? 0;
  return (
    <section class="panel" aria-labelledby="late">
      <header>
        <h3 id="late">Slow consumers</h3>
        <p class="muted">
          {total === 0 ? 'none cut off since the start' : `${exact(total)} cut off since the start`}
          {total > 0 && (
            <>
              {' · '}
              <a href={address('closed', '', { find: 'slow consumer' })}>show all</a>
            </>
          )}
        </p>
      </header>
      <Table
        label="Slow consumers"
        rows={rows}
        keyOf={({ connection }) => connection.cid}
        isMarked={({ connection, now }) => levelOf(connection, now) === 'behind'}
        empty="Every connection keeps up."
        columns={[
          { title: 'Connection', cell: ({ connection }) => <Client connection={connection} /> },
          { title: 'State', cell: ({ connection, now }) => <SlownessChip level={levelOf(connection, now)} /> },
          { title: 'Account', cell: ({ connection }) => <Owner connection={connection} /> },
          { title: 'Address', wide: true, cell: ({ connection }) => addressOf(connection.ip, connection.port) },
          { title: 'Pending', numeric: true, cell: ({ connection }) => bytes(connection.pending_bytes) },
          {
            title: 'Late since',
            numeric: true,
            cell: ({ connection, now }) => {
              const since = lateSince(connection);
              if (since === undefined) return '–';
              return (
                <>
                  {moment(since)}
                  <small>for {duration(Date.parse(connection.stop ?? now) - since)}</small>
                </>
              );
            },
          },
          {
            title: 'Cut off',
            numeric: true,
            cell: ({ connection }) => (connection.stop === undefined ? '–' : moment(Date.parse(connection.stop))),
          },
        ]}
      />
    </section>
  );
}
