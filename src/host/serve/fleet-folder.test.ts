import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { instanceVariable } from '../../process/descendants.ts';
import { openFleetFolder } from './fleet-folder.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-fleet-folder-'));
after(() => rmSync(root, { recursive: true, force: true }));

test(
  'what a workload left running is ended when the folder is opened, whether or not its cell starts again',
  { skip: process.platform !== 'linux', timeout: 30_000 },
  async () => {
    const data = join(root, 'left');
    const held = await openFleetFolder(data);
    held.release();
    mkdirSync(join(data, 'cells', 'tokyo-1'), { recursive: true });
    writeFileSync(join(data, 'cells', 'tokyo-1', 'workload.json'), JSON.stringify({ instance: `left-${process.pid}` }));
    mkdirSync(join(data, 'cells', 'osaka-1'));
    writeFileSync(join(data, 'cells', 'osaka-1', 'workload.json'), '{"inst');
    const left = spawn('sleep', ['300'], {
      detached: true,
      stdio: 'ignore',
      env: { ...process.env, [instanceVariable]: `left-${process.pid}` },
    });
    await once(left, 'spawn');
    const ended = once(left, 'exit');
    const again = await openFleetFolder(data);
    assert.deepEqual(await ended, [null, 'SIGKILL']);
    assert.equal(statSync(data).mode & 0o777, 0o700);
    again.release();
  },
);
