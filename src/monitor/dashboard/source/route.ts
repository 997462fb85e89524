// Which view is shown, and with which settings: all of it stands in the address behind the `#`, so that the browser's
// buttons work and an address can be passed on.

import { useEffect, useState } from 'preact/hooks';

export interface Route {
  view: string;
  /** What of it, for instance the number of a connection. */
  item: string;
  settings: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [view = '', item = ''] = path.split('/');
  return { view: view || 'overview', item: decodeURIComponent(item), settings: new URLSearchParams(query) };
}

export function address(view: string, item = '', settings: Record<string, string | number> = {}): string {
  const given = Object.entries(settings).filter(([, value]) => value !== '');
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${view}${item && `/${encodeURIComponent(item)}`}${query && `?${query}`}`;
}

export function useRoute(): Route {
  const [route, setRoute] = useState(() => parse(location.hash));
  useEffect(() => {
    const changed = (): void => setRoute(parse(location.hash));
    window.addEventListener('hashchange', changed);
    return () => window.removeEventListener('hashchange', changed);
  }, []);
  return route;
}

/** Changes settings of the view that is shown, without a step in the browser's history. */
export function change(changes: Record<string, string | number>): void {
  // Two changes may come faster than the view is drawn.
  const route = parse(location.hash);
  const settings = { ...Object.fromEntries(route.settings), ...changes };
  const to = address(route.view, route.item, settings);
  history.replaceState(null, '', to);
  window.dispatchEvent(new HashChangeEvent('hashchange'));
}
