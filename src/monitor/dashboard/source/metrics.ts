// The numbers of the workers, which the server tells in the text of `/metrics`.

export interface Worker {
  worker: string;
  values: Record<string, number>;
}

const line = /^ringmain_worker_(\w+)\{worker="(\d+)"\} (\S+)$/gm;

export function workersOf(text: string): Worker[] {
  const workers = new Map<string, Worker>();
  for (const [, name = '', worker = '', value = ''] of text.matchAll(line)) {
    let known = workers.get(worker);
    if (known === undefined) {
      known = { worker, values: {} };
      workers.set(worker, known);
    }
    known.values[name] = Number(value);
  }
  return [...workers.values()].sort((a, b) => Number(a.worker) - Number(b.worker));
}
