// An image becomes the network's input exactly as its record says: resize, crop, normalize, lay out.
// The resampling repeats Pillow's arithmetic for 8-bit images (two passes, weights with 22 fractional bits, rounded to
// bytes after each pass; its C sources are MIT-CMU), columns first. Pillow 13 takes rows first where that is cheaper:
// then a byte may differ by one.

const BITS = 22;
const HALF = 1 << (BITS - 1);

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
const cubic = (x) => {
  const a = -0.5;
  const t = Math.abs(x);
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
};
const FILTERS = { // name: [reach in source pixels at scale 1, weight at a distance]
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

function halfToEven(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2) : Math.round(x);
}

/** Size [height, width] that an image is resized to before the crop of `size` is taken. */
export function resizedSize([h, w], size, { crop_pct, crop_mode }) {
  const [toH, toW] = size.map((side) => Math.floor(side / crop_pct));
  if (crop_mode === 'squash') return [toH, toW];
  if (crop_mode === 'center' && toH === toW) {
    return w <= h ? [Math.trunc((toH * h) / w), toH] : [toH, Math.trunc((toH * w) / h)];
  }
  const ratio = crop_mode === 'border' ? Math.max(h / toH, w / toW) : Math.min(h / toH, w / toW);
  return [halfToEven(h / ratio), halfToEven(w / ratio)];
}

/** First row or column of the crop; negative where the resized image is smaller and has to be padded. */
export const cropStart = (from, to) => (to > from ? -Math.floor((to - from) / 2) : halfToEven((from - to) / 2));

/** Weights of output pixels `first` … `first + count`: for each the first source pixel, and `taps` weights. */
function weights(from, to, first, count, [reach, weight]) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const lengths = new Int32Array(count);
  const values = new Int32Array(count * taps);
  const exact = new Float64Array(taps);
  for (let i = 0; i < count; i++) {
    const center = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const length = Math.min(from, Math.trunc(center + support + 0.5)) - start;
    let sum = 0;
    for (let k = 0; k < length; k++) sum += exact[k] = weight((k + start - center + 0.5) * (1 / stretch));
    for (let k = 0; k < length; k++) {
      const share = sum === 0 ? exact[k] : exact[k] / sum;
      values[i * taps + k] = Math.trunc((share < 0 ? -0.5 : 0.5) + share * (1 << BITS));
    }
    starts[i] = start;
    lengths[i] = length;
  }
  return { starts, lengths, values, taps };
}

function nearest(from, to, first, count) {
  const starts = new Int32Array(count);
  let place = (from / to) * 0.5; // summed up as Pillow does, rounding included
  for (let i = 0; i < first + count; i++, place += from / to) {
    if (i >= first) starts[i - first] = Math.min(from - 1, Math.floor(place));
  }
  return { starts, lengths: new Int32Array(count).fill(1), values: new Int32Array(count).fill(1 << BITS), taps: 1 };
}

const plans = new Map();

/** Everything that depends on sizes only, kept for the next frame. */
function planOf(height, width, size, prep) {
  const key = [height, width, ...size, prep.interpolation, prep.crop_pct, prep.crop_mode].join();
  let plan = plans.get(key);
  if (plan) return plan;
  const resized = resizedSize([height, width], size, prep);
  const axis = (from, to, side) => {
    const start = cropStart(to, side);
    const pad = Math.max(0, -start);
    const count = Math.min(side - pad, to - Math.max(0, start));
    const make = prep.interpolation === 'nearest' ? nearest : weights;
    return { pad, count, same: from === to, first: Math.max(0, start),
      ...make(from, to, Math.max(0, start), count, FILTERS[prep.interpolation]) };
  };
  plan = { resized, rows: axis(height, resized[0], size[0]), columns: axis(width, resized[1], size[1]) };
  if (plans.size > 40) plans.clear();
  plans.set(key, plan);
  return plan;
}

/** RGBA bytes → the channels that are resized: grey by Pillow's integer luma, RGB left in RGBA, RGBA premultiplied. */
function channelsOf(data, channels, blended) {
  if (channels === 3 || (channels === 4 && !blended)) return data;
  if (channels === 4) {
    const out = new Uint8ClampedArray(data);
    for (let i = 0; i < out.length; i += 4) {
      for (let c = 0; c < 3; c++) {
        const product = out[i + c] * out[i + 3] + 128;
        out[i + c] = ((product >> 8) + product) >> 8;
      }
    }
    return out;
  }
  const out = new Uint8ClampedArray(data.length / 4);
  for (let i = 0, j = 0; j < out.length; i += 4, j++) {
    out[j] = (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
  }
  return out;
}

function acrossColumns(source, width, step, channels, firstRow, rows, plan) {
  const { starts, lengths, values, taps, count } = plan;
  const out = new Uint8ClampedArray(rows * count * channels);
  for (let y = 0, o = 0; y < rows; y++) {
    const row = (firstRow + y) * width * step;
    for (let x = 0; x < count; x++) {
      let at = row + starts[x] * step;
      const end = x * taps + lengths[x];
      let a = HALF, b = HALF, c = HALF, d = HALF;
      if (channels === 3) {
        for (let k = x * taps; k < end; k++, at += step) {
          const v = values[k];
          a = (a + source[at] * v) | 0;
          b = (b + source[at + 1] * v) | 0;
          c = (c + source[at + 2] * v) | 0;
        }
        out[o++] = a >> BITS;
        out[o++] = b >> BITS;
        out[o++] = c >> BITS;
      } else {
        for (let k = x * taps; k < end; k++, at += step) {
          const v = values[k];
          a = (a + source[at] * v) | 0;
          if (channels === 4) {
            b = (b + source[at + 1] * v) | 0;
            c = (c + source[at + 2] * v) | 0;
            d = (d + source[at + 3] * v) | 0;
          }
        }
        out[o++] = a >> BITS;
        if (channels === 4) {
          out[o++] = b >> BITS;
          out[o++] = c >> BITS;
          out[o++] = d >> BITS;
        }
      }
    }
  }
  return out;
}

function acrossRows(source, firstRow, length, plan) {
  const { starts, lengths, values, taps, count } = plan;
  const out = new Uint8ClampedArray(count * length);
  const sums = new Int32Array(length);
  for (let y = 0; y < count; y++) {
    sums.fill(HALF);
    for (let k = 0; k < lengths[y]; k++) {
      const v = values[y * taps + k];
      const row = (starts[y] - firstRow + k) * length;
      for (let i = 0; i < length; i++) sums[i] = (sums[i] + source[row + i] * v) | 0;
    }
    const to = y * length;
    for (let i = 0; i < length; i++) out[to + i] = sums[i] >> BITS;
  }
  return out;
}

function unmultiply(bytes) {
  for (let i = 0; i < bytes.length; i += 4) {
    const alpha = bytes[i + 3];
    if (alpha === 0 || alpha === 255) continue;
    for (let c = 0; c < 3; c++) bytes[i + c] = Math.min(255, Math.trunc((255 * bytes[i + c]) / alpha));
  }
}

/** The part of an image that the crop shows, as shares 0..1 of its sides; parts outside are cut off. */
export function region(image, size, prep) {
  const resized = resizedSize([image.height, image.width], size, prep);
  const [top, left] = resized.map((side, i) => Math.max(0, cropStart(side, size[i])) / side);
  const [height, width] = resized.map((side, i) => Math.min(1, size[i] / side));
  return { top, left, height, width };
}

/**
 * The crop of an image that the network sees.
 * image: {data: RGBA bytes, width, height}; size: [height, width]; prep: the record's preprocessing.
 * Returns bytes in HWC order.
 */
export function cropped(image, size, prep) {
  const channels = prep.mean.length;
  const { rows, columns } = planOf(image.height, image.width, size, prep);
  const step = channels === 3 ? 4 : channels;
  const source = channelsOf(image.data, channels, prep.interpolation !== 'nearest');
  const firstRow = rows.starts[0];
  const needed = rows.starts[rows.count - 1] + rows.lengths[rows.count - 1] - firstRow;
  const wide = acrossColumns(source, image.width, step, channels, firstRow, needed, columns);
  const inside = acrossRows(wide, firstRow, columns.count * channels, rows);
  if (channels === 4 && prep.interpolation !== 'nearest') unmultiply(inside);
  if (rows.count === size[0] && columns.count === size[1]) return inside;
  const whole = new Uint8ClampedArray(size[0] * size[1] * channels);
  if (prep.crop_mode === 'border') {
    for (let i = 0; i < whole.length; i++) whole[i] = halfToEven(255 * prep.mean[i % channels]);
  }
  for (let y = 0; y < rows.count; y++) {
    const line = inside.subarray(y * columns.count * channels, (y + 1) * columns.count * channels);
    whole.set(line, ((rows.pad + y) * size[1] + columns.pad) * channels);
  }
  return whole;
}

export const ARRAYS = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  int32: Int32Array, int64: BigInt64Array,
};
const LIMITS = { int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767], int32: [-(2 ** 31), 2 ** 31 - 1] };

/** The value of the input tensor for each of the 256 bytes of a channel, in single precision as in training. */
function tableOf(input, mean, std) {
  const f = Math.fround;
  const table = new Float64Array(256);
  for (let byte = 0; byte < 256; byte++) {
    let value = f(f(f(byte / 255) - f(mean)) / f(std));
    if (input.dtype === 'uint8' && !input.quantization) value = byte;
    else if (!input.dtype.startsWith('float')) {
      const { scale, zero_point } = input.quantization ?? { scale: 1, zero_point: 0 };
      const [low, high] = LIMITS[input.dtype] ?? LIMITS.int32;
      value = Math.min(high, Math.max(low, halfToEven(f(value / f(scale))) + zero_point));
    }
    table[byte] = value;
  }
  return table;
}

/** A function from an image to {tensor, bytes}: the input of a network, and the bytes of the crop that it is made of. */
export function preparer(network) {
  const { input, preprocessing: prep, size } = network;
  const channels = prep.mean.length;
  const tables = prep.mean.map((mean, c) => tableOf(input, mean, prep.std[c]));
  const total = input.shape.reduce((a, b) => a * b, 1);
  const pixels = size[0] * size[1];
  const convert = input.dtype === 'int64' ? BigInt : (x) => x;
  return (image) => {
    const bytes = cropped(image, size, prep);
    const tensor = new ARRAYS[input.dtype](total); // a batch of several: the first image counts
    const [pixelStep, channelStep] = input.layout === 'NHWC' ? [channels, 1] : [1, pixels];
    for (let c = 0; c < channels; c++) {
      const table = tables[c];
      let to = (input.colors === 'BGR' && channels === 3 ? 2 - c : c) * channelStep;
      if (input.dtype === 'int64') {
        for (let i = c; i < bytes.length; i += channels, to += pixelStep) tensor[to] = convert(table[bytes[i]]);
      } else {
        for (let i = c; i < bytes.length; i += channels, to += pixelStep) tensor[to] = table[bytes[i]];
      }
    }
    return { tensor, bytes };
  };
}
