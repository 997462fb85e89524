// The subscriptions of all connections, and what the index of them has done.

import type { Subscription, Subsz } from '../answers.ts';
import { Choice, Field, Pager } from '../controls.tsx';
import { Tile, Waiting } from '../facts.tsx';
import { count, exact, percent } from '../format.ts';
import { type Route, address, change } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';
import { globalAccount } from '../client.tsx';
import { pageSizes } from './connections.tsx';

const columns: Column<Subscription>[] = [
  { title: 'Subject', cell: ({ subject }) => <code>{subject}</code> },
  { title: 'Queue group', cell: ({ qgroup }) => qgroup ?? '–' },
  { title: 'Account', cell: ({ account }) => account ?? globalAccount },
  { title: 'Connection', numeric: true, cell: ({ cid }) => <a href={address('connections', String(cid))}>{cid}</a> },
  { title: 'Sid', numeric: true, cell: ({ sid }) => sid },
  { title: 'Delivered', numeric: true, cell: ({ msgs }) => count(msgs) },
  { title: 'Ends after', numeric: true, cell: ({ max }) => (max === undefined ? '–' : exact(max)) },
];

export function Subscriptions({ route }: { route: Route }) {
  const { poller } = useServer();
  const setting = (name: string, usual = ''): string => route.settings.get(name) ?? usual;
  const size = Number(setting('size', '25'));
  const offset = Number(setting('offset', '0'));
  const query = new URLSearchParams({ subs: '1', limit: String(size), offset: String(offset) });
  for (const name of ['find', 'test', 'acc']) if (setting(name) !== '') query.set(name, setting(name));
  const { value, error } = useAnswer<Subsz>(poller, `subsz?${query}`, 2);
  const rows = value?.subscriptions_list ?? [];
  const reset = { offset: '' };
  return (
    <>
      {value !== undefined && (
        <dl class="tiles">
          <Tile label="Subscriptions" value={exact(value.num_subscriptions)} />
          <Tile label="Made" value={count(value.num_inserts)} title={exact(value.num_inserts)} note={`${count(value.num_removes)} ended`} />
          <Tile label="Cached subjects" value={exact(value.num_cache)} note={`${percent(value.cache_hit_rate * 100)} of ${count(value.num_matches)} hit`} />
          <Tile label="Largest fan-out" value={exact(value.max_fanout)} note={`${count(value.avg_fanout)} on average`} />
        </dl>
      )}
      <div class="toolbar" role="search">
        <Field
          label="Find"
          placeholder="part of a subject or queue group"
          value={setting('find')}
          onChange={(find) => change({ find, ...reset })}
        />
        <Field
          label="Reached by subject"
          placeholder="orders.new"
          value={setting('test')}
          onChange={(test) => change({ test, ...reset })}
        />
        <Field label="Account" value={setting('acc')} onChange={(acc) => change({ acc, ...reset })} />
        <Choice label="Rows" value={String(size)} options={pageSizes} onChange={(size) => change({ size, ...reset })} />
      </div>
      {value === undefined || error !== undefined ? (
        <Waiting error={error} />
      ) : (
        <section class="panel">
          <Table
            label="Subscriptions"
            columns={columns}
            rows={rows}
            keyOf={({ cid, sid }) => `${cid} ${sid}`}
            empty="There is no such subscription."
          />
          <Pager
            what="subscriptions"
            offset={offset}
            shown={rows.length}
            found={value.total}
            size={size}
            onOffset={(offset) => change({ offset: offset || '' })}
          />
        </section>
      )}
    </>
  );
}
