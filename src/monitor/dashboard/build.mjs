// Builds dist/index.html, the one file that the server embeds, and dist/policy.txt, the content security policy that
// allows its script and its styles by their hashes and nothing else. The same sources and lockfile give the same bytes.
//
//   node build.mjs            builds
//   node build.mjs --check    builds, and fails if what is committed is something else

import { createHash } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { build } from 'esbuild';

const here = new URL('./', import.meta.url);
const bytesMax = 200 * 1024;

const { outputFiles } = await build({
  absWorkingDir: here.pathname,
  entryPoints: ['source/main.tsx'],
  outdir: 'dist',
  bundle: true,
  write: false,
  minify: true,
  charset: 'utf8',
  format: 'iife',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none',
  target: ['chrome123', 'firefox121', 'safari17.5'],
});
const output = (extension) => outputFiles.find(({ path }) => path.endsWith(extension)).text.trim();
// The page is HTML, which ends a script at the first closing tag that it sees.
const script = output('.js').replaceAll('</script', '<\\/script');
const style = output('.css');
const template = await readFile(new URL('source/index.html', here), 'utf8');
const licences = await Promise.all(
  ['preact', 'uplot'].map(async (name) => {
    const text = await readFile(new URL(`node_modules/${name}/LICENSE`, here), 'utf8');
    return `${name}\n\n${text.trim()}`;
  }),
);
const page = template
  .replace('<!-- licences -->', () => `<!--\nContains:\n\n${licences.join('\n\n')}\n-->`)
  .replace('<style></style>', () => `<style>${style}</style>`)
  .replace('<script></script>', () => `<script>${script}</script>`);

const hash = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "img-src data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ');

if (Buffer.byteLength(page) > bytesMax) {
  console.error(`index.html has ${Buffer.byteLength(page)} bytes, more than ${bytesMax}`);
  process.exit(1);
}
const files = { 'index.html': page, 'policy.txt': `${policy}\n` };
if (process.argv.includes('--check')) {
  for (const [name, text] of Object.entries(files)) {
    const committed = await readFile(new URL(`dist/${name}`, here), 'utf8').catch(() => '');
    if (committed !== text) {
      console.error(`dist/${name} is not what its sources give: make dashboard, and commit it`);
      process.exit(1);
    }
  }
  console.log('dist is what its sources give');
} else {
  await mkdir(new URL('dist/', here), { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await writeFile(new URL(`dist/${name}`, here), text);
    console.log(`dist/${name}: ${Buffer.byteLength(text)} bytes`);
  }
}
