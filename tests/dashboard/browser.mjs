// A headless Chromium: the one that is named by CHROMIUM, one that is installed, or the one that comes with the packages.

import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import puppeteer from 'puppeteer-core';

const names = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chromium-headless-shell'];

/** Where it is; `undefined` if there is none. */
export async function find() {
  return process.env.CHROMIUM || (await installed()) || (await packaged());
}

export function launch(executablePath) {
  return puppeteer.launch({
    executablePath,
    headless: 'shell',
    // In a container there is neither a sandbox to be had nor much of a /dev/shm.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu', '--force-color-profile=srgb', '--lang=en-US'],
    env: { ...process.env, LANG: 'en_US.UTF-8', LC_ALL: 'en_US.UTF-8' },
  });
}

async function installed() {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of names) {
      const path = join(directory, name);
      if (await access(path, constants.X_OK).then(() => true, () => false)) return path;
    }
  }
  return undefined;
}

async function packaged() {
  // It is built for nothing else.
  if (process.platform !== 'linux' || process.arch !== 'x64') return undefined;
  const { default: chromium } = await import('@sparticuz/chromium');
  return chromium.executablePath();
}
