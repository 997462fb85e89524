// The server that the page shows, for the parts of the page.

import { createContext } from 'preact';
import { useContext, useEffect, useRef, useState } from 'preact/hooks';
import type { Varz } from './answers.ts';
import type { History } from './history.ts';
import type { Latencies } from './latencies.ts';
import { type Contact, type Poller, type Reading, nothingRead } from './poller.ts';

export interface Server {
  poller: Poller;
  history: History;
  latencies: Latencies;
  varz: Varz | undefined;
}

export const ServerContext = createContext<Server>(undefined as never);

export function useServer(): Server {
  return useContext(ServerContext);
}

/**
 * The answer to `path`, asked for again and again while it is used. Until there is one the answer to the path before is
 * shown, so that a page that is turned does not flicker.
 */
export function useAnswer<T>(poller: Poller, path: string | undefined, every = 1): Reading<T> {
  const [, redraw] = useState(0);
  const last = useRef<Reading<T>>(nothingRead);
  useEffect(() => {
    if (path === undefined) return undefined;
    return poller.watch(path, every, () => redraw((drawn) => drawn + 1));
  }, [poller, path, every]);
  if (path === undefined) return nothingRead;
  const reading = poller.read(path) as Reading<T> | undefined;
  if (reading !== undefined && (reading.value !== undefined || reading.error !== undefined)) last.current = reading;
  return last.current;
}

/** `/metrics` has the server go over all connections. */
export const metricsEvery = 2;

/** The text of `/metrics`, which has no time of its own, and when it was told by the server's clock. */
export function useMetrics(): { text: string; at: number } | undefined {
  const { poller, history } = useServer();
  const { value: text, at: cameAt } = useAnswer<string>(poller, 'metrics', metricsEvery);
  const read = useRef({ cameAt: 0, at: 0 });
  // Once for each text: the clocks are compared anew with every reading of `/varz`.
  if (read.current.cameAt !== cameAt) read.current = { cameAt, at: history.timeOf(cameAt) };
  return text === undefined ? undefined : { text, at: read.current.at };
}

export function useContact(poller: Poller): Contact {
  const [contact, setContact] = useState(poller.contact);
  useEffect(() => poller.onContact(() => setContact(poller.contact)), [poller]);
  return contact;
}
