// What the server tells in the text of `/metrics` alone: the numbers of the workers, and how long messages take.

/** How many took at most so many seconds; in the order of the seconds, which end with `Infinity`. */
export type Buckets = [seconds: number, upTo: number][];

export interface Worker {
  worker: string;
  values: Record<string, number>;
  /** The lengths of its turns, ever. */
  turns: Buckets;
}

const workerLine = /^ringmain_worker_(\w+)\{worker="(\d+)"(?:,le="([^"]+)")?\} (\S+)$/gm;

export function workersOf(text: string): Worker[] {
  const workers = new Map<string, Worker>();
  for (const [, name = '', worker = '', atMost, value = ''] of text.matchAll(workerLine)) {
    let known = workers.get(worker);
    if (known === undefined) {
      known = { worker, values: {}, turns: [] };
      workers.set(worker, known);
    }
    if (atMost === undefined) known.values[name] = Number(value);
    else if (name === 'turn_seconds_bucket') known.turns.push([secondsOf(atMost), Number(value)]);
  }
  return [...workers.values()].sort((a, b) => Number(a.worker) - Number(b.worker));
}

/** The parts of a message's way, by their histograms. */
export const parts = ['route', 'handover', 'send'] as const;
export type Part = (typeof parts)[number];

const latencyLine = /^ringmain_(route|handover|send)_seconds_bucket\{le="([^"]+)"\} (\S+)$/gm;

/** How long messages took, ever, at all workers together. */
export function latenciesOf(text: string): Record<Part, Buckets> {
  const latencies: Record<Part, Buckets> = { route: [], handover: [], send: [] };
  for (const [, part, atMost = '', value = ''] of text.matchAll(latencyLine)) {
    latencies[part as Part].push([secondsOf(atMost), Number(value)]);
  }
  return latencies;
}

/** When the process started: counters begin anew with another one. */
export function startOf(text: string): number {
  return Number(/^process_start_time_seconds (\S+)$/m.exec(text)?.[1]);
}

function secondsOf(bound: string): number {
  return bound === '+Inf' ? Infinity : Number(bound);
}

/** Within which of the bounds so large a share of what was counted lies; `undefined` if nothing was. */
export function boundOf(share: number, counted: Buckets): number | undefined {
  const all = counted.at(-1)?.[1] ?? 0;
  return all === 0 ? undefined : counted.find(([, upTo]) => upTo >= share * all)?.[0];
}

/**
 * The same, as far within its bucket as Prometheus's `histogram_quantile` would say: as if what is in a bucket were spread
 * evenly over it, and nothing were longer than the last bound.
 */
export function quantile(share: number, counted: Buckets): number | undefined {
  const all = counted.at(-1)?.[1] ?? 0;
  if (all === 0) return undefined;
  const at = counted.findIndex(([, upTo]) => upTo >= share * all);
  const [from, below] = counted[at - 1] ?? [0, 0];
  const [to, upTo] = counted[at] ?? [Infinity, all];
  return to === Infinity ? from : from + ((to - from) * (share * all - below)) / (upTo - below);
}
