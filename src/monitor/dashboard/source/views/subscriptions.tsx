// The subscriptions of all connections, and what the index of them has done.

import type { Subsz } from '../answers.ts';
import { globalAccount } from '../client.tsx';
import { Field, Pager, Rows } from '../controls.tsx';
import { Tile, Waiting } from '../facts.tsx';
import { count, exact, percent } from '../format.ts';
import { listOf } from '../list.ts';
import { type Route, address } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { subscriptionColumns } from '../subscription.tsx';
import { Table } from '../table.tsx';

const columns = subscriptionColumns([
  { title: 'Account', cell: ({ account }) => account ?? globalAccount },
  { title: 'Connection', numeric: true, cell: ({ cid }) => <a href={address('connections', String(cid))}>{cid}</a> },
]);

export function Subscriptions({ route }: { route: Route }) {
  const { poller } = useServer();
  const list = listOf(route, { subs: '1' }, ['find', 'test', 'acc']);
  const { value, error } = useAnswer<Subsz>(poller, `subsz?${list.query}`, 2);
  const rows = value?.subscriptions_list ?? [];
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
          value={list.setting('find')}
          onChange={(find) => list.change({ find })}
        />
        <Field
          label="Reached by subject"
          placeholder="orders.new"
          value={list.setting('test')}
          onChange={(test) => list.change({ test })}
        />
        <Field label="Account" value={list.setting('acc')} onChange={(acc) => list.change({ acc })} />
        <Rows list={list} />
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
          <Pager what="subscriptions" {...list.page} shown={rows.length} found={value.total} />
        </section>
      )}
    </>
  );
}
