// Asks the server for what is on the screen, and for nothing else.
//
// One round at a time, at most two requests at once, the next round an interval after the last one ended: a server that is
// slow is asked less. Nothing is asked while the page cannot be seen or is paused. While the server cannot be reached the
// rounds come at ever longer intervals, up to half a minute.

/** What is known of one path. */
export interface Reading<T> {
  value: T | undefined;
  /** What the server said instead, if it refused. */
  error: string | undefined;
  /** When the value came, in milliseconds of `performance.now()`. */
  at: number;
}

export const nothingRead: Reading<never> = { value: undefined, error: undefined, at: 0 };

/** How it is with the server. */
export interface Contact {
  /** It did not answer the last round. */
  lostSince: number | undefined;
  cause: string;
  /** When it is asked again. */
  retryAt: number;
  /** It wants to know who asks. */
  unauthorized: boolean;
}

interface Watched {
  path: string;
  every: number;
  users: Set<() => void>;
  reading: Reading<unknown>;
  dueAt: number;
}

const parallelMax = 2;
const answerWithinMs = 10_000;
const backoffMaxMs = 30_000;

class Unreachable extends Error {}
class Refused extends Error {}

export class Poller {
  contact: Contact = { lostSince: undefined, cause: '', retryAt: 0, unauthorized: false };
  /** Milliseconds between two rounds; 0 for paused. */
  #interval: number;
  readonly #base: URL;
  readonly #watched = new Map<string, Watched>();
  readonly #onContact = new Set<() => void>();
  #timer = 0;
  #running = false;
  #again = false;
  #failures = 0;

  constructor(base: URL, interval: number) {
    this.#base = base;
    this.#interval = interval;
    document.addEventListener('visibilitychange', () => {
      if (document.hidden) clearTimeout(this.#timer);
      else this.#schedule(0);
    });
  }

  get interval(): number {
    return this.#interval;
  }

  set interval(interval: number) {
    this.#interval = interval;
    const now = performance.now();
    for (const watched of this.#watched.values()) {
      watched.dueAt = interval === 0 ? Infinity : Math.min(watched.dueAt, now + interval * watched.every);
    }
    this.#schedule(interval);
  }

  /** From this much time between two readings on, what was in between is not known. */
  gapMs(every = 1): number {
    return 4 * every * Math.max(this.#interval, 1000);
  }

  /** Where a path of the server is. */
  url(path: string): string {
    return new URL(path, this.#base).href;
  }

  /** Asks for `path` in every round, or every so many, until the returned function is called. */
  watch(path: string, every: number, changed: () => void): () => void {
    let watched = this.#watched.get(path);
    if (watched === undefined) {
      watched = { path, every, users: new Set(), reading: nothingRead, dueAt: 0 };
      this.#watched.set(path, watched);
      this.#schedule(0);
    }
    watched.every = Math.min(watched.every, every);
    watched.users.add(changed);
    return () => {
      watched.users.delete(changed);
      if (watched.users.size === 0) this.#watched.delete(path);
    };
  }

  read(path: string): Reading<unknown> | undefined {
    return this.#watched.get(path)?.reading;
  }

  onContact(changed: () => void): () => void {
    this.#onContact.add(changed);
    return () => this.#onContact.delete(changed);
  }

  retry(): void {
    for (const watched of this.#watched.values()) watched.dueAt = 0;
    this.#schedule(0);
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer);
    if (document.hidden) return;
    if (this.#running) {
      this.#again ||= ms === 0;
      return;
    }
    const isAnyDue = [...this.#watched.values()].some(({ dueAt }) => dueAt !== Infinity);
    if (isAnyDue) this.#timer = window.setTimeout(() => void this.#round(), ms);
  }

  async #round(): Promise<void> {
    this.#running = true;
    this.#again = false;
    const now = performance.now();
    // Rounds are not exactly an interval apart; half of one is near enough.
    const due = [...this.#watched.values()].filter(({ dueAt }) => dueAt <= now + this.#interval / 2);
    let failure: unknown;
    const lane = async (): Promise<void> => {
      for (let watched = due.shift(); watched !== undefined && failure === undefined; watched = due.shift()) {
        try {
          await this.#ask(watched);
        } catch (error) {
          failure = error;
        }
      }
    };
    await Promise.all(Array.from({ length: parallelMax }, lane));
    this.#running = false;
    if (document.hidden) return;
    const delay = failure === undefined ? this.#succeeded() : this.#failed(failure);
    this.#schedule(this.#again ? 0 : delay);
  }

  #succeeded(): number {
    this.#failures = 0;
    if (this.contact.lostSince !== undefined || this.contact.unauthorized) {
      this.#tell({ lostSince: undefined, cause: '', retryAt: 0, unauthorized: false });
    }
    return this.#interval;
  }

  #failed(failure: unknown): number {
    this.#failures += 1;
    const usual = this.#interval === 0 ? 2000 : this.#interval;
    const delay = Math.min(backoffMaxMs, usual * 2 ** Math.min(this.#failures - 1, 6));
    for (const watched of this.#watched.values()) watched.dueAt = 0;
    this.#tell({
      lostSince: this.contact.lostSince ?? Date.now(),
      cause: failure instanceof Error ? failure.message : String(failure),
      retryAt: Date.now() + delay,
      unauthorized: failure instanceof Refused,
    });
    return delay;
  }

  #tell(contact: Contact): void {
    this.contact = contact;
    for (const changed of this.#onContact) changed();
  }

  async #ask(watched: Watched): Promise<void> {
    const reading = await this.#get(watched.path);
    const now = performance.now();
    const known = reading.value === undefined ? watched.reading : { value: reading.value, at: now };
    watched.reading = { value: known.value, error: reading.error, at: known.at };
    watched.dueAt = this.#interval === 0 ? Infinity : now + this.#interval * watched.every;
    for (const changed of watched.users) changed();
  }

  async #get(path: string): Promise<Omit<Reading<unknown>, 'at'>> {
    let response: Response;
    let text: string;
    try {
      response = await fetch(this.url(path), { cache: 'no-store', signal: AbortSignal.timeout(answerWithinMs) });
      text = await response.text();
    } catch (error) {
      const isSlow = error instanceof DOMException && error.name === 'TimeoutError';
      throw new Unreachable(isSlow ? `no answer within ${answerWithinMs / 1000} s` : 'no connection');
    }
    if (response.status === 401 || response.status === 403) throw new Refused(`status ${response.status}`);
    if (response.status === 502 || response.status === 504) throw new Unreachable(`status ${response.status}`);
    // What is not well says so with an error status and JSON all the same.
    if (!(response.headers.get('content-type') ?? '').includes('json')) {
      return response.ok ? { value: text, error: undefined } : { value: undefined, error: text.trim() };
    }
    try {
      return { value: JSON.parse(text), error: undefined };
    } catch {
      return { value: undefined, error: 'the answer is not JSON' };
    }
  }
}

/** Where the server's paths begin, seen from the page, which may be at `/`, below a base path, or at `/dashboard`. */
export function baseOf(location: Location): URL {
  const path = location.pathname.replace(/\/dashboard$/, '').replace(/\/?$/, '/');
  return new URL(path, location.origin);
}
