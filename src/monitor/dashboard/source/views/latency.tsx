// How long messages take inside the server, from the kernel to the kernel.

import { Chart } from '../chart.tsx';
import { count, duration, milli } from '../format.ts';
import type { Times } from '../latencies.ts';
import { type Part, parts } from '../metrics.ts';
import { metricsEvery, useMetrics, useServer } from '../server.ts';
import { type Column, Table } from '../table.tsx';

const texts: Record<Part, { name: string; meaning: string; counted: string; color: string }> = {
  route: { name: 'routing', meaning: 'from arrival to the outputs', counted: 'messages', color: '--in' },
  handover: { name: 'handing over', meaning: 'to another worker’s outputs', counted: 'messages', color: '--third' },
  send: { name: 'sending', meaning: 'of output, until the kernel has it', counted: 'pieces', color: '--out' },
};

/** The server measures microseconds. */
const leastMs = 0.001;

/** A panel and a chart: two cells of a grid. */
export function Latency() {
  const { poller, latencies } = useServer();
  const metrics = useMetrics();
  if (metrics !== undefined) latencies.add(metrics.at, metrics.text, poller.gapMs(metricsEvery));
  const { latest, samples } = latencies;
  const quantile = (title: string, name: 'p50' | 'p99' | 'p999'): Column<Part> => ({
    title,
    numeric: true,
    cell: (part) => {
      const times = latest?.[part];
      return times === undefined ? '–' : shown(times[name], times);
    },
  });
  const columns: Column<Part>[] = [
    {
      title: 'Part of the way',
      cell: (part) => (
        <>
          <span class="name">{texts[part].name}</span>
          <small>{texts[part].meaning}</small>
        </>
      ),
    },
    quantile('p50', 'p50'),
    quantile('p99', 'p99'),
    quantile('p99.9', 'p999'),
    {
      title: 'Counted',
      numeric: true,
      wide: true,
      cell: (part) => {
        if (latest === undefined) return '–';
        const times = latest[part];
        return times === undefined ? 'no messages' : `${count(times.count)} ${texts[part].counted}`;
      },
    },
  ];
  return (
    <>
      <section class="panel" aria-labelledby="latency">
        <header>
          <h3 id="latency">Latency inside the server</h3>
          <p class="muted">
            {latest === undefined ? 'known after two readings' : `of the last ${duration(Math.max(1, Math.round(latest.lengthMs / 1000)) * 1000)}`}
          </p>
        </header>
        <Table label="Latency inside the server" columns={columns} rows={[...parts]} keyOf={(part) => part} empty="" />
      </section>
      <Chart
        title="p99 inside the server"
        times={samples.map(({ at }) => at)}
        series={parts.map((part) => ({
          label: texts[part].name,
          color: texts[part].color,
          values: samples.map((interval) => milliseconds(interval[part]?.p99)),
        }))}
        format={milli}
        least={1}
        decadesFrom={leastMs}
        // As high as the panel beside it.
        height={206}
      />
    </>
  );
}

function shown(seconds: number, { longest }: Times): string {
  const ms = seconds * 1000;
  return ms < leastMs ? `< ${milli(leastMs)}` : seconds === longest ? `> ${milli(ms)}` : milli(ms);
}

function milliseconds(seconds: number | undefined): number | null {
  return seconds === undefined ? null : Math.max(leastMs, seconds * 1000);
}
