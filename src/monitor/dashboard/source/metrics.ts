// The numbers of the workers, which the server tells in the text of `/metrics`.

export interface Worker {
  worker: string;
  values: Record<string, number>;
  /** How many turns took at most so many seconds, ever; in the order of the seconds. */
  turns: [seconds: number, count: number][];
}

const line = /^ringmain_worker_(\w+)\{worker="(\d+)"(?:,le="([^"]+)")?\} (\S+)$/gm;

export function workersOf(text: string): Worker[] {
  const workers = new Map<string, Worker>();
  for (const [, name = '', worker = '', atMost, value = ''] of text.matchAll(line)) {
    let known = workers.get(worker);
    if (known === undefined) {
      known = { worker, values: {}, turns: [] };
      workers.set(worker, known);
    }
    if (atMost === undefined) known.values[name] = Number(value);
    else if (name === 'turn_seconds_bucket') known.turns.push([atMost === '+Inf' ? Infinity : Number(atMost), Number(value)]);
  }
  return [...workers.values()].sort((a, b) => Number(a.worker) - Number(b.worker));
}

/** Within which of the bounds so large a share of what was counted lies; `undefined` if nothing was. */
export function quantile(share: number, counted: [bound: number, upTo: number][]): number | undefined {
  const all = counted.at(-1)?.[1] ?? 0;
  return all === 0 ? undefined : counted.find(([, upTo]) => upTo >= share * all)?.[0];
}
