// The last readings of `/varz`, from which the charts are drawn: rates are differences of two readings, over the time
// between them by the server's own clock.

import type { Varz } from './answers.ts';

/** What is known of one moment. `null` where nothing is known: after a gap, or a new start of the server. */
export interface Sample {
  at: number;
  inMsgs: number | null;
  outMsgs: number | null;
  inBytes: number | null;
  outBytes: number | null;
  connections: number | null;
  cpu: number | null;
}

const samplesMax = 900;

export class History {
  readonly samples: Sample[] = [];
  #last: Varz | undefined;
  #lastCameAt = 0;

  get latest(): Sample | undefined {
    return this.samples.at(-1);
  }

  /** The server's time when `performance.now()` was `cameAt`. */
  timeOf(cameAt: number): number {
    return Date.parse(this.#last?.now ?? '') + cameAt - this.#lastCameAt;
  }

  /** `gapMs`: from this much time between two readings on, what was in between is not known. */
  add(varz: Varz, cameAt: number, gapMs: number): void {
    const last = this.#last;
    const at = Date.parse(varz.now);
    const elapsed = last === undefined ? 0 : at - Date.parse(last.now);
    if (last !== undefined && elapsed <= 0 && last.start === varz.start) return;
    const follows = last !== undefined && last.start === varz.start && elapsed > 0;
    const rate = (name: 'in_msgs' | 'out_msgs' | 'in_bytes' | 'out_bytes'): number | null =>
      follows ? Math.max(0, ((varz[name] - last[name]) * 1000) / elapsed) : null;
    if (last !== undefined && (!follows || elapsed > gapMs)) {
      this.#push({ ...nothing, at: at - Math.max(1, Math.min(elapsed, gapMs)) });
    }
    this.#push({
      at,
      inMsgs: rate('in_msgs'),
      outMsgs: rate('out_msgs'),
      inBytes: rate('in_bytes'),
      outBytes: rate('out_bytes'),
      connections: varz.connections,
      cpu: varz.cpu,
    });
    this.#last = varz;
    this.#lastCameAt = cameAt;
  }

  #push(sample: Sample): void {
    const before = this.latest;
    if (before !== undefined && sample.at <= before.at) return;
    this.samples.push(sample);
    if (this.samples.length > samplesMax) this.samples.shift();
  }
}

const nothing: Omit<Sample, 'at'> = {
  inMsgs: null,
  outMsgs: null,
  inBytes: null,
  outBytes: null,
  connections: null,
  cpu: null,
};

/** Counters of one thing, and how fast they grow. */
export class Meter {
  #last: { at: number; values: Record<string, number> } | undefined;
  rates: Record<string, number> = {};

  /** Reads at the time `at`; the rates are those since the reading before. */
  read(at: number, values: Record<string, number>): Record<string, number> {
    const last = this.#last;
    if (last !== undefined && at <= last.at) return this.rates;
    if (last !== undefined) {
      const grown = Object.entries(values).map(([name, value]) => {
        const before = last.values[name] ?? value;
        return [name, Math.max(0, ((value - before) * 1000) / (at - last.at))];
      });
      this.rates = Object.fromEntries(grown);
    }
    this.#last = { at, values };
    return this.rates;
  }
}

/** Meters of many things, of those only that were read lately. */
export class Meters {
  #meters = new Map<string, Meter>();

  /** The rates of each, by its key; none at the first reading. */
  read(at: number, things: [string, Record<string, number>][]): Map<string, Record<string, number>> {
    const kept = new Map(things.map(([key]) => [key, this.#meters.get(key) ?? new Meter()]));
    this.#meters = kept;
    return new Map(things.map(([key, values]) => [key, kept.get(key)?.read(at, values) ?? {}]));
  }
}
