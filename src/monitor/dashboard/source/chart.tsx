// One chart over time, drawn by uPlot. What the picture shows is written beside it too: the values of the newest moment, or
// of the one that the pointer or the arrow keys are at.

import { useEffect, useRef, useState } from 'preact/hooks';
import uPlot from 'uplot';
import { moment } from './format.ts';
import { useTheme } from './theme.ts';

export interface Series {
  label: string;
  /** A colour of the style sheet: `--in`. */
  color: string;
  values: (number | null)[];
}

interface Props {
  title: string;
  /** Milliseconds since 1970. */
  times: number[];
  series: Series[];
  format: (value: number) => string;
  /** The chart reaches up to here at least. */
  least?: number;
  /** Sizes have ticks at powers of two. */
  binary?: boolean;
  /** The powers of ten from here on are equally far apart, instead of steps from zero. */
  decadesFrom?: number;
  height?: number;
}

/** So much time there is at least, from the left edge to the right. */
const spanSecondsMin = 60;

const binarySteps = Array.from({ length: 50 }, (_, at) => 2 ** at);

export function Chart({ title, times, series, format, least = 10, binary = false, decadesFrom, height = 180 }: Props) {
  const host = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | undefined>(undefined);
  const [at, setAt] = useState<number | undefined>(undefined);
  const theme = useTheme();
  const data = [times.map((time) => time / 1000), ...series.map(({ values }) => values)] as uPlot.AlignedData;
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = host.current;
    if (element === null) return undefined;
    const color = (name: string): string => resolved(element, name);
    const font = `12px ${getComputedStyle(element).fontFamily}`;
    const axis = { stroke: color('--muted'), font, ticks: { show: false } };
    const made = new uPlot(
      {
        width: element.clientWidth,
        height,
        padding: [12, 30, 0, 0],
        legend: { show: false },
        cursor: { sync: { key: 'dashboard' }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
        scales: {
          // What uPlot passes is a day long while there is one value.
          x: {
            range: ({ data: [seconds] }) => {
              const last = seconds.at(-1) ?? Date.now() / 1000;
              return [Math.min(seconds[0] ?? last, last - spanSecondsMin), last];
            },
          },
          y:
            decadesFrom === undefined
              ? { range: (_, __, max) => [0, Math.max(least, (max ?? 0) * 1.08)] }
              : { distr: 3, range: (_, __, max) => [decadesFrom, nextDecade(Math.max(least, max ?? 0))] },
        },
        axes: [
          {
            ...axis,
            grid: { show: false },
            size: 28,
            space: 70,
            values: (_, splits) => splits.map((split) => moment(split * 1000).replace(/^.*, /, '')),
          },
          {
            ...axis,
            grid: { stroke: color('--line'), width: 1 },
            size: 70,
            space: 40,
            ...(binary ? { incrs: binarySteps } : {}),
            ...(decadesFrom === undefined ? {} : { splits: decades, filter: (_, splits) => splits }),
            values: (_, splits) => splits.map(format),
          },
        ],
        series: [
          {},
          ...series.map(({ label, color: name }) => ({
            label,
            stroke: color(name),
            width: 2,
            // Two areas over each other would make a third colour.
            ...(series.length === 1 ? { fill: `color-mix(in srgb, ${color(name)} 10%, transparent)` } : {}),
            // A line needs two values; one alone is a point.
            points: { show: true, size: 4, filter: alone },
            spanGaps: false,
          })),
        ],
        hooks: { setCursor: [({ cursor }) => setAt(cursor.idx ?? undefined)] },
      },
      latest.current,
      element,
    );
    plot.current = made;
    const resizes = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    resizes.observe(element);
    return () => {
      resizes.disconnect();
      made.destroy();
      plot.current = undefined;
    };
    // A new plot for new colours; values go into the one that is there.
  }, [theme, height, least, binary, decadesFrom, series.map(({ label }) => label).join()]);

  useEffect(() => plot.current?.setData(data), [times.at(-1), times.length]);

  const move = (event: KeyboardEvent): void => {
    const made = plot.current;
    if (made === undefined || times.length === 0) return;
    const last = times.length - 1;
    const from = made.cursor.idx ?? last;
    const steps: Record<string, number> = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last };
    const to = steps[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const index = Math.min(last, Math.max(0, to));
    made.setCursor({ left: made.valToPos(data[0][index] ?? 0, 'x'), top: 0 });
  };
  const leave = (): void => plot.current?.setCursor({ left: -10, top: -10 });

  const shown = at !== undefined && at < times.length ? at : times.length - 1;
  const when = times[shown];
  const texts = series.map(({ label, values }) => {
    const value = values[shown];
    return { label, text: value === null || value === undefined ? '–' : format(value) };
  });
  return (
    <figure class="panel chart">
      <figcaption>
        <h3>{title}</h3>
        <ul class="legend">
          {series.map(({ label, color }, number) => (
            <li key={label}>
              <span class="swatch" style={{ background: `var(${color})` }} aria-hidden="true" />
              {label} <strong>{texts[number]?.text}</strong>
            </li>
          ))}
          {at !== undefined && when !== undefined && <li class="muted">{moment(when)}</li>}
        </ul>
      </figcaption>
      <div
        class="plot"
        ref={host}
        style={{ height: `${height}px` }}
        tabIndex={0}
        role="slider"
        aria-label={`${title}, over time`}
        aria-orientation="horizontal"
        aria-valuemin={0}
        aria-valuemax={Math.max(0, times.length - 1)}
        aria-valuenow={Math.max(0, shown)}
        aria-valuetext={`${when === undefined ? '' : moment(when)} ${texts.map(({ label, text }) => `${label} ${text}`).join(', ')}`}
        onKeyDown={move}
        onBlur={leave}
      />
    </figure>
  );
}

/** The power of ten that is not less. */
function nextDecade(value: number): number {
  return 10 ** Math.ceil(Math.log10(value));
}

function decades(_plot: uPlot, _axis: number, from: number, to: number): number[] {
  const first = Math.round(Math.log10(from));
  return Array.from({ length: Math.round(Math.log10(to)) - first + 1 }, (_, at) => 10 ** (first + at));
}

/** Where the values are that have none before and none after them. */
function alone(plot: uPlot, series: number): number[] {
  const values = plot.data[series] ?? [];
  const isNone = (at: number): boolean => (values[at] ?? null) === null;
  return [...values.keys()].filter((at) => !isNone(at) && isNone(at - 1) && isNone(at + 1));
}

/** A colour of the style sheet as the canvas understands it. */
function resolved(element: Element, name: string): string {
  const probe = document.createElement('span');
  probe.style.color = `var(${name})`;
  element.append(probe);
  const { color } = getComputedStyle(probe);
  probe.remove();
  return color;
}
