// The connections, a page at a time, in the order and of the kind that is asked for.

import { useState } from 'preact/hooks';
import type { Connection, Connz } from '../answers.ts';
import { Client, Owner } from '../client.tsx';
import { Choice, Field, Pager } from '../controls.tsx';
import { Waiting } from '../facts.tsx';
import { address as addressOf, bytes, count, exact, rate, roundTrip, uptime } from '../format.ts';
import { Meters } from '../history.ts';
import { type Route, change } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { SlownessChip, levelOf } from '../slowness.tsx';
import { type Column, Table } from '../table.tsx';

export const pageSizes: [string, string][] = [
  ['25', '25'],
  ['50', '50'],
  ['100', '100'],
];

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
  const setting = (name: string, usual: string): string => route.settings.get(name) ?? usual;
  const sort = setting('sort', 'pending');
  const size = Number(setting('size', '25'));
  const offset = Number(setting('offset', '0'));
  const query = new URLSearchParams({ sort, limit: String(size), offset: String(offset), auth: '1', ringmain: '1' });
  for (const name of ['find', 'acc']) if (setting(name, '') !== '') query.set(name, setting(name, ''));
  const { value, error } = useAnswer<Connz>(poller, `connz?${query}`);
  const rows = value?.connections ?? [];
  const rates = meters.read(
    value === undefined ? 0 : Date.parse(value.now),
    rows.map(({ cid, in_msgs, out_msgs }) => [String(cid), { in: in_msgs, out: out_msgs }]),
  );
  const perSecond = (cid: number, name: string) => {
    const value = rates.get(String(cid))?.[name];
    return value ? <small>{rate(value)}/s</small> : null;
  };
  const reset = { offset: '' };
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
    { title: 'Messages in', sort: 'msgs_from', numeric: true, cell: (row) => <>{count(row.in_msgs)}{perSecond(row.cid, 'in')}</> },
    { title: 'Messages out', sort: 'msgs_to', numeric: true, cell: (row) => <>{count(row.out_msgs)}{perSecond(row.cid, 'out')}</> },
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
          value={setting('find', '')}
          onChange={(find) => change({ find, ...reset })}
        />
        <Field label="Account" value={setting('acc', '')} onChange={(acc) => change({ acc, ...reset })} />
        <Choice label="Order" value={sort} options={orders} onChange={(sort) => change({ sort, ...reset })} />
        <Choice label="Rows" value={String(size)} options={pageSizes} onChange={(size) => change({ size, ...reset })} />
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
            onSort={(sort) => change({ sort, ...reset })}
            empty={setting('find', '') === '' ? 'Nobody is connected.' : 'No connection has that in it.'}
          />
          <Pager
            what="connections"
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
