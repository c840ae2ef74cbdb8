// Boxes and masks: the numbers of a detector's or segmenter's file are read and drawn, as mobilezoo/dense/reading.py reads them.
import { cropStart, resizedSize } from './prepare.mjs';

const MOST = 100; // boxes of an image

/** Where the crop that the network sees lies in an image, in pixels of the image; it may reach beyond it. */
export function placement({ width, height }, size, prep) {
  const resized = resizedSize([height, width], size, prep);
  const [y, x] = [height / resized[0], width / resized[1]];
  const [top, left] = resized.map((side, i) => cropStart(side, size[i]));
  return { left: left * x, top: top * y, width: size[1] * x, height: size[0] * y };
}

/** Intersection over union of the boxes [left, top, right, bottom] at two offsets. */
function covered(values, a, b) {
  const side = (from, to) => Math.min(values[a + to], values[b + to]) - Math.max(values[a + from], values[b + from]);
  const both = Math.max(0, side(0, 2)) * Math.max(0, side(1, 3));
  const area = (at) => (values[at + 2] - values[at]) * (values[at + 3] - values[at + 1]);
  const either = area(a) + area(b) - both;
  return either > 0 ? both / either : 0;
}

/** Boxes [{index, label, probability, sides}], most probable first; sides are shares of the crop. */
export function boxesOf(values, { output_shape: [places, length], boxes: { score, overlap }, labels }) {
  const found = [];
  for (let place = 0; place < places; place++) {
    const at = place * length;
    if (!(values[at + 2] > values[at] && values[at + 3] > values[at + 1])) continue; // without an area it is no box
    let best = 4;
    for (let i = 5; i < length; i++) if (values[at + i] > values[at + best]) best = i;
    if (values[at + best] >= score) found.push({ at, index: best - 4, probability: values[at + best] });
  }
  found.sort((a, b) => b.probability - a.probability); // stable: of equal ones the first place
  const kept = [];
  for (const one of found) {
    if (kept.length === MOST) break;
    if (kept.every((other) => other.index !== one.index || covered(values, one.at, other.at) <= overlap)) kept.push(one);
  }
  return kept.map(({ at, index, probability }) => (
    { index, probability, label: labels[index] ?? `class ${index}`, sides: Array.from(values.subarray(at, at + 4)) }));
}

/** The class of every pixel of the crop, {classes, rows, columns}, and the classes that are there, largest first. */
export function maskOf(values, { output_shape: [rows, columns, count], labels }) {
  const classes = new Uint16Array(rows * columns);
  const pixels = new Array(count).fill(0);
  for (let i = 0; i < classes.length; i++) {
    const at = i * count;
    let best = 0;
    for (let k = 1; k < count; k++) if (values[at + k] > values[at + best]) best = k;
    classes[i] = best;
    pixels[best] += 1;
  }
  const areas = pixels.map((number, index) => (
    { index, label: labels[index] ?? `class ${index}`, probability: number / classes.length }));
  const present = areas.filter((one) => one.probability > 0).sort((a, b) => b.probability - a.probability);
  return { mask: { classes, rows, columns }, areas: present };
}

/** What a file answers, for the page: `best` as for a classifier, and `boxes` or `mask` to draw. */
export function dense(values, network) {
  if (network.task === 'segment') {
    const { mask, areas } = maskOf(values, network);
    return { best: areas.slice(0, 5), mask };
  }
  const boxes = boxesOf(values, network);
  const none = [{ index: -1, label: 'nothing found', probability: 0 }];
  return { best: boxes.length ? boxes.slice(0, 5) : none, boxes };
}

/** A color for each class, far from those of its neighbours. */
const hue = (index) => (360 * index * 0.381966) % 360;
export const color = (index) => `hsl(${hue(index).toFixed(1)} 85% 55%)`;

/** Draws what was found over an image of {width, height} that fills the pen's canvas. */
export function paint(pen, image, { network, boxes, mask }) {
  const scale = pen.canvas.width / image.width;
  const place = placement(image, network.size, network.preprocessing);
  if (mask) paintMask(pen, mask, place, scale);
  for (const box of (boxes ?? []).slice().reverse()) paintBox(pen, box, place, scale);
}

function paintBox(pen, { index, label, probability, sides: [left, top, right, bottom] }, place, scale) {
  const wide = Math.max(1, pen.canvas.width / 250);
  const [x, y] = [(place.left + left * place.width) * scale, (place.top + top * place.height) * scale];
  const text = `${label} ${(100 * probability).toFixed(0)} %`;
  pen.lineWidth = wide;
  pen.strokeStyle = color(index);
  pen.strokeRect(x, y, (right - left) * place.width * scale, (bottom - top) * place.height * scale);
  const size = Math.max(10, 6 * wide);
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = 'top';
  const [tagX, tagY] = [Math.max(0, x - wide / 2), Math.max(0, y - 1.3 * size)];
  pen.fillStyle = color(index);
  pen.fillRect(tagX, tagY, pen.measureText(text).width + 0.6 * size, 1.3 * size);
  pen.fillStyle = '#000';
  pen.fillText(text, tagX + 0.3 * size, tagY + 0.15 * size);
}

function paintMask(pen, { classes, rows, columns }, place, scale) {
  const layer = new OffscreenCanvas(columns, rows);
  const own = layer.getContext('2d');
  const drawn = new Set(classes);
  drawn.delete(0); // the background stays clear
  for (const index of drawn) {
    own.fillStyle = color(index);
    for (let i = 0; i < classes.length; i++) {
      if (classes[i] !== index) continue;
      let end = i + 1;
      while (end % columns && classes[end] === index) end++;
      own.fillRect(i % columns, Math.floor(i / columns), end - i, 1);
      i = end - 1;
    }
  }
  pen.globalAlpha = 0.63;
  pen.imageSmoothingEnabled = false;
  pen.drawImage(layer, place.left * scale, place.top * scale, place.width * scale, place.height * scale);
  pen.globalAlpha = 1;
  pen.imageSmoothingEnabled = true;
}
