import assert from 'node:assert/strict';
import { fork, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { setInterval } from 'node:timers/promises';
import { limits } from '../protocol/limits.ts';
import { isFolderFree } from './folder.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-life-'));
after(() => rmSync(root, { recursive: true, force: true }));
const program = join(root, 'child.ts');
/** A process whose behaviour is the third argument. */
writeFileSync(
  program,
  `import { runProcess } from ${JSON.stringify(new URL('./life.ts', import.meta.url).href)};
   import { fault } from ${JSON.stringify(new URL('../protocol/errors.ts', import.meta.url).href)};
   import { Type } from ${JSON.stringify(import.meta.resolve('typebox'))};
   const mode = process.argv[3];
   runProcess({ boot: Type.Object({ process: Type.String(), folder: Type.String() }), start: async (boot, life) => {
     life.report({ type: 'listening', url: 'http://x' });
     const open = setInterval(() => {}, 1000);
     if (mode === 'damaged') throw fault('log-damaged', 'It is damaged.');
     if (mode === 'unlucky') throw fault('port-in-use', 'It is taken.');
     if (mode === 'hangs') await new Promise(() => {});
     if (mode === 'throws') setTimeout(() => { throw new Error('nobody caught this'); }, 1);
     if (mode === 'fails') setTimeout(() => life.fail(fault('log-stopped', 'It stopped.'), 'backoff'), 1);
     if (mode === 'busy') setTimeout(() => { process.send('busy'); setImmediate(() => { for (;;); }); }, 10);
     life.report({ type: 'settled', state: 'serving' });
     return { stop: async () => { if (mode === 'slow') await new Promise(() => {}); clearInterval(open); life.log.info('let go'); } };
   } });`,
);

interface Run {
  readonly child: ChildProcess;
  readonly messages: { type: string; restart?: string; problem?: { code: string } }[];
  readonly folder: string;
  output(): string;
  until(type: string): Promise<void>;
  readonly exit: Promise<unknown[]>;
}

function run(mode: string, env: Record<string, string> = {}): Run {
  const folder = join(root, mode + Math.random().toString(36).slice(2));
  const bootFile = `${folder}.json`;
  writeFileSync(bootFile, JSON.stringify({ process: 'cell', folder }));
  const child = fork(program, [bootFile, mode], { execArgv: [], silent: true, env: { ...process.env, ...env } });
  const messages: Run['messages'] = [];
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (output += text));
  child.on('message', (message: Run['messages'][number]) => messages.push(message));
  // Not `close`, which never comes once the channel was ended from here.
  const exit = once(child, 'exit').then(async (ended) => {
    if (child.stdout?.readableEnded === false) await once(child.stdout, 'end');
    return ended;
  });
  const until = async (type: string): Promise<void> => {
    while (!messages.some((message) => message.type === type)) await once(child, 'message');
  };
  return { child, messages, folder, output: () => output, until, exit };
}

describe('a supervised process', { timeout: 60_000 }, () => {
  for (const how of ['SIGTERM', 'SIGINT', 'stop', 'end of the channel'] as const) {
    it(`lets go of everything and ends at ${how}`, async () => {
      const { child, exit, until, output, folder } = run('serves');
      await until('settled');
      if (how === 'stop') child.send({ type: 'stop' });
      else if (how === 'end of the channel') child.disconnect();
      else child.kill(how);
      const ended = await exit;
      // An orphan is ended by its thread, unless its own orderly exit was quicker.
      if (how !== 'end of the channel') assert.deepEqual(ended, [0, null]);
      assert.match(output(), /let go/);
      assert.ok(isFolderFree(folder));
    });
  }

  for (const [mode, why] of [
    ['slow', 'its stop never ends'],
    ['hangs', 'its start never ends'],
  ] as const) {
    it(`ends although ${why}`, async () => {
      const { child, exit, until } = run(mode);
      await until(mode === 'slow' ? 'settled' : 'listening');
      child.kill('SIGTERM');
      assert.deepEqual(await exit, [0, null]);
    });
  }

  for (const [mode, code, restart] of [
    ['damaged', 'log-damaged', 'never'],
    ['unlucky', 'port-in-use', 'backoff'],
    ['throws', 'internal', 'backoff'],
    ['fails', 'log-stopped', 'backoff'],
  ] as const) {
    it(`reports ${code} as fatal with restart ${restart}, and ends with 1`, async () => {
      const { exit, messages, output } = run(mode);
      assert.deepEqual(await exit, [1, null]);
      const fatal = messages.filter(({ type }) => type === 'fatal');
      assert.deepEqual(
        fatal.map((message) => [message.problem?.code, message.restart]),
        [[code, restart]],
      );
      for (const line of output().trim().split('\n')) JSON.parse(line);
    });
  }

  it('says nothing below the level that is asked for', async () => {
    const { child, exit, until, output } = run('serves', { CELLWRIGHT_LOG: 'warn' });
    await until('settled');
    child.kill('SIGTERM');
    await exit;
    assert.equal(output(), '');
  });

  it('is refused a folder that another one holds', async () => {
    const first = run('serves');
    await first.until('settled');
    const bootFile = `${first.folder}.json`;
    const second = fork(program, [bootFile, 'serves'], { execArgv: [], silent: true });
    const [fatal]: unknown[] = await once(second, 'message');
    assert.equal(Reflect.get(Object(Reflect.get(Object(fatal), 'problem')), 'code'), 'folder-in-use');
    await once(second, 'exit');
    first.child.kill('SIGKILL');
    await first.exit;
  });
});

describe('a process whose host was killed', () => {
  for (const mode of ['serves', 'hangs', 'slow', 'busy'] as const) {
    it(`is gone in time when it ${mode}`, { timeout: 4 * limits.orphanLifeMsMax }, async () => {
      const folder = join(root, `orphan-${mode}`);
      const bootFile = `${folder}.json`;
      writeFileSync(bootFile, JSON.stringify({ process: 'cell', folder }));
      const host = join(root, `host-${mode}.mjs`);
      writeFileSync(
        host,
        `import { fork } from 'node:child_process';
         const child = fork(${JSON.stringify(program)}, [${JSON.stringify(bootFile)}, ${JSON.stringify(mode)}], { execArgv: [], stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
         child.on('message', (message) => { if (${mode === 'busy'} ? message === 'busy' : message.type === 'listening') process.stdout.write('ready'); });`,
      );
      const parent = spawn(process.execPath, [host], { stdio: ['ignore', 'pipe', 'inherit'] });
      await once(parent.stdout, 'data');
      assert.equal(isFolderFree(folder), false);
      parent.kill('SIGKILL');
      const deadlineMs = performance.now() + limits.orphanLifeMsMax;
      for await (const _ of setInterval(50)) {
        if (isFolderFree(folder)) break;
        assert.ok(performance.now() < deadlineMs, 'the process still holds its folder');
      }
    });
  }
});
