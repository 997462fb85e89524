// JetStream, where there is one: the streams, and the consumers that need somebody to look after them.

import { useState } from 'preact/hooks';
import type { Consumerz, Jsz, StreamRow, Streamz } from '../answers.ts';
import { consumerColumns, consumerKey, consumerMeters, streamAddress } from '../consumer.tsx';
import { Choice, Field, Pager, Rows } from '../controls.tsx';
import { Tile, Waiting } from '../facts.tsx';
import { bytes, count, duration, exact, percent, rate } from '../format.ts';
import { Meters } from '../history.ts';
import { listOf } from '../list.ts';
import { type Route } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';

/** Consumers at the top of the page. */
const worstMax = 5;

/** Rounds between two readings of a list. */
const every = 2;

const orders: [string, string][] = [
  ['name', 'Name'],
  ['messages', 'Messages'],
  ['bytes', 'Bytes'],
  ['consumers', 'Consumers'],
  ['used', 'Use of limits'],
  ['errors', 'Errors'],
];

export function JetStream({ route }: { route: Route }) {
  return (
    <>
      <Sums />
      <Worst />
      <Streams route={route} />
    </>
  );
}

function Sums() {
  const { poller } = useServer();
  const { value, error } = useAnswer<Jsz>(poller, 'jsz', 5);
  const disk = useAnswer<Streamz>(poller, 'streamz?limit=1', 5).value?.disk;
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  return (
    <dl class="tiles">
      <Tile label="Streams" value={exact(value.streams)} />
      <Tile label="Consumers" value={exact(value.consumers)} />
      <Tile label="Messages" value={count(value.messages)} title={exact(value.messages)} note={`${bytes(value.bytes)} in all`} />
      <Tile label="In memory" value={bytes(value.memory)} note={`of ${bytes(value.config?.max_memory ?? 0)}`} />
      <Tile label="On disk" value={bytes(value.storage)} note={`of ${bytes(value.config?.max_storage ?? 0)}`} />
      {disk !== undefined && <Tile label="Disk free" value={bytes(disk.free_bytes)} note={`of ${bytes(disk.size_bytes)}`} />}
      <Tile label="API requests" value={count(value.api.total)} note={`${count(value.api.errors)} errors`} />
    </dl>
  );
}

/** The consumers that have been stuck for longest, and those that redeliver or have given up. */
function Worst() {
  const { poller } = useServer();
  const [meters] = useState(() => new Meters());
  const { value, error } = useAnswer<Consumerz>(poller, `consumerz?sort=stalled&limit=${worstMax}`, every);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const rows = value.consumers.filter(({ stuck }) => stuck);
  const rates = meters.read(Date.parse(value.now), consumerMeters(rows));
  return (
    <section class="panel" aria-labelledby="worst">
      <header>
        <h3 id="worst">Stuck consumers</h3>
        <p class="muted">
          {value.stuck > rows.length ? `the first ${rows.length} of ${exact(value.stuck)}` : `${exact(value.stuck)} of ${exact(value.total)}`}
          {value.left_out > 0 && `; ${exact(value.left_out)} were not looked at`}
        </p>
      </header>
      <Table
        label="Stuck consumers"
        columns={consumerColumns(rates, 'stream').map(({ sort: _, ...column }) => column)}
        rows={rows}
        keyOf={consumerKey}
        isMarked={() => true}
        empty="Every consumer delivers what it has to deliver."
      />
    </section>
  );
}

function Streams({ route }: { route: Route }) {
  const { poller } = useServer();
  const [meters] = useState(() => new Meters());
  const list = listOf(route, {}, ['sort', 'find', 'acc']);
  const sort = list.setting('sort') || 'name';
  const find = list.setting('find');
  const { value, error } = useAnswer<Streamz>(poller, `streamz?${list.query}`, every);
  const rows = value?.streams ?? [];
  const rates = meters.read(
    value === undefined ? 0 : Date.parse(value.now),
    rows.map((row) => [streamKey(row), { in: row.last_seq, out: row.deliveries }]),
  );
  const columns = streamColumns(rates, value?.now ?? '');
  return (
    <>
      <div class="toolbar" role="search">
        <Field label="Find" placeholder="stream, subject, account" value={find} onChange={(find) => list.change({ find })} />
        <Field label="Account" value={list.setting('acc')} onChange={(acc) => list.change({ acc })} />
        <Choice label="Order" value={sort} options={orders} onChange={(sort) => list.change({ sort })} />
        <Rows list={list} />
      </div>
      {value === undefined || error !== undefined ? (
        <Waiting error={error} />
      ) : (
        <section class="panel" aria-labelledby="streams">
          <header>
            <h3 id="streams">Streams</h3>
            <p class="muted">messages and their rates in and out</p>
          </header>
          <Table
            label="Streams"
            columns={columns}
            rows={rows}
            keyOf={streamKey}
            isMarked={({ write_error }) => write_error !== undefined}
            sorted={sort}
            onSort={(sort) => list.change({ sort })}
            empty={find === '' && list.setting('acc') === '' ? 'There are no streams.' : 'There is no such stream.'}
          />
          <Pager what="streams" {...list.page} shown={rows.length} found={value.found} />
        </section>
      )}
    </>
  );
}

function streamKey({ account, name }: StreamRow): string {
  return `${account} ${name}`;
}

/** One word for how it is, and what the system said. */
export function StreamState({ stream: { write_error, store_errors } }: { stream: StreamRow }) {
  if (write_error !== undefined) {
    return (
      <>
        <span class="chip bad">Read only</span>
        <small>{write_error}</small>
      </>
    );
  }
  if (store_errors > 0) return <span class="chip warn">{exact(store_errors)} store errors</span>;
  return <span class="muted">well</span>;
}

function streamColumns(rates: Map<string, Record<string, number>>, now: string): Column<StreamRow>[] {
  const speed = (row: StreamRow, name: 'in' | 'out'): string => {
    const value = rates.get(streamKey(row))?.[name];
    return value === undefined ? '–' : `${rate(value)}/s`;
  };
  return [
    {
      title: 'Stream',
      sort: 'name',
      ascending: true,
      cell: ({ account, name, subjects, num_subject_filters }) => (
        <>
          <a class="name" href={streamAddress(account, name)}>
            {name}
          </a>
          <small>
            {subjects.slice(0, 3).join(', ')}
            {num_subject_filters > 3 && ` and ${num_subject_filters - 3} more`}
          </small>
        </>
      ),
    },
    { title: 'Account', cell: ({ account }) => account },
    { title: 'State', sort: 'errors', cell: (stream) => <StreamState stream={stream} /> },
    { title: 'Messages', sort: 'messages', numeric: true, cell: ({ messages }) => <span title={exact(messages)}>{count(messages)}</span> },
    { title: 'Bytes', sort: 'bytes', numeric: true, cell: (row) => bytes(row.bytes) },
    { title: 'In', numeric: true, cell: (row) => speed(row, 'in') },
    { title: 'Out', numeric: true, cell: (row) => speed(row, 'out') },
    { title: 'Consumers', sort: 'consumers', numeric: true, cell: (row) => exact(row.consumer_count) },
    {
      title: 'Use of limits',
      sort: 'used',
      numeric: true,
      cell: ({ used, max_msgs, max_bytes }) => (max_msgs > 0 || max_bytes > 0 ? percent(used * 100) : 'no limit'),
    },
    {
      title: 'Newest',
      numeric: true,
      cell: ({ last_ts }) => (last_ts === undefined ? '–' : `${duration(Date.parse(now) - Date.parse(last_ts))} ago`),
    },
  ];
}
