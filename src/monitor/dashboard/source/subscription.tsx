// How a subscription is shown in lists.

import type { Subscription } from './answers.ts';
import { count, exact } from './format.ts';
import type { Column } from './table.tsx';

/** `more` stands between what it is for and what it has done. */
export function subscriptionColumns(more: Column<Subscription>[] = []): Column<Subscription>[] {
  return [
    { title: 'Subject', cell: ({ subject }) => <code>{subject}</code> },
    { title: 'Queue group', cell: ({ qgroup }) => qgroup ?? '–' },
    ...more,
    { title: 'Sid', numeric: true, cell: ({ sid }) => sid },
    { title: 'Delivered', numeric: true, cell: ({ msgs }) => count(msgs) },
    { title: 'Ends after', numeric: true, cell: ({ max }) => (max === undefined ? '–' : exact(max)) },
  ];
}
