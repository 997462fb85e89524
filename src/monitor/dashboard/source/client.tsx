// How a connection is named in lists.

import type { Connection } from './answers.ts';
import { address } from './route.ts';

export const globalAccount = '$G';

export function accountOf(connection: Connection): string {
  return connection.account ?? globalAccount;
}

export function libraryOf({ lang, version }: Connection): string {
  return [lang, version].filter(Boolean).join(' ');
}

/** Its number and what it calls itself, with a link to more. */
export function Client({ connection }: { connection: Connection }) {
  const name = connection.name;
  return (
    <>
      <a class="name" href={address('connections', String(connection.cid))}>
        <span class="cid">{connection.cid}</span> {name ? name : <em>unnamed</em>}
      </a>
      <small>{libraryOf(connection)}</small>
    </>
  );
}

export function Owner({ connection }: { connection: Connection }) {
  return (
    <>
      {accountOf(connection)}
      {connection.authorized_user && <small>{connection.authorized_user}</small>}
    </>
  );
}
