import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { chownSync, cpSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { basename, join } from 'node:path';

/** A PostgreSQL of the benchmark's own: on a socket in its folder and nowhere else. */
export interface Postgres {
  readonly connectionString: string;
  readonly version: string;
  stop(): Promise<void>;
}

interface Link {
  readonly source: string;
  readonly target: string;
}

/** It refuses to run as root, so that it is then run as this user, `nobody` everywhere. */
const nobody = 65_534;

/**
 * Starts the server that came as a package, with default settings but for more memory, so that each commit is synced.
 * `folder` is made here; its parent must be one that anybody may enter. The binaries are copied there, because `nobody`
 * may not be able to enter the checkout.
 */
export async function startPostgres(packageFolder: string, folder: string): Promise<Postgres> {
  const asNobody = process.getuid?.() === 0;
  const as = asNobody ? { uid: nobody, gid: nobody } : {};
  mkdirSync(folder, { mode: 0o700 });
  cpSync(join(packageFolder, 'native'), join(folder, 'native'), { recursive: true, verbatimSymlinks: true });
  makeLinks(folder);
  if (asNobody) chownSync(folder, nobody, nobody);
  const bin = join(folder, 'native', 'bin');
  const data = join(folder, 'data');
  const quiet = { ...as, cwd: folder, stdio: 'ignore' as const };
  execFileSync(join(bin, 'initdb'), ['-D', data, '-U', 'bench', '-A', 'trust', '-E', 'UTF8', '--locale=C'], quiet);
  const settings = ['listen_addresses=', `unix_socket_directories=${folder}`, 'shared_buffers=256MB'];
  const server = spawn(join(bin, 'postgres'), ['-D', data, ...settings.flatMap((each) => ['-c', each])], {
    ...as,
    cwd: folder,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  process.once('exit', () => server.kill('SIGKILL'));
  await ready(server);
  return {
    connectionString: `postgresql://bench@localhost/postgres?host=${encodeURIComponent(folder)}`,
    version: execFileSync(join(bin, 'postgres'), ['--version'], { encoding: 'utf8' }).trim(),
    stop: () =>
      new Promise((resolve) => {
        server.once('exit', () => resolve());
        server.kill('SIGINT');
      }),
  };
}

function ready(server: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let said = '';
    server.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
      if (said.includes('ready to accept connections')) resolve();
    });
    server.once('exit', () => reject(new Error(`PostgreSQL ended while it started: ${said}`)));
    server.once('error', reject);
  });
}

/** What the package's install script would do, which npm may not run. */
function makeLinks(folder: string): void {
  const links = JSON.parse(readFileSync(join(folder, 'native', 'pg-symlinks.json'), 'utf8')) as Link[];
  for (const { source, target } of links) {
    const path = join(folder, target);
    rmSync(path, { force: true });
    symlinkSync(basename(source), path);
  }
}
