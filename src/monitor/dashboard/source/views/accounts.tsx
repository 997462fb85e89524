// The accounts, and what goes through each.

import { useState } from 'preact/hooks';
import type { Accstatz, AccountStat } from '../answers.ts';
import { Pager } from '../controls.tsx';
import { PerSecond, Waiting } from '../facts.tsx';
import { bytes, count, exact } from '../format.ts';
import { Meters } from '../history.ts';
import { pageOf } from '../list.ts';
import { type Route, address } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';

const perPage = 50;

export function Accounts({ route }: { route: Route }) {
  const { poller } = useServer();
  const [meters] = useState(() => new Meters());
  const { value, error } = useAnswer<Accstatz>(poller, 'accstatz?unused=1', 2);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const all = [...(value.account_statz ?? [])].sort((a, b) => b.conns - a.conns || (a.acc < b.acc ? -1 : 1));
  const page = pageOf(route, perPage);
  const rows = all.slice(page.offset, page.offset + page.size);
  const rates = meters.read(
    Date.parse(value.now),
    rows.map(({ acc, received, sent }) => [acc, { in: received.msgs, out: sent.msgs }]),
  );
  const columns: Column<AccountStat>[] = [
    {
      title: 'Account',
      cell: ({ acc, name }) => (
        <>
          <a class="name" href={address('connections', '', { acc })}>
            {name || acc}
          </a>
          {name && name !== acc && <small>{acc}</small>}
        </>
      ),
    },
    { title: 'Connections', numeric: true, cell: ({ conns }) => exact(conns) },
    { title: 'Leafnodes', numeric: true, cell: ({ leafnodes }) => exact(leafnodes) },
    { title: 'Subscriptions', numeric: true, cell: (row) => exact(row.num_subscriptions) },
    {
      title: 'Messages in',
      numeric: true,
      cell: ({ acc, received }) => <>{count(received.msgs)}<PerSecond value={rates.get(acc)?.['in']} /></>,
    },
    {
      title: 'Messages out',
      numeric: true,
      cell: ({ acc, sent }) => <>{count(sent.msgs)}<PerSecond value={rates.get(acc)?.['out']} /></>,
    },
    { title: 'Bytes in', numeric: true, cell: (row) => bytes(row.received.bytes) },
    { title: 'Bytes out', numeric: true, cell: (row) => bytes(row.sent.bytes) },
    { title: 'Slow consumers', numeric: true, cell: (row) => exact(row.slow_consumers) },
  ];
  return (
    <section class="panel">
      <Table label="Accounts" columns={columns} rows={rows} keyOf={({ acc }) => acc} empty="There are no accounts." />
      <Pager what={all.length === 1 ? 'account' : 'accounts'} {...page} shown={rows.length} found={all.length} />
    </section>
  );
}
