"""Attention weights as one HTML page that needs nothing but a browser.

    report = AttentionReport("uncased_L-12_H-768_A-12")
    report.add(Sentence(["[CLS]", "a", "text", "[SEP]"], 4, probs[0]))
    files.write_atomically("attention.html", report.html())

The page is put together from the files of `attention_page/`. It is plain ASCII
and loads nothing; its content security policy forbids that, should an escape
be forgotten. The fragment of its address says which view it shows:
`attention.html#sentence=0&layer=2&head=1&token=3`, where sentences and tokens
count from 0, as in the files of features, layers and heads from 1, and `head`
may be `mean`.
"""

import base64
import dataclasses
import html
import importlib.resources
import json
import string
import zlib

import numpy as np

# A browser opens this in about two seconds. BERT-Base has about 1 MB a sentence
# of 128 tokens.
DEFAULT_MAX_BYTES = 32 * 2**20
# Tolerance of a row's sum: softmax in half precision is not exact.
SUM_TOLERANCE = 0.02
_EMPTY = '<p id="empty">This report has no sentence.</p>'


@dataclasses.dataclass(frozen=True, eq=False)
class Sentence:
  """Holds the attention of one text or pair, without padding.

  Attributes:
    tokens: list of str.
    num_first: how many of them belong to the first text, `[CLS]` and its
      `[SEP]` included.
    attention: float [layers, heads, length, length], from a token (row) to a
      token (column); rows sum to 1.

  Raises:
    ValueError: the shapes disagree, or there are rows that do not sum to 1.
  """

  tokens: list[str]
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
  """Refuses weights that are no probabilities."""
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
    num_left_out: number of sentences that did not fit.
  """

  def __init__(self, title, max_bytes=DEFAULT_MAX_BYTES):
    self.num_left_out = 0
    self._title = title
    self._max_bytes = max_bytes
    self._entries = []  # JSON
    self._layers_and_heads = (0, 0)
    self._views = _read_part("views.html")
    longest = self._views + _note_left_out(10**9, max_bytes)
    self._num_bytes = len(self._page(longest))

  def add(self, sentence):
    """Adds a sentence if the page stays within max_bytes.

    Args:
      sentence: Sentence.

    Returns:
      Whether it was added. A shorter one may fit after one that did not.

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
    """Returns the page, a str of ASCII characters."""
    content = self._views if self._entries else _EMPTY
    if self.num_left_out:
      content = _note_left_out(self.num_left_out, self._max_bytes) + content
    return self._page(content)

  def _page(self, content):
    title = html.escape(self._title)
    title = title.encode("ascii", "xmlcharrefreplace").decode()
    layers, heads = self._layers_and_heads
    return string.Template(_read_part("page.html")).substitute(
      title=title,
      style=_read_part("page.css"),
      content=content,
      layers=layers,
      heads=heads,
      sentences=",\n".join(self._entries),
      script=_read_part("page.js"),
    )


def _read_part(name):
  """Reads a file of `attention_page/`: str of ASCII characters."""
  folder = importlib.resources.files(__package__) / "attention_page"
  return (folder / name).read_text(encoding="ascii")


def _to_json(number, sentence):
  """Writes a sentence as JSON that can stand in a script element.

  Attention is rounded to multiples of 1/255 and deflated; most of it is near 0.
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
  # A token may be "</script>". json escapes all characters beyond ASCII.
  return json.dumps(fields).replace("<", "\\u003c")


def _note_left_out(num_left_out, max_bytes):
  return (
    f'<p class="note" id="left-out">Sentences left out: {num_left_out}. With '
    f"them, this page would be larger than {max_bytes:,} bytes. Give fewer or "
    "shorter texts to see them.</p>\n"
  )
