// JetStream, where there is one: streams, and consumers by how far they lag.

import type { ConsumerState, Jsz, StreamState } from '../answers.ts';
import { Pager } from '../controls.tsx';
import { Tile, Waiting } from '../facts.tsx';
import { bytes, count, exact } from '../format.ts';
import { pageOf } from '../list.ts';
import { type Route, change } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';

/** Accounts that are asked for at once. */
const accountsMax = 20;
const perPage = 25;

type StreamRow = StreamState & { account: string };
type ConsumerRow = ConsumerState & { account: string };

export function JetStream({ route }: { route: Route }) {
  const { poller } = useServer();
  const accounts = pageOf(route, accountsMax, 'accounts');
  const path = `jsz?accounts=1&streams=1&consumers=1&limit=${accounts.size}&offset=${accounts.offset}`;
  const { value, error } = useAnswer<Jsz>(poller, path, 5);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const details = value.account_details ?? [];
  const streams: StreamRow[] = details.flatMap(({ name: account, stream_detail }) =>
    (stream_detail ?? []).map((stream) => ({ ...stream, account })),
  );
  const consumers: ConsumerRow[] = streams
    .flatMap(({ account, consumer_detail }) => (consumer_detail ?? []).map((consumer) => ({ ...consumer, account })))
    .sort((a, b) => b.num_pending + b.num_ack_pending - (a.num_pending + a.num_ack_pending));
  const [streamsPage, consumersPage] = [pageOf(route, perPage, 'streams'), pageOf(route, perPage, 'consumers')];
  const shownStreams = streams.slice(streamsPage.offset, streamsPage.offset + perPage);
  const shownConsumers = consumers.slice(consumersPage.offset, consumersPage.offset + perPage);
  return (
    <>
      <dl class="tiles">
        <Tile label="Streams" value={exact(value.streams)} />
        <Tile label="Consumers" value={exact(value.consumers)} />
        <Tile label="Messages" value={count(value.messages)} title={exact(value.messages)} />
        <Tile label="Stored" value={bytes(value.bytes)} />
        <Tile label="Memory" value={bytes(value.memory)} note={`of ${bytes(value.config?.max_memory ?? 0)}`} />
        <Tile label="Storage" value={bytes(value.storage)} note={`of ${bytes(value.config?.max_storage ?? 0)}`} />
        <Tile label="API requests" value={count(value.api.total)} note={`${count(value.api.errors)} errors`} />
      </dl>
      <section class="panel" aria-labelledby="streams">
        <header>
          <h3 id="streams">Streams</h3>
        </header>
        <Table label="Streams" columns={streamColumns} rows={shownStreams} keyOf={({ account, name }) => `${account} ${name}`} empty="There are no streams." />
        <Pager what="streams" {...streamsPage} shown={shownStreams.length} found={streams.length} />
      </section>
      <section class="panel" aria-labelledby="consumers">
        <header>
          <h3 id="consumers">Consumers</h3>
          <p class="muted">those that lag most first</p>
        </header>
        <Table
          label="Consumers"
          columns={consumerColumns}
          rows={shownConsumers}
          keyOf={({ account, stream_name, name }) => `${account} ${stream_name} ${name}`}
          empty="There are no consumers."
        />
        <Pager what="consumers" {...consumersPage} shown={shownConsumers.length} found={consumers.length} />
      </section>
      {(value.total ?? 0) > accounts.size && (
        <Pager
          what="accounts"
          {...accounts}
          shown={details.length}
          found={value.total ?? 0}
          // Other accounts have other streams.
          onOffset={(offset) => change({ accounts: offset || '', streams: '', consumers: '' })}
        />
      )}
    </>
  );
}

const streamColumns: Column<StreamRow>[] = [
  { title: 'Stream', cell: ({ name }) => name },
  { title: 'Account', cell: ({ account }) => account },
  { title: 'Messages', numeric: true, cell: ({ state }) => count(state.messages) },
  { title: 'Bytes', numeric: true, cell: ({ state }) => bytes(state.bytes) },
  { title: 'First', numeric: true, cell: ({ state }) => exact(state.first_seq) },
  { title: 'Last', numeric: true, cell: ({ state }) => exact(state.last_seq) },
  { title: 'Consumers', numeric: true, cell: ({ state }) => exact(state.consumer_count) },
  { title: 'Leader', wide: true, cell: ({ cluster }) => <code>{cluster?.leader ?? '–'}</code> },
];

const consumerColumns: Column<ConsumerRow>[] = [
  { title: 'Consumer', cell: ({ name }) => name },
  { title: 'Stream', cell: ({ stream_name }) => stream_name },
  { title: 'Account', cell: ({ account }) => account },
  { title: 'Not delivered', numeric: true, cell: (row) => count(row.num_pending) },
  { title: 'Not acknowledged', numeric: true, cell: (row) => count(row.num_ack_pending) },
  { title: 'Redelivered', numeric: true, cell: (row) => count(row.num_redelivered) },
  { title: 'Waiting pulls', numeric: true, cell: (row) => count(row.num_waiting) },
  { title: 'Delivered up to', numeric: true, cell: ({ delivered }) => exact(delivered.stream_seq) },
];
