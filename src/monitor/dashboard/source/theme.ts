// Light or dark: as the system says, unless somebody has chosen otherwise here.

import { useEffect, useState } from 'preact/hooks';
import { kept, keep } from './kept.ts';

export type Choice = 'system' | 'light' | 'dark';

const changes = new EventTarget();
const systemIsDark = window.matchMedia('(prefers-color-scheme: dark)');
let choice: Choice = toChoice(kept('theme'));

function toChoice(text: string | null): Choice {
  return text === 'light' || text === 'dark' ? text : 'system';
}

function apply(): void {
  if (choice === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = choice;
  changes.dispatchEvent(new Event('change'));
}

export function start(): void {
  apply();
  systemIsDark.addEventListener('change', apply);
}

export function chosen(): Choice {
  return choice;
}

export function choose(text: string): void {
  choice = toChoice(text);
  keep('theme', choice);
  apply();
}

/** What is shown: `light` or `dark`. */
export function useTheme(): string {
  const shown = (): string => (choice === 'system' ? (systemIsDark.matches ? 'dark' : 'light') : choice);
  const [theme, setTheme] = useState(shown);
  useEffect(() => {
    const changed = (): void => setTheme(shown());
    changes.addEventListener('change', changed);
    return () => changes.removeEventListener('change', changed);
  }, []);
  return theme;
}
