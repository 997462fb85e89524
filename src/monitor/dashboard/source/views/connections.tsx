// The connections, a page at a time, in the order and of the kind that is asked for.

import { useState } from 'preact/hooks';
import type { Connection, Connz } from '../answers.ts';
import { Client, Owner } from '../client.tsx';
import { Choice, Field, Pager, Rows } from '../controls.tsx';
import { PerSecond, Waiting } from '../facts.tsx';
import { address as addressOf, bytes, count, exact, roundTrip, uptime } from '../format.ts';
import { Meters } from '../history.ts';
import { listOf } from '../list.ts';
import type { Route } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { SlownessChip, levelOf } from '../slowness.tsx';
import { type Column, Table } from '../table.tsx';

const orders: [string, string][] = [
  ['cid', 'Number'],
  ['pending', 'Pending'],
  ['msgs_from', 'Messages in'],
  ['msgs_to', 'Messages out'],
  ['bytes_from', 'Bytes in'],
  ['bytes_to', 'Bytes out'],
  ['subs', 'Subscriptions'],
  ['rtt', 'Round trip'],
  ['idle', 'Idle for longest'],
  ['last', 'Active last'],
  ['uptime', 'Youngest'],
];

export function Connections({ route }: { route: Route }) {
  const { poller } = useServer();
  const [meters] = useState(() => new Meters());
  const list = listOf(route, { sort: 'pending', auth: '1', ringmain: '1' }, ['sort', 'find', 'acc']);
  const sort = list.query.get('sort') ?? '';
  const find = list.setting('find');
  const { value, error } = useAnswer<Connz>(poller, `connz?${list.query}`);
  const rows = value?.connections ?? [];
  const rates = meters.read(
    value === undefined ? 0 : Date.parse(value.now),
    rows.map(({ cid, in_msgs, out_msgs }) => [String(cid), { in: in_msgs, out: out_msgs }]),
  );
  const grows = (cid: number, name: string): number | undefined => rates.get(String(cid))?.[name];
  const columns: Column<Connection>[] = [
    { title: 'Connection', sort: 'cid', ascending: true, cell: (row) => <Client connection={row} /> },
    { title: 'Account', cell: (row) => <Owner connection={row} /> },
    { title: 'Address', wide: true, cell: (row) => addressOf(row.ip, row.port) },
    {
      title: 'Pending',
      sort: 'pending',
      numeric: true,
      cell: (row) => (
        <>
          {bytes(row.pending_bytes)}
          <SlownessChip level={levelOf(row, value?.now ?? '')} />
        </>
      ),
    },
    {
      title: 'Messages in',
      sort: 'msgs_from',
      numeric: true,
      cell: ({ cid, in_msgs }) => <>{count(in_msgs)}<PerSecond value={grows(cid, 'in')} /></>,
    },
    {
      title: 'Messages out',
      sort: 'msgs_to',
      numeric: true,
      cell: ({ cid, out_msgs }) => <>{count(out_msgs)}<PerSecond value={grows(cid, 'out')} /></>,
    },
    { title: 'Subs', sort: 'subs', numeric: true, cell: (row) => exact(row.subscriptions) },
    { title: 'Round trip', sort: 'rtt', numeric: true, cell: (row) => (row.rtt === '0s' ? '–' : roundTrip(row.rtt)) },
    { title: 'Idle', sort: 'idle', numeric: true, cell: (row) => uptime(row.idle) },
    { title: 'Uptime', sort: 'uptime', ascending: true, numeric: true, cell: (row) => uptime(row.uptime) },
  ];
  return (
    <>
      <div class="toolbar" role="search">
        <Field
          label="Find"
          placeholder="name, address, user, library, number"
          value={find}
          onChange={(find) => list.change({ find })}
        />
        <Field label="Account" value={list.setting('acc')} onChange={(acc) => list.change({ acc })} />
        <Choice label="Order" value={sort} options={orders} onChange={(sort) => list.change({ sort })} />
        <Rows list={list} />
      </div>
      {value === undefined || error !== undefined ? (
        <Waiting error={error} />
      ) : (
        <section class="panel">
          <Table
            label="Connections"
            columns={columns}
            rows={rows}
            keyOf={({ cid }) => cid}
            isMarked={(row) => levelOf(row, value.now) === 'behind'}
            sorted={sort}
            onSort={(sort) => list.change({ sort })}
            empty={find === '' ? 'Nobody is connected.' : 'No connection has that in it.'}
          />
          <Pager
            what="connections"
            {...list.page}
            shown={rows.length}
            found={value.ringmain?.found ?? value.total}
          />
        </section>
      )}
    </>
  );
}
