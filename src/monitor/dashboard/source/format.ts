// Numbers, sizes, times, as people read them.

const units = ['', 'k', 'M', 'G', 'T', 'P'];
const sizes = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/** `1,234`, from ten thousand on `12.3k`. */
export function count(value: number): string {
  if (Math.abs(value) < 10_000) return exact(Math.round(value));
  return scaled(value, 1000, units, '');
}

/** All digits: `1,234,567`. */
export function exact(value: number): string {
  return value.toLocaleString('en-US');
}

/** `0`, `0.4`, `12`, `1,234`, `12.3k`: a number per second, which may be a fraction. */
export function rate(value: number): string {
  if (value > 0 && value < 10) return value < 0.05 ? '<0.1' : trimmed(value.toFixed(1));
  return count(value);
}

/** A number and its unit apart, for where the unit is to stand back. */
export function parts(text: string): [number: string, unit: string] {
  const [, number = text, unit = ''] = /^([\d.,<-]+)\s*(.*)$/.exec(text) ?? [];
  return [number, unit];
}

/** `512 B`, `1.5 KiB`, `64 MiB`. */
export function bytes(value: number): string {
  return scaled(value, 1024, sizes, ' ');
}

function scaled(value: number, base: number, names: string[], space: string): string {
  let at = 0;
  let rest = Math.abs(value);
  while (rest >= base && at < names.length - 1) {
    rest /= base;
    at += 1;
  }
  const digits = at === 0 || rest >= 100 ? 0 : rest >= 10 ? 1 : 2;
  return `${value < 0 ? '-' : ''}${trimmed(rest.toFixed(digits))}${space}${names[at]}`;
}

function trimmed(text: string): string {
  return text.includes('.') ? text.replace(/\.?0+$/, '') : text;
}

export function percent(value: number): string {
  return `${trimmed(value.toFixed(value < 10 ? 1 : 0))} %`;
}

/** `0.4 s`, `12 s`, `3 min 5 s`, `2 h 4 min`, `5 d 3 h`: at most two units. */
export function duration(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 10) return `${trimmed(seconds.toFixed(1))} s`;
  const whole = Math.floor(seconds);
  const parts: [number, string][] = [
    [Math.floor(whole / 31_536_000), 'y'],
    [Math.floor(whole / 86_400) % 365, 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([number]) => number > 0);
  return parts
    .slice(first, first + 2)
    .filter(([number], at) => at === 0 || number > 0)
    .map(([number, unit]) => `${number} ${unit}`)
    .join(' ');
}

/** A duration that the server gives in nanoseconds. */
export function nanoseconds(value: number): string {
  return duration(value / 1e6);
}

const unitMs: Record<string, number> = {
  y: 31_536_000_000,
  d: 86_400_000,
  h: 3_600_000,
  m: 60_000,
  s: 1000,
  ms: 1,
  'µs': 0.001,
  ns: 0.000001,
};

/** A duration that the server writes as Go does, `1d2h3m4s` or `66µs`, in milliseconds. */
export function milliseconds(text: string): number {
  const parts = text.matchAll(/(\d+(?:\.\d+)?)(ms|µs|ns|y|d|h|m|s)/g);
  return [...parts].reduce((sum, [, number, unit]) => sum + Number(number) * (unitMs[unit ?? ''] ?? 0), 0);
}

/** The same as people read it. */
export function uptime(text: string): string {
  return duration(milliseconds(text));
}

/** A round trip as the server writes it. */
export function roundTrip(text: string): string {
  return milli(milliseconds(text));
}

/** Milliseconds in the unit that fits: `66 µs`, `1.2 ms`, `1.5 s`. */
export function milli(ms: number): string {
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  return ms < 1000 ? `${trimmed(ms.toPrecision(3))} ms` : duration(ms);
}

const time = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const date = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });

/** The time of day, and the date unless it is today's. */
export function moment(at: number): string {
  const then = new Date(at);
  const text = time.format(then);
  return then.toDateString() === new Date().toDateString() ? text : `${date.format(then)}, ${text}`;
}

/** The date and the time. */
export function fullMoment(at: number): string {
  const then = new Date(at);
  return `${date.format(then)}, ${time.format(then)}`;
}

/** Host and port, IPv6 in brackets. */
export function address(ip: string, port: number): string {
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
}
