// A table that becomes a list of cards where there is no room for columns. Browsers take a table that is laid out
// otherwise for something else, so that its roles are spelled out.

import type { ComponentChildren } from 'preact';

export interface Column<Row> {
  title: string;
  cell: (row: Row) => ComponentChildren;
  /** Numbers stand at the right. */
  numeric?: boolean;
  /** Takes the room of two on a card. */
  wide?: boolean;
  /** How the server calls the order by this column. */
  sort?: string;
  /** Smallest first, where the server puts it so. */
  ascending?: boolean;
}

interface Props<Row> {
  label: string;
  columns: Column<Row>[];
  rows: Row[];
  keyOf: (row: Row) => string | number;
  /** Drawn as not well. */
  isMarked?: (row: Row) => boolean;
  sorted?: string;
  onSort?: (sort: string) => void;
  empty: string;
}

export function Table<Row>({ label, columns, rows, keyOf, isMarked, sorted, onSort, empty }: Props<Row>) {
  if (rows.length === 0) return <p class="empty">{empty}</p>;
  return (
    <table role="table" aria-label={label}>
      <thead role="rowgroup">
        <tr role="row">
          {columns.map(({ title, numeric, sort, ascending }) => (
            <th
              key={title}
              role="columnheader"
              scope="col"
              class={numeric ? 'numeric' : ''}
              {...(sort !== undefined && sort === sorted
                ? { 'aria-sort': ascending ? ('ascending' as const) : ('descending' as const) }
                : {})}
            >
              {sort !== undefined && onSort !== undefined ? (
                <button type="button" class="sort" onClick={() => onSort(sort)}>
                  {title}
                  <span class="arrow" aria-hidden="true">
                    {ascending ? '▲' : '▼'}
                  </span>
                </button>
              ) : (
                title
              )}
            </th>
          ))}
        </tr>
      </thead>
      <tbody role="rowgroup">
        {rows.map((row) => (
          <tr key={keyOf(row)} role="row" class={isMarked?.(row) ? 'marked' : ''}>
            {columns.map(({ title, cell, numeric, wide }) => (
              <td key={title} role="cell" class={`${numeric ? 'numeric' : ''} ${wide ? 'wide' : ''}`}>
                <span class="label" aria-hidden="true">
                  {title}
                </span>
                <div class="value">{cell(row)}</div>
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
