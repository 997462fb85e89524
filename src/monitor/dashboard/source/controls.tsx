// What people set: a text to look for, one of several, the page of a list.

import { useEffect, useId, useRef, useState } from 'preact/hooks';
import { exact } from './format.ts';
import type { List, Page } from './list.ts';

/** So long nothing is typed before what was typed counts. */
const typingMs = 300;

interface FieldProps {
  label: string;
  value: string;
  placeholder?: string;
  onChange: (value: string) => void;
}

/** A text that takes effect a moment after it was typed. */
export function Field({ label, value, placeholder, onChange }: FieldProps) {
  const id = useId();
  const [text, setText] = useState(value);
  const timer = useRef(0);
  useEffect(() => setText(value), [value]);
  const typed = (typedText: string): void => {
    setText(typedText);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => onChange(typedText.trim()), typingMs);
  };
  useEffect(() => () => clearTimeout(timer.current), []);
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        type="search"
        autocomplete="off"
        spellcheck={false}
        value={text}
        {...(placeholder === undefined ? {} : { placeholder })}
        onInput={(event) => typed(event.currentTarget.value)}
      />
    </div>
  );
}

interface ChoiceProps {
  label: string;
  value: string;
  options: [value: string, text: string][];
  onChange: (value: string) => void;
}

export function Choice({ label, value, options, onChange }: ChoiceProps) {
  const id = useId();
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([option, text]) => (
          <option key={option} value={option}>
            {text}
          </option>
        ))}
      </select>
    </div>
  );
}

const sizes = ['25', '50', '100'];

/** How many rows are shown at once. */
export function Rows({ list: { page, change } }: { list: List }) {
  const options = sizes.map((size): [string, string] => [size, size]);
  return <Choice label="Rows" value={String(page.size)} options={options} onChange={(size) => change({ size })} />;
}

interface PagerProps extends Page {
  what: string;
  shown: number;
  /** How many there are in all. */
  found: number;
}

export function Pager({ what, offset, shown, found, size, onOffset }: PagerProps) {
  const range = shown === 0 ? 'none' : `${exact(offset + 1)}–${exact(offset + shown)}`;
  return (
    <nav class="pager" aria-label={`Pages of ${what}`}>
      <p aria-live="polite">
        {range} of {exact(found)} {what}
      </p>
      {(offset > 0 || found > size) && (
        <>
          <button type="button" disabled={offset === 0} onClick={() => onOffset(0)}>
            First
          </button>
          <button type="button" disabled={offset === 0} onClick={() => onOffset(Math.max(0, offset - size))}>
            Previous
          </button>
          <button type="button" disabled={offset + shown >= found} onClick={() => onOffset(offset + size)}>
            Next
          </button>
        </>
      )}
    </nav>
  );
}
