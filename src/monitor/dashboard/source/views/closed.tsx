// The connections that were closed lately, and why.

import type { Connection, Connz } from '../answers.ts';
import { Client, Owner } from '../client.tsx';
import { Choice, Field, Pager, Rows } from '../controls.tsx';
import { Waiting } from '../facts.tsx';
import { address as addressOf, bytes, count, duration, moment, uptime } from '../format.ts';
import { listOf } from '../list.ts';
import type { Route } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { isCutOff, lateSince } from '../slowness.tsx';
import { type Column, Table } from '../table.tsx';

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
  const list = listOf(route, { state: 'closed', sort: 'stop', auth: '1', ringmain: '1' }, ['sort', 'find']);
  const sort = list.query.get('sort') ?? '';
  const find = list.setting('find');
  const { value, error } = useAnswer<Connz>(poller, `connz?${list.query}`);
  const rows = value?.connections ?? [];
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
          onChange={(find) => list.change({ find })}
        />
        <Choice label="Order" value={sort} options={orders} onChange={(sort) => list.change({ sort })} />
        <Rows list={list} />
        <button
          type="button"
          class="toggle"
          aria-pressed={isSlowOnly}
          onClick={() => list.change({ find: isSlowOnly ? '' : 'slow consumer' })}
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
            onSort={(sort) => list.change({ sort })}
            empty={find === '' ? 'No connection has been closed yet.' : 'No closed connection has that in it.'}
          />
          <Pager
            what="closed connections"
            {...list.page}
            shown={rows.length}
            found={value.ringmain?.found ?? value.total}
          />
        </section>
      )}
    </>
  );
}
