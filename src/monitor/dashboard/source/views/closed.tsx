// The connections that were closed lately, and why.

import type { Connection, Connz } from '../answers.ts';
import { Client, Owner } from '../client.tsx';
import { Choice, Field, Pager } from '../controls.tsx';
import { Waiting } from '../facts.tsx';
import { address as addressOf, bytes, count, duration, moment, uptime } from '../format.ts';
import { type Route, change } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { isCutOff, lateSince } from '../slowness.tsx';
import { type Column, Table } from '../table.tsx';
import { pageSizes } from './connections.tsx';

const orders: [string, string][] = [
  ['stop', 'Closed last'],
  ['reason', 'Reason'],
  ['cid', 'Number'],
  ['pending', 'Pending'],
  ['msgs_from', 'Messages in'],
  ['msgs_to', 'Messages out'],
  ['uptime', 'Lasted shortest'],
];

export function Closed({ route }: { route: Route }) {
  const { poller } = useServer();
  const setting = (name: string, usual: string): string => route.settings.get(name) ?? usual;
  const sort = setting('sort', 'stop');
  const size = Number(setting('size', '25'));
  const offset = Number(setting('offset', '0'));
  const find = setting('find', '');
  const query = new URLSearchParams({
    state: 'closed',
    sort,
    limit: String(size),
    offset: String(offset),
    auth: '1',
    ringmain: '1',
  });
  if (find !== '') query.set('find', find);
  const { value, error } = useAnswer<Connz>(poller, `connz?${query}`);
  const rows = value?.connections ?? [];
  const reset = { offset: '' };
  const isSlowOnly = find.toLowerCase() === 'slow consumer';
  const columns: Column<Connection>[] = [
    { title: 'Connection', sort: 'cid', ascending: true, cell: (row) => <Client connection={row} /> },
    { title: 'Account', cell: (row) => <Owner connection={row} /> },
    { title: 'Address', wide: true, cell: (row) => addressOf(row.ip, row.port) },
    {
      title: 'Reason',
      sort: 'reason',
      ascending: true,
      wide: true,
      cell: (row) => <span class={`chip ${isCutOff(row) ? 'bad' : ''}`}>{row.reason ?? '–'}</span>,
    },
    { title: 'Closed', sort: 'stop', numeric: true, cell: (row) => (row.stop ? moment(Date.parse(row.stop)) : '–') },
    { title: 'Lasted', sort: 'uptime', ascending: true, numeric: true, cell: (row) => uptime(row.uptime) },
    {
      title: 'Pending',
      sort: 'pending',
      numeric: true,
      cell: (row) => {
        const since = lateSince(row);
        const waited = since === undefined || row.stop === undefined ? undefined : Date.parse(row.stop) - since;
        return (
          <>
            {bytes(row.pending_bytes)}
            {row.pending_bytes > 0 && waited !== undefined && <small>for {duration(waited)}</small>}
          </>
        );
      },
    },
    { title: 'Messages in', sort: 'msgs_from', numeric: true, cell: (row) => count(row.in_msgs) },
    { title: 'Messages out', sort: 'msgs_to', numeric: true, cell: (row) => count(row.out_msgs) },
  ];
  return (
    <>
      <div class="toolbar" role="search">
        <Field
          label="Find"
          placeholder="reason, name, address, user, number"
          value={find}
          onChange={(find) => change({ find, ...reset })}
        />
        <Choice label="Order" value={sort} options={orders} onChange={(sort) => change({ sort, ...reset })} />
        <Choice label="Rows" value={String(size)} options={pageSizes} onChange={(size) => change({ size, ...reset })} />
        <button
          type="button"
          class="toggle"
          aria-pressed={isSlowOnly}
          onClick={() => change({ find: isSlowOnly ? '' : 'slow consumer', ...reset })}
        >
          Slow consumers only
        </button>
      </div>
      {value === undefined || error !== undefined ? (
        <Waiting error={error} />
      ) : (
        <section class="panel">
          <Table
            label="Closed connections"
            columns={columns}
            rows={rows}
            keyOf={({ cid }) => cid}
            sorted={sort}
            onSort={(sort) => change({ sort, ...reset })}
            empty={find === '' ? 'No connection has been closed yet.' : 'No closed connection has that in it.'}
          />
          <Pager
            what="closed connections"
            offset={offset}
            shown={rows.length}
            found={value.ringmain?.found ?? value.total}
            size={size}
            onOffset={(offset) => change({ offset: offset || '' })}
          />
        </section>
      )}
    </>
  );
}
