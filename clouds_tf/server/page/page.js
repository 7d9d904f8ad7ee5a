/** The page: from a picture to its masks, and to files. */

import { decodeMask, predict } from "./client.js";
import { predictLocally, withoutEXIF } from "./local.js";
import {
  namedExtent, outlines, parseExtent, placeForName, resizeMask, submission, toGeoJSON,
} from "./masks.js";

const UNLIKE = 0.01; // as in clouds_tf.prediction.likeness
const SQUEEZE = 0.02; // as in clouds_tf.serving.answers
const $ = (id) => document.getElementById(id);
const hidden = new Set(); // names of classes whose outlines are not shown

let settings; // of the server: model, version, metadata, colors, ...
let picture = null; // name, note, bytes, url, size; then answer, metadata, model and masks
let running = new AbortController();

function element(tag, properties = {}, ...children) {
  const space = tag === "path" ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const found = document.createElementNS(space, tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) found[key] = value;
    else if (key.startsWith("--")) found.style.setProperty(key, value);
    else if (value !== false) found.setAttribute(key, value === true ? "" : value);
  }
  found.append(...children);
  return found;
}

const colorOf = (i) => settings.colors[i % settings.colors.length];
const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}%`;

function say(text, error = "") {
  $("status").textContent = text;
  $("status").hidden = !text;
  $("error").textContent = error;
  $("error").hidden = !error;
  if (error) $("error").scrollIntoView({ block: "nearest" });
}

async function readSettings() {
  const response = await fetch("/page/settings.json");
  if (!response.ok) throw new Error(`The server is not ready: status ${response.status}`);
  settings = await response.json();
  $("model").textContent = `${settings.model}, version ${settings.version}`;
}

function clear() {
  running.abort();
  running = new AbortController();
  $("answer").hidden = $("warning").hidden = true;
  $("outlines").replaceChildren();
  $("tags").replaceChildren();
  document.body.classList.add("busy");
}

/** Shows a picture (a Blob or a promise of one) and requests its masks. */
async function open(source, name, note = "") {
  clear();
  say(`Reading ${name} …`);
  if (picture?.url) URL.revokeObjectURL(picture.url);
  const opened = (picture = { name, note });
  const focused = $("drop").contains(document.activeElement);
  const image = $("image");
  try {
    opened.bytes = new Uint8Array(await (await source).arrayBuffer());
    if (picture !== opened) return;
    image.src = opened.url = URL.createObjectURL(new Blob([withoutEXIF(opened.bytes)]));
    const shown = await image.decode().then(() => true, () => false);
    if (picture !== opened) return;
    if (shown) opened.size = [image.naturalHeight, image.naturalWidth];
  } catch (error) {
    if (picture === opened) fail(error);
    return;
  } finally {
    if (picture === opened) {
      $("view").hidden = !opened.size;
      $("drop").hidden = Boolean(opened.size);
    }
  }
  image.alt = $("name").textContent = name;
  $("extent").value = namedExtent(name);
  noteOfExtent();
  if (opened.size) $("layers").style.setProperty("--ratio", opened.size[1] / opened.size[0]);
  if (opened.size && focused) $("another").focus();
  await ask();
}

function fail(error) {
  say("", `${picture.name}: ${error.message}`);
  document.body.classList.remove("busy");
}

/** Requests the masks of the picture; a later call cancels an earlier one. */
async function ask() {
  clear();
  const { signal } = running;
  const here = $("in-browser").checked;
  say(here ? "Predicting in this browser …" : "Predicting on the server …");
  const start = performance.now();
  try {
    const found = await (here ? predictHere : predictThere)(picture.bytes, signal);
    if (signal.aborted) return;
    if (!picture.size) throw new Error("this browser cannot show the picture");
    const { dataset } = found.metadata;
    const masks = found.answer.encoded_pixels.map((rle) => decodeMask(rle, dataset));
    Object.assign(picture, found, { masks });
    draw(picture);
    const seconds = ((performance.now() - start) / 1000).toFixed(2);
    say(`Answered in ${seconds} s${here ? ", in this browser" : ""}. ${picture.note}`);
    document.body.classList.remove("busy");
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

/** Asks the version that `settings` describes or, if it is gone, its successor. */
async function predictThere(bytes, signal) {
  const most = ((settings.max_bytes ?? Infinity) * 3) / 4; // Base64 turns three bytes into four
  if (bytes.length > most) {
    const [got, limit] = [bytes.length, most].map((size) => `${(size / 1e6).toFixed(1)} MB`);
    throw new Error(`got ${got}, the server accepts at most ${limit}`);
  }
  const predictVersion = async ({ model, version, metadata }) => {
    const url = `${location.origin}/v1/models/${model}/versions/${version}`;
    const answer = await predict(url, bytes, signal);
    return { answer, metadata, model: `${model}, version ${version}` };
  };
  try {
    return await predictVersion(settings);
  } catch (error) {
    if (error.status !== 404) throw error;
    await readSettings();
    return predictVersion(settings);
  }
}

async function predictHere(bytes, signal) {
  const found = await predictLocally(bytes, (text) => signal.aborted || say(text));
  return { ...found, model: `${settings.model}, in the browser` };
}

function draw({ answer: found, masks, metadata: { dataset } }) {
  const [height, width] = dataset.submission_size;
  $("outlines").setAttribute("viewBox", `0 0 ${width} ${height}`);
  const [fills, lines, tags] = [[], [], []];
  masks.forEach((mask, i) => {
    const [name, color] = [dataset.class_names[i], colorOf(i)];
    const rings = outlines(mask, height, width).flat();
    const d = rings.map((ring) => `M${ring.map((corner) => corner.join(" ")).join("L")}Z`).join("");
    fills.push(element("path", { d, class: "fill", fill: color, "data-class": name }));
    lines.push(element("path", { d, class: "halo", "data-class": name }));
    lines.push(element("path", { d, class: "line", stroke: color, "data-class": name }));
    if (!d) return;
    const [x, y] = placeForName(mask, masks, width);
    const place = { "--x": x / width, "--y": y / height, "--color": color };
    tags.push(element("span", { class: "tag", "data-class": name, ...place }, name));
  });
  $("outlines").replaceChildren(...fills, ...lines);
  $("tags").replaceChildren(...tags);
  const rows = dataset.class_names.map((name, i) => {
    const present = masks[i].includes(1);
    const area = found.area_fraction[i];
    const toggle = element("input", {
      type: "checkbox",
      checked: !hidden.has(name),
      onchange: (event) => {
        if (event.target.checked) hidden.delete(name);
        else hidden.add(name);
        showClasses();
      },
    });
    return element("tr", { class: present ? "present" : "absent", "--color": colorOf(i) },
      element("th", { scope: "row" }, element("label", {}, toggle, name)),
      bar(found.presence[i].toFixed(2), found.presence[i]),
      bar(present ? percent(area) : "absent", area, found.expected_area_fraction[i]),
      element("td", {}, element("button", {
        "aria-label": `Mask of ${name} as PNG`,
        onclick: () => savePNG(i),
      }, "PNG")));
  });
  $("classes").replaceChildren(...rows);
  showClasses();
  showLikeness(picture);
  $("answer").hidden = false;
}

function bar(text, value, tick) {
  const parts = [element("i", { "--value": value })];
  if (tick !== undefined) parts.push(element("b", { "--tick": tick }));
  return element("td", {}, text, element("div", { class: "bar", "aria-hidden": "true" }, ...parts));
}

function showClasses() {
  const names = picture.metadata.dataset.class_names;
  for (const part of [...$("outlines").children, ...$("tags").children]) {
    part.toggleAttribute("hidden", hidden.has(part.dataset.class));
  }
  const shown = names.flatMap((name, i) =>
    hidden.has(name) || !picture.masks[i].includes(1)
      ? []
      : [`${name} on ${percent(picture.answer.area_fraction[i])} of the picture`]);
  const label = shown.length ? `Outlines of ${shown.join(", ")}` : "No outlines";
  $("outlines").setAttribute("aria-label", label);
}

function showLikeness({ answer: { likeness }, metadata: { dataset }, size }) {
  const known = typeof likeness === "number";
  const [height, width] = dataset.mask_size;
  const stretch = (size[1] / size[0]) * (height / width);
  const warnings = [];
  if (Math.max(stretch, 1 / stretch) > 1 + SQUEEZE) {
    warnings.push(
      `This image of ${size[1]} × ${size[0]} pixels was squeezed to the shape of ${width} × ` +
        `${height}, which distorts it.`);
  }
  if (known && likeness < UNLIKE) {
    warnings.push(
      "This image does not look like the training images, so the prediction may be meaningless " +
        `(likeness ${likeness.toFixed(3)}, expected ${UNLIKE} or more).`);
  }
  $("warning").hidden = !warnings.length;
  $("warning").textContent = warnings.join(" ");
  $("likeness").hidden = known && likeness < UNLIKE;
  $("likeness").textContent = known
    ? `Likeness ${likeness.toFixed(2)}: ${percent(likeness)} of the training images are less ` +
      "typical than this picture."
    : "Likeness unknown: this model was exported without statistics of its training images.";
}

function save(content, type, name) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Saves a mask in black and white at the size of the picture, like predict.py --masks_dir. */
function savePNG(i) {
  const { name, size, masks, metadata: { dataset } } = picture;
  const mask = resizeMask(masks[i], dataset.submission_size, size);
  const canvas = element("canvas", { width: size[1], height: size[0] });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(size[1], size[0]);
  const colors = new Uint32Array(pixels.data.buffer); // one number per pixel
  mask.forEach((value, k) => (colors[k] = value ? 0xffffffff : 0xff000000));
  context.putImageData(pixels, 0, 0);
  const filename = `${name}_${dataset.class_names[i]}.png`;
  canvas.toBlob((blob) => save(blob, "image/png", filename));
}

function saveRLE() {
  try {
    const { name, answer: found, metadata } = picture;
    const text = submission(name, found.encoded_pixels, metadata.dataset);
    save(text, "text/csv", `${name}.csv`);
  } catch (error) {
    say("", error.message);
  }
}

function saveGeoJSON(event) {
  event.preventDefault();
  const { name, answer: found, masks, model, metadata: { dataset } } = picture;
  const { likeness } = found;
  const numbers = ["presence", "area_fraction", "expected_area_fraction"];
  try {
    const extent = parseExtent($("extent").value);
    const properties = dataset.class_names.map((className, i) => {
      const ofClass = Object.fromEntries(numbers.map((key) => [key, found[key][i]]));
      return { image: name, class: className, model, ...ofClass, likeness };
    });
    const content = toGeoJSON(masks, properties, dataset.submission_size, extent);
    save(JSON.stringify(content) + "\n", "application/geo+json", `${name}.geojson`);
    noteOfExtent();
  } catch (error) {
    noteOfExtent(error.message);
    $("extent").focus();
  }
}

function noteOfExtent(error = "") {
  const named = picture && $("extent").value && $("extent").value === namedExtent(picture.name);
  $("extent").setAttribute("aria-invalid", Boolean(error));
  $("extent-note").classList.toggle("invalid", Boolean(error));
  $("extent-note").textContent = error || (named
    ? "Read from the file name."
    : "Of the whole picture, in degrees; read from names that end in _west-east_south-north, " +
      "such as NAME_-61--40_10-24.jpg.");
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // not percent-encoded
  }
}

function openBeside(link) {
  const path = link.trim().replace(`${location.origin}/`, "/");
  const name = path.startsWith("/images/") ? decode(path.slice(8)) : path;
  const download = async () => {
    const response = await fetch(`/images/${name.split("/").map(encodeURIComponent).join("/")}`);
    if (!response.ok) throw new Error("no such image on the server");
    return response.blob();
  };
  history.replaceState(null, "", `?image=${encodeURIComponent(name)}`);
  open(download(), name.split("/").pop());
}

function openFiles(files) {
  const [file, ...others] = files;
  if (!file) return;
  history.replaceState(null, "", location.pathname);
  open(file, file.name, others.length ? `Only the first of ${files.length} files was read.` : "");
}

function listen() {
  for (const id of ["choose", "another"]) $(id).onclick = () => $("file").click();
  $("file").onchange = () => {
    openFiles([...$("file").files]);
    $("file").value = ""; // the same file may be chosen again
  };
  $("opacity").oninput = () =>
    $("outlines").style.setProperty("--opacity", $("opacity").value / 100);
  $("in-browser").onchange = () => picture?.bytes && ask();
  $("rle").onclick = saveRLE;
  $("map").onsubmit = saveGeoJSON;
  $("extent").oninput = () => noteOfExtent();
  $("beside").onsubmit = (event) => {
    event.preventDefault();
    openBeside($("link").value);
  };
  const over = (is) => (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("over", is);
  };
  document.ondragover = over(true);
  document.ondragleave = over(false);
  document.ondrop = (event) => {
    over(false)(event);
    openFiles([...event.dataTransfer.files]);
  };
  document.onpaste = (event) => openFiles([...event.clipboardData.files]);
}

async function start() {
  await readSettings();
  listen();
  const { class_names: names, degrees } = settings.metadata.dataset;
  const list = new Intl.ListFormat("en").format(names);
  say(`Masks of ${list} will appear here.`);
  if (degrees) $("span").textContent = `, about ${degrees[1]} × ${degrees[0]} degrees wide and high`;
  $("here").hidden = !settings.in_browser;
  if (settings.images) {
    const images = await (await fetch("/images/")).json();
    $("names").replaceChildren(...images.map((name) => element("option", { value: name })));
    $("beside").hidden = false;
  }
  const link = new URLSearchParams(location.search).get("image");
  if (link) openBeside(link);
}

start().catch((error) => say("", error.message));
