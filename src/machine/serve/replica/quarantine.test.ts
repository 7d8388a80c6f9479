import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { deepStrictEqual, match, ok, strictEqual } from 'node:assert/strict';
import type { Fault } from '../../../kernel/fault.ts';
import type { DriftEvidence, DriftStates } from '../../decide/replica/drift.ts';
import {
  evidenceText,
  isReleaseRequested,
  QuarantineFolder,
  quarantinedIn,
  quarantineFolderOf,
  releasedFilesMax,
  requestRelease,
} from './quarantine.ts';

const evidence: DriftEvidence = {
  foundBy: 'replica',
  position: 7,
  recorded: { seq: 3, stateHash: 'c2:a', keysHash: 'c2:k' },
  found: { seq: 3, stateHash: 'c2:b', keysHash: 'c2:k' },
  reason: 'event 3 (put) leads to state c2:b, and the log says c2:a',
  mismatch: { kind: 'state', seq: 3, event: 'put', expected: 'c2:a', actual: 'c2:b' },
};
const states: DriftStates = {
  served: { seq: 3, kept: 'c2:a', recomputed: 'c2:a' },
  replica: { seq: 3, kept: 'c2:b', recomputed: 'c2:b' },
  atDrift: true,
  difference: { total: { missing: 0, extra: 0, changed: 1 }, tables: [], rows: [], complete: true },
};

class Place {
  readonly folder = mkdtempSync(join(tmpdir(), 'cellwright-quarantine-'));
  readonly problems: Fault[] = [];
  changes = 0;
  nowMs = 0;

  open(): QuarantineFolder {
    return new QuarantineFolder({
      folder: this.folder,
      about: { cellwright: '1' },
      nowMs: () => (this.nowMs += 1_000),
      onChange: () => (this.changes += 1),
      onProblem: (problem) => this.problems.push(problem),
    });
  }

  [Symbol.dispose](): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

test('evidence is on disk, for its user alone, when the instance is refused, and so it stays after a restart', () => {
  using place = new Place();
  const quarantine = place.open();
  strictEqual(quarantine.refusal('acme'), undefined);
  quarantine.add('acme', evidence);
  const text = evidenceText(place.folder, 'acme');
  ok(text !== undefined);
  const { file } = quarantine.get('acme') ?? { file: '' };
  strictEqual(statSync(file).mode & 0o777, 0o600);
  strictEqual(statSync(quarantineFolderOf(place.folder)).mode & 0o777, 0o700);
  const document: unknown = JSON.parse(text);
  deepStrictEqual(document, {
    format: 1,
    instance: 'acme',
    at: '1970-01-01T00:00:01.000Z',
    about: { cellwright: '1' },
    evidence,
  });
  for (const each of [quarantine, place.open()]) {
    const refusal = each.refusal('acme');
    strictEqual(refusal?.code, 'tenant-quarantined');
    match(refusal.message, /event 3 \(put\).*cellwright quarantine release acme.*acme\.json/);
    strictEqual(each.has('other'), false);
  }
  deepStrictEqual(
    quarantinedIn(place.folder).map(({ instance, position }) => [instance, position]),
    [['acme', 7]],
  );
});

test('the first evidence stays, and the comparison of the states is added to it', () => {
  using place = new Place();
  const quarantine = place.open();
  quarantine.add('acme', evidence);
  quarantine.add('acme', { ...evidence, position: 9 });
  quarantine.amend('acme', states);
  quarantine.amend('other', states);
  const document: unknown = JSON.parse(evidenceText(place.folder, 'acme') ?? '');
  ok(typeof document === 'object' && document !== null && 'evidence' in document);
  deepStrictEqual(document.evidence, { ...evidence, states });
  strictEqual(place.open().get('acme')?.position, 7);
});

test('evidence that cannot be read quarantines all the same', () => {
  using place = new Place();
  place.open().add('acme', evidence);
  writeFileSync(join(quarantineFolderOf(place.folder), 'acme.json'), '{ half');
  const quarantine = place.open();
  ok(quarantine.has('acme'));
  match(quarantine.refusal('acme')?.message ?? '', /cannot be read/);
});

test('a temporary file that a crash left is no evidence', () => {
  using place = new Place();
  place.open().add('acme', evidence);
  writeFileSync(join(quarantineFolderOf(place.folder), 'other.json.new'), '{}');
  strictEqual(place.open().has('other'), false);
});

test('any name an instance can have makes a file of its own', () => {
  using place = new Place();
  const names = ['$ownership', 'a.b', '..', 'a/b', 'a%2Fb', 'ä'];
  const quarantine = place.open();
  for (const name of names) quarantine.add(name, evidence);
  deepStrictEqual(
    place
      .open()
      .list()
      .map(({ instance }) => instance)
      .toSorted(),
    names.toSorted(),
  );
});

test('a release that is proven puts the evidence away', async () => {
  using place = new Place();
  const quarantine = place.open();
  quarantine.add('acme', evidence);
  requestRelease(place.folder, 'acme');
  deepStrictEqual(quarantine.requests(), ['acme']);
  const released = await quarantine.release('acme', async () => {
    strictEqual(quarantine.has('acme'), false);
    ok(evidenceText(place.folder, 'acme') !== undefined, 'a crash meanwhile must not end the quarantine');
  });
  ok(released);
  strictEqual(quarantine.has('acme'), false);
  strictEqual(isReleaseRequested(place.folder, 'acme'), false);
  strictEqual(place.open().size, 0);
  strictEqual(readdirSync(join(quarantineFolderOf(place.folder), 'released')).length, 1);
});

test('a release that is refused changes nothing but the evidence, which says why', async () => {
  using place = new Place();
  const quarantine = place.open();
  quarantine.add('acme', evidence);
  requestRelease(place.folder, 'acme');
  strictEqual(await quarantine.release('acme', () => Promise.reject(new Error('event 3 again'))), false);
  for (const each of [quarantine, place.open()]) {
    ok(each.has('acme'));
    deepStrictEqual(each.get('acme')?.releaseRefused, { at: '1970-01-01T00:00:02.000Z', reason: 'event 3 again' });
  }
  strictEqual(isReleaseRequested(place.folder, 'acme'), false);
  strictEqual(await quarantine.release('other', () => Promise.resolve()), false);
});

test('of ended quarantines a bounded number of files is kept, the newest', async () => {
  using place = new Place();
  const quarantine = place.open();
  for (let i = 0; i <= releasedFilesMax; i++) {
    quarantine.add('acme', evidence);
    await quarantine.release('acme', () => Promise.resolve());
  }
  const kept = readdirSync(join(quarantineFolderOf(place.folder), 'released')).toSorted();
  strictEqual(kept.length, releasedFilesMax);
  match(kept[0] ?? '', /00-00-04/);
});

test('evidence that cannot be written is reported, and the instance is refused all the same', () => {
  using place = new Place();
  const quarantine = place.open();
  writeFileSync(quarantineFolderOf(place.folder), 'a file where the folder should be');
  quarantine.add('acme', evidence);
  ok(quarantine.has('acme'));
  strictEqual(place.problems.length, 1);
  match(readFileSync(quarantineFolderOf(place.folder), 'utf8'), /a file where/);
});

test('a request from before does not end a later quarantine', async () => {
  using place = new Place();
  const quarantine = place.open();
  quarantine.add('acme', evidence);
  await quarantine.release('acme', () => Promise.resolve());
  requestRelease(place.folder, 'acme');
  quarantine.add('acme', evidence);
  deepStrictEqual(quarantine.requests(), []);
});

test('what is found while a release is tried refuses it, whatever the trial comes to', async () => {
  using place = new Place();
  const quarantine = place.open();
  quarantine.add('acme', evidence);
  const released = await quarantine.release('acme', async () => {
    strictEqual(quarantine.trustedBefore('acme'), 7);
    quarantine.add('acme', { ...evidence, reason: 'event 2 already' });
  });
  strictEqual(released, false);
  strictEqual(quarantine.get('acme')?.releaseRefused?.reason, 'event 2 already');
  strictEqual(quarantine.trustedBefore('acme'), undefined);
});

test('of an instance that is erased no evidence is left', async () => {
  using place = new Place();
  const quarantine = place.open();
  for (const instance of ['acme', 'not-acme']) {
    quarantine.add(instance, evidence);
    await quarantine.release(instance, () => Promise.resolve());
    quarantine.add(instance, evidence);
  }
  quarantine.erase('acme');
  strictEqual(quarantine.has('acme'), false);
  const folder = quarantineFolderOf(place.folder);
  const left = [...readdirSync(folder), ...readdirSync(join(folder, 'released'))].filter((name) =>
    name.includes('acme'),
  );
  deepStrictEqual(left, ['not-acme.json', '1970-01-01T00-00-05.000Z-not-acme.json']);
});
