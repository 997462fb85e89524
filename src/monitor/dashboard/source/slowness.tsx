// Which connections do not keep up: how far they are behind, and since when.

import type { Connection } from './answers.ts';
import { bytes, duration, fullMoment, moment } from './format.ts';

/** Something has waited for so long that the client is not merely busy. */
const waitsTooLongMs = 2000;

export type Level = 'well' | 'waiting' | 'behind' | 'cut';

/** How an open or closed connection keeps up, at the server's time `now`. */
export function levelOf(connection: Connection, now: string): Level {
  if (isCutOff(connection)) return 'cut';
  if (connection.stop !== undefined || connection.pending_bytes === 0) return 'well';
  const since = connection.ringmain?.waiting_since;
  const waits = since === undefined ? 0 : Date.parse(now) - Date.parse(since);
  if (connection.ringmain?.behind_since !== undefined || waits >= waitsTooLongMs) return 'behind';
  return connection.pending_bytes >= 64 * 1024 ? 'waiting' : 'well';
}

export function isCutOff(connection: Connection): boolean {
  return connection.reason?.startsWith('Slow Consumer') ?? false;
}

const chips: Record<Level, string> = { well: '', waiting: 'Busy', behind: 'Slow consumer', cut: 'Cut off' };

export function SlownessChip({ level }: { level: Level }) {
  const text = chips[level];
  return text === '' ? null : <span class={`chip ${level === 'waiting' ? 'warn' : 'bad'}`}>{text}</span>;
}

/** When it began to be late: when so much began to wait, or it took nothing any more, whichever is longer ago. */
export function lateSince(connection: Connection): number | undefined {
  const { behind_since: behind, waiting_since: waiting } = connection.ringmain ?? {};
  const times = [behind, waiting].filter((text) => text !== undefined).map((text) => Date.parse(text));
  return times.length === 0 ? undefined : Math.min(...times);
}

/** One sentence for the operator. */
export function Slowness({ connection, now }: { connection: Connection; now: string }) {
  const level = levelOf(connection, now);
  if (level === 'well' || level === 'waiting') return null;
  const until = Date.parse(connection.stop ?? now);
  const ago = (text: string): string => `${duration(until - Date.parse(text))} (${moment(Date.parse(text))})`;
  const { behind_since: behind, waiting_since: waiting } = connection.ringmain ?? {};
  const isCut = level === 'cut';
  return (
    <div class="notice bad" role="status">
      <p>
        <strong>{isCut ? 'Cut off as a slow consumer' : 'Slow consumer'}</strong>
        {isCut && connection.stop !== undefined && ` at ${fullMoment(Date.parse(connection.stop))}`}:{' '}
        {bytes(connection.pending_bytes)} {isCut ? 'were' : 'are'} waiting for it.
      </p>
      {waiting !== undefined && (
        <p>
          It {isCut ? 'had' : 'has'} taken nothing for {ago(waiting)}.
        </p>
      )}
      {behind !== undefined && (
        <p>
          More than 1 MiB {isCut ? 'had' : 'has'} been waiting for {ago(behind)}.
        </p>
      )}
    </div>
  );
}
