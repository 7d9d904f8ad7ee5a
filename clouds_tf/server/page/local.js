/** Runs the model in the browser with ONNX Runtime Web: pictures do not leave the machine. */

import { encodeMask } from "./masks.js";

const OUTPUTS = ["masks", "presence", "area_fraction", "expected_area_fraction", "likeness"];
const REDUCTIONS = [8, 4, 2];
const MISPLACEMENT = 0.05; // as in clouds_tf.data.preprocessing
const DEEP = 16; // bits per value of a PNG, which are in its byte 24

let loading; // of the model, once

/**
 * Gives the same answer as the server.
 *
 * @param {Uint8Array} bytes a JPEG or PNG.
 * @param {(text: string) => void} report is called with a description of each stage.
 * @returns {Promise<{answer: object, metadata: object}>} an answer like that of `predict` in
 *   client.js, and the metadata of the ONNX file.
 */
export async function predictLocally(bytes, report) {
  if (!loading) report("Loading the model into this browser …");
  loading ??= load().catch((error) => {
    loading = undefined; // so that a later call tries again
    throw error;
  });
  const { ort, session, metadata } = await loading;
  const { image_sizes: [[height, width]], dataset: { channels = 3 } } = metadata;
  if (channels !== 3) throw new Error(`the model needs images of ${channels} channels, not RGB`);
  const pixels = await decode(bytes, metadata.max_image_pixels);
  report("Predicting in this browser …");
  const images = resize(pixels.data, [pixels.height, pixels.width], [height, width]);
  const feeds = { images: new ort.Tensor("uint8", images, [1, height, width, 3]) };
  const found = await session.run(feeds, OUTPUTS);
  const answer = Object.fromEntries(OUTPUTS.map((name) => [name, [...found[name].data]]));
  const likeness = answer.likeness[0];
  return {
    answer: {
      ...answer,
      likeness: Number.isNaN(likeness) ? null : likeness,
      encoded_pixels: encodeMasks(found.masks.data, metadata.dataset),
    },
    metadata,
  };
}

async function load() {
  const ort = await import("/page/ort/ort.wasm.bundle.min.mjs");
  ort.env.wasm.wasmPaths = "/page/ort/";
  ort.env.wasm.proxy = true; // in a worker, so that the page stays responsive
  const response = await fetch("/page/model.onnx");
  if (!response.ok) throw new Error(`no model for this browser: status ${response.status}`);
  const file = new Uint8Array(await response.arrayBuffer());
  const metadata = readProperty(file, "clouds_tf");
  return { ort, session: await ort.InferenceSession.create(file), metadata: JSON.parse(metadata) };
}

/** The value of an entry of `metadata_props`, field 14 of an ONNX file. */
export function readProperty(file, key) {
  const view = { bytes: file, at: 0 };
  while (view.at < file.length) {
    const [field, content] = readField(view);
    if (field !== 14) continue;
    const entry = { bytes: content, at: 0 };
    const parts = [readField(entry), readField(entry)].sort(([a], [b]) => a - b);
    const [name, value] = parts.map(([, text]) => new TextDecoder().decode(text));
    if (name === key) return value;
  }
  throw new Error(`model.onnx: has no metadata ${key}; write it with tools/export.py --onnx`);
}

/** One field of a protocol buffer: its number, and its bytes or its varint. */
function readField(view) {
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = view.bytes[view.at++];
      value += (byte % 128) * scale;
      if (!(byte >= 128)) return value;
    }
  };
  const tag = varint();
  const number = varint();
  if (tag % 8 === 0) return [tag >> 3, number];
  if (tag % 8 !== 2) throw new Error("model.onnx: is damaged");
  view.at += number;
  return [tag >> 3, view.bytes.subarray(view.at - number, view.at)];
}

const isPNG = (bytes) => bytes[0] === 0x89;

/** Removes EXIF, because browsers apply its rotation, but training and server do not. */
export function withoutEXIF(bytes) {
  const found = bytes.slice();
  const view = new DataView(found.buffer);
  if (isPNG(found)) {
    // Chunks: length of the data, type, data, checksum.
    for (let at = 8, size; at + 12 <= found.length; at += size) {
      size = 12 + view.getUint32(at);
      if (String.fromCharCode(...found.subarray(at + 4, at + 8)) !== "eXIf") continue;
      return found.copyWithin(at, at + size).subarray(0, -size);
    }
  }
  // Segments up to the first scan: a marker FF xx, length without it, data.
  for (let at = 2; found[at] === 0xff && found[at + 1] !== 0xda; at += 2 + view.getUint16(at + 2)) {
    if (at + 4 > found.length) break;
    if (found[at + 1] === 0xe1) found[at + 1] = 0xef; // APP15, which is ignored
  }
  return found;
}

/** RGBA pixels as they are stored, without colour management. */
async function decode(bytes, maxPixels) {
  if (!isPNG(bytes) && bytes[0] !== 0xff) {
    throw new Error("expected a JPEG or a PNG, got something else");
  }
  if (isPNG(bytes) && bytes[24] === DEEP) {
    throw new Error("got a PNG with 16 bits per value, which only the server can read");
  }
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(new Blob([withoutEXIF(bytes)]), options);
  const { width, height } = bitmap;
  if (width * height > maxPixels) {
    throw new Error(`expected an image of at most ${maxPixels} pixels, got ${height} ${width}`);
  }
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  if (isPNG(bytes) && pixels.data.some((value, i) => i % 4 === 3 && value < 255)) {
    throw new Error("got transparent pixels, which only the server can read");
  }
  return pixels;
}

/**
 * Resizes pixels like `resize_image` of clouds_tf.data.preprocessing: averages blocks, then shrinks
 * by area or enlarges bilinearly.
 *
 * @param {Uint8ClampedArray} rgba pixels of [height, width].
 * @returns {Uint8Array} RGB of the new size.
 */
export function resize(rgba, sourceSize, size) {
  const reduction = REDUCTIONS.find((r) => sourceSize.every((side, i) => {
    const reduced = Math.ceil(side / r);
    const surplus = (reduced * r - side) * size[i];
    return reduced >= size[i] && surplus <= MISPLACEMENT * side;
  })) ?? 1;
  const rgb = new Float32Array((rgba.length / 4) * 3);
  for (let i = 0; i < rgb.length; i++) rgb[i] = rgba[i + Math.floor(i / 3)];
  let image = { values: rgb, size: sourceSize };
  image = sum(image, (side) => blocks(side, reduction));
  image = sum(image, (side, axis) => areas(side, Math.min(side, size[axis])));
  image = sum(image, (side, axis) => neighbours(side, size[axis]));
  return Uint8Array.from(image.values, roundHalfToEven);
}

// For each new pixel, [index, weight] of the pixels whose weighted sum it is.
const mirror = (k, side) => (k < side ? k : 2 * side - 1 - k);
const list = (length, make) => Array.from({ length }, (_, i) => make(i));

const blocks = (side, r) =>
  list(Math.ceil(side / r), (i) => list(r, (k) => [mirror(i * r + k, side), 1 / r]));

const areas = (side, to) =>
  list(to, (i) => {
    const [start, end] = [(i * side) / to, ((i + 1) * side) / to];
    const first = Math.floor(start);
    return list(Math.ceil(end) - first, (k) => {
      const share = Math.min(first + k + 1, end) - Math.max(first + k, start);
      return [Math.min(first + k, side - 1), (share * to) / side];
    });
  });

const neighbours = (side, to) =>
  list(to, (i) => {
    const place = ((i + 0.5) * side) / to - 0.5;
    const [low, far] = [Math.floor(place), place - Math.floor(place)];
    return [[Math.max(low, 0), 1 - far], [Math.min(low + 1, side - 1), far]];
  });

/** Weighted sums along both axes; `taps(side, axis)` gives the pixels and weights. */
function sum({ values, size: [height, width] }, taps) {
  const [down, across] = [taps(height, 0), taps(width, 1)];
  const rows = new Float32Array(down.length * width * 3);
  down.forEach((parts, y) => {
    for (const [row, weight] of parts) {
      for (let i = 0; i < width * 3; i++) {
        rows[y * width * 3 + i] += weight * values[row * width * 3 + i];
      }
    }
  });
  const found = new Float32Array(down.length * across.length * 3);
  for (let y = 0, i = 0; y < down.length; y++) {
    for (const parts of across) {
      for (let channel = 0; channel < 3; channel++, i++) {
        for (const [column, weight] of parts) {
          found[i] += weight * rows[(y * width + column) * 3 + channel];
        }
      }
    }
  }
  return { values: found, size: [down.length, across.length] };
}

function roundHalfToEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

/** RLE of masks [height, width, classes], one after another. */
function encodeMasks(masks, dataset) {
  const count = dataset.class_names.length;
  return dataset.class_names.map((_, i) =>
    encodeMask(masks.filter((_, k) => k % count === i), dataset));
}
