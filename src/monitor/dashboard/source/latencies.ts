// How long messages took inside the server: each reading of the histograms of `/metrics` less the one before.

import { type Buckets, type Part, latenciesOf, quantile, startOf } from './metrics.ts';

/** What was counted between two readings. Times are seconds. */
export interface Times {
  count: number;
  p50: number;
  p99: number;
  p999: number;
  /** Longer ones are told as this. */
  longest: number;
}

/** `undefined` where nothing was counted, or nothing is known of the time. */
export type Interval = { at: number; lengthMs: number } & Record<Part, Times | undefined>;

const samplesMax = 900;

export class Latencies {
  readonly samples: Interval[] = [];
  /** `undefined` until there are two readings of this run of the server. */
  latest: Interval | undefined;
  #last: { at: number; start: number; counts: Record<Part, Buckets> } | undefined;

  /** Takes a reading of the server's time `at`. `gapMs`: after so much time the line of a chart is not continued. */
  add(at: number, text: string, gapMs: number): void {
    const last = this.#last;
    if (last !== undefined && at <= last.at) return;
    const read = { at, start: startOf(text), counts: latenciesOf(text) };
    this.#last = read;
    const follows = last !== undefined && last.start === read.start;
    if (last !== undefined && (!follows || at - last.at > gapMs)) {
      this.#push({ at: last.at + 1, lengthMs: 0, route: undefined, handover: undefined, send: undefined });
    }
    if (!follows) {
      this.latest = undefined;
      return;
    }
    const times = (part: Part): Times | undefined => timesOf(grown(read.counts[part], last.counts[part]));
    const interval = { route: times('route'), handover: times('handover'), send: times('send') };
    this.latest = { at, lengthMs: at - last.at, ...interval };
    this.#push(this.latest);
  }

  #push(interval: Interval): void {
    this.samples.push(interval);
    if (this.samples.length > samplesMax) this.samples.shift();
  }
}

function grown(now: Buckets, before: Buckets): Buckets {
  return now.map(([seconds, upTo], at) => [seconds, upTo - (before[at]?.[1] ?? 0)]);
}

function timesOf(counted: Buckets): Times | undefined {
  const [p50, p99, p999] = [0.5, 0.99, 0.999].map((share) => quantile(share, counted));
  if (p50 === undefined || p99 === undefined || p999 === undefined) return undefined;
  return { count: counted.at(-1)?.[1] ?? 0, p50, p99, p999, longest: counted.at(-2)?.[0] ?? Infinity };
}
