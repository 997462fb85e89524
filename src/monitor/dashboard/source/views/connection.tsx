// One connection, open or closed: what it is, how it keeps up, what it has subscribed to.

import { useRef, useState } from 'preact/hooks';
import type { Connz, Subsz } from '../answers.ts';
import { Chart } from '../chart.tsx';
import { accountOf, libraryOf } from '../client.tsx';
import { Pager } from '../controls.tsx';
import { Facts, Waiting } from '../facts.tsx';
import { address as addressOf, bytes, exact, fullMoment, rate, roundTrip, uptime } from '../format.ts';
import { Meter } from '../history.ts';
import { type Route, address } from '../route.ts';
import { useAnswer, useServer } from '../server.ts';
import { Slowness } from '../slowness.tsx';
import { subscriptionColumns } from '../subscription.tsx';
import { Table } from '../table.tsx';

const samplesMax = 300;
const subscriptionsPerPage = 25;

interface Sample {
  at: number;
  in: number | null;
  out: number | null;
  pending: number;
}

export function ConnectionView({ route }: { route: Route }) {
  const { poller } = useServer();
  const cid = route.item;
  const [meter] = useState(() => new Meter());
  const samples = useRef<Sample[]>([]);
  const path = `connz?state=any&cid=${encodeURIComponent(cid)}&auth=1&ringmain=1`;
  const { value, error } = useAnswer<Connz>(poller, path);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const connection = value.connections?.[0];
  if (connection === undefined) {
    return (
      <p class="notice">
        There is no connection {cid}, and it is not among the last that were closed.{' '}
        <a href={address('connections')}>All connections</a>
      </p>
    );
  }
  const isOpen = connection.stop === undefined;
  const at = Date.parse(value.now);
  const rates = meter.read(at, { in: connection.in_msgs, out: connection.out_msgs });
  if (isOpen && at > (samples.current.at(-1)?.at ?? 0)) {
    const sample = { at, in: rates['in'] ?? null, out: rates['out'] ?? null, pending: connection.pending_bytes };
    samples.current = [...samples.current.slice(-samplesMax + 1), sample];
  }
  const times = samples.current.map(({ at }) => at);
  return (
    <>
      <p class="crumbs">
        <a href={address(isOpen ? 'connections' : 'closed')}>{isOpen ? 'Connections' : 'Closed connections'}</a>
      </p>
      <h2 class="title">
        <span class="cid">{connection.cid}</span> {connection.name || <em>unnamed</em>}
        {!isOpen && <span class="chip">Closed</span>}
      </h2>
      <Slowness connection={connection} now={value.now} />
      <section class="panel">
        <Facts
          facts={[
            ['Account', accountOf(connection)],
            ['User', connection.authorized_user],
            ['Address', addressOf(connection.ip, connection.port)],
            ['Library', libraryOf(connection)],
            ['Protocol', connection.type],
            ['TLS', connection.tls_version],
            ['Worker', connection.ringmain?.worker],
            ['Connected', fullMoment(Date.parse(connection.start))],
            ['Closed', connection.stop && fullMoment(Date.parse(connection.stop))],
            ['Reason', connection.reason],
            [isOpen ? 'Uptime' : 'Lasted', uptime(connection.uptime)],
            ['Idle', isOpen && uptime(connection.idle)],
            ['Round trip', connection.rtt === '0s' ? 'not measured yet' : roundTrip(connection.rtt)],
            ['Pending', bytes(connection.pending_bytes)],
            ['Producers held back', `${exact(connection.stalls ?? 0)} times`],
            ['Messages in', exact(connection.in_msgs)],
            ['Messages out', exact(connection.out_msgs)],
            ['Bytes in', bytes(connection.in_bytes)],
            ['Bytes out', bytes(connection.out_bytes)],
            ['Subscriptions', exact(connection.subscriptions)],
          ]}
        />
      </section>
      {isOpen && (
        <div class="charts">
          <Chart
            title="Messages per second"
            times={times}
            series={[
              { label: 'in', color: '--in', values: samples.current.map((sample) => sample.in) },
              { label: 'out', color: '--out', values: samples.current.map((sample) => sample.out) },
            ]}
            format={rate}
          />
          <Chart
            title="Bytes pending"
            times={times}
            series={[{ label: 'waiting', color: '--third', values: samples.current.map(({ pending }) => pending) }]}
            format={bytes}
            least={1024}
            binary
          />
        </div>
      )}
      {isOpen ? <OpenSubscriptions cid={cid} /> : <ClosedSubscriptions cid={cid} count={connection.subscriptions} />}
    </>
  );
}

const columns = subscriptionColumns();

function OpenSubscriptions({ cid }: { cid: string }) {
  const { poller } = useServer();
  const [offset, setOffset] = useState(0);
  const query = new URLSearchParams({ subs: '1', cid, limit: String(subscriptionsPerPage), offset: String(offset) });
  const { value, error } = useAnswer<Subsz>(poller, `subsz?${query}`, 3);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const rows = value.subscriptions_list ?? [];
  return (
    <section class="panel" aria-labelledby="subscriptions">
      <header>
        <h3 id="subscriptions">Subscriptions</h3>
      </header>
      <Table label="Subscriptions" columns={columns} rows={rows} keyOf={({ sid }) => sid} empty="It has none." />
      {value.total > subscriptionsPerPage && (
        <Pager
          what="subscriptions"
          offset={offset}
          shown={rows.length}
          found={value.total}
          size={subscriptionsPerPage}
          onOffset={setOffset}
        />
      )}
    </section>
  );
}

function ClosedSubscriptions({ cid, count: subscriptions }: { cid: string; count: number }) {
  const { poller } = useServer();
  const path = `connz?state=closed&cid=${encodeURIComponent(cid)}&subs=detail`;
  const { value, error } = useAnswer<Connz>(poller, path, 30);
  if (value === undefined || error !== undefined) return <Waiting error={error} />;
  const rows = value.connections?.[0]?.subscriptions_list_detail ?? [];
  return (
    <section class="panel" aria-labelledby="subscriptions">
      <header>
        <h3 id="subscriptions">Subscriptions that it had</h3>
        {subscriptions > rows.length && (
          <p class="muted">
            the first {exact(rows.length)} of {exact(subscriptions)}
          </p>
        )}
      </header>
      <Table label="Subscriptions" columns={columns} rows={rows} keyOf={({ sid }) => sid} empty="It had none." />
    </section>
  );
}
