// The panel of one network: best classes with bars, milliseconds, trace, and what the network sees.
import { color } from './dense.mjs';
import { percent } from './pictures.mjs';

const KEPT = 120; // frames in the trace
const TIMES = ['prepare', 'run', 'read'];

export class Panel {
  constructor(network) {
    this.network = network;
    const node = document.getElementById('panel').content.cloneNode(true);
    this.node = node.querySelector('.panel');
    this.node.querySelector('h3').textContent = network.name;
    this.node.querySelector('.what').textContent = [
      network.precision, `${(network.bytes / 1e6).toFixed(1)} MB`, `${network.size.join('×')} pixels`, network.note,
    ].filter(Boolean).join(' · ');
    this.list = this.node.querySelector('.best');
    this.rows = Array.from({ length: 5 }, () => {
      const row = document.createElement('li');
      row.append(document.createElement('span'), document.createElement('span'));
      row.hidden = true;
      return row;
    });
    this.list.append(...this.rows);
    this.cells = Object.fromEntries([...this.node.querySelectorAll('[data-of]')].map((one) => [one.dataset.of, one]));
    this.seen = this.node.querySelector('.seen canvas');
    [this.seen.height, this.seen.width] = network.size;
    this.trace = this.node.querySelector('.trace canvas');
    this.reset();
  }

  reset() {
    this.history = [];
    this.ends = [];
  }

  /** For a second network that sees the same as the first. */
  hideSeen() {
    this.node.querySelector('.seen').hidden = true;
  }

  set where(text) {
    this.node.querySelector('.where').textContent = text;
  }

  set off(yes) {
    this.node.querySelector('.where').classList.toggle('off', yes);
  }

  /** Keeps the times of one frame; `live` frames count for the rate. */
  note(times, live) {
    this.history.push(times);
    if (this.history.length > KEPT) this.history.shift();
    if (live) this.ends.push(performance.now());
    if (this.ends.length > KEPT) this.ends.shift();
  }

  /** Frames per second over the last two seconds; 0 where there are too few. */
  rate() {
    const now = this.ends.at(-1);
    const recent = this.ends.filter((end) => end > now - 2000);
    return recent.length > 1 ? (1000 * (recent.length - 1)) / (now - recent[0]) : 0;
  }

  show({ best, times, bytes }) {
    this.node.classList.remove('empty');
    this.rows.forEach((row, i) => {
      row.hidden = i >= best.length;
      if (row.hidden) return;
      row.firstChild.textContent = best[i].label;
      row.firstChild.title = best[i].label;
      row.lastChild.textContent = percent(best[i].probability);
      if (this.network.task !== 'classify') row.style.setProperty('--class', best[i].index < 0 || (best[i].index === 0 && this.network.task === 'segment') ? 'transparent' : color(best[i].index));
      row.style.setProperty('--share', Math.min(1, best[i].probability).toFixed(4));
    });
    for (const of of TIMES) this.fill(of, times[of].toFixed(times[of] < 9.95 ? 1 : 0), 'ms');
    const rate = this.rate();
    this.fill('rate', rate ? rate.toFixed(rate < 9.95 ? 1 : 0) : '–', '');
    this.drawSeen(bytes);
    this.drawTrace();
  }

  fill(of, text, unit) {
    const small = document.createElement('small');
    small.textContent = unit && ` ${unit}`;
    this.cells[of].replaceChildren(text, small);
  }

  drawSeen(bytes) {
    const [height, width] = this.network.size;
    const channels = bytes.length / (width * height);
    const image = new ImageData(width, height);
    for (let i = 0, j = 0; i < bytes.length; i += channels, j += 4) {
      for (let c = 0; c < 3; c++) image.data[j + c] = bytes[channels < 3 ? i : i + c];
      image.data[j + 3] = channels === 4 ? bytes[i + 3] : 255;
    }
    this.seen.getContext('2d').putImageData(image, 0, 0);
  }

  drawTrace() {
    const { trace, history } = this;
    const pen = trace.getContext('2d');
    const totals = history.map((times) => TIMES.reduce((sum, of) => sum + times[of], 0));
    const sorted = totals.slice().sort((a, b) => a - b);
    const median = sorted[sorted.length >> 1];
    const top = Math.max(2 * median, sorted[Math.floor(sorted.length * 0.95)] * 1.1, 1);
    const x = (i) => (trace.width * (i + KEPT - totals.length)) / (KEPT - 1);
    const y = (ms) => trace.height - 2 - (trace.height - 6) * Math.min(1, ms / top);
    pen.clearRect(0, 0, trace.width, trace.height);
    pen.strokeStyle = pen.fillStyle = getComputedStyle(trace).color;
    pen.globalAlpha = 0.35;
    pen.lineWidth = 1;
    pen.setLineDash([4, 6]);
    pen.strokeRect(-1, y(median), trace.width + 2, 0);
    pen.globalAlpha = 1;
    pen.setLineDash([]);
    pen.lineWidth = 2.5;
    pen.lineJoin = 'round';
    pen.beginPath();
    totals.forEach((ms, i) => pen.lineTo(x(i), y(ms)));
    pen.stroke();
    if (totals.length === 1) pen.fillRect(x(0) - 4, y(totals[0]) - 2, 4, 4);
    const text = `whole frame: median ${median.toFixed(1)} ms, last ${totals.at(-1).toFixed(1)} ms, ${totals.length} frame${totals.length > 1 ? 's' : ''}`;
    this.node.querySelector('.trace figcaption').textContent = text;
    trace.setAttribute('aria-label', text);
  }
}
