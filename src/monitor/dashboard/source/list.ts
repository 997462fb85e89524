// What lists have in common: the part of them that is shown, and in which order. It stands in the address.

import { type Route, change } from './route.ts';

/** A part of a list, and how to come to another one. */
export interface Page {
  offset: number;
  size: number;
  onOffset: (offset: number) => void;
}

/** The part that the setting `name` says. */
export function pageOf({ settings }: Route, size: number, name = 'offset'): Page {
  return {
    offset: Number(settings.get(name)) || 0,
    size,
    onOffset: (offset) => change({ [name]: offset || '' }),
  };
}

const usualSize = 25;

export interface List {
  page: Page;
  setting: (name: string) => string;
  /** Lists something else, from its beginning. */
  change: (settings: Record<string, string>) => void;
  /** What to ask the server for. */
  query: URLSearchParams;
}

/** A list of which the server sends one part: `fixed` is always asked for, `names` are settings that it is asked for. */
export function listOf(route: Route, fixed: Record<string, string>, names: string[]): List {
  const setting = (name: string): string => route.settings.get(name) ?? '';
  const page = pageOf(route, Number(setting('size')) || usualSize);
  const query = new URLSearchParams({ ...fixed, limit: String(page.size), offset: String(page.offset) });
  for (const name of names) if (setting(name) !== '') query.set(name, setting(name));
  return { page, setting, change: (settings) => change({ ...settings, offset: '' }), query };
}
