// Photographs and samples, shown as a list of buttons.
import { paint } from './dense.mjs';

/** Draws an image into a canvas of its own size, or smaller. */
export function draw(canvas, image, most = Infinity) {
  const scale = Math.min(1, most / Math.max(image.width, image.height));
  const full = new OffscreenCanvas(image.width, image.height);
  full.getContext('2d').putImageData(image, 0, 0);
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  canvas.getContext('2d').drawImage(full, 0, 0, canvas.width, canvas.height);
  canvas.classList.toggle('small', Math.max(image.width, image.height) < 100);
}

const escapeName = (name) => name.split(/[\\/]/).pop();

export class Gallery {
  constructor(list, onChoose) {
    this.list = list;
    this.onChoose = onChoose;
    this.clear();
  }

  clear() {
    this.list.replaceChildren();
    this.counts = { pictures: 0, faults: 0, known: 0, agree: 0, right: [] };
  }

  /** Adds one picture with its answers, or with the reason why it has none. */
  add({ name, truth, image, answers, fault }) {
    const item = document.createElement('li');
    const button = document.createElement('button');
    button.type = 'button';
    const canvas = document.createElement('canvas');
    canvas.setAttribute('aria-hidden', 'true');
    button.append(canvas);
    this.counts.pictures += 1;
    if (fault) {
      this.counts.faults += 1;
      button.append(line(`${escapeName(name)}: ${fault}`, 'off'));
      button.disabled = true;
    } else {
      draw(canvas, image, 240);
      for (const one of answers) if (one.network.task !== 'classify') paint(canvas.getContext('2d'), image, one);
      this.count(answers, truth);
      const firsts = answers.map((answer) => answer.best[0]);
      const same = firsts.every((first) => first.index === firsts[0].index);
      for (const answer of same ? answers.slice(0, 1) : answers) {
        const wrong = !same || (truth !== undefined && truth.index !== answer.best[0].index);
        button.append(line(caption(answer), wrong ? 'off' : ''));
      }
      if (truth !== undefined) button.append(line(truth.index === firsts[0].index && same ? 'right' : `is ${truth.label}`));
      button.dataset.top = firsts.map((first) => first.index).join();
      button.dataset.name = name;
      button.addEventListener('click', () => {
        for (const other of this.list.querySelectorAll('[aria-current]')) other.removeAttribute('aria-current');
        button.setAttribute('aria-current', 'true');
        this.onChoose({ image, answers });
      });
    }
    item.append(button);
    this.list.append(item);
  }

  count(answers, truth) {
    const firsts = answers.map((answer) => answer.best[0].index);
    this.counts.agree += firsts.every((first) => first === firsts[0]);
    if (truth === undefined) return;
    this.counts.known += 1;
    firsts.forEach((first, i) => { this.counts.right[i] = (this.counts.right[i] ?? 0) + (first === truth.index); });
  }

  /** One line on all pictures shown. */
  summary(names) {
    const { pictures, faults, known, agree, right } = this.counts;
    const parts = [`${pictures} picture${pictures === 1 ? '' : 's'}`];
    if (faults) parts.push(`${faults} not readable`);
    if (known) parts.push(names.map((name, i) => `${names.length > 1 ? `${name} ` : ''}${right[i]} of ${known} right`).join(', '));
    if (names.length > 1) parts.push(`same answer on ${agree} of ${pictures - faults}`);
    return parts.join(' · ');
  }
}

/** The best class; of boxes and masks all kinds of things that are there, the background left out. */
function caption({ best, boxes, mask }) {
  if (boxes?.length) return boxes.slice(0, 3).map(({ label }) => label).join(', ') + more(boxes.length);
  if (boxes) return best[0].label;
  if (!mask) return `${best[0].label} ${percent(best[0].probability)}`;
  const things = best.filter(({ index }) => index !== 0).slice(0, 2);
  const named = things.map(({ label, probability }) => `${label} (${percent(probability)})`);
  return named.join(', ') || `${best[0].label} only`;
}

const more = (count) => (count > 3 ? ` and ${count - 3} more` : '');

export const percent = (share) => `${(100 * share).toFixed(1)} %`;

function line(text, kind = '') {
  const span = document.createElement('span');
  span.textContent = text;
  span.className = kind;
  return span;
}
