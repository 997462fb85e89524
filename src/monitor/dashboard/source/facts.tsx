// Numbers and texts with their names.

import type { ComponentChildren } from 'preact';
import { parts, rate } from './format.ts';

interface TileProps {
  label: string;
  value: ComponentChildren;
  /** All digits of it. */
  title?: string;
  note?: ComponentChildren;
  color?: string;
}

export function Tile({ label, value, title, note, color }: TileProps) {
  return (
    <div class="tile">
      <dt>
        {color !== undefined && <span class="swatch" style={{ background: `var(${color})` }} aria-hidden="true" />}
        {label}
      </dt>
      <dd {...(title === undefined ? {} : { title })}>{typeof value === 'string' ? <Amount text={value} /> : value}</dd>
      {note !== undefined && <dd class="note">{note}</dd>}
    </div>
  );
}

function Amount({ text }: { text: string }) {
  const [number, unit] = parts(text);
  return (
    <>
      {number}
      {unit !== '' && <span class="unit"> {unit}</span>}
    </>
  );
}

/** How fast a counter grows, below it; nothing if it does not. */
export function PerSecond({ value }: { value: number | undefined }) {
  return value ? <small>{rate(value)}/s</small> : null;
}

/** Names and values below each other; what has no value is left out. */
export function Facts({ facts }: { facts: [name: string, value: ComponentChildren][] }) {
  return (
    <dl class="facts">
      {facts
        .filter(([, value]) => value !== undefined && value !== '' && value !== null && value !== false)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** What an answer says when there is none to show. */
export function Waiting({ error }: { error: string | undefined }) {
  if (error !== undefined) {
    return (
      <p class="notice bad" role="alert">
        The server says: {error}
      </p>
    );
  }
  return <p class="empty">Waiting for the server…</p>;
}
