/** Lines around a change that are shown unchanged. */
const contextLines = 3;

type Op = { readonly sign: ' ' | '-' | '+'; readonly text: string };

/**
 * Unified diff of two texts without its file headers; '' if they are equal. Longest common
 * subsequence by dynamic programming, O(n·m) after the common start and end are cut off:
 * resources have tens of lines.
 */
export function lineDiff(before: string, after: string): string {
  const a = linesOf(before);
  const b = linesOf(after);
  const ops = operations(a, b);
  if (ops.every(({ sign }) => sign === ' ')) return '';
  return hunks(ops).join('\n');
}

function linesOf(text: string): readonly string[] {
  return text === '' ? [] : text.replace(/\n$/, '').split('\n');
}

function operations(a: readonly string[], b: readonly string[]): readonly Op[] {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const same = (lines: readonly string[]): Op[] => lines.map((text) => ({ sign: ' ', text }));
  return [
    ...same(a.slice(0, start)),
    ...changed(a.slice(start, a.length - end), b.slice(start, b.length - end)),
    ...same(a.slice(a.length - end)),
  ];
}

/** Above this many comparisons the middle is shown as removed and added whole. */
const comparisonsMax = 4_000_000;

function changed(a: readonly string[], b: readonly string[]): readonly Op[] {
  const minus = (text: string): Op => ({ sign: '-', text });
  const plus = (text: string): Op => ({ sign: '+', text });
  if (a.length * b.length > comparisonsMax) return [...a.map(minus), ...b.map(plus)];
  const width = b.length + 1;
  const lengths = new Uint32Array((a.length + 1) * width);
  const lengthAt = (i: number, j: number): number => lengths[i * width + j] ?? 0;
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] =
        a[i] === b[j] ? lengthAt(i + 1, j + 1) + 1 : Math.max(lengthAt(i + 1, j), lengthAt(i, j + 1));
    }
  }
  const ops: Op[] = [];
  let i = 0;
  let j = 0;
  for (;;) {
    const left = a[i];
    const right = b[j];
    if (left === undefined || right === undefined) break;
    if (left === right) {
      ops.push({ sign: ' ', text: left });
      i++;
      j++;
    } else if (lengthAt(i + 1, j) >= lengthAt(i, j + 1)) {
      ops.push(minus(left));
      i++;
    } else {
      ops.push(plus(right));
      j++;
    }
  }
  return [...ops, ...a.slice(i).map(minus), ...b.slice(j).map(plus)];
}

/** Groups changes with their context, each group under its `@@ -from,count +from,count @@`. */
function hunks(ops: readonly Op[]): readonly string[] {
  const lines: string[] = [];
  let index = 0;
  let oldLine = 1;
  let newLine = 1;
  while (index < ops.length) {
    const from = nextChange(ops, index);
    if (from === undefined) break;
    const start = Math.max(index, from - contextLines);
    oldLine += start - index;
    newLine += start - index;
    const end = hunkEnd(ops, from);
    const hunk = ops.slice(start, end);
    const olds = hunk.filter(({ sign }) => sign !== '+').length;
    const news = hunk.filter(({ sign }) => sign !== '-').length;
    lines.push(`@@ -${olds === 0 ? 0 : oldLine},${olds} +${news === 0 ? 0 : newLine},${news} @@`);
    lines.push(...hunk.map(({ sign, text }) => `${sign}${text}`));
    oldLine += olds;
    newLine += news;
    index = end;
  }
  return lines;
}

function nextChange(ops: readonly Op[], from: number): number | undefined {
  const found = ops.findIndex(({ sign }, index) => index >= from && sign !== ' ');
  return found === -1 ? undefined : found;
}

/** One past the last line of the hunk: changes closer than twice the context share one. */
function hunkEnd(ops: readonly Op[], firstChange: number): number {
  let last = firstChange;
  for (let index = firstChange; index < ops.length && index - last <= contextLines * 2; index++) {
    if (ops[index]?.sign !== ' ') last = index;
  }
  return Math.min(ops.length, last + contextLines + 1);
}
