/**
 * Client of a running server, over the REST API of TensorFlow Serving: an ES module for browsers
 * and Node.js 20.19 or newer, without dependencies.
 *
 *     import { decodeMask, predict, readMetadata } from "./client.js";
 *
 *     const url = "http://localhost:8501/v1/models/clouds";
 *     const { dataset } = await readMetadata(url);
 *     const answer = await predict(url, await file.arrayBuffer());
 *     const mask = decodeMask(answer.encoded_pixels[0], dataset); // of dataset.class_names[0]
 */

/** Metadata of the model: data set (`dataset`), rules, calibration and sizes. */
export async function readMetadata(url, signal) {
  const found = await post(url, { signature_name: "metadata", ...instance("") }, signal);
  return JSON.parse(found.metadata ?? found);
}

/**
 * Masks and numbers of one image.
 *
 * @param {string} url of the model, such as http://localhost:8501/v1/models/clouds.
 * @param {ArrayBuffer|Uint8Array} bytes a JPEG or PNG.
 * @param {AbortSignal} [signal] cancels the request.
 * @returns {Promise<object>} arrays with a value for each class: `encoded_pixels` (RLE), `presence`,
 *   `area_fraction`, `expected_area_fraction`; and the number `likeness`, null if unknown.
 * @throws {Error} if the server refuses: its error message, and its `status`.
 */
export function predict(url, bytes, signal) {
  return post(url, instance(base64(new Uint8Array(bytes))), signal);
}

/**
 * Decodes the run-length encoding of a mask, with pixels numbered from 1.
 *
 * @param {string} text "start length start length ..."; "" if the class is absent.
 * @param {object} dataset from the metadata, for `submission_size` and `rle_order`.
 * @returns {Uint8Array} height x width values of 0 and 1, row by row.
 */
export function decodeMask(text, { submission_size: [height, width], rle_order: order }) {
  const mask = new Uint8Array(height * width);
  const numbers = text.split(" ").filter(Boolean).map(Number);
  for (let i = 0; i < numbers.length; i += 2) {
    const [start, length] = [numbers[i] - 1, numbers[i + 1]];
    if (!(start >= 0 && length > 0 && start + length <= mask.length)) {
      throw new Error(`RLE: got the run ${numbers[i]} ${length} in ${mask.length} pixels`);
    }
    for (let k = start; k < start + length; k++) {
      mask[order === "rows" ? k : (k % height) * width + Math.floor(k / height)] = 1;
    }
  }
  return mask;
}

const instance = (b64) => ({ instances: [{ image_bytes: { b64 } }] });

function base64(bytes) {
  const parts = [];
  for (let i = 0; i < bytes.length; i += 8192) {
    parts.push(String.fromCharCode(...bytes.subarray(i, i + 8192)));
  }
  return btoa(parts.join(""));
}

async function post(url, body, signal) {
  const request = { method: "POST", body: JSON.stringify(body), signal };
  request.headers = { "Content-Type": "application/json" };
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch(`${url}:predict`, request);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Error(`No response from ${new URL(url).host}: is the server running?`);
    }
    const pause = Number(response.headers.get("Retry-After"));
    if (response.status === 503 && pause && attempt < 5) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * pause));
      continue;
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer.predictions[0];
    const reason = answer.error ?? `The server refused the image: status ${response.status}`;
    throw Object.assign(new Error(reason), { status: response.status });
  }
}
