// One stream: what it is, what comes and goes, and its consumers.

import { useRef, useState } from 'preact/hooks';
import type { Consumerz, StreamRow, Streamz } from '../answers.ts';
import { Chart } from '../chart.tsx';
import { globalAccount } from '../client.tsx';
import { consumerColumns, consumerKey, consumerMeters } from '../consumer.tsx';
import { Field, Pager, Rows } from '../controls.tsx';
import { Facts, Waiting } from '../facts.tsx';
import { bytes, count, duration, exact, fullMoment, nanoseconds, percent, rate } from '../format.ts';
import { Meter, Meters } from '../history.ts';
import { listOf } from '../list.ts';
import { type Route, address } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { Table } from '../table.tsx';
import { StreamState } from './jetstream.tsx';

const samplesMax = 300;

interface Sample {
  at: number;
  in: number | null;
  out: number | null;
  messages: number;
}

export function StreamView({ route }: { route: Route }) {
  const { poller } = useServer();
  const [meter] = useState(() => new Meter());
  const samples = useRef<Sample[]>([]);
  const account = route.settings.get('acc') ?? globalAccount;
  const query = new URLSearchParams({ acc: account, stream: route.item, limit: '1' });
  const { value, error } = useAnswer<Streamz>(poller, `streamz?${query}`);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const stream = value.streams[0];
  if (stream === undefined) {
    return (
      <p class="notice">
        Account {account} has no stream {route.item}. <a href={address('jetstream')}>All streams</a>
      </p>
    );
  }
  const at = Date.parse(value.now);
  const rates = meter.read(at, { in: stream.last_seq, out: stream.deliveries });
  if (at > (samples.current.at(-1)?.at ?? 0)) {
    const sample = { at, in: rates['in'] ?? null, out: rates['out'] ?? null, messages: stream.messages };
    samples.current = [...samples.current.slice(-samplesMax + 1), sample];
  }
  const times = samples.current.map(({ at }) => at);
  const limited = (max: number, text: (value: number) => string): string => (max > 0 ? `at most ${text(max)}` : 'no limit');
  const moment = (text: string | undefined): string | undefined => text && fullMoment(Date.parse(text));
  return (
    <>
      <p class="crumbs">
        <a href={address('jetstream')}>JetStream</a>
      </p>
      <h2 class="title">
        {stream.name} {stream.write_error !== undefined && <span class="chip bad">Read only</span>}
      </h2>
      {stream.write_error !== undefined && (
        <div class="notice bad" role="status">
          <p>
            <strong>It cannot be written any more</strong>: {stream.write_error}. Publishers get this error; what it has can be read.
          </p>
        </div>
      )}
      <section class="panel">
        <Facts
          facts={[
            ['Account', account],
            ['State', <StreamState stream={stream} />],
            ['Description', stream.description],
            ['Kept', stream.storage === 'file' ? 'on disk' : 'in memory'],
            ['Retention', stream.retention],
            ['Created', moment(stream.created)],
            ['Messages', `${exact(stream.messages)}, ${limited(stream.max_msgs, exact)}`],
            ['Bytes', `${bytes(stream.bytes)}, ${limited(stream.max_bytes, bytes)}`],
            ['Age', limited(stream.max_age, nanoseconds)],
            ['Use of limits', (stream.max_msgs > 0 || stream.max_bytes > 0) && percent(stream.used * 100)],
            ['Sequences', `${exact(stream.first_seq)} to ${exact(stream.last_seq)}`],
            ['Removed in between', exact(stream.num_deleted)],
            ['Different subjects', exact(stream.num_subjects)],
            ['Oldest message', moment(stream.first_ts)],
            ['Newest message', moment(stream.last_ts)],
            ['Delivered', exact(stream.deliveries)],
            [
              'Subjects',
              <code>
                {stream.subjects.join(', ')}
                {stream.num_subject_filters > stream.subjects.length && ` and ${stream.num_subject_filters - stream.subjects.length} more`}
              </code>,
            ],
          ]}
        />
      </section>
      <div class="charts">
        <Chart
          title="Messages per second"
          times={times}
          series={[
            { label: 'stored', color: '--in', values: samples.current.map((sample) => sample.in) },
            { label: 'delivered', color: '--out', values: samples.current.map((sample) => sample.out) },
          ]}
          format={rate}
        />
        <Chart
          title="Messages kept"
          times={times}
          series={[{ label: 'messages', color: '--third', values: samples.current.map(({ messages }) => messages) }]}
          format={count}
        />
      </div>
      <Origins stream={stream} now={at} />
      <Consumers route={route} account={account} />
    </>
  );
}

/** The streams that it copies from. */
function Origins({ stream, now }: { stream: StreamRow; now: number }) {
  const { mirror, sources = [], num_sources = 0 } = stream;
  // Several may have one name, and differ in what of it is copied.
  const rows = (mirror === undefined ? sources : [mirror]).map((origin, at) => ({ ...origin, at }));
  if (rows.length === 0) return null;
  return (
    <section class="panel" aria-labelledby="origins">
      <header>
        <h3 id="origins">{mirror === undefined ? 'Sources' : 'Mirror of'}</h3>
        {num_sources > sources.length && <p class="muted">the first {sources.length} of {exact(num_sources)}</p>}
      </header>
      <Table
        label="Streams that it copies from"
        rows={rows}
        keyOf={({ at }) => at}
        isMarked={({ error }) => error !== undefined}
        empty=""
        columns={[
          { title: 'Stream', cell: ({ name }) => <span class="name">{name}</span> },
          { title: 'State', wide: true, cell: ({ error }) => (error === undefined ? <span class="muted">well</span> : <span class="chip bad">{error}</span>) },
          { title: 'Messages behind', numeric: true, cell: ({ lag }) => count(lag) },
          {
            title: 'Heard of',
            numeric: true,
            cell: ({ last_heard }) => (last_heard === undefined ? 'never' : `${duration(now - Date.parse(last_heard))} ago`),
          },
        ]}
      />
    </section>
  );
}

function Consumers({ route, account }: { route: Route; account: string }) {
  const { poller } = useServer();
  const [meters] = useState(() => new Meters());
  const list = listOf(route, { acc: account, stream: route.item }, ['sort', 'find']);
  const find = list.setting('find');
  const { value, error } = useAnswer<Consumerz>(poller, `consumerz?${list.query}`);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const rows = value.consumers;
  const rates = meters.read(Date.parse(value.now), consumerMeters(rows));
  return (
    <>
      <div class="toolbar" role="search">
        <Field label="Find a consumer" placeholder="name, description" value={find} onChange={(find) => list.change({ find })} />
        <Rows list={list} />
      </div>
      <section class="panel" aria-labelledby="consumers">
        <header>
          <h3 id="consumers">Consumers</h3>
          {value.left_out > 0 && <p class="muted">{exact(value.left_out)} were not looked at</p>}
        </header>
        <Table
          label="Consumers"
          columns={consumerColumns(rates, 'description')}
          rows={rows}
          keyOf={consumerKey}
          isMarked={({ stuck }) => stuck}
          sorted={list.setting('sort') || 'stalled'}
          onSort={(sort) => list.change({ sort })}
          empty={find === '' ? 'It has no consumers.' : 'It has no such consumer.'}
        />
        <Pager what="consumers" {...list.page} shown={rows.length} found={value.found} />
      </section>
    </>
  );
}
