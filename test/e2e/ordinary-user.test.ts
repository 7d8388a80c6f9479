import assert from 'node:assert/strict';
import { chmodSync, chownSync, cpSync, mkdirSync, statSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { exists } from './files.ts';
import { checkout, Fleet, FleetProcess, temporaryFolder } from './fleet.ts';
import { jurisdictionsOf } from './orders.ts';
import { treeOf } from './processes.ts';

const nobody = 65_534;

/** Why the test cannot change the user here, or false if it can. */
function cannotChangeUser(): string | false {
  if (process.getuid?.() !== 0) return 'not root: every other test already runs as an ordinary user';
  const programs = (process.env['PATH'] ?? '').split(':').map((folder) => join(folder, 'setpriv'));
  if (!programs.some(exists)) return 'setpriv is not installed (Debian: util-linux)';
  const closed = ancestors(join(checkout, 'node_modules')).filter((path) => (statSync(path).mode & 0o001) === 0);
  return closed.length > 0 && `an ordinary user may not enter ${closed.join(', ')}`;
}

function ancestors(path: string): readonly string[] {
  const parts = path.split('/').slice(1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}

describe('an ordinary user', { timeout: 120_000, skip: cannotChangeUser() }, () => {
  it('starts the orders fleet from a checkout that only others may write', async () => {
    const folder = temporaryFolder();
    chmodSync(folder, 0o755);
    const copy = join(folder, 'checkout');
    mkdirSync(copy);
    for (const name of ['bin', 'src', 'examples', 'package.json']) {
      cpSync(join(checkout, name), join(copy, name), { recursive: true });
    }
    symlinkSync(join(checkout, 'node_modules'), join(copy, 'node_modules'));
    const home = join(folder, 'theirs');
    mkdirSync(home);
    chownSync(home, nobody, nobody);
    const through = ['setpriv', `--reuid=${nobody}`, `--regid=${nobody}`, '--clear-groups', '--'];
    const common = {
      through,
      checkout: copy,
      file: join(copy, 'examples/orders/fleet.yaml'),
      env: { HOME: '/nonexistent' },
    };

    const fleet = await Fleet.start({ ...common, data: join(home, 'data') });
    try {
      for (const { pid } of treeOf(fleet.up.launcher)) assert.equal(statSync(`/proc/${pid}`).uid, nobody);
      const [jurisdiction = ''] = await jurisdictionsOf(fleet);
      await fleet.putTenant('plain', jurisdiction);
      const answer = await fleet.tenant('plain', '/commands/addStock', { json: { item: 'tea', quantity: 1 } });
      assert.equal(answer.status, 200, answer.body);
      assert.equal(statSync(join(home, 'data', 'token')).mode & 0o777, 0o600);
    } finally {
      await fleet.stop();
    }

    const closed = join(folder, 'not-theirs');
    mkdirSync(closed, { mode: 0o755 });
    const refused = await FleetProcess.spawn({ ...common, data: join(closed, 'data') });
    try {
      const { code, stderr } = await refused.end(30_000);
      assert.equal(code, 1, stderr);
      assert.ok(stderr.includes(join(closed, 'data')), stderr);
    } finally {
      refused.killTree();
    }
  });
});
