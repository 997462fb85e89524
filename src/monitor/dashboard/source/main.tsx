// The page: what the server is, how it is, and one of the views.

import './style.css';
import 'uplot/dist/uPlot.min.css';
import { render } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';
import type { Consumerz, Healthz, Streamz, Varz } from './answers.ts';
import { Choice } from './controls.tsx';
import { Waiting } from './facts.tsx';
import { duration, exact, moment, uptime } from './format.ts';
import { History } from './history.ts';
import { keep, kept } from './kept.ts';
import { Latencies } from './latencies.ts';
import { Poller, baseOf } from './poller.ts';
import { type Route, address, useRoute } from './route.ts';
import { ServerContext, useAnswer, useContact } from './server.ts';
import * as theme from './theme.ts';
import { Accounts } from './views/accounts.tsx';
import { Closed } from './views/closed.tsx';
import { ConnectionView } from './views/connection.tsx';
import { Connections } from './views/connections.tsx';
import { JetStream } from './views/jetstream.tsx';
import { Overview } from './views/overview.tsx';
import { ServerView } from './views/server.tsx';
import { StreamView } from './views/stream.tsx';
import { Subscriptions } from './views/subscriptions.tsx';

const intervals: [string, string][] = [
  ['1000', '1 s'],
  ['2000', '2 s'],
  ['5000', '5 s'],
  ['10000', '10 s'],
  ['30000', '30 s'],
  ['0', 'paused'],
];

const usualInterval = '2000';
const keptInterval = kept('interval');
const firstInterval = intervals.some(([value]) => value === keptInterval) ? keptInterval : usualInterval;

const poller = new Poller(baseOf(location), Number(firstInterval));
const readings = new History();
const latencies = new Latencies();

interface View {
  name: string;
  title: string;
  show: (route: Route) => preact.JSX.Element;
}

const views: View[] = [
  { name: 'overview', title: 'Overview', show: () => <Overview /> },
  {
    name: 'connections',
    title: 'Connections',
    show: (route) =>
      route.item === '' ? <Connections route={route} /> : <ConnectionView key={route.item} route={route} />,
  },
  { name: 'closed', title: 'Closed', show: (route) => <Closed route={route} /> },
  { name: 'subscriptions', title: 'Subscriptions', show: (route) => <Subscriptions route={route} /> },
  { name: 'accounts', title: 'Accounts', show: (route) => <Accounts route={route} /> },
  { name: 'server', title: 'Server', show: () => <ServerView /> },
];

const jetStream: View = {
  name: 'jetstream',
  title: 'JetStream',
  show: (route) =>
    route.item === '' ? (
      <JetStream route={route} />
    ) : (
      <StreamView key={`${route.settings.get('acc')} ${route.item}`} route={route} />
    ),
};

function Dashboard() {
  const route = useRoute();
  const { value: varz, error, at } = useAnswer<Varz>(poller, 'varz');
  if (varz !== undefined) readings.add(varz, at, poller.gapMs());
  const shown = varz?.jetstream?.config === undefined ? views : [...views, jetStream];
  const view = shown.find(({ name }) => name === route.view);
  const main = useRef<HTMLElement>(null);
  const place = `${route.view}/${route.item}`;
  const lastPlace = useRef(place);
  useEffect(() => {
    document.title = [route.item, view?.title, varz?.server_name, 'Ringmain'].filter(Boolean).join(' · ');
  });
  useEffect(() => {
    // Whoever came here by a link reads on at the top of the new view.
    if (lastPlace.current !== place) {
      lastPlace.current = place;
      window.scrollTo(0, 0);
      main.current?.focus({ preventScroll: true });
    }
  }, [place]);
  return (
    <ServerContext.Provider value={{ poller, history: readings, latencies, varz }}>
      <a
        class="skip"
        href="#content"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to the content
      </a>
      <Head varz={varz} views={shown} route={route} />
      <main id="content" ref={main} tabIndex={-1} aria-label={view?.title ?? 'Nothing here'}>
        <Lost />
        {varz === undefined ? (
          <Waiting error={error} />
        ) : view === undefined ? (
          <p class="notice">
            There is no such view. <a href={address('overview')}>Overview</a>
          </p>
        ) : (
          <>
            {route.item === '' && <h2 class="heard">{view.title}</h2>}
            {view.show(route)}
          </>
        )}
      </main>
    </ServerContext.Provider>
  );
}

function Head({ varz, views: shown, route }: { varz: Varz | undefined; views: View[]; route: Route }) {
  const nav = useRef<HTMLElement>(null);
  useEffect(() => {
    // On a phone the list of views is wider than the screen.
    const current = nav.current?.querySelector<HTMLElement>('[aria-current]');
    if (nav.current && current) nav.current.scrollLeft = current.offsetLeft - nav.current.clientWidth / 2 + current.offsetWidth / 2;
  }, [route.view]);
  const [interval, setInterval] = useState(String(poller.interval));
  return (
    <header class="head">
      <div class="bar">
        <h1>
          <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
            <circle cx="16" cy="16" r="11" fill="none" stroke="var(--in)" stroke-width="6" />
            <circle cx="16" cy="5" r="4.5" fill="var(--out)" />
          </svg>
          Ringmain
        </h1>
        <p class="who">
          {varz !== undefined && (
            <>
              <strong>{varz.server_name}</strong>
              <span class="muted">up {uptime(varz.uptime)}</span>
            </>
          )}
        </p>
        <Health />
        {shown.includes(jetStream) && <StreamHealth />}
        <div class="settings">
          <Choice
            label="Refresh"
            value={interval}
            options={intervals}
            onChange={(value) => {
              setInterval(value);
              keep('interval', value);
              poller.interval = Number(value);
            }}
          />
          <ThemeChoice />
        </div>
      </div>
      <nav class="views" aria-label="Views" ref={nav}>
        <ul>
          {shown.map(({ name, title }) => (
            <li key={name}>
              <a href={address(name)} {...(name === route.view ? { 'aria-current': 'page' as const } : {})}>
                {title}
              </a>
            </li>
          ))}
        </ul>
      </nav>
    </header>
  );
}

function ThemeChoice() {
  const [choice, setChoice] = useState<string>(theme.chosen());
  return (
    <Choice
      label="Theme"
      value={choice}
      options={[
        ['system', 'system'],
        ['light', 'light'],
        ['dark', 'dark'],
      ]}
      onChange={(value) => {
        setChoice(value);
        theme.choose(value);
      }}
    />
  );
}

function Health() {
  const health = useAnswer<Healthz>(poller, 'healthz', 5).value;
  const contact = useContact(poller);
  const isLost = contact.lostSince !== undefined;
  const text = isLost ? 'Unreachable' : health === undefined ? '…' : health.status === 'ok' ? 'Healthy' : 'Not well';
  const level = isLost || (health !== undefined && health.status !== 'ok') ? 'bad' : health === undefined ? '' : 'good';
  return (
    <p class={`health ${level}`} role="status">
      <span class="dot" aria-hidden="true" />
      {text}
    </p>
  );
}

/** What is not well with streams and consumers; nothing if all of them are. */
function StreamHealth() {
  const streams = useAnswer<Streamz>(poller, 'streamz?limit=1', 5).value;
  const consumers = useAnswer<Consumerz>(poller, 'consumerz?limit=1', 5).value;
  const { read_only = 0, unopened = 0, store_errors = 0 } = streams ?? {};
  const stuck = consumers?.stuck ?? 0;
  const many = (number: number, one: string, more: string): string => `${exact(number)} ${number === 1 ? one : more}`;
  const told: [number, string, string, string][] = [
    [read_only, 'bad', many(read_only, 'stream read only', 'streams read only'), address('jetstream', '', { sort: 'errors' })],
    [unopened, 'bad', many(unopened, 'stream not opened', 'streams not opened'), address('server')],
    [stuck, 'bad', many(stuck, 'consumer stuck', 'consumers stuck'), address('jetstream')],
    [store_errors, 'warn', many(store_errors, 'store error', 'store errors'), address('jetstream', '', { sort: 'errors' })],
  ];
  const shown = told.filter(([number]) => number > 0);
  return shown.length === 0 ? null : (
    <ul class="alarms" aria-label="JetStream is not well">
      {shown.map(([, level, text, to]) => (
        <li key={to + level + text.replace(/\d/g, '')}>
          <a class={`chip ${level}`} href={to}>
            {text}
          </a>
        </li>
      ))}
    </ul>
  );
}

/** Says so when the server does not answer; what is below is then old. */
function Lost() {
  const contact = useContact(poller);
  const [, tick] = useState(0);
  const isLost = contact.lostSince !== undefined;
  useEffect(() => {
    if (!isLost) return undefined;
    const timer = window.setInterval(() => tick((ticks) => ticks + 1), 1000);
    return () => clearInterval(timer);
  }, [isLost]);
  if (contact.lostSince === undefined) return null;
  const wait = contact.retryAt - Date.now();
  return (
    <div class="notice bad lost" role="alert">
      <p>
        <strong>
          {contact.unauthorized ? 'The server wants to know who asks' : 'The server cannot be reached'}
        </strong>{' '}
        since {moment(contact.lostSince)} ({contact.cause}). What is shown is from before that.
      </p>
      <p aria-live="off">
        {wait > 500 ? `Next try in ${duration(Math.ceil(wait / 1000) * 1000)}.` : 'Trying…'}{' '}
        <button type="button" onClick={() => poller.retry()}>
          Try now
        </button>
      </p>
    </div>
  );
}

theme.start();
const root = document.getElementById('dashboard');
if (root !== null) {
  root.replaceChildren();
  render(<Dashboard />, root);
}
