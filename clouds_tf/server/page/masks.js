/** Masks as outlines, GeoJSON, PNG and rows of a submission. No function here needs a browser. */

const RADIUS = 6371.0072; // km, of the sphere with the area of the WGS 84 ellipsoid
const NUMBER = "(-?\\d+(?:\\.\\d+)?)";
const NAMED_EXTENT = new RegExp(`_${NUMBER}-${NUMBER}_${NUMBER}-${NUMBER}$`);

/**
 * Reads "lon_min,lat_min,lon_max,lat_max" in degrees. If lon_max is not east of lon_min, the extent
 * crosses 180 degrees.
 *
 * @returns {number[]} [west, south, east, north], west from -180 to below 180, east above west.
 * @throws {Error} for anything else.
 */
export function parseExtent(text) {
  const parts = text.split(",");
  let [west, south, east, north] = parts.map((part) => (part.trim() ? Number(part) : NaN));
  if (parts.length !== 4 || ![west, south, east, north].every(Number.isFinite)) {
    throw new Error(
      `extent: got "${text}", expected lon_min,lat_min,lon_max,lat_max in degrees, such as ` +
        "-61,10,-40,24",
    );
  }
  if (!(-90 <= south && south < north && north <= 90)) {
    throw new Error(`extent: got latitudes ${south} to ${north}, expected south before north`);
  }
  if (west < -360 || west > 360 || east < -360 || east > 540) {
    throw new Error(`extent: got longitudes ${west} to ${east}, expected degrees`);
  }
  if (east <= west) east += 360;
  if (east - west > 360) {
    throw new Error(`extent: spans ${east - west} degrees of longitude, more than 360`);
  }
  const shift = 360 * Math.floor((west + 180) / 360);
  return [west - shift, south, east - shift, north];
}

/** The extent at the end of a file name, NAME_west-east_south-north.jpg, as text; "" if none. */
export function namedExtent(filename) {
  const found = filename.replace(/\.[^.]*$/, "").match(NAMED_EXTENT);
  if (!found) return "";
  const [west, east, south, north] = found.slice(1).map(Number);
  return [west, south, east, north].join(",");
}

/** Numbers the parts of a mask that are connected by sides, from 1; 0 outside. */
function label(mask, height, width) {
  const labels = new Int32Array(height * width);
  let count = 0;
  for (let first = 0; first < mask.length; first++) {
    if (!mask[first] || labels[first]) continue;
    labels[first] = ++count;
    for (const stack = [first]; stack.length; ) {
      const i = stack.pop();
      const x = i % width;
      for (const k of [i - width, i + width, x > 0 ? i - 1 : -1, x < width - 1 ? i + 1 : -1]) {
        if (mask[k] && !labels[k]) {
          labels[k] = count;
          stack.push(k);
        }
      }
    }
  }
  return labels;
}

/**
 * Outlines of a mask along the sides of its pixels.
 *
 * @param {Uint8Array} mask height x width values, row by row.
 * @returns {number[][][][]} polygons, each an outer ring and its holes; rings are closed lists of
 *   [column, row]. Parts that touch at a corner only are polygons of their own, so all are valid.
 */
export function outlines(mask, height, width) {
  const labels = label(mask, height, width);
  const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
  const steps = [[1, 0], [0, 1], [-1, 0], [0, -1]];
  // Whether a side leads from a corner in one of the directions, with the mask on its right.
  const sides = [
    (x, y) => at(x, y) && at(x, y) !== at(x, y - 1),
    (x, y) => at(x - 1, y) && at(x - 1, y) !== at(x, y),
    (x, y) => at(x - 1, y - 1) && at(x - 1, y - 1) !== at(x - 1, y),
    (x, y) => at(x, y - 1) && at(x, y - 1) !== at(x - 1, y - 1),
  ];
  const seen = new Uint8Array(height * width); // of sides that lead east
  const polygons = [];
  for (let start = 0; start < labels.length; start++) {
    const part = labels[start];
    const [left, top] = [start % width, Math.floor(start / width)];
    if (seen[start] || !sides[0](left, top)) continue;
    const ring = [];
    let [x, y, direction] = [left, top, 0];
    do {
      if (direction === 0) seen[y * width + x] = 1;
      x += steps[direction][0];
      y += steps[direction][1];
      // Where two pixels of one part touch at a corner, turn to the other one: a ring that comes
      // back to the corner would touch itself, which is not valid.
      const ahead = [3, 0, 1].map((turn) => (direction + turn) % 4);
      const next = ahead.find((d) => sides[d](x, y) && partOf(d, x, y) === part);
      if (next !== direction) ring.push([x, y]);
      direction = next;
    } while (x !== left || y !== top || direction !== 0);
    ring.push(ring[0]);
    (polygons[part - 1] ??= []).push(ring); // the outer ring has the first row
  }
  return polygons;

  function partOf(direction, x, y) {
    const [dx, dy] = [[0, 0], [-1, 0], [-1, -1], [0, -1]][direction];
    return at(x + dx, y + dy);
  }
}

/** [column, row] of the middle of a mask's longest run of pixels, if possible in no other mask. */
export function placeForName(mask, masks, width) {
  const alone = mask.map((value, i) => value && masks.every((other) => other === mask || !other[i]));
  const pixels = alone.includes(1) ? alone : mask;
  let [best, length] = [0, 0];
  for (let i = 0, run = 0; i < pixels.length; i++) {
    run = pixels[i] ? (i % width ? run : 0) + 1 : 0;
    if (run > length) [best, length] = [i, run];
  }
  return [(best % width) + 1 - length / 2, Math.floor(best / width) + 0.5];
}

/**
 * Masks of an answer as GeoJSON (RFC 7946): a feature for each class that is present.
 *
 * @param {Uint8Array[]} masks of the classes.
 * @param {object[]} properties of the classes; area_km2 is added.
 * @param {number[]} size [height, width] of the masks.
 * @param {number[]} extent of the whole image, from `parseExtent`.
 */
export function toGeoJSON(masks, properties, size, extent) {
  const features = masks.flatMap((mask, i) => {
    if (!mask.includes(1)) return [];
    const coordinates = polygonsOnEarth(mask, size, extent);
    const geometry = { type: "MultiPolygon", coordinates };
    const area_km2 = Math.round(1000 * areaOf(mask, size, extent)) / 1000;
    return [{ type: "Feature", geometry, properties: { ...properties[i], area_km2 } }];
  });
  return { type: "FeatureCollection", features };
}

/** Polygons in degrees, cut at 180 degrees; outer rings are counter-clockwise. */
function polygonsOnEarth(mask, [height, width], [west, south, east, north]) {
  const [cellX, cellY] = [(east - west) / width, (north - south) / height];
  const round = (degrees) => Math.round(degrees * 1e10) / 1e10;
  const isGlobal = east - west > 360 - 1e-9;
  return (isGlobal ? [0] : [0, 360]).flatMap((turn) => {
    // Columns from -180 to 180 degrees, including those across the border.
    let first = Math.floor((turn - 180 - west) / cellX + 1e-6);
    let last = Math.ceil((turn + 180 - west) / cellX - 1e-6);
    if (!isGlobal) [first, last] = [Math.max(first, 0), Math.min(last, width)];
    if (last <= first) return [];
    const columns = Array.from({ length: last - first }, (_, i) => (first + i + width) % width);
    const part = new Uint8Array(height * columns.length);
    for (let i = 0; i < part.length; i++) {
      const row = Math.floor(i / columns.length);
      part[i] = mask[row * width + columns[i % columns.length]];
    }
    const place = ([x, y]) => [
      round(Math.min(180, Math.max(-180, west + (first + x) * cellX - turn))),
      round(north - y * cellY),
    ];
    // Rings of `outlines` are clockwise on a map.
    const rings = (polygon) => polygon.map((ring) => ring.map(place).reverse());
    return outlines(part, height, columns.length).map(rings);
  });
}

/** Area of a mask on the sphere, km2. */
function areaOf(mask, [height, width], [west, south, east, north]) {
  const radians = Math.PI / 180;
  const sine = (row) => Math.sin(radians * (north - (row * (north - south)) / height));
  const perSine = (RADIUS * RADIUS * radians * (east - west)) / width;
  let area = 0;
  for (let row = 0; row < height; row++) {
    const count = mask.subarray(row * width, (row + 1) * width).reduce((a, b) => a + b, 0);
    area += count * perSine * (sine(row) - sine(row + 1));
  }
  return area;
}

/** Encodes a mask, row by row, as `decodeMask` of client.js reads it. */
export function encodeMask(mask, { submission_size: [height, width], rle_order: order }) {
  const runs = [];
  let before = 0;
  for (let k = 0; k < mask.length; k++) {
    const value = mask[order === "rows" ? k : (k % height) * width + Math.floor(k / height)];
    if (value && !before) runs.push(k + 1, 0);
    if (value) runs[runs.length - 1]++;
    before = value;
  }
  return runs.join(" ");
}

/** Resizes a mask to another [height, width]: the nearest pixel at the centre of each. */
export function resizeMask(mask, [height, width], [newHeight, newWidth]) {
  const found = new Uint8Array(newHeight * newWidth);
  for (let y = 0, i = 0; y < newHeight; y++) {
    const row = Math.floor(((2 * y + 1) * height) / (2 * newHeight)) * width;
    for (let x = 0; x < newWidth; x++, i++) {
      found[i] = mask[row + Math.floor(((2 * x + 1) * width) / (2 * newWidth))];
    }
  }
  return found;
}

/**
 * Rows of a submission as CSV in the format of the data set, like those of tools/request.py.
 *
 * @throws {Error} if the data set requires a row for each object of a mask.
 */
export function submission(filename, encodedPixels, dataset) {
  if (dataset.repeated_rows === "objects") {
    throw new Error("This data set needs a row for each object; use tools/request.py");
  }
  const ending = dataset.image_ending ?? "";
  const name = ending && filename.endsWith(ending) ? filename.slice(0, -ending.length) : filename;
  const rows = dataset.class_names.map((className, i) => [
    ...(dataset.names_class === false
      ? [name]
      : dataset.label_columns.length === 1
        ? [`${name}_${className}`]
        : [name, className]),
    spell(encodedPixels[i], dataset),
  ]);
  const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const table = [[...dataset.label_columns, dataset.rle_column], ...rows];
  return table.map((row) => row.map(cell).join(",") + "\n").join("");
}

function spell(text, { absent = "", rle_start: first = 1, rle_runs: runs = "absolute" }) {
  if (!text) return absent;
  const numbers = text.split(" ").map(Number);
  let end = 0;
  for (let i = 0; i < numbers.length; i += 2) {
    numbers[i] += first - 1 - (runs === "relative" ? end : 0);
    if (runs === "relative") end += numbers[i] + numbers[i + 1];
  }
  return numbers.join(" ");
}
