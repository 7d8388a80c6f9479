import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { Type } from 'typebox';
import {
  emptyDataFolder,
  ensureFile,
  folderFormatVersion,
  isFolderFree,
  openDataFolder,
  readJsonFile,
  writeFileAtomically,
} from './folder.ts';

const root = mkdtempSync(join(tmpdir(), 'cellwright-folder-'));
after(() => rmSync(root, { recursive: true, force: true }));
const holder = join(root, 'holder.ts');
writeFileSync(
  holder,
  `import { openDataFolder } from ${JSON.stringify(new URL('./folder.ts', import.meta.url).href)};
   openDataFolder(process.argv[2], 'cell').then(() => process.send('held'), (error) => process.send(error.code));
   setInterval(() => {}, 1000);`,
);

/** Another process that tries to hold a folder; resolves to what came of it. */
async function tryToHold(folder: string): Promise<{ child: ChildProcess; said: unknown }> {
  const child = fork(holder, [folder], { execArgv: [] });
  const [said]: unknown[] = await once(child, 'message');
  return { child, said };
}
async function kill(child: ChildProcess): Promise<void> {
  child.kill('SIGKILL');
  await once(child, 'exit');
}

describe('the lock of a data folder', () => {
  it('keeps other processes out at once, and is free again when its process is killed', async () => {
    const folder = join(root, 'locked');
    const first = await tryToHold(folder);
    assert.equal(first.said, 'held');
    const second = await tryToHold(folder);
    assert.equal(second.said, 'folder-in-use');
    await assert.rejects(openDataFolder(folder, 'cell'), { code: 'folder-in-use', field: folder });
    assert.equal(isFolderFree(folder), false);
    await kill(second.child);
    await kill(first.child);
    assert.equal(isFolderFree(folder), true);
    const mine = await openDataFolder(folder, 'cell');
    const third = await tryToHold(folder);
    assert.equal(third.said, 'folder-in-use');
    await kill(third.child);
    mine.release();
  });

  it('keeps this process out as well, and survives its own questions', async () => {
    const folder = join(root, 'twice');
    const held = await openDataFolder(folder, 'cell');
    await assert.rejects(openDataFolder(folder, 'cell'), { code: 'folder-in-use' });
    assert.equal(isFolderFree(folder), false);
    const other = await tryToHold(folder);
    assert.equal(other.said, 'folder-in-use', 'asking did not give the lock up');
    await kill(other.child);
    held.release();
    held.release();
    assert.equal(isFolderFree(folder), true);
    assert.equal(isFolderFree(join(root, 'nowhere')), true);
  });
});

describe('a data folder', () => {
  it('is refused and left as it is when it holds something else', async () => {
    const folder = join(root, 'foreign');
    mkdirSync(folder);
    writeFileSync(join(folder, 'cat.jpg'), 'miaow');
    await assert.rejects(openDataFolder(folder, 'cell'), {
      code: 'folder-foreign',
      field: folder,
      message: /cat\.jpg/,
    });
    assert.deepEqual(readdirSync(folder), ['cat.jpg']);
  });

  for (const [version, code] of [
    [folderFormatVersion, undefined],
    [folderFormatVersion + 1, 'folder-newer'],
  ] as const) {
    it(`of format ${version} is ${code ?? 'opened'}`, async () => {
      const folder = join(root, `format-${version}`);
      mkdirSync(folder);
      writeFileSync(join(folder, 'format.json'), JSON.stringify({ format: 'cellwright', purpose: 'cell', version }));
      if (code === undefined) return (await openDataFolder(folder, 'cell')).release();
      await assert.rejects(openDataFolder(folder, 'cell'), { code, field: folder });
      return assert.deepEqual(readdirSync(folder), ['format.json']);
    });
  }

  it('of another purpose, or with a damaged format, is refused', async () => {
    const folder = join(root, 'purpose');
    (await openDataFolder(folder, 'cell')).release();
    await assert.rejects(openDataFolder(folder, 'fleet'), { code: 'folder-foreign' });
    writeFileSync(join(folder, 'format.json'), '{"format"');
    await assert.rejects(openDataFolder(folder, 'cell'), { code: 'file-unreadable' });
    writeFileSync(join(folder, 'format.json'), '{"format":"other"}');
    await assert.rejects(openDataFolder(folder, 'cell'), { code: 'folder-foreign' });
  });

  it('that cannot be written is refused, for root too', async () => {
    const plain = join(root, 'plain');
    writeFileSync(plain, 'text');
    await assert.rejects(openDataFolder(join(plain, 'data'), 'cell'), { code: 'folder-unwritable' });
    await assert.rejects(openDataFolder(plain, 'cell'), { code: 'folder-unwritable' });
    await assert.rejects(openDataFolder('/proc/cellwright', 'cell'), { code: 'folder-unwritable' });
    assert.equal(readFileSync(plain, 'utf8'), 'text');
  });

  it('may hold what a host writes before its process starts, and what a crash left half-written', async () => {
    const folder = join(root, 'prepared');
    mkdirSync(folder);
    for (const name of ['boot.json', 'token', '.boot.json.1.2.tmp']) writeFileSync(join(folder, name), '{}');
    const held = await openDataFolder(folder, 'cell');
    assert.deepEqual(readdirSync(folder).toSorted(), ['boot.json', 'format.json', 'lock.db', 'token']);
    await emptyDataFolder(held);
    assert.deepEqual(readdirSync(folder).toSorted(), ['format.json', 'lock.db']);
    await assert.rejects(openDataFolder(folder, 'cell'), { code: 'folder-in-use' }, 'emptying keeps the lock');
    held.release();
  });
});

describe('a fleet folder', () => {
  for (const name of ['token', '.notes.tmp', 'boot.json']) {
    it(`is not one that holds somebody's ${name}, which stays`, async () => {
      const folder = join(root, `stranger${name}`);
      mkdirSync(folder);
      writeFileSync(join(folder, name), 'mine');
      await assert.rejects(openDataFolder(folder, 'fleet'), { code: 'folder-foreign' });
      assert.deepEqual(readdirSync(folder), [name]);
      assert.equal(readFileSync(join(folder, name), 'utf8'), 'mine');
    });
  }

  it('can be read by its user alone, also one that was open to others', async () => {
    const folder = join(root, 'open', 'data');
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o755);
    const held = await openDataFolder(folder, 'fleet');
    assert.equal(statSync(folder).mode & 0o777, 0o700);
    assert.equal(statSync(join(folder, 'format.json')).mode & 0o777, 0o600);
    held.release();
  });
});

describe('files', () => {
  it('are written whole, for their user alone, and leave no temporary file behind', async () => {
    const file = join(root, 'files', 'secret');
    await Promise.all([1, 2, 3].map((n) => writeFileAtomically(file, `text ${n}`)));
    assert.match(readFileSync(file, 'utf8'), /^text [123]$/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await assert.rejects(writeFileAtomically(join(root, 'files', 'secret', 'below'), 'x'));
    assert.deepEqual(readdirSync(join(root, 'files')), ['secret']);
  });

  it('that hold the text already are not written again, so a full disk does not matter', async () => {
    const file = join(root, 'kept', 'token');
    await ensureFile(file, 'one');
    const { ino } = statSync(file);
    await ensureFile(file, 'one');
    assert.equal(statSync(file).ino, ino);
    chmodSync(file, 0o644);
    await ensureFile(file, 'one');
    assert.equal(statSync(file).mode & 0o777, 0o600);
    await ensureFile(file, 'two');
    assert.equal(readFileSync(file, 'utf8'), 'two');
  });

  it('of JSON are parsed, absent, or named with the field that is wrong', async () => {
    const file = join(root, 'value.json');
    const schema = Type.Object({ n: Type.Integer() });
    assert.equal(await readJsonFile(file, schema), undefined);
    writeFileSync(file, '{"n":1}');
    assert.deepEqual(await readJsonFile(file, schema), { n: 1 });
    writeFileSync(file, '{"n":"1"}');
    await assert.rejects(readJsonFile(file, schema), { code: 'file-unreadable', field: file, message: /\/n/ });
    writeFileSync(file, '{"n":');
    await assert.rejects(readJsonFile(file, schema), { code: 'file-unreadable', field: file });
  });
});
