// An image file becomes pixels, without any color management, as evaluation reads it.

const MOST_PIXELS = 50e6;

/** A file or blob as {data: RGBA bytes, width, height}; turned upright by EXIF, on white where it is transparent. */
export async function decode(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none', imageOrientation: 'from-image' });
  } catch {
    throw new Error('this browser reads no picture in it');
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Error(`${width}×${height} pixels are too many for a page`);
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, width, height);
  pen.drawImage(bitmap, 0, 0);
  bitmap.close();
  return pen.getImageData(0, 0, width, height);
}
