"""The page of attention: what is in it, and what a browser makes of it."""

import base64
import html.parser
import json
import re
import shutil
import subprocess
import zlib

import numpy as np
import pytest

import modeling
from bert_keras3.data import files
from bert_keras3.tasks import attention_report

PAIR = ["[CLS]", "the", "gall", "##on", "[SEP]", "of", "milk", "[SEP]"]
HOSTILE = "</script><b>&\u2028<!--\ud83d"
SINGLE = ["[CLS]", HOSTILE, "https://example.com/", "ü", "[SEP]"]
# A lone surrogate is no character.
SHOWN = [token.replace("\ud83d", "?") for token in SINGLE]
LAYERS, HEADS = 2, 3
# The page's own, as it draws on 6000 lines at most.
FAINTEST = 0.01


def make_sentence(tokens=PAIR, num_first=None, seed=0):
  logits = np.random.default_rng(seed).normal(
    scale=2, size=(LAYERS, HEADS, len(tokens), len(tokens))
  )
  attention = np.exp(logits)
  attention /= attention.sum(-1, keepdims=True)
  num_first = num_first or tokens.index("[SEP]") + 1
  return attention_report.Sentence(
    tokens, num_first, attention.astype(np.float32)
  )


def make_report(**kwargs):
  report = attention_report.AttentionReport("A <model> & ü", **kwargs)
  assert report.add(make_sentence())
  assert report.add(make_sentence(SINGLE, seed=1))
  return report


class Page(html.parser.HTMLParser):
  """Elements as (tag, attributes, text up to the next tag)."""

  def __init__(self, text):
    super().__init__()
    self.elements = []
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    self.elements.append([tag, dict(attrs), ""])

  def handle_endtag(self, tag):
    self.elements.append([f"/{tag}", {}, ""])

  def handle_data(self, data):
    if self.elements:
      self.elements[-1][2] += data

  def find(self, tag, **wanted):
    """Texts and attributes of a tag's elements, as dicts."""
    wanted = {key.rstrip("_"): value for key, value in wanted.items()}
    return [
      {"text": text, **attrs}
      for name, attrs, text in self.elements
      if name == tag and wanted.items() <= attrs.items()
    ]

  def between(self, tag, **wanted):
    """The elements from a tag's first to its next end."""
    names = [name for name, _, _ in self.elements]
    start = next(
      i
      for i, (name, attrs, _) in enumerate(self.elements)
      if name == tag and wanted.items() <= attrs.items()
    )
    return self.elements[start : names.index(f"/{tag}", start)]

  @property
  def ids(self):
    return [attrs["id"] for _, attrs, _ in self.elements if "id" in attrs]

  @property
  def data(self):
    (script,) = self.find("script", id="report-data")
    assert script["type"] == "application/json"
    return json.loads(script["text"])


def decoded(entry, layers=LAYERS, heads=HEADS):
  """The probabilities that an embedded sentence holds."""
  content = zlib.decompress(base64.b64decode(entry["attention"]))
  length = len(entry["tokens"])
  shape = [layers, heads, length, length]
  return np.frombuffer(content, np.uint8).reshape(shape) / 255


# The page as text -------------------------------------------------------------


def test_weights_are_embedded_to_half_a_step():
  data = Page(make_report().html()).data
  assert (data["layers"], data["heads"]) == (LAYERS, HEADS)
  first, second = data["sentences"]
  assert [first["number"], second["number"]] == [0, 1]
  assert [first["num_first"], second["num_first"]] == [5, 5]
  for entry, sentence in (
    (first, make_sentence()),
    (second, make_sentence(SINGLE, seed=1)),
  ):
    error = np.abs(decoded(entry) - sentence.attention).max()
    # float32 itself rounds at 1e-7.
    assert error <= 0.5 / 255 + 1e-7


def test_certainty_fits_a_byte():
  # Half precision may sum to a little over 1.
  attention = np.full([1, 1, 1, 1], 1.004, np.float32)
  report = attention_report.AttentionReport("one")
  report.add(attention_report.Sentence(["a"], 1, attention))
  (entry,) = Page(report.html()).data["sentences"]
  assert decoded(entry, 1, 1) == 1


def test_tokens_and_title_cannot_leave_their_place():
  text = make_report().html()
  assert text.isascii()
  page = Page(text)
  assert page.data["sentences"][1]["tokens"] == SHOWN
  assert page.find("b") == []
  assert len(page.find("script")) == 2
  assert [x["text"] for x in page.find("title") + page.find("h1")] == [
    "A <model> & ü"
  ] * 2


def test_text_reaches_the_document_as_text_only():
  script = Page(make_report().html()).find("script")[-1]["text"]
  for sink in ("innerHTML", "outerHTML", "insertAdjacent", "write(", "eval"):
    assert sink not in script


def test_page_loads_nothing():
  page = Page(make_report().html())
  assert [
    attrs
    for _, attrs, _ in page.elements
    if {"src", "href", "xlink:href", "action", "srcset", "style"} & set(attrs)
  ] == []
  assert page.find("link") == []
  (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
  assert policy["content"].startswith("default-src 'none';")
  empty = attention_report.AttentionReport("x").html()
  for text in (empty, page.find("style")[0]["text"]):
    assert not re.search(r"https?:|//\w|url\(|@import", text)


def test_elements_that_the_script_and_the_labels_name_exist():
  text = make_report().html()
  page = Page(text)
  script = page.find("script")[-1]["text"]
  named = set(re.findall(r'byId\("([^"]+)"\)', script))
  assert {"matrix", "lines", "readout"} <= named <= set(page.ids)
  assert len(page.ids) == len(set(page.ids))
  labelled = [label["for"] for label in page.find("label")]
  assert labelled == [select["id"] for select in page.find("select")]
  assert labelled == ["sentence", "layer", "head", "token"]
  references = re.findall(r'aria-labelledby="([^"]+)"', text)
  assert references
  assert set(" ".join(references).split()) <= set(page.ids)


def test_report_without_sentences_is_a_page_that_says_so():
  text = attention_report.AttentionReport("nothing").html()
  page = Page(text)
  assert page.find("p", id="empty")[0]["text"] == (
    "This report has no sentence."
  )
  assert page.data == {"layers": 0, "heads": 0, "sentences": []}
  assert page.find("select") == []


# Limits and errors ------------------------------------------------------------


def test_page_stays_within_its_bytes_and_counts_what_was_left_out():
  page_bytes = len(make_report().html())
  report = make_report(max_bytes=page_bytes + 500)
  long = make_sentence(PAIR * 4, num_first=5)
  assert [report.add(long), report.add(long)] == [False, False]
  assert report.num_left_out == 2
  text = report.html()
  assert len(text.encode()) <= page_bytes + 500
  (note,) = Page(text).find("p", id="left-out")
  assert note["text"].startswith("Sentences left out: 2. ")
  assert f"larger than {page_bytes + 500:,} bytes" in note["text"]
  assert len(Page(text).data["sentences"]) == 2


def test_shorter_sentence_fits_after_a_longer_one_and_keeps_its_number():
  report = make_report(max_bytes=len(make_report().html()) + 700)
  assert not report.add(make_sentence(PAIR * 4, num_first=5))
  assert report.add(make_sentence(["[CLS]", "[SEP]"]))
  numbers = [x["number"] for x in Page(report.html()).data["sentences"]]
  assert numbers == [0, 1, 3]


def test_every_size_is_kept():
  sizes = []
  base = len(make_report().html())
  for max_bytes in range(base - 600, base + 1200, 60):
    report = attention_report.AttentionReport("A <model> & ü", max_bytes)
    added = [report.add(make_sentence(seed=seed)) for seed in range(3)]
    assert added.count(False) == report.num_left_out
    assert len(report.html()) <= max_bytes
    sizes.append(added.count(True))
  assert sizes == sorted(sizes)
  assert len(set(sizes)) > 1


@pytest.mark.parametrize(
  ("shape", "num_first", "message"),
  [
    ([2, 3, 8], 5, r"\[layers, heads, 8, 8\] .* not \[2, 3, 8\]"),
    ([2, 3, 8, 7], 5, r"not \[2, 3, 8, 7\]"),
    ([2, 3, 7, 7], 5, r"attention of 8 tokens should be .* not \[2, 3, 7, 7\]"),
    ([2, 0, 8, 8], 5, r"at least one of each, not \[2, 0, 8, 8\]"),
    ([2, 3, 8, 8], 0, "num_first is 0; of 8 tokens, 1 to 8 belong"),
    ([2, 3, 8, 8], 9, "num_first is 9;"),
  ],
)
def test_shapes_that_disagree(shape, num_first, message):
  attention = np.full(shape, 1 / 8, np.float32)
  with pytest.raises(ValueError, match=message):
    attention_report.Sentence(PAIR, num_first, attention)


@pytest.mark.parametrize(
  ("value", "message"),
  [
    (0.5, "layer 2, head 3 from token 4 sums to 1.375, not to 1; pass prob"),
    (-1.0, "negative or no numbers"),
    (np.nan, "negative or no numbers"),
    (np.inf, "layer 2, head 3 from token 4 sums to inf"),
  ],
)
def test_rows_that_are_no_probabilities(value, message):
  attention = np.full([2, 3, 8, 8], 1 / 8, np.float32)
  attention[1, 2, 4, 5] = value
  with pytest.raises(ValueError, match=message):
    attention_report.Sentence(PAIR, 5, attention)


def test_sentences_of_two_models():
  attention = np.ones([1, 3, 1, 1], np.float32)
  with pytest.raises(ValueError, match="has 1 layers of 3 heads, those before"):
    make_report().add(attention_report.Sentence(["a"], 1, attention))


def test_attention_of_a_model_reaches_the_file(tmp_path):
  config = modeling.BertConfig(
    30,
    hidden_size=6,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=8,
    type_vocab_size=2,
    max_position_embeddings=16,
    initializer_range=1.0,
  )
  length = len(PAIR)
  inputs = {
    "input_ids": np.arange(12, dtype=np.int32)[np.newaxis],
    "input_mask": np.int32([[1] * length + [0] * (12 - length)]),
  }
  probs = modeling.BertModel(config).attention_probs(inputs).numpy()
  attention = probs[0, :, :, :length, :length]
  report = attention_report.AttentionReport("tiny")
  assert report.add(attention_report.Sentence(PAIR, 5, attention))
  path = str(tmp_path / "page.html")
  files.write_atomically(path, report.html())
  with open(path, encoding="utf-8") as reader:
    (entry,) = Page(reader.read()).data["sentences"]
  assert np.abs(decoded(entry) - attention).max() <= 0.5 / 255 + 1e-7
  assert entry["tokens"] == PAIR


# In a browser -----------------------------------------------------------------

# Waits until the page has drawn, then for what the script does to be drawn.
SCRIPT = """<script>
const waiting = setInterval(() => {
  if (!document.body.dataset.ready) return;
  clearInterval(waiting);
  %s
  setTimeout(() => { document.body.dataset.hash = location.hash; }, 200);
}, 10);
</script></body>"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
  """Runs a page; what flags ask for is its standard output."""
  names = ("chromium", "chromium-browser", "google-chrome")
  programs = filter(None, map(shutil.which, names))
  program = next(filter(_answers, programs), None)
  if program is None:
    pytest.skip(f"none of {', '.join(names)} is installed")
  folder = tmp_path_factory.mktemp("browser")

  def run(text, fragment, *flags):
    path = folder / "page.html"
    path.write_text(text, encoding="utf-8")
    command = [
      program,
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--hide-scrollbars",
      f"--user-data-dir={folder / 'profile'}",
      "--virtual-time-budget=5000",
      *flags,
      path.as_uri() + fragment,
    ]
    return subprocess.run(
      command, capture_output=True, check=True, timeout=120, encoding="utf-8"
    ).stdout

  return run


def _answers(program):
  """Ubuntu has a chromium-browser that asks for snap, which containers lack."""
  command = [program, "--version"]
  return subprocess.run(command, capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def drawn(browser):
  """The document that a page of `make_report` becomes.

  Called with a fragment, and a script to run once it is drawn.
  """

  def draw(fragment="", script=""):
    text = make_report().html().replace("</body>", SCRIPT % script)
    page = Page(browser(text, fragment, "--dump-dom"))
    (body,) = page.find("body")
    return page, body

  return draw


def kept(sentence):
  """A sentence's weights as the page has them."""
  return np.rint(255 * sentence.attention) / 255


def line_count(page):
  group = page.between("g", id="line-group")
  return sum(name == "line" for name, _, _ in group)


def test_browser_opens_the_view_of_the_fragment(drawn):
  page, body = drawn("#sentence=1&layer=2&head=2")
  view = {key: body[f"data-{key}"] for key in ("sentence", "layer", "head")}
  assert view == {"sentence": "1", "layer": "2", "head": "2"}
  weights = kept(make_sentence(SINGLE, seed=1))[1, 1]
  assert line_count(page) == (weights >= FAINTEST).sum() > 5
  assert body["data-lines"] == str(line_count(page))
  assert body["data-max-weight"] == f"{weights.max():.3f}"
  assert "data-row-sum" not in body
  titles = [x["text"] for x in page.find("title")]
  assert titles[1:] == SHOWN * 2
  assert page.find("b") == []
  options = [x for x in page.between("select", id="head") if x[0] == "option"]
  assert [text for _, _, text in options] == [
    "1",
    "2",
    "3",
    "mean of all heads",
  ]


def test_browser_draws_one_token_of_the_mean_of_all_heads(drawn):
  page, body = drawn("#sentence=0&layer=1&head=mean&token=2")
  weights = kept(make_sentence())[0].mean(0)[2]
  lines = [x for x in page.between("g", id="line-group") if x[0] == "line"]
  assert len(lines) == (weights >= FAINTEST).sum()
  opacities = [float(attrs["stroke-opacity"]) for _, attrs, _ in lines]
  # Three decimals are written.
  assert opacities == pytest.approx(
    np.sqrt(weights[weights >= FAINTEST]), abs=6e-4
  )
  assert float(body["data-row-sum"]) == pytest.approx(weights.sum(), abs=6e-4)
  best = weights.argmax()
  (readout,) = page.find("p", id="readout")
  assert readout["text"].startswith(
    "Layer 1, mean of all heads, from gall (token 2) most to: "
    f"{PAIR[best]} {weights[best]:.3f} · "
  )


def test_browser_marks_the_second_text_only_where_there_is_one(drawn):
  for fragment, count in (("#sentence=0", 1), ("#sentence=1", 0)):
    group = drawn(fragment)[0].between("g", id="line-boundary")
    assert sum(name == "line" for name, _, _ in group) == count


@pytest.mark.parametrize("fragment", ["", "#sentence=7&layer=0&head=x&token=8"])
def test_browser_opens_the_first_view_for_any_other_fragment(drawn, fragment):
  _, body = drawn(fragment)
  assert body["data-hash"] == "#sentence=0&layer=1&head=1"


@pytest.mark.parametrize(
  ("script", "expected"),
  [
    ('pressed({key: "ArrowRight"});', "#sentence=0&layer=1&head=2"),
    ('pressed({key: "ArrowLeft"});', "#sentence=0&layer=1&head=1"),
    (
      'pressed({key: "ArrowRight", shiftKey: true});',
      "#sentence=0&layer=2&head=1",
    ),
    (
      'choose("head", "mean"); choose("sentence", "1");'
      'byId("sentence").dispatchEvent(new Event("change"));',
      "#sentence=1&layer=1&head=mean",
    ),
    (
      'location.hash = "#sentence=1&layer=2&head=3&token=0";',
      "#sentence=1&layer=2&head=3&token=0",
    ),
    (
      'froms()[3].dispatchEvent(new MouseEvent("click"));',
      "#sentence=0&layer=1&head=1&token=3",
    ),
  ],
)
def test_browser_follows_keys_pickers_links_and_clicks(drawn, script, expected):
  helpers = """
    const pressed = (key) => document.body.dispatchEvent(
      new KeyboardEvent("keydown", {bubbles: true, ...key}));
    const froms = () => document.querySelectorAll("#line-tokens .from");
  """
  _, body = drawn("", helpers + script)
  assert body["data-hash"] == expected
  wanted = dict(pair.split("=") for pair in expected[1:].split("&"))
  assert {key: body[f"data-{key}"] for key in wanted} == wanted


def test_browser_shows_the_lines_of_the_token_pointed_at(drawn):
  page, body = drawn(
    "#sentence=0&layer=2&head=3",
    'document.querySelectorAll("#line-tokens .from")[4].dispatchEvent('
    'new MouseEvent("mouseenter"));',
  )
  weights = kept(make_sentence())[1, 2, 4]
  lines = [x for x in page.between("g", id="line-group") if x[0] == "line"]
  assert len(lines) == (weights >= FAINTEST).sum()
  assert len({attrs["y1"] for _, attrs, _ in lines}) == 1
  # Pointing is passing; the address keeps what was picked.
  assert body["data-hash"] == "#sentence=0&layer=2&head=3"


def test_browser_reads_out_the_cell_pointed_at(drawn):
  point = """
    const box = byId("matrix").getBoundingClientRect();
    const at = (i) => LABELS + (i + 0.5) * cellSize();
    byId("matrix").dispatchEvent(new MouseEvent("mousemove", {
      clientX: box.left + at(6), clientY: box.top + at(2)}));
  """
  page, body = drawn("#sentence=0&layer=2&head=1", point)
  weights = kept(make_sentence())[1, 0, 2]
  (tooltip,) = page.find("div", id="tooltip")
  assert tooltip["text"] == f"gall → milk: {weights[6]:.3f}"
  assert "hidden" not in tooltip
  assert line_count(page) == (weights >= FAINTEST).sum()


def test_browser_draws_512_tokens_with_a_bounded_number_of_lines(browser):
  # Ten weights of 0.1 a row, and a row of one of 1.
  attention = np.zeros([1, 1, 512, 512], np.float32)
  attention[..., :10] = 0.1
  attention[..., 7, :] = np.eye(512)[300]
  tokens = [f"token{i}" for i in range(512)]
  report = attention_report.AttentionReport("long")
  report.add(attention_report.Sentence(tokens, 256, attention))
  pages = [
    Page(browser(report.html(), fragment, "--dump-dom"))
    for fragment in ("", "#token=7")
  ]
  assert [line_count(page) for page in pages] == [511 * 10 + 1, 1]
  (threshold,) = pages[0].find("span", id="threshold")
  # 512 / 6000: what sums to 1 in 512 rows has 6000 such weights at most.
  assert threshold["text"] == "Weights under 0.085 have no line."
  (canvas,) = pages[0].find("canvas", id="matrix")
  # 3 for each token, 104 for labels, 1 for the border.
  assert int(canvas["width"]) == 512 * 3 + 104 + 1


def test_browser_opens_an_empty_report(browser):
  text = attention_report.AttentionReport("nothing").html()
  page = Page(browser(text, "#sentence=0", "--dump-dom"))
  assert page.find("p", id="empty")


@pytest.mark.parametrize("is_dark", [False, True])
def test_browser_paints_the_matrix_in_the_scheme_of_the_system(
  browser, tmp_path, is_dark
):
  image = pytest.importorskip("matplotlib.image")
  path = tmp_path / "page.png"
  browser(
    make_report().html(),
    "#sentence=0&layer=1&head=1",
    f"--screenshot={path}",
    "--window-size=1400,1000",
    f"--blink-settings=preferredColorScheme={0 if is_dark else 1}",
  )
  pixels = np.rint(255 * image.imread(path)[:, :, :3]).astype(int)
  # As the page mixes --paper and --weight.
  paper, full = np.array(
    [[22, 25, 30], [125, 196, 255]]
    if is_dark
    else [[255, 255, 255], [8, 81, 156]]
  )
  assert pixels[0, 0].tolist() == paper.tolist()
  weights = kept(make_sentence())[0, 0]
  for strength in np.sqrt([weights.max(), np.sort(weights.ravel())[32]]):
    colour = paper + strength * (full - paper)
    is_there = np.abs(pixels - colour).max(-1) <= 1
    # A cell has 26 * 26 pixels; its border may be blended.
    assert is_there.sum() >= 24 * 24
