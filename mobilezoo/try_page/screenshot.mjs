// Picture and answers as one PNG, saved by the browser.
import { paint } from './dense.mjs';
import { percent } from './pictures.mjs';

const WIDTH = 900;
const LINE = 34;

export async function screenshot(image, answers) {
  const scale = WIDTH / image.width;
  const top = Math.round(image.height * scale);
  const rows = Math.max(...answers.map((one) => one.best.length)) + 2;
  const canvas = new OffscreenCanvas(WIDTH, top + rows * LINE + 24);
  const pen = canvas.getContext('2d');
  const full = new OffscreenCanvas(image.width, image.height);
  full.getContext('2d').putImageData(image, 0, 0);
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = scale < 4; // pixels of a tiny picture stay pixels
  pen.drawImage(full, 0, 0, WIDTH, top);
  pen.save();
  pen.beginPath();
  pen.rect(0, 0, WIDTH, top);
  pen.clip(); // a mask with borders reaches beyond the picture
  for (const one of answers) if (one.network.task !== 'classify') paint(pen, image, one);
  pen.restore();
  pen.textBaseline = 'alphabetic';
  const column = WIDTH / answers.length;
  answers.forEach((one, i) => {
    const left = i * column + 20;
    const width = column - 40;
    let y = top + LINE;
    pen.fillStyle = '#17211f';
    pen.font = '600 20px system-ui, sans-serif';
    pen.fillText(one.network.name, left, y, width);
    pen.font = '20px system-ui, sans-serif';
    for (const { label, probability } of one.best) {
      y += LINE;
      pen.fillStyle = '#b5ddd6';
      pen.fillRect(left, y - 23, width * Math.min(1, probability), LINE - 4);
      pen.fillStyle = '#17211f';
      pen.fillText(`${percent(probability)}  ${label}`, left + 8, y, width - 16);
    }
    const { prepare, run, read } = one.times;
    pen.fillStyle = '#51605c';
    pen.font = '16px system-ui, sans-serif';
    pen.fillText(`${prepare.toFixed(1)} + ${run.toFixed(1)} + ${read.toFixed(1)} ms · ${one.network.where}`, left, y + LINE, width);
  });
  const link = document.createElement('a');
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: 'image/png' }));
  link.download = 'mobilezoo-try.png';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
