"""Attention weights as one HTML page that needs nothing but a browser.

report = AttentionReport("uncased_L-12_H-768_A-12")
report.add(Sentence(["[CLS]", "a", "text", "[SEP]"], 4, probs[0]))
features.write_atomically("attention.html", report.html())

The page is plain ASCII and loads nothing. Its fragment says what it shows:
`attention.html#sentence=0&layer=2&head=1&token=3`, where sentences and tokens
count from 0, as in the files of features, layers and heads from 1, and `head`
may be `mean`.
"""

import base64
import dataclasses
import html
import json
import zlib

import numpy as np

# A browser opens this in about two seconds. BERT-Base has about 1 MB a sentence
# of 128 tokens.
DEFAULT_MAX_BYTES = 32 * 2**20
# Softmax in half precision sums to 1 only so far.
SUM_TOLERANCE = 0.02


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
  """What a model attended to in one text or pair, without padding.

  Attributes:
    tokens: list of str.
    num_first: how many of them belong to the first text, `[CLS]` and its
      `[SEP]` included.
    attention: float [layers, heads, length, length], from a token (row) to a
      token (column); rows sum to 1.

  Raises:
    ValueError: the shapes disagree, or there are rows that do not sum to 1.
  """

  tokens: list
  num_first: int
  attention: np.ndarray

  def __post_init__(self):
    shape = np.shape(self.attention)
    length = len(self.tokens)
    if len(shape) != 4 or 0 in shape or shape[2:] != (length, length):
      raise ValueError(
        f"attention of {length} tokens should be [layers, heads, {length}, "
        f"{length}] with at least one of each, not {list(shape)}"
      )
    if not 1 <= self.num_first <= length:
      raise ValueError(
        f"num_first is {self.num_first}; of {length} tokens, 1 to {length} "
        "belong to the first text"
      )
    _check_rows(np.asarray(self.attention))


def _check_rows(attention):
  # NaN fails both comparisons.
  if not np.all(attention >= 0):
    raise ValueError("attention has weights that are negative or no numbers")
  sums = attention.sum(-1, dtype=np.float64)
  is_off = ~(np.abs(sums - 1) <= SUM_TOLERANCE)
  if is_off.any():
    layer, head, row = np.argwhere(is_off)[0]
    raise ValueError(
      f"attention of layer {layer + 1}, head {head + 1} from token {row} sums "
      f"to {sums[layer, head, row]:.4g}, not to 1; pass probabilities"
    )


class AttentionReport:
  """Collects sentences for a page.

  Args:
    title: str, heads the page.
    max_bytes: the page's greatest size. A page without any sentence may exceed
      it.

  Attributes:
    num_left_out: sentences that were too many.
  """

  def __init__(self, title, max_bytes=DEFAULT_MAX_BYTES):
    self.num_left_out = 0
    self._title = title
    self._max_bytes = max_bytes
    self._entries = []  # JSON
    self._layers_and_heads = (0, 0)
    self._num_bytes = len(self._page(_VIEWS + _note_left_out(10**9, max_bytes)))

  def add(self, sentence):
    """Adds a sentence if the page stays within max_bytes.

    Args:
      sentence: Sentence.

    Returns:
      Whether it was added. A shorter one may still be after one that was not.

    Raises:
      ValueError: it has other layers or heads than the sentences before.
    """
    layers_and_heads = np.shape(sentence.attention)[:2]
    if self._entries and layers_and_heads != self._layers_and_heads:
      raise ValueError(
        "a report is about one model: this sentence has {} layers of {} heads, "
        "those before {} of {}".format(
          *layers_and_heads, *self._layers_and_heads
        )
      )
    number = len(self._entries) + self.num_left_out
    entry = _to_json(number, sentence)
    num_bytes = self._num_bytes + len(entry) + len(",\n")
    if num_bytes > self._max_bytes:
      self.num_left_out += 1
      return False
    self._entries.append(entry)
    self._layers_and_heads = layers_and_heads
    self._num_bytes = num_bytes
    return True

  def html(self):
    """The page, str of ASCII characters."""
    content = _VIEWS if self._entries else _EMPTY
    if self.num_left_out:
      content = _note_left_out(self.num_left_out, self._max_bytes) + content
    return self._page(content)

  def _page(self, content):
    title = html.escape(self._title)
    title = title.encode("ascii", "xmlcharrefreplace").decode()
    layers, heads = self._layers_and_heads
    sentences = ",\n".join(self._entries)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{title}</h1>
{content}
<script type="application/json" id="report-data">
{{"layers": {layers}, "heads": {heads}, "sentences": [
{sentences}
]}}
</script>
<script>{_JAVASCRIPT}</script>
</body>
</html>
"""


def _to_json(number, sentence):
  """A sentence as JSON that can stand in a script element.

  Attention is in steps of 1/255, then deflated, as most of it is about 0.
  """
  rounded = np.rint(255 * np.asarray(sentence.attention, np.float32))
  rounded = np.minimum(rounded, 255).astype(np.uint8)
  fields = {
    "number": number,
    # Lone surrogates, which a text of JSON may hold, become question marks.
    "tokens": [x.encode("utf-8", "replace").decode() for x in sentence.tokens],
    "num_first": int(sentence.num_first),
    "attention": base64.b64encode(zlib.compress(rounded)).decode(),
  }
  # A token may be "</script>". What is not ASCII, json escapes.
  return json.dumps(fields).replace("<", "\\u003c")


def _note_left_out(num_left_out, max_bytes):
  return (
    f'<p class="note" id="left-out">Sentences left out: {num_left_out}. With '
    f"them, this page would be larger than {max_bytes:,} bytes. Give fewer or "
    "shorter texts to see them.</p>\n"
  )


# The page: policy and elements -----------------------------------------------

# Nothing is loaded, even if an escape were forgotten.
_POLICY = (
  "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
)

_EMPTY = '<p id="empty">This report has no sentence.</p>'

_VIEWS = """\
<noscript><p class="note">This page draws with JavaScript, which is off.</p>
</noscript>
<p class="note" id="problem" hidden></p>
<p>How much the model looks from each token at every token. Each row: from a
token to all tokens; rows sum to 1.</p>
<form class="pickers" autocomplete="off">
  <div class="wide">
    <label for="sentence">Sentence</label>
    <select id="sentence"></select>
  </div>
  <div>
    <label for="layer">Layer</label>
    <select id="layer"></select>
  </div>
  <div>
    <label for="head">Head</label>
    <select id="head"></select>
  </div>
  <div>
    <label for="token">From token</label>
    <select id="token"></select>
  </div>
</form>
<p id="readout" role="status"></p>
<div class="views">
  <section aria-labelledby="lines-title">
    <h2 id="lines-title">As lines</h2>
    <p class="quiet">From the left to the right; the stronger a line, the
    greater the weight. Point at a token on the left to see its lines only,
    click to keep them. <span id="threshold"></span></p>
    <div class="scroll">
      <svg id="lines" role="img" aria-labelledby="lines-title readout">
        <g id="line-boundary"></g>
        <g id="line-shades"></g>
        <g id="line-group"></g>
        <g id="line-tokens"></g>
      </svg>
    </div>
  </section>
  <section aria-labelledby="matrix-title">
    <h2 id="matrix-title">As a matrix</h2>
    <p class="quiet">From the row's token to the column's; point at a cell to
    read it. <span class="legend" aria-hidden="true"><span class="bar"></span>
    <span>0</span><span>0.25</span><span>1</span></span></p>
    <div class="scroll">
      <canvas id="matrix" role="img" aria-labelledby="matrix-title readout">
      </canvas>
    </div>
  </section>
</div>
<div id="tooltip" hidden></div>
<details>
  <summary>What is what</summary>
  <dl>
    <dt>Token</dt>
    <dd>A word or a piece of one, as the model reads it. <code>##</code> begins
    a piece that continues the word before. <code>[CLS]</code> stands before
    all, <code>[SEP]</code> after each text.</dd>
    <dt>Layer</dt>
    <dd>The model works in steps. A token is a list of numbers to it, a vector;
    each step makes new vectors of those from the step before. Layer 1 is the
    first.</dd>
    <dt>Head</dt>
    <dd>In each layer several heads look at the tokens, independently of one
    another. "Mean of all heads" is the average of their weights.</dd>
    <dt>Weight</dt>
    <dd>A token's new vector is an average over all tokens; the weight is the
    share that a token has in it. It says what the model mixed, not why it
    decided something. Weights are kept in steps of 1/255 = 0.004.</dd>
    <dt>Dashed lines</dt>
    <dd>There the second text begins, if there are two.</dd>
    <dt>Keys</dt>
    <dd>Left and right change the head, with Shift the layer. The address of
    this page follows: copy it to show someone the same view.</dd>
  </dl>
</details>
"""

# The page: style --------------------------------------------------------------

_CSS = """
:root {
  color-scheme: light dark;
  --paper: 255 255 255;
  --ink: 27 31 36;
  --quiet: 89 96 105;
  --rule: 208 213 220;
  --weight: 8 81 156;
  --mark: 188 76 0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: 22 25 30;
    --ink: 226 230 236;
    --quiet: 154 163 174;
    --rule: 61 68 77;
    --weight: 125 196 255;
    --mark: 255 166 87;
  }
}
body {
  background: rgb(var(--paper));
  color: rgb(var(--ink));
  font: 15px/1.5 system-ui, sans-serif;
  margin: 1.5rem auto;
  max-width: 90rem;
  padding: 0 1rem;
}
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0; }
p { margin: 0.3rem 0 0.8rem; max-width: 75ch; }
.note { border-left: 4px solid rgb(var(--mark)); padding-left: 0.7rem; }
.quiet { color: rgb(var(--quiet)); font-size: 0.87rem; min-height: 3em; }
.pickers { display: flex; flex-wrap: wrap; gap: 0.6rem 1rem; }
.pickers div { display: flex; flex-direction: column; min-width: 0; }
.pickers .wide { flex: 0 1 36rem; }
label { color: rgb(var(--quiet)); font-size: 0.87rem; }
select { font: inherit; max-width: 100%; padding: 0.2rem; }
#readout {
  margin: 0.8rem 0;
  max-width: none;
  min-height: 3em;
  overflow-wrap: anywhere;
}
.views {
  display: grid;
  gap: 1.5rem 2.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 36rem), 1fr));
}
section { min-width: 0; }
.scroll { max-height: 85vh; overflow: auto; }
svg, canvas { display: block; }
svg text { fill: rgb(var(--ink)); font: 13px system-ui, sans-serif; }
svg .heading { fill: rgb(var(--quiet)); font-size: 12px; }
svg .from { cursor: pointer; }
svg .from.shown text { fill: rgb(var(--mark)); font-weight: 600; }
svg .hit { fill: transparent; }
#line-group line { stroke: rgb(var(--weight)); }
#line-shades rect { fill: rgb(var(--weight)); }
#line-boundary line { stroke: rgb(var(--mark)); stroke-dasharray: 5 4; }
.legend {
  display: inline-grid;
  font-size: 0.75rem;
  grid-template-columns: 1fr 1fr 1fr;
  vertical-align: top;
  width: 10rem;
}
.legend .bar {
  background: linear-gradient(
    to right, rgb(var(--paper)), rgb(var(--weight)));
  border: 1px solid rgb(var(--rule));
  grid-column: 1 / 4;
  height: 0.6rem;
}
.legend :nth-child(3) { text-align: center; }
.legend :nth-child(4) { text-align: right; }
#tooltip {
  background: rgb(var(--ink));
  border-radius: 4px;
  color: rgb(var(--paper));
  font-size: 0.87rem;
  padding: 0.1rem 0.5rem;
  pointer-events: none;
  position: fixed;
}
details { margin-top: 1.2rem; max-width: 75ch; }
dt { font-weight: 600; }
dd { margin: 0 0 0.5rem; }
"""

# The page: behaviour ----------------------------------------------------------

_JAVASCRIPT = r"""
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
"""
