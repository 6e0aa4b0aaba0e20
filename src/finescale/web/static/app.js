// The page: a list of pictures, what is wanted of them, and the one that is looked at.

import * as api from "./api.js";
import { Comparison } from "./compare.js";

const $ = (id) => document.getElementById(id);
const comparison = new Comparison($("stage"));
const items = [];
let current = null;
let limits = null;
let known = []; // networks that have weights here
let readable = null; // extension -> format, of what can be read here

const SHOWN_BY_BROWSERS = ["png", "jpeg", "webp", "avif"];
const LARGEST_SHOWN = 64e6; // pixels of a result that is shown as it is; above, a smaller preview
const PREVIEW_SIDE = 4096; // pixels of the longer side of a preview, as the server makes them
const MOST = 2000; // results in one archive: their names stand in its address
const QUALITY = { jpeg: 95, webp: 90, avif: 90 }; // of the types that have one, where nothing else is asked for
const OWN = "own";
const AUTO = "auto";
const AUTO_HINT = "Photographs, JPEGs, noisy pictures and drawings each by the network made for them.";
const touch = matchMedia("(hover: none) and (pointer: coarse)").matches; // nothing can be dropped there
document.body.classList.toggle("touch", touch);

// ---- words ----

const number = new Intl.NumberFormat("en");
const list = new Intl.ListFormat("en-GB");
const size = (width, height) => `${width} × ${height}`;

function bytes(count) {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (count >= 1024 && unit < 3) {
    count /= 1024;
    unit += 1;
  }
  return `${number.format(unit && count < 10 ? Math.round(count * 10) / 10 : Math.round(count))}\u00a0${units[unit]}`;
}

function duration(seconds) {
  if (seconds < 100) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${number.format(Math.round(seconds / 360) / 10)} h`;
}

function timeLeft(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 60) return "less than a minute left";
  if (minutes < 100) return `about ${minutes} ${minutes > 1 ? "minutes" : "minute"} left`;
  return `about ${number.format(Math.round(seconds / 1800) / 2)} hours left`;
}

// In print at 300 dots per inch.
function centimetres(pixels) {
  const length = (pixels / 300) * 2.54;
  return number.format(length < 10 ? Math.round(length * 10) / 10 : Math.round(length));
}

// Only where it differs: browsers draw, and screen readers may read, what is set anew.
function write(id, sentence) {
  if ($(id).textContent !== sentence) $(id).textContent = sentence;
  $(id).hidden = !sentence;
}

function say(sentence) {
  $("live").textContent = sentence;
}

function notice(sentence) {
  $("notice").textContent = sentence || "";
  $("notice").hidden = !sentence;
}

// ---- settings ----

function settings() {
  const scale = document.querySelector("input[name=scale]:checked")?.value;
  const own = scale === OWN;
  const [width, height] = ["width", "height"].map((side) => (own && $(side).valueAsNumber) || ""); // 1e3 is 1000
  return {
    network: $("network").value,
    scale: own ? "" : scale,
    width: height ? "" : width,
    height: width ? "" : height,
    fit: width && height ? `${width}x${height}` : "",
    format: $("format").value,
    quality: $("quality").value,
  };
}

// The type of a picture's result, as far as its name, or what the browser says of it, tells.
function typeOf(item, { format }) {
  if (format || !readable) return format;
  item.type ??= readable[extensionOf(item.file)] || item.file.type.replace("image/", "");
  return item.type === "heic" ? "jpeg" : item.type;
}

const extensionOf = ({ name }) => (name.toLowerCase().match(/\.\w+$/) || [""])[0];

// What is wanted of one picture: no quality where its type has none.
const wantedOf = (item, wanted) => (typeOf(item, wanted) in QUALITY ? wanted : { ...wanted, quality: "" });

// Width and height of a result, as the server will make it; null where no size is given.
function resultSize([width, height], { scale, width: across, height: down, fit }) {
  const [w, h] = fit ? fit.split("x") : [across, down];
  const ratios = [[scale, 1], [w, width], [h, height]].filter(([part]) => part);
  if (!ratios.length) return null;
  const [part, whole] = ratios.reduce((a, b) => (a[0] / a[1] < b[0] / b[1] ? a : b));
  return [width, height].map((side) => Math.max(1, Math.floor((side * part) / whole + 0.5)));
}

const sourceSize = ({ job, width, height }) => (job ? [job.source.width, job.source.height] : [width, height]);

const keyOf = (wanted) => JSON.stringify(wanted);
const isBusy = (item) => ["queued", "sending", "waiting", "running"].includes(item.state);
const isDone = (item) => item.state === "done" && items.includes(item);
const isSent = ({ state }) => state === "waiting" || state === "running";
const isUnsaved = ({ state, saved, old }) => (old ? !old.saved : state === "done" && !saved);
const isReduced = ({ width, height }) => Math.max(width, height) > PREVIEW_SIDE;

// The pictures that are not yet, and not being made, as the settings say.
function unmade() {
  const wanted = settings();
  const keys = {}; // by type
  const keyFor = (item) => (keys[typeOf(item, wanted)] ??= keyOf(wantedOf(item, wanted)));
  const isMade = (item) => item.key === keyFor(item) && (item.state === "done" || (item.gone && item.saved));
  return items.filter((item) => !isBusy(item) && !isMade(item));
}

function segment(value, label) {
  const node = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: "scale", value });
  const span = Object.assign(document.createElement("span"), { textContent: label });
  node.append(input, span);
  return node;
}

let trouble = ""; // why nothing can be enlarged

async function loadNetworks() {
  try {
    const [offer, health] = await Promise.all([api.networks(), api.health()]);
    known = offer.networks;
    limits = offer.limits;
    readable = offer.readable;
    $("files").accept = Object.keys(readable).join();
    $("about").textContent = `Finescale ${health.version}`;
    if (known.length) $("network").append(new Option("Automatic", AUTO));
    for (const network of known) $("network").append(new Option(network.title, network.name));
    for (const format of offer.formats) $("format").append(new Option(format.toUpperCase(), format));
    trouble = known.length ? "" : "There are no trained networks on this machine: “finescale doctor” shows where they go.";
    $("kept").textContent = `While this page is open, up to ${bytes(limits.kept_bytes)} of results are kept; the rest waits.`;
    const largest = Math.max(...(known[0]?.scales || [4]));
    // nobody chose while the networks were awaited
    document.querySelector(`input[name=scale][value="${largest}"]`).checked ||= !document.querySelector("input[name=scale]:checked");
  } catch (error) {
    trouble = error.message;
    setTimeout(loadNetworks, 3000);
  }
  networkChanged();
}

function networkChanged() {
  const { value } = $("network");
  const network = known.find(({ name }) => name === value);
  const name = network && network.title !== network.name ? ` (${network.name})` : "";
  const summary = network && `${network.summary[0].toUpperCase()}${network.summary.slice(1)}${name}.`;
  $("network-hint").textContent = value === AUTO ? AUTO_HINT : summary || trouble;
  settingsChanged();
}

function settingsChanged() {
  const own = document.querySelector("input[name=scale]:checked")?.value === OWN;
  $("own-size").hidden = !own;
  for (const side of ["width", "height"]) $(side).disabled = !own; // hidden, a wrong number would still stop the form
  qualityChanged();
  sizeChanged();
  const count = unmade().length;
  const ready = known.length > 0 && count > 0 && (!own || $("width").value || $("height").value);
  $("go").disabled = !ready;
  const idle = items.some(isBusy) ? "Enlarging …" : "Enlarge";
  $("go").textContent = count > 1 ? `Enlarge ${count} pictures` : count ? "Enlarge" : idle;
}

// The quality is there where a result may have one.
function qualityChanged() {
  const wanted = settings();
  const types = wanted.format ? [wanted.format] : items.map((item) => typeOf(item, wanted));
  const usual = new Set(types.map((type) => QUALITY[type]).filter(Boolean));
  for (const part of ["quality-field", "quality-hint"]) $(part).hidden = !usual.size;
  $("quality").disabled = !usual.size;
  const placeholder = usual.size === 1 ? String([...usual][0]) : "usual";
  if ($("quality").placeholder !== placeholder) $("quality").placeholder = placeholder;
}

// How large the picture that is shown becomes.
function sizeChanged() {
  const known = current && sourceSize(current);
  const result = known?.[0] && resultSize(known, settings());
  const print = result && `${result.map(centimetres).join(" × ")} cm in print (300 dpi)`;
  const which = items.length > 1 ? "The picture shown" : "The picture";
  write("size-hint", result ? `${which} becomes ${size(...result)} pixels, ${print}.` : "");
}

// ---- pictures ----

// By its name or its type, such as image/png; the server looks at the content.
function looksReadable(file) {
  return !readable || extensionOf(file) in readable || file.type.replace("image/", ".") in readable;
}

function leftOut(files, because) {
  if (!files.length) return "";
  const names = files.slice(0, 3).map(({ name }) => name);
  if (files.length > 3) names.push(`${files.length - 3} more`);
  return `${list.format(names)} ${files.length > 1 ? "were" : "was"} left out: ${because}.`;
}

function add(files) {
  const unreadable = [...files].filter((file) => !looksReadable(file));
  const large = [...files].filter((file) => limits && file.size > limits.upload_bytes && !unreadable.includes(file));
  const formats = [...new Set(Object.values(readable || {}))].map((format) => format.toUpperCase()).sort();
  notice(
    [
      leftOut(unreadable, `only pictures of the types ${list.format(formats)} can be read here`),
      leftOut(large, `this server takes files of up to ${limits && bytes(limits.upload_bytes)}`),
    ].join(" ").trim(),
  );
  $("notice").scrollIntoView({ block: "nearest" }); // on a phone it is below what was chosen from
  const added = [...files].filter((file) => ![...unreadable, ...large].includes(file)).map(addOne);
  if (!added.length) return;
  select(added[0]);
  say(added.length > 1 ? `${added.length} pictures are added.` : `${added[0].name} is added.`);
}

// The pictures among files and folders and in all below, sorted; what is hidden or no picture is left out without a word.
async function picturesIn(entries) {
  const seen = entries.filter((entry) => entry && !entry.name.startsWith(".")).sort((a, b) => (a.name < b.name ? -1 : 1));
  const found = seen.map(async (entry) => {
    if (entry.isFile) return new Promise((resolve) => entry.file(resolve, () => resolve([])));
    const [reader, inside] = [entry.createReader(), []];
    const more = () => new Promise((resolve) => reader.readEntries(resolve, () => resolve([])));
    for (let batch; (batch = await more()).length; ) inside.push(...batch); // a hundred at a time
    return picturesIn(inside);
  });
  return (await Promise.all(found)).flat().filter(looksReadable);
}

function addOne(file) {
  const node = $("item").content.firstElementChild.cloneNode(true);
  const part = (name) => node.querySelector(`.${name}`);
  const item = { file, node, part, state: "ready", url: URL.createObjectURL(file) };
  item.name = file.name.normalize("NFC").replace(/\s+/g, " ").trim() || "picture"; // as the server says it
  part("name").textContent = item.name;
  part("bar").setAttribute("aria-label", `Progress of ${item.name}`);
  part("download").setAttribute("aria-label", `Download ${item.name}, enlarged`);
  part("download").addEventListener("click", () => download(item));
  part("pick").addEventListener("click", () => {
    select(item);
    $("stage").scrollIntoView({ block: "nearest" }); // on a phone it is above the list
    if (item.gone) {
      item.saved = 0; // whoever wants to see it may not have it
      draw(item);
    }
    lookAfter(item);
  });
  part("remove").addEventListener("click", () => {
    if (isBusy(item)) cancel(item);
    else if (mayGo([item], `Remove ${item.name}`)) discard(item); // perhaps it was busy a moment ago
  });
  const thumb = part("thumb");
  thumb.addEventListener("load", () => {
    thumb.classList.remove("blank");
    if (thumb.src === item.url) [item.width, item.height] = [thumb.naturalWidth, thumb.naturalHeight];
    draw(item);
  });
  thumb.addEventListener("error", () => {
    item.unshown = true; // a format this browser does not know; the server makes a preview of it
    thumb.classList.add("blank");
    draw(item);
  });
  thumb.src = item.url;
  items.push(item);
  $("list").append(node);
  arranged();
  return item;
}

function select(item) {
  current = item;
  item.part("thumb").loading = "eager"; // though its row be out of sight: the stage wants to know its size
  for (const other of items) {
    other.node.classList.toggle("current", other === item);
    other.part("pick").setAttribute("aria-pressed", other === item);
  }
  draw(item);
}

// What belongs to the number of pictures.
function arranged() {
  if (run && !items.some(isBusy)) run = null; // what was done is no longer all that is there
  document.body.classList.toggle("has-pictures", items.length > 0);
  $("list-section").hidden = !items.length;
  const verb = touch ? "Choose" : "Drop";
  $("drop-title").textContent = `${verb} ${items.length ? "more pictures" : touch ? "pictures" : "pictures here"}`;
  if (!items.length) {
    current = null;
    $("stage").hidden = true;
  }
  settingsChanged();
  drawRun();
}

const withoutName = ({ name, job }, sentence) => sentence.replace(`${job?.name ?? name}: `, "");

function stateText(item) {
  const job = item.job;
  switch (item.state) {
    case "ready":
      if (item.gone) return item.saved ? "Saved, and no longer kept" : "The result is no longer kept";
      return item.width ? size(item.width, item.height) : "ready";
    case "queued":
      return item.held ? "Waiting until results are saved" : "Waiting to be sent";
    case "sending":
      return { room: "The queue is full, waiting", answer: "No answer, trying again" }[item.held] || "Sending";
    case "waiting":
      return job.position > 1 ? `${job.position} pictures before it` : "Next in line";
    case "running":
      if (job.seconds_left === null) return "Enlarging";
      if (job.progress === 1) return "Saving";
      return `${Math.round(job.progress * 100)} %, ${duration(job.seconds_left)} left`;
    case "done": {
      const made = `${size(job.result.width, job.result.height)} · ${duration(job.seconds)}`;
      if (item.refused) return `${made} · not made anew: ${withoutName(item, item.refused)}`;
      return `${made}${job.warnings.length ? " · see note" : ""}`;
    }
    default:
      return withoutName(item, item.error);
  }
}

function draw(item) {
  const { node, part, job } = item;
  node.classList.toggle("failed", item.state === "failed" || Boolean(item.refused));
  const busy = isBusy(item);
  part("state").textContent = stateText(item);
  // progress is the bar's to tell: screen readers speak a name with the focus anew whenever it changes
  part("pick").setAttribute("aria-label", busy ? item.name : `${item.name}, ${stateText(item)}`);
  const percent = item.state === "running" ? Math.round(job.progress * 100) : 0;
  part("bar").hidden = !busy;
  const measured = item.state === "running" && job.seconds_left !== null;
  const unsure = (item.state === "sending" && !item.held) || (item.state === "running" && !measured);
  if (unsure) part("bar").removeAttribute("aria-valuenow");
  else part("bar").setAttribute("aria-valuenow", percent);
  if (measured) part("bar").removeAttribute("aria-valuetext");
  else part("bar").setAttribute("aria-valuetext", stateText(item)); // why it stands still
  part("bar").classList.toggle("unsure", unsure);
  part("fill").style.transform = unsure ? "" : `scaleX(${percent / 100})`;
  part("remove").setAttribute("aria-label", `${busy ? "Cancel" : "Remove"} ${item.name}`);
  const done = item.state === "done";
  part("download").hidden = !done;
  if (done) linkTo(job, part("download"));
  $("download-all").hidden = items.filter((other) => other.state === "done").length < 2;
  settingsChanged();
  drawRun();
  if (item === current) drawStage(item);
}

// ---- how far all are ----

let run = null; // what was asked for together: its pictures, the first that was seen of the work, the time left

function begin() {
  if (!items.some(isBusy)) run = { items: new Set(), first: null, asked: 0, left: "" };
}

function countDone() {
  const all = [...run.items];
  const busy = all.filter(isBusy).length;
  const failed = all.filter(({ state, refused }) => state === "failed" || refused).length;
  if (!busy && !failed) return `All ${all.length} done`;
  return `${all.length - busy - failed} of ${all.length} done${failed ? `, ${failed} failed` : ""}`;
}

// From the pixels of the results that are made, and are to be made; asked for anew every few seconds, not to flicker.
function runLeft() {
  const all = [...run.items];
  if (Date.now() - run.asked < 5000) return run.left;
  const pixels = all.map((item) => {
    if (item.job) return item.job.result.width * item.job.result.height;
    const result = item.width && item.wanted && resultSize([item.width, item.height], item.wanted);
    return result ? result[0] * result[1] : null;
  });
  const known = pixels.filter(Boolean);
  const mean = known.reduce((a, b) => a + b, 0) / known.length; // for those whose size is not known yet
  const share = (item) => (isBusy(item) ? (item.state === "running" ? item.job.progress : 0) : 1);
  let [done, rest] = [0, 0];
  all.forEach((item, index) => {
    done += share(item) * (pixels[index] ?? mean);
    rest += (1 - share(item)) * (pixels[index] ?? mean);
  });
  if (done > 0) run.first ??= { done, time: Date.now() }; // before it, a network was loaded
  const [seconds, since] = run.first ? [(Date.now() - run.first.time) / 1000, done - run.first.done] : [0, 0];
  const sure = since > 0 && seconds > 2 && !all.some(({ held, state }) => held && state === "queued");
  const left = sure ? timeLeft((seconds * rest) / since) : "";
  run.asked = Date.now() - (sure ? 0 : 4500);
  return (run.left = left);
}

function drawRun() {
  const several = run?.items.size > 1;
  const left = several && items.some(isBusy) ? runLeft() : "";
  const sentence = several ? [countDone(), left].filter(Boolean).join(", ") : "";
  write("overall", sentence);
  const title = sentence ? `${sentence} – Finescale` : "Finescale";
  if (document.title !== title) document.title = title;
}

function linkTo(job, link) {
  link.href = api.resultUrl(job.id);
  link.download = job.result.name;
}

function drawStage(item) {
  const { job } = item;
  const done = item.state === "done";
  const [width, height] = done ? [job.result.width, job.result.height] : [item.width, item.height];
  $("stage").hidden = false;
  $("download-current").hidden = !done;
  if (done) linkTo(job, $("download-current"));
  const asItIs = done && SHOWN_BY_BROWSERS.includes(job.result.format) && width * height <= LARGEST_SHOWN;
  warn(done ? [...job.warnings, ...reductions(item, asItIs)] : []);
  if (!width) {
    $("caption").textContent = item.name;
    const before = item.unshown ? "This browser cannot show this kind of picture before it is enlarged." : "";
    return comparison.explain(item.error || before);
  }
  let after = null;
  if (done) after = asItIs ? api.shownUrl(job.id) : api.previewUrl(job.id, "result");
  const before = isStill(item) ? api.previewUrl(job.id, "source") : item.url;
  const thumb = item.part("thumb");
  if (thumb.getAttribute("src") !== before) thumb.src = before; // that preview is loaded anyway
  comparison.show({ before, after, width, height, name: item.name });
  const to = done ? ` → ${size(width, height)} · ${job.result.format.toUpperCase()}, ${bytes(job.result.bytes)}` : "";
  const from = job ? size(job.source.width, job.source.height) : size(width, height);
  // apart from a name that is read from right to left
  $("caption").replaceChildren(Object.assign(document.createElement("bdi"), { textContent: item.name }), ` · ${from}${to}`);
}

// Whether "before" is a preview of the server: of what this browser cannot show, or would play beside a still picture.
const isStill = ({ unshown, state, job }) =>
  unshown || (state === "done" && job.warnings.some((warning) => /several frames/.test(warning)));

// Blown up, a preview of the result, or of what it was made from, would say that a network did nothing, or wonders.
function reductions(item, asItIs) {
  const { job } = item;
  if (!(!asItIs && isReduced(job.result)) && !(isStill(item) && isReduced(job.source))) return [];
  return [`The comparison shows a preview of at most ${PREVIEW_SIDE} pixels a side; the file has all of its pixels.`];
}

function warn(sentences) {
  const lines = sentences.map((sentence) => Object.assign(document.createElement("li"), { textContent: sentence }));
  $("warnings").replaceChildren(...lines);
  $("warnings").hidden = !lines.length;
}

// ---- work ----

// Marks a picture as to be sent, with the settings of this moment.
function queue(item, wanted) {
  const { file, job, key, saved, fetching, until, turn } = item;
  if (item.state === "done") item.old = { file, job, key, saved, fetching, until, turn }; // until another is done
  else if (job) api.remove(job.id);
  const fresh = { job: null, error: null, refused: null, saved: 0, fetching: null, gone: false, held: "" };
  Object.assign(item, { state: "queued", wanted, key: keyOf(wanted), ...fresh });
  run.items.add(item);
  draw(item);
}

// Back to the result of before, where the one that was wanted instead came to nothing.
function restore(item) {
  if (!item.old) return false;
  Object.assign(item, { state: "done", error: null, ...item.old, old: null });
  draw(item);
  return true;
}

// `work` as a function that does nothing while it is at work.
function alone(work) {
  let busy = false;
  return async () => {
    if (busy) return;
    busy = true;
    try {
      await work();
    } finally {
      busy = false;
    }
  };
}

// What the server keeps, in the order in which it was sent and done: in this order it forgets, too.
function results() {
  const kept = items.map((item) => (item.state === "done" ? item : item.old)).filter(Boolean);
  return kept.sort((a, b) => a.turn - b.turn);
}

// Whether one more result might push one out that is not saved, nor about to be replaced by it.
function isFull({ old }) {
  const kept = results().filter((result) => result !== old);
  const first = kept.findIndex(({ saved }) => !saved);
  const sure = [...(first < 0 ? [] : kept.slice(first)), ...items.filter(isSent)];
  // of what is not done, three bytes a pixel: hardly any is larger
  const weights = sure.map(({ file, job: { result } }) => file.size + (result.bytes ?? 3 * result.width * result.height));
  return weights.length > 0 && weights.reduce((a, b) => a + b) + Math.max(...weights) > limits.kept_bytes;
}

const SAVE = "The server keeps no more. Save the results that are done, or remove some; then the rest goes on.";

function urge(wanted) {
  if (wanted && $("notice").hidden) notice(SAVE);
  else if (!wanted && $("notice").textContent === SAVE) notice("");
}

// One upload after the other, until nothing is queued; those that were cancelled or removed meanwhile are not sent.
const sendQueued = alone(async () => {
  for (let item; (item = items.find((other) => other.state === "queued")); ) {
    const full = isFull(item);
    item.held = full && !items.some(isSent);
    urge(item.held);
    draw(item);
    if (full) await new Promise((resolve) => setTimeout(resolve, 1000));
    else await enlarge(item);
  }
  urge(false);
});

// What the server would say of a picture's size, before it is sent; nothing where the browser does not know the size.
function checkSize({ name, width, height, wanted }) {
  if (!width || !limits) return;
  const large = (w, h, most, what) => `${name}: ${size(w, h)} pixels are more than the ${most / 1e6} megapixels this server ${what}.`;
  if (width * height > limits.pixels) throw new Error(large(width, height, limits.pixels, "takes (its option --max-megapixels)"));
  const [w, h] = [width, height].map((side) => Math.round(side * wanted.scale)); // NaN where a size is named
  const most = Math.floor(Math.sqrt(limits.result_pixels / (width * height)));
  const way = `choose ${most > 1 ? `${most}× or ` : ""}a smaller size`;
  if (w * h > limits.result_pixels) throw new Error(large(w, h, limits.result_pixels, `makes; ${way}`));
}

async function enlarge(item) {
  item.abort = new AbortController();
  Object.assign(item, { state: "sending", held: "" });
  draw(item);
  try {
    checkSize(item);
    item.job = await api.submit(item, item.wanted, item.abort.signal, (what) => {
      item.held = what;
      draw(item);
    });
    Object.assign(item, { state: "waiting", turn: Date.now() });
    draw(item);
    watch(item);
  } catch (error) {
    failed(item, error);
  }
}

async function watch(item) {
  try {
    await api.follow(item.job.id, item.abort.signal, (job) => {
      Object.assign(item, { job, state: job.state === "cancelled" ? "ready" : job.state, error: job.error });
      item.until = Date.now() + 1000 * job.expires;
      if (item.old && ["failed", "cancelled"].includes(job.state)) throw new Error(job.error || "cancelled.");
      if (item.state === "done") forgetOld(item);
      draw(item);
      const all = run?.items.size > 1 ? [`${countDone()}.`] : [];
      if (item.state === "done") say([`${item.name} is done.`, ...job.warnings, ...all].join(" "));
      if (item.state === "failed") say(item.error);
    });
  } catch (error) {
    const forgotten = "The server no longer has this picture. Enlarge it again.";
    failed(item, error.status === 404 ? new api.Problem(forgotten, 404) : error);
  }
}

function failed(item, error) {
  if (error.name === "AbortError" || item.abort.signal.aborted) return;
  const sentence = `${item.name}: ${withoutName(item, error.message)}`;
  if (item.old && item.job) api.remove(item.job.id); // else another press does it
  if (item.old) item.refused = error.message; // of several, the notice tells the last
  if (restore(item)) return notice(sentence);
  Object.assign(item, { state: "failed", error: error.message });
  say(sentence); // seen in the list, and where the picture would be
  draw(item);
}

function reset(item) {
  item.abort?.abort();
  if (restore(item)) return;
  Object.assign(item, { state: "ready", job: null, error: null, refused: null });
  draw(item);
}

function cancel(item) {
  if (item.job) api.remove(item.job.id);
  run?.items.delete(item);
  reset(item);
  say(`${item.name} is cancelled.`);
}

// Whether a result is still there: the server keeps them for a while only, and so many. Says so where it is not.
async function lookAfter(item, patient = true) {
  const { job } = item;
  if (!isDone(item)) return false;
  try {
    item.until = Date.now() + 1000 * (await api.state(job.id)).expires; // asking for it keeps it
    return true;
  } catch (error) {
    if (item.job !== job || !isDone(item)) return false;
    if (error.status === 404) expire(item, patient);
    else if (!patient) notice(error.message);
    return false;
  }
}

// What is saved may go without a word, unless somebody wants it just now.
function expire(item, unasked) {
  item.gone = true;
  if (!unasked) item.saved = 0;
  reset(item);
  if (item.saved) return;
  const gone = items.filter((other) => other.gone && !other.saved);
  const results = gone.length > 1 ? `The results of ${gone.length} pictures are` : `The result of ${item.name} is`;
  notice(`${results} no longer kept. Enlarge ${gone.length > 1 ? "them" : "it"} again.`);
}

// As long as the first result is there, so are the others. Those of which half the time is over are asked for, which
// keeps them.
const lookAfterAll = alone(async () => {
  const halfOver = ({ until }) => until - Date.now() < 500 * limits.keep;
  let there = false;
  for (const result of results()) {
    const old = !items.includes(result); // of a picture that is enlarged anew
    if ((there || old) && !halfOver(result)) continue;
    if (!old) await lookAfter(result);
    else await api.state(result.job.id).then(({ expires }) => (result.until = Date.now() + 1000 * expires), () => null);
    there ||= !old && !result.gone;
  }
});

const MINUTES = 600_000; // that a download may take before nobody waits for it any more
const isFetched = ({ fetching, saved }) => fetching && !saved && Date.now() - fetching.began < MINUTES;

// Waits until the server says that what was asked for has been delivered: only that is saved. What comes in one file
// arrives at the same time, so of it only the first is asked for.
const awaitDownloads = alone(async () => {
  for (let open; (open = results().filter(isFetched)).length; ) {
    const underway = new Set();
    for (const result of open) {
      if (underway.has(result.fetching)) continue;
      const job = await api.state(result.job.id).catch((error) => (error.status === 404 ? null : result.job));
      if (!job) result.fetching = null; // whoever asks for it is told
      else if (job.delivered) result.saved = Date.now();
      else underway.add(result.fetching);
    }
    const young = [...underway].some(({ began }) => Date.now() - began < 10_000);
    if (underway.size) await new Promise((resolve) => setTimeout(resolve, young ? 300 : 2000));
  }
});

function expectDownload(batch) {
  const file = { began: Date.now() };
  for (const item of batch) item.fetching = file;
  awaitDownloads();
}

// Beside the link's own doing: where the result is gone, that would be nothing.
async function download(item) {
  expectDownload([item]);
  await lookAfter(item, false);
}

// All results in one file; those that are gone are told, and left out.
async function downloadAll() {
  notice("");
  let batch = items.filter(isDone).sort((a, b) => Boolean(a.saved) - Boolean(b.saved)).slice(0, MOST);
  const address = () => api.archiveUrl(batch.map(({ job }) => job.id));
  try {
    if (!(await api.isThere(address()))) {
      await Promise.all(batch.map((item) => lookAfter(item, false)));
      batch = batch.filter(isDone);
    }
  } catch (error) {
    return notice(error.message);
  }
  if (!batch.length) return;
  Object.assign(document.createElement("a"), { href: address(), download: "" }).click();
  expectDownload(batch);
}

// Takes files off the server, but what a browser may still be downloading; that expires.
function forget({ job, fetching }) {
  if (job && !(fetching && Date.now() - fetching.began < MINUTES)) api.remove(job.id);
}

function forgetOld(item) {
  if (item.old) forget(item.old);
  item.old = null;
}

function release(item) {
  forget(item);
  forgetOld(item);
}

// Whether pictures may leave the list: asks where their results are not saved.
function mayGo(going, question) {
  const lost = going.filter(isUnsaved).length;
  const results = lost > 1 ? `${lost} results are` : "One result is";
  return !lost || confirm(`${results} not saved. ${question} all the same?`);
}

function discard(item) {
  item.abort?.abort();
  release(item);
  URL.revokeObjectURL(item.url);
  const index = items.indexOf(item);
  items.splice(index, 1);
  run?.items.delete(item);
  item.node.remove();
  notice("");
  arranged();
  const next = items[Math.min(index, items.length - 1)];
  if (!next) $("files").focus();
  else {
    if (current === item) select(next);
    next.part("pick").focus();
  }
}

// ---- what people do ----

$("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  notice("");
  const batch = unmade();
  const wanted = settings();
  const pressed = document.activeElement === $("go");
  if (!mayGo(batch, batch.filter(isUnsaved).length > 1 ? "Replace them" : "Replace it")) return;
  if (batch.length) begin();
  if (batch.length && !batch.includes(current)) select(batch[0]);
  for (const item of batch) queue(item, wantedOf(item, wanted));
  if (batch.length && pressed) batch[0].part("pick").focus(); // a disabled button keeps no focus
  sendQueued();
});
$("settings").addEventListener("input", settingsChanged);
$("network").addEventListener("change", networkChanged);
$("format").addEventListener("change", settingsChanged);
$("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
$("download-current").addEventListener("click", () => download(current));
$("clear").addEventListener("click", () => {
  if (mayGo(items, "Clear the list")) [...items].forEach(discard);
});
$("download-all").addEventListener("click", alone(downloadAll));

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files || [])];
  if (files.length) add(files);
});
const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  document.body.classList.remove("dragging");
  const entries = [...event.dataTransfer.items].map((each) => each.webkitGetAsEntry?.());
  if (!entries.some((entry) => entry?.isDirectory)) return add(event.dataTransfer.files);
  picturesIn(entries).then((files) => {
    add(files);
    if (!files.length) notice("There are no pictures in it that can be read here.");
  });
});
setInterval(lookAfterAll, 5000);
window.addEventListener("beforeunload", (event) => {
  if (items.some((item) => isBusy(item) || isUnsaved(item))) event.preventDefault(); // asks
});
window.addEventListener("pagehide", () => {
  items.forEach(release);
});
window.addEventListener("pageshow", (event) => {
  if (event.persisted) for (const item of items) if (item.job || isBusy(item)) reset(item); // back from the history
});

// ---- appearance ----

const isDark = () => document.documentElement.dataset.theme === "dark"; // as theme.js has it
const drawTheme = () => $("theme").setAttribute("aria-pressed", isDark());
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem("finescale-theme", theme);
  } catch {
    // no storage: the choice holds until the system's changes or the page is left
  }
  drawTheme();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawTheme);

if (!/^(localhost|127\.[\d.]+|\[::1\])$/.test(location.hostname)) {
  document.querySelector(".promise").textContent = `Your pictures go to ${location.hostname}, and nowhere else.`;
}
$("scales").append(segment("2", "2×"), segment("3", "3×"), segment("4", "4×"), segment(OWN, "Exact"));
comparison.failed = async () => {
  const item = current;
  const there = item && (await lookAfter(item, false));
  if (there && item === current) comparison.explain("The enlarged picture cannot be shown here. It can be downloaded.");
};
arranged();
drawTheme();
await loadNetworks();
