/**
 * The word that a person most likely meant, or undefined if none is near: at most a third of the
 * letters differ. Levenshtein's edit distance by the Wagner–Fischer table, O(n·m) a word.
 */
export function nearest(given: string, words: readonly string[]): string | undefined {
  const lowered = given.toLowerCase().slice(0, wordLengthMax);
  let best: string | undefined;
  let bestDistance = Infinity;
  for (const word of words) {
    const distance = editDistance(lowered, word.toLowerCase());
    if (distance < bestDistance && distance <= Math.max(1, Math.floor(word.length / 3))) {
      best = word;
      bestDistance = distance;
    }
  }
  return best;
}

/** Longer input is no misspelt word; the bound keeps hostile input cheap. */
const wordLengthMax = 64;

function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substituted, (previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1));
    }
    previous = current;
  }
  return previous[b.length] ?? 0;
}
