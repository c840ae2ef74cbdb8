// The scores of a file become probabilities and the best classes, as `mobilezoo eval` reads them; or boxes, or a mask.
import { dense } from './dense.mjs';

/** A function from the file's numbers to {best: [{index, label, probability}]}, with probabilities, boxes or mask. */
export function reader(network) {
  const how = network.output_quantization;
  const step = how ? how.scale : 0;
  // Where the file leaves it open, all answers so far decide: what they may still be, and their sum then.
  let wholes = [['probabilities', 1], ['percent', 100]];
  const couldBe = (scores, whole) => {
    const off = 0.02 * whole + (scores.length * step) / 2;
    let sum = 0;
    for (const score of scores) {
      if (score < 0 || score > whole + off) return false;
      sum += score;
    }
    return Math.abs(sum - whole) <= off;
  };
  return (raw) => {
    const first = raw.subarray(0, raw.length / network.input.shape[0]); // of a batch
    const scores = how ? first.map((value) => (value - how.zero_point) * how.scale) : first;
    if (!scores.every(Number.isFinite)) throw new Error('the file answers with numbers that are not finite');
    if (network.task !== 'classify') return dense(scores, network);
    wholes = wholes.filter(([, whole]) => couldBe(scores, whole));
    const kind = network.output ?? wholes[0]?.[0] ?? 'logits';
    const shares = kind === 'percent' ? scores.map((score) => score / 100) : scores;
    const probabilities = kind === 'logits' ? softmax(scores) : shares;
    return { probabilities, best: best(probabilities, network.labels) };
  };
}

export function softmax(scores) {
  let most = -Infinity;
  for (const score of scores) most = Math.max(most, score);
  const powers = Float64Array.from(scores, (score) => Math.exp(score - most));
  let sum = 0;
  for (const power of powers) sum += power;
  return powers.map((power) => power / sum);
}

/** The `count` most probable classes; of equal ones the first. */
export function best(probabilities, labels, count = 5) {
  const found = [];
  for (let index = 0; index < probabilities.length; index++) {
    const probability = probabilities[index];
    if (found.length === count && probability <= found[count - 1].probability) continue;
    let at = found.length;
    while (at > 0 && found[at - 1].probability < probability) at--;
    found.splice(at, 0, { index, label: labels[index] ?? `class ${index}`, probability });
    if (found.length > count) found.pop();
  }
  return found;
}
