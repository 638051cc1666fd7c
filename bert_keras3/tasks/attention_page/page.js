"use strict";

const FAINTEST = 0.01;  // A line under it cannot be seen.
// As rows sum to 1, n tokens have at most n / w lines of weight w or more.
const MOST_LINES = 6000;
const ROW = 22;  // Of lines, as all below, in pixels.
const COLUMN = 150;
const GAP = 220;
const TOP = 24;
const MATRIX = 520;  // Without labels; more if cells would get too small.
const LABELS = 104;
const FONT = "12px system-ui, sans-serif";
const PICKERS = ["sentence", "layer", "head", "token"];

const byId = (id) => document.getElementById(id);
const report = JSON.parse(byId("report-data").textContent);

// What is shown: a sentence, its weights as uint8 [layers, heads, length,
// length], those of the head as [length, length], the token pointed at, and the
// drawing that waits.
const view = {
  sentence: null, bytes: null, weights: null, pointedAt: null, timer: null,
};

// Pickers and the fragment --------------------------------------------------

function fill(id, options) {
  byId(id).replaceChildren(
    ...options.map(([value, text]) => new Option(text, value)));
}

function count(length) {
  return Array.from({length}, (_, i) => [i + 1, i + 1]);
}

function fillPickers() {
  fill("sentence", report.sentences.map(
    ({number, tokens}) => [number, `${number}: ${beginning(tokens)}`]));
  fill("layer", count(report.layers));
  fill("head", [...count(report.heads), ["mean", "mean of all heads"]]);
}

function beginning(tokens) {
  const words = tokens.slice(0, 60).filter((token) => token !== "[CLS]");
  return clip(words.join(" ").replaceAll(" ##", ""), 70);
}

function clip(text, length) {
  const letters = Array.from(text);
  return letters.length <= length ? text :
    letters.slice(0, length - 1).join("") + "\u2026";
}

function choose(id, value) {
  const picker = byId(id);
  picker.value = value;
  if (picker.selectedIndex < 0) picker.selectedIndex = 0;
}

function fragment() {
  const chosen = PICKERS.filter((id) => byId(id).value !== "");
  return "#" + chosen.map((id) => `${id}=${byId(id).value}`).join("&");
}

async function readFragment() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  choose("sentence", wanted.get("sentence"));
  if (!await openSentence()) return;
  for (const id of PICKERS.slice(1)) choose(id, wanted.get(id));
  show();
}

async function pickerChanged() {
  if (await openSentence()) show();
}

// Weights -------------------------------------------------------------------

// Whether the sentence is still the chosen one when its weights are there.
async function openSentence() {
  const sentence = report.sentences[byId("sentence").selectedIndex];
  if (sentence === view.sentence) return true;
  const bytes = await inflate(sentence.attention);
  if (sentence !== report.sentences[byId("sentence").selectedIndex]) {
    return false;
  }
  view.sentence = sentence;
  view.bytes = bytes;
  fill("token", [
    ["", "all tokens"],
    ...sentence.tokens.map((token, i) => [i, `${i}: ${token}`]),
  ]);
  layOutLines();
  return true;
}

async function inflate(base64) {
  const text = atob(base64);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(
    new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function chosenWeights() {
  const area = view.sentence.tokens.length ** 2;
  const head = byId("head").value;
  const heads = head === "mean" ?
    Array.from({length: report.heads}, (_, i) => i) : [Number(head) - 1];
  const weights = new Float32Array(area);
  for (const i of heads) {
    const first = (byId("layer").selectedIndex * report.heads + i) * area;
    for (let j = 0; j < area; j++) weights[j] += view.bytes[first + j];
  }
  return weights.map((sum) => sum / (255 * heads.length));
}

function row(from) {
  const length = view.sentence.tokens.length;
  return view.weights.subarray(from * length, (from + 1) * length);
}

function shownToken() {
  const picked = byId("token").value;
  return view.pointedAt ?? (picked === "" ? null : Number(picked));
}

// All that depends on the pickers -------------------------------------------

function show() {
  view.pointedAt = null;
  view.weights = chosenWeights();
  // Replaced, or each look at a head would be a step of the back button.
  if (location.hash !== fragment()) location.replace(fragment());
  for (const id of PICKERS) document.body.dataset[id] = byId(id).value;
  draw();
  scrollToToken();
}

function draw() {
  const token = shownToken();
  drawLines(token);
  drawMatrix(token);
  byId("readout").textContent = describe(token);
}

function describe(token) {
  const head = byId("head").value;
  const place = `Layer ${byId("layer").value}, ` +
    (head === "mean" ? "mean of all heads" : `head ${head}`);
  delete document.body.dataset.rowSum;
  if (token === null) return `${place}, from all tokens.`;
  const {tokens} = view.sentence;
  const weights = row(token);
  const sum = weights.reduce((a, b) => a + b);
  document.body.dataset.rowSum = sum.toFixed(3);
  const greatest = Array.from(weights.keys())
    .sort((a, b) => weights[b] - weights[a])
    .slice(0, 5)
    .map((to) => `${tokens[to]} ${weights[to].toFixed(3)}`);
  return `${place}, from ${tokens[token]} (token ${token}) most to: ` +
    greatest.join(" \u00b7 ");
}

// From one token to the next, the mouse leaves and enters; that is one drawing.
function pointAt(token) {
  if (token === view.pointedAt) return;
  view.pointedAt = token;
  view.timer ??= setTimeout(() => {
    view.timer = null;
    draw();
  });
}

// Lines ---------------------------------------------------------------------

function svgElement(name, attributes, text) {
  const element = document.createElementNS(byId("lines").namespaceURI, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  if (text !== undefined) element.textContent = text;
  return element;
}

const middle = (i) => TOP + ROW * i + ROW / 2;

function layOutLines() {
  const {tokens, num_first} = view.sentence;
  const width = 2 * COLUMN + GAP;
  const height = TOP + ROW * tokens.length;
  const svg = byId("lines");
  svg.setAttribute("width", width);
  svg.setAttribute("height", height);
  const y = TOP + ROW * num_first;
  byId("line-boundary").replaceChildren(...num_first < tokens.length ?
    [svgElement("line", {x1: 0, x2: width, y1: y, y2: y})] : []);
  byId("line-tokens").replaceChildren(
    heading("from", {x: COLUMN - 8, "text-anchor": "end"}),
    heading("to", {x: COLUMN + GAP + 8}),
    ...tokens.map(fromToken),
    ...tokens.map(toToken));
}

function heading(text, place) {
  return svgElement("text", {class: "heading", y: 15, ...place}, text);
}

function tokenText(token, i, place) {
  const text = svgElement(
    "text", {y: middle(i), dy: "0.35em", ...place}, clip(token, 18));
  text.append(svgElement("title", {}, token));
  return text;
}

function fromToken(token, i) {
  const group = svgElement("g", {class: "from"});
  group.append(
    svgElement("rect", {
      class: "hit", y: TOP + ROW * i, width: COLUMN, height: ROW,
    }),
    tokenText(token, i, {x: COLUMN - 8, "text-anchor": "end"}));
  group.addEventListener("mouseenter", () => pointAt(i));
  group.addEventListener("mouseleave", () => pointAt(null));
  group.addEventListener("click", () => {
    choose("token", byId("token").value === String(i) ? "" : i);
    show();
  });
  return group;
}

function toToken(token, i) {
  const group = svgElement("g", {class: "to"});
  group.append(tokenText(token, i, {x: COLUMN + GAP + 8}));
  return group;
}

function drawLines(token) {
  const {tokens} = view.sentence;
  const froms = token === null ? Array.from(tokens.keys()) : [token];
  const threshold = Math.max(FAINTEST, froms.length / MOST_LINES);
  // The lines of one token do not hide each other, and may be plainer.
  const opacity = token === null ? (weight) => weight : Math.sqrt;
  const lines = froms.flatMap((from) => linesOf(from, threshold, opacity));
  byId("line-group").replaceChildren(...lines);
  byId("line-shades").replaceChildren(
    ...token === null ? [] : Array.from(row(token), shade));
  document.querySelectorAll("#line-tokens .from").forEach(
    (group, i) => group.classList.toggle("shown", i === token));
  byId("threshold").textContent =
    `Weights under ${threshold.toFixed(3)} have no line.`;
  document.body.dataset.lines = lines.length;
}

function linesOf(from, threshold, opacity) {
  const lines = [];
  row(from).forEach((weight, to) => {
    if (weight < threshold) return;
    lines.push(svgElement("line", {
      x1: COLUMN, y1: middle(from), x2: COLUMN + GAP, y2: middle(to),
      "stroke-opacity": opacity(weight).toFixed(3),
      "stroke-width": 1.5 + 2 * weight,
    }));
  });
  return lines;
}

function scrollToToken() {
  const token = shownToken();
  const box = byId("lines").parentElement;
  const top = middle(token ?? 0) - box.scrollTop;
  if (top < TOP || top > box.clientHeight - ROW) {
    box.scrollTop += top - box.clientHeight / 2;
  }
}

function shade(weight, to) {
  return svgElement("rect", {
    x: COLUMN + GAP + 2, y: TOP + ROW * to, width: COLUMN - 4, height: ROW,
    "fill-opacity": 0.5 * Math.sqrt(weight), rx: 3,
  });
}

// Matrix --------------------------------------------------------------------

function cellSize() {
  return Math.min(26, Math.max(3, MATRIX / view.sentence.tokens.length));
}

function colour(name) {
  return getComputedStyle(document.body).getPropertyValue(name).trim();
}

function drawMatrix(token) {
  const {tokens, num_first} = view.sentence;
  const cell = cellSize();
  const side = cell * tokens.length;
  const context = sizedContext(LABELS + side, tokens.length);
  context.imageSmoothingEnabled = false;
  context.drawImage(matrixImage(), LABELS, LABELS, side, side);
  context.strokeStyle = `rgb(${colour("--rule")})`;
  context.strokeRect(LABELS, LABELS, side, side);
  drawLabels(context, cell);
  context.strokeStyle = `rgb(${colour("--mark")})`;
  if (token !== null) {
    context.strokeRect(LABELS, LABELS + token * cell, side, cell);
  }
  if (num_first < tokens.length) {
    const border = LABELS + num_first * cell;
    context.setLineDash([5, 4]);
    context.beginPath();
    context.moveTo(0, border);
    context.lineTo(LABELS + side, border);
    context.moveTo(border, 0);
    context.lineTo(border, LABELS + side);
    context.stroke();
  }
  document.body.dataset.maxWeight =
    view.weights.reduce((a, b) => Math.max(a, b)).toFixed(3);
}

function sizedContext(size, length) {
  const canvas = byId("matrix");
  // Browsers draw nothing on a canvas of too many pixels.
  const scale = length > 256 ? 1 : devicePixelRatio;
  canvas.width = canvas.height = Math.ceil(size + 1) * scale;
  canvas.style.width = canvas.style.height = `${Math.ceil(size + 1)}px`;
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  return context;
}

// A pixel for each cell. Roots, or weights of 0.05 could not be seen.
function matrixImage() {
  const [none, full] = ["--paper", "--weight"].map(
    (name) => colour(name).split(" ").map(Number));
  const length = view.sentence.tokens.length;
  const image = new ImageData(length, length);
  view.weights.forEach((weight, i) => {
    const strength = Math.sqrt(weight);
    for (let c = 0; c < 3; c++) {
      image.data[4 * i + c] = none[c] + strength * (full[c] - none[c]);
    }
    image.data[4 * i + 3] = 255;
  });
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = length;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// As many labels as there is room for.
function drawLabels(context, cell) {
  context.font = FONT;
  context.fillStyle = `rgb(${colour("--ink")})`;
  context.textBaseline = "middle";
  const step = Math.ceil(12 / cell);
  view.sentence.tokens.forEach((token, i) => {
    if (i % step) return;
    const place = LABELS + (i + 0.5) * cell;
    context.textAlign = "right";
    context.fillText(clip(token, 15), LABELS - 6, place, LABELS - 6);
    context.save();
    context.translate(place, LABELS - 6);
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(clip(token, 15), 0, 0, LABELS - 6);
    context.restore();
  });
}

function pointAtCell(event) {
  const box = byId("matrix").getBoundingClientRect();
  const [to, from] = [event.clientX - box.left, event.clientY - box.top].map(
    (place) => Math.floor((place - LABELS) / cellSize()));
  const {tokens} = view.sentence;
  if (!(from in tokens && to in tokens)) return leaveMatrix();
  pointAt(from);
  const tooltip = byId("tooltip");
  const weight = row(from)[to].toFixed(3);
  tooltip.textContent = `${tokens[from]} \u2192 ${tokens[to]}: ${weight}`;
  tooltip.hidden = false;
  const left = Math.min(
    event.clientX + 14, innerWidth - tooltip.offsetWidth - 8);
  tooltip.style.left = `${left}px`;
  tooltip.style.top = `${event.clientY + 18}px`;
}

function leaveMatrix() {
  byId("tooltip").hidden = true;
  pointAt(null);
}

// Start ---------------------------------------------------------------------

function keyPressed(event) {
  const step = {ArrowLeft: -1, ArrowRight: 1}[event.key];
  // A picker that has the focus has its own keys.
  const isOurs = event.target === document.body &&
    !(event.altKey || event.ctrlKey || event.metaKey);
  if (!step || !isOurs) return;
  const picker = byId(event.shiftKey ? "layer" : "head");
  if (picker.selectedIndex + step in picker.options) {
    picker.selectedIndex += step;
    show();
  }
}

async function start() {
  fillPickers();
  for (const id of PICKERS) byId(id).addEventListener("change", pickerChanged);
  byId("matrix").addEventListener("mousemove", pointAtCell);
  byId("matrix").addEventListener("mouseleave", leaveMatrix);
  document.addEventListener("keydown", keyPressed);
  addEventListener("hashchange", () => {
    if (location.hash !== fragment()) readFragment();
  });
  await readFragment();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.body.dataset.ready = "yes";
}

if (report.sentences.length) {
  start().catch((error) => {
    byId("problem").textContent =
      `Your browser cannot show this (${error}). One of 2023 or later can.`;
    byId("problem").hidden = false;
  });
}
