// How a consumer stands: how far it lags, and what keeps it from delivering.

import type { ConsumerRow } from './answers.ts';
import { PerSecond } from './facts.tsx';
import { count, duration, exact, milli } from './format.ts';
import { address } from './route.ts';
import type { Column } from './table.tsx';

const obstacles: Record<string, string> = {
  no_request: 'no client asks for messages',
  no_listener: 'no client listens',
  unacknowledged: 'as many wait for acknowledgement as may',
  flow_control: 'the client does not answer',
};

/** Where a stream is shown. */
export function streamAddress(account: string, stream: string): string {
  return address('jetstream', stream, { acc: account });
}

/** One word for how it is, and a few for why. */
export function Standing({ consumer }: { consumer: ConsumerRow }) {
  const { paused, stuck, stalled_seconds, obstacle, given_up, num_redelivered } = consumer;
  if (paused) return <span class="chip">Paused</span>;
  if (stuck) {
    return (
      <>
        <span class="chip bad">Stuck</span>
        <small>
          for {duration(stalled_seconds * 1000)}
          {obstacle !== undefined && `: ${obstacles[obstacle] ?? obstacle}`}
        </small>
      </>
    );
  }
  if (given_up > 0) {
    return (
      <>
        <span class="chip warn">Given up</span>
        <small>{count(given_up)} messages</small>
      </>
    );
  }
  if (num_redelivered > 0) return <span class="chip warn">Redelivering</span>;
  return <span class="muted">well</span>;
}

interface LagProps {
  messages: number;
  /** The age of the first of them. */
  seconds: number;
  /** So many there may be; 0 or less for any number. */
  most?: number;
  /** So many fewer they become in a second. */
  drained?: number | undefined;
}

function Lag({ messages, seconds, most = 0, drained = 0 }: LagProps) {
  return (
    <>
      <span title={exact(messages)}>{count(messages)}</span>
      {most > 0 && messages >= most && <small>the most there may be</small>}
      {messages > 0 && <small>oldest {duration(seconds * 1000)}</small>}
      {messages > 0 && drained > 0 && <small>none in {duration(Math.ceil(messages / drained) * 1000)}</small>}
    </>
  );
}

/** The columns of a list of consumers. `rates` are messages per second by key. */
export function consumerColumns(
  rates: Map<string, Record<string, number>>,
  shows: 'stream' | 'description',
): Column<ConsumerRow>[] {
  return [
    {
      title: 'Consumer',
      sort: 'name',
      ascending: true,
      cell: ({ name, account, stream, description, type, ack_policy }) => (
        <>
          <span class="name">{name}</span>
          {shows === 'stream' ? (
            <small>
              of <a href={streamAddress(account, stream)}>{stream}</a>, account {account}
            </small>
          ) : (
            <small>{[type, `acknowledgement ${ack_policy}`, description].filter(Boolean).join(' · ')}</small>
          )}
        </>
      ),
    },
    { title: 'State', sort: 'stalled', wide: true, cell: (consumer) => <Standing consumer={consumer} /> },
    {
      title: 'Not delivered',
      sort: 'pending',
      numeric: true,
      cell: (row) => (
        <Lag messages={row.num_pending} seconds={row.undelivered_seconds} drained={rates.get(consumerKey(row))?.['drained']} />
      ),
    },
    {
      title: 'Not acknowledged',
      sort: 'ack_pending',
      numeric: true,
      cell: (row) => <Lag messages={row.num_ack_pending} seconds={row.unacknowledged_seconds} most={row.max_ack_pending} />,
    },
    {
      title: 'Redelivered',
      sort: 'redelivered',
      numeric: true,
      cell: (row) => (
        <>
          {count(row.num_redelivered)}
          {row.redeliveries > 0 && <small>{count(row.redeliveries)} times in all</small>}
        </>
      ),
    },
    {
      title: 'Waiting pulls',
      sort: 'waiting',
      numeric: true,
      cell: (row) => (row.type === 'pull' ? count(row.num_waiting) : row.push_bound ? 'push' : <em>nobody listens</em>),
    },
    {
      title: 'Delivered',
      numeric: true,
      cell: (row) => (
        <>
          {count(row.delivered.consumer_seq)}
          <PerSecond value={rates.get(consumerKey(row))?.['delivered']} />
        </>
      ),
    },
    {
      title: 'Ack p99',
      numeric: true,
      cell: ({ ack_p50_seconds: p50, ack_p99_seconds: p99 }) =>
        p99 === undefined ? '–' : (
          <>
            ≤ {milli(p99 * 1000)}
            {p50 !== undefined && <small>p50 ≤ {milli(p50 * 1000)}</small>}
          </>
        ),
    },
  ];
}

/** What the rates of consumers are taken of. */
export function consumerMeters(rows: ConsumerRow[]): [string, Record<string, number>][] {
  return rows.map((row) => [consumerKey(row), { delivered: row.delivered.consumer_seq, drained: -row.num_pending }]);
}

export function consumerKey({ account, stream, name }: ConsumerRow): string {
  return `${account} ${stream} ${name}`;
}
