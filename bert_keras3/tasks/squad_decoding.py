"""SQuAD: from the logits of windows to answers, n-best lists and null odds.

Upstream's `write_predictions` looks at every pair of positions in a loop and
tokenises the words of every candidate anew. Here the pairs of all windows are
ranked as arrays and every context is normalised once. The results are
upstream's, exact ties included, except for the cases in docs/differences.md.

    decoded = squad_decoding.decode(
      examples, windows, start_logits, end_logits, tokenizer, config
    )
    decoded.predictions[qas_id]  # the answer's text, "" for none
    decoded.best[qas_id]  # an Answer, with probability and position

Nothing here needs TensorFlow.
"""

import bisect
import contextlib
import dataclasses
import functools
import gc
import itertools
import math
import re
import typing

import numpy as np

import tokenization

# Upstream's prediction in 1.1 for a question without any valid span.
NO_SPAN = "empty"
# Null odds of a question about an empty context: upstream's initial value when
# it looks for the lowest score. Finite, because JSON has no infinity.
NULL_ODDS_OF_NO_WINDOW = 1000000.0

# Bounds of memory: windows that are decoded together, and pairs of positions
# that are ranked together.
_WINDOWS_AT_ONCE = 2048
_PAIRS_AT_ONCE = 1 << 20
# Spans of a window that are ranked first, in addition to n_best_size. Several
# may have equal texts; if too few texts are left, all spans are ranked.
_SPARE_SPANS = 5

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer,
# kana and the Chinese characters.
_UNSPACED = re.compile(
  "[\u0e00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
  "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
  "\U00020000-\U0003ffff]"
)
# Letters of those scripts between two blanks: up to the first number may be one
# word, more than the second are a sentence, whatever stands among them.
_SHORT_RUN, _LONG_RUN = 4, 16
# Characters that separate words for upstream, which joins them with blanks.
_BLANKS = str.maketrans("\t\r\n\u202f", "    ")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
  """The rules by which logits become answers; the fields are upstream's flags.

  Raises:
    ValueError: `n_best_size` or `max_answer_length` is less than 1.
  """

  n_best_size: int = 20
  max_answer_length: int = 30
  do_lower_case: bool = True
  version_2_with_negative: bool = False
  null_score_diff_threshold: float = 0.0

  def __post_init__(self):
    for name in ("n_best_size", "max_answer_length"):
      value = getattr(self, name)
      if value < 1:
        raise ValueError(f"--{name}={value}: pass 1 or more")


class Answer(typing.NamedTuple):
  """The answer that is predicted for a question.

  `probability` is its share among the n best and `score` the sum of its logits.
  It stands in `context[start:end]`; both are None if there is no answer. White
  space between words is a single blank in `text`, whatever it is there.
  """

  text: str
  probability: float
  score: float
  start: int | None = None
  end: int | None = None


@dataclasses.dataclass(frozen=True)
class Decoded:
  """Results by question id, in the order of the questions.

  `predictions`, `nbest` and `null_odds` are what upstream writes as
  predictions.json, nbest_predictions.json and null_odds.json (empty in 1.1);
  `best` holds the Answer to each prediction.
  """

  predictions: dict[str, str]
  nbest: dict[str, list[dict[str, str | float]]]
  null_odds: dict[str, float]
  best: dict[str, Answer]


def decode(examples, windows, start_logits, end_logits, tokenizer, config):
  """Finds the answers, as write_predictions of upstream's run_squad.py does.

  All columns of the logits compete for the n best starts and ends, those of the
  question and of padding as well; pairs that cannot be an answer are dropped
  afterwards. So upstream's results depend on the padding. A column that was not
  computed should hold -inf.

  Args:
    examples: list of squad_data.SquadExample.
    windows: squad_data.Windows of these examples.
    start_logits: floats [windows, columns], a column for each position of the
      longest window at least.
    end_logits: floats [windows, columns].
    tokenizer: the tokenization.FullTokenizer that made the windows.
    config: DecodingConfig.

  Returns:
    Decoded.

  Raises:
    ValueError: the logits are not of these windows, or not finite (but for -inf
      beyond a window's tokens).
  """
  logits = (np.asarray(start_logits), np.asarray(end_logits))
  for values in logits:
    _check_logits(values, examples, windows)
  decoder = _Decoder(examples, windows, logits, tokenizer, config)
  with _paused_collector():
    for first, last in _chunks(windows.example_index, len(examples)):
      decoder.decode(first, last)
  return decoder.results()


@contextlib.contextmanager
def _paused_collector():
  """Pauses Python's collector of cyclic garbage; decoding makes none.

  It would search all objects of the process again and again as hundreds of
  thousands of entries are made: a fifth of the time or more.
  """
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_enabled:
      gc.enable()


def apply_null_threshold(nbest, null_odds, threshold):
  """Decides again which questions have no answer (2.0).

  Args:
    nbest: dict from question id to entries, as Decoded.nbest.
    null_odds: dict from question id to float, as Decoded.null_odds.
    threshold: float; odds above it mean that there is no answer. At math.inf
      every question gets the best answer that it has.

  Returns:
    Dict from question id to text.

  Raises:
    ValueError: a question has no null odds.
  """
  missing = nbest.keys() - null_odds.keys()
  if missing:
    raise ValueError(
      f"question {min(missing)!r} has no null odds; use the null_odds.json that"
      " was written with the predictions"
    )
  return {
    qas_id: "" if null_odds[qas_id] > threshold else _best_text(entries)
    for qas_id, entries in nbest.items()
  }


def _best_text(entries):
  """Returns the best text that is not empty, "" if there is none."""
  return next((entry["text"] for entry in entries if entry["text"]), "")


def _check_logits(values, examples, windows):
  lengths = windows.sequences.lengths
  longest = lengths.max(initial=0)
  if values.ndim != 2 or len(values) != len(lengths):
    raise ValueError(
      f"logits of shape {values.shape} for {len(lengths)} windows; each window"
      " needs a row"
    )
  if values.shape[1] < longest:
    raise ValueError(
      f"logits of {values.shape[1]} positions for windows of up to {longest}"
      " tokens; each token needs a column"
    )
  if np.isfinite(values).all():
    return
  is_bad = np.arange(values.shape[1]) < lengths[:, np.newaxis]
  is_bad &= values == -np.inf
  is_bad |= ~(values < np.inf)
  bad = np.flatnonzero(is_bad.any(axis=1))
  if bad.size:
    qas_id = examples[windows.example_index[bad[0]]].qas_id
    raise ValueError(
      f"question {qas_id!r}: logits that are not finite; the model is broken or"
      " its training diverged, take an earlier checkpoint"
    )


def _chunks(example_index, num_examples):
  """Splits questions into chunks; yields the bounds of their windows."""
  bounds = np.searchsorted(example_index, np.arange(num_examples + 1)).tolist()
  begin = 0
  for end, following in itertools.pairwise([*bounds, math.inf]):
    if end > begin and following - begin > _WINDOWS_AT_ONCE:
      yield begin, end
      begin = end


# Spans ------------------------------------------------------------------------

# Sentinels for starts that no answer may have and ends outside the document:
# end - start is negative for any pair with one of them, and fits into int32.
_NO_START, _NO_END = 1 << 29, -(1 << 29)


@dataclasses.dataclass(frozen=True)
class _Spans:
  """Candidates for an answer, null answers included.

  Each field is an array [candidates], which is faster than a list of records.
  `question` is the number of the example, `start` and `end` are document
  tokens, numbered as in Windows.word_index; logits are float64.
  """

  question: np.ndarray
  window: np.ndarray
  start: np.ndarray
  end: np.ndarray
  start_logit: np.ndarray
  end_logit: np.ndarray
  is_null: np.ndarray

  def __len__(self):
    return len(self.question)

  def __getitem__(self, numbers):
    """Returns the candidates with these numbers, as _Spans."""
    return _Spans(*(column[numbers] for column in self.columns()))

  def columns(self):
    """Returns the arrays, in the order of the fields."""
    return [getattr(self, field.name) for field in dataclasses.fields(self)]

  def scores(self):
    """Returns sums of logits, float64 [candidates]."""
    # Python's floats are float64, too: in float32 more sums would tie.
    return self.start_logit + self.end_logit


def best_indexes(values, count):
  """Finds the largest values of each row, as upstream's _get_best_indexes.

  Args:
    values: floats [rows, columns], no NaN.
    count: number of values to find.

  Returns:
    ints [rows, min(count, columns)]: columns, that of the largest value first;
    of equal values the first column is first.
  """
  width = values.shape[1]
  if count >= width:
    return np.argsort(-values, axis=1, kind="stable")
  least = np.partition(values, width - count, axis=1)[:, width - count]
  is_best = values >= least[:, np.newaxis]
  # Counting all is much faster than counting by rows; ties are rare.
  if np.count_nonzero(is_best) > count * len(values):
    tied = np.flatnonzero(np.count_nonzero(is_best, axis=1) > count)
    order = np.argsort(-values[tied], axis=1, kind="stable")
    is_best[tied] = False
    is_best[tied[:, np.newaxis], order[:, :count]] = True
  # Faster than np.nonzero, which looks for rows and columns.
  best = (np.flatnonzero(is_best) % width).reshape(-1, count)
  best_values = np.take_along_axis(values, best, axis=1)
  ranks = np.argsort(-best_values, axis=1, kind="stable")
  return np.take_along_axis(best, ranks, axis=1)


def _rank_spans(windows, logits, rows, config, limit):
  """Ranks the candidates of windows.

  Args:
    windows: Windows.
    logits: pair of floats [windows, columns].
    rows: ints, numbers of the windows, by question.
    config: DecodingConfig.
    limit: candidates of a window to keep, beside ties with the last of them;
      None for all.

  Returns:
    spans: _Spans, by question and then by falling score. Equal scores are in
      the order of upstream's loops over windows, starts and ends, the null
      answer last.
    cuts: ascending numbers of the candidates that are the last of their window
      although it has more, all of them worse.
  """
  pairs = min(config.n_best_size, logits[0].shape[1]) ** 2
  step = max(1, _PAIRS_AT_ONCE // pairs)
  parts, cut_windows = [], []
  for first in range(0, len(rows), step):
    chunk = rows[first : first + step]
    spans, is_cut = _find_spans(windows, logits, chunk, config, limit or pairs)
    parts.append(spans)
    cut_windows.append(chunk[is_cut])
  if config.version_2_with_negative:
    parts.append(_find_nulls(windows, logits, rows))
  columns = zip(*(part.columns() for part in parts), strict=True)
  spans = _Spans(*map(np.concatenate, columns))
  spans = spans[_order(spans.question, -spans.scores())]
  return spans, _find_cuts(spans, np.concatenate(cut_windows))


def _order(questions, values):
  """Sorts by question, then by value, stably.

  Args:
    questions: ints [candidates].
    values: floats [candidates].

  Returns:
    ints [candidates], numbers of candidates.
  """
  order = np.argsort(values, kind="stable")
  groups = questions[order] - questions.min(initial=0)
  # NumPy sorts small integers in linear time: np.lexsort takes twice as long.
  groups = groups.astype(np.min_scalar_type(groups.max(initial=0)))
  return order[np.argsort(groups, kind="stable")]


def _find_cuts(spans, windows):
  """Finds the last candidate of each window, as ascending numbers."""
  if not windows.size:
    return windows
  numbers = np.flatnonzero(~spans.is_null)
  last = np.zeros(spans.window.max() + 1, np.int64)
  # Of several values assigned to an element, the last one stays.
  last[spans.window[numbers]] = numbers
  return np.sort(last[windows])


def _find_nulls(windows, logits, rows):
  """Finds each question's null answer, in the window of its lowest score."""
  tokens = windows.word_starts[rows]
  spans = _Spans(
    question=windows.example_index[rows],
    window=rows,
    start=tokens,
    end=tokens,
    start_logit=logits[0][rows, 0].astype(np.float64),
    end_logit=logits[1][rows, 0].astype(np.float64),
    is_null=np.ones(len(rows), bool),
  )
  spans = spans[_order(spans.question, spans.scores())]
  _, first = np.unique(spans.question, return_index=True)
  return spans[first]


def _find_spans(windows, logits, rows, config, limit):
  """Finds the candidates of windows that have an answer's form.

  Returns:
    (_Spans, in the order of upstream's loops over windows, starts and ends;
    bool [rows], whether a window has more candidates, all of them worse).
  """
  (starts, start_logits), (ends, end_logits) = (
    _best_tokens(windows, values[rows], rows, config.n_best_size)
    for values in logits
  )
  is_valid = _are_answers(windows, rows, starts, ends, config.max_answer_length)
  scores = start_logits[:, :, np.newaxis] + end_logits[:, np.newaxis, :]
  is_kept, is_cut = _limit(scores.reshape(is_valid.shape), is_valid, limit)
  # Indexes of the flattened arrays: faster than those of rows and columns.
  start, end = np.divmod(np.flatnonzero(is_kept), ends.shape[1])
  row = start // starts.shape[1]
  end += row * ends.shape[1]
  first = windows.word_starts[rows][row]
  spans = _Spans(
    question=windows.example_index[rows][row],
    window=rows[row],
    start=first + starts.ravel()[start],
    end=first + ends.ravel()[end],
    start_logit=start_logits.ravel()[start].astype(np.float64),
    end_logit=end_logits.ravel()[end].astype(np.float64),
    is_null=np.zeros(len(row), bool),
  )
  return spans, is_cut


def _are_answers(windows, rows, starts, ends, max_answer_length):
  """Tests which pairs of positions have an answer's form.

  A start must be in the window where its token has most context, as upstream
  requires.

  Args:
    windows: Windows.
    rows: ints, numbers of the windows.
    starts: int32 [rows, count], of `_best_tokens`.
    ends: int32 [rows, count], likewise.
    max_answer_length: int.

  Returns:
    bool [rows, count * count].
  """
  tokens = windows.word_starts[rows, np.newaxis] + starts
  may_start = (starts >= 0) & windows.is_max_context[tokens]
  starts = np.where(may_start, starts, np.int32(_NO_START))
  ends = np.where(ends >= 0, ends, np.int32(_NO_END))
  steps = ends[:, np.newaxis, :] - starts[:, :, np.newaxis]
  # As unsigned integers, negative numbers are large: one comparison for both
  # bounds.
  is_valid = steps.view(np.uint32) < min(max_answer_length, _NO_START)
  return is_valid.reshape(len(rows), -1)


def _limit(scores, is_valid, limit):
  """Keeps the best of each row, and all that tie with the last of them.

  Args:
    scores: floats [rows, columns]; may have been rounded, which makes ties but
      reverses no order.
    is_valid: bool [rows, columns].
    limit: number of scores to keep.

  Returns:
    (bool [rows, columns], the scores to keep; bool [rows], whether there are
    other valid ones).
  """
  is_cut = np.count_nonzero(is_valid, axis=1) > limit
  if is_cut.any():
    valid_scores = np.where(is_valid[is_cut], scores[is_cut], -np.inf)
    rank = scores.shape[1] - limit
    least = np.partition(valid_scores, rank, axis=1)[:, rank]
    is_valid[is_cut] &= scores[is_cut] >= least[:, np.newaxis]
  return is_valid, is_cut


def _best_tokens(windows, logits, rows, count):
  """Finds the best positions of windows, as document tokens, and their logits.

  Returns:
    (int32 [rows, count], numbers of tokens within the window's part of the
    document, -1 for positions outside; floats [rows, count]).
  """
  positions = best_indexes(logits, count)
  tokens = positions - windows.first_doc_token[rows, np.newaxis]
  counts = windows.word_starts[rows + 1] - windows.word_starts[rows]
  is_inside = (tokens >= 0) & (tokens < counts[:, np.newaxis])
  tokens = np.where(is_inside, tokens, -1).astype(np.int32)
  return tokens, np.take_along_axis(logits, positions, axis=1)


# Texts ------------------------------------------------------------------------


def get_final_text(pred_text, orig_text, do_lower_case):
  """Finds the part of a text that word pieces were made of.

  By upstream's rule: the pieces are searched for in the normalised text, and
  the position is mapped back by counting the characters that are not blanks.

  Args:
    pred_text: pieces joined to words again: "steve smith".
    orig_text: the words that they come from: "Steve Smith's".
    do_lower_case: whether normalising lower-cases and strips accents.

  Returns:
    Part of `orig_text`: "Steve Smith". All of it if the pieces are not found,
    or if it has more or fewer characters than the normalised text.
  """
  # The position of a blank cannot be mapped back.
  if not pred_text or pred_text != pred_text.strip(" "):
    return orig_text
  words = orig_text.split(" ")
  normalized = _NormalizedWords(_basic_tokenizer(bool(do_lower_case)))
  bounds = _Passage(words, normalized).locate(pred_text, 0, len(words) - 1)
  return orig_text[slice(*bounds)] if bounds else orig_text


@functools.cache
def _basic_tokenizer(do_lower_case):
  return tokenization.BasicTokenizer(do_lower_case)


class _NormalizedWords(dict):
  """A cache of the values that a _Passage adds up, by word.

  They are a tuple: the normalised word, its length with the blank that follows
  it, and the number of characters lost, blanks not counted.
  """

  def __init__(self, basic_tokenizer):
    super().__init__()
    self._tokenizer = basic_tokenizer

  def __missing__(self, word):
    parts = self._tokenizer.tokenize(word)
    text = " ".join(parts)
    lost = len(word) - sum(map(len, parts))
    self[word] = entry = (text, len(text) + bool(text), lost)
    return entry


def _sums(values):
  """Returns the running sums [0, a, a + b, ...] of [a, b, ...]."""
  return list(itertools.accumulate(values, initial=0))


class _Passage:
  """The words of a context with one blank between them, also normalised.

  Attributes:
    words: list of str.
    text: str.
  """

  def __init__(self, words, normalized_words):
    self.words = words
    self.text = " ".join(words)
    entries = map(normalized_words.__getitem__, words)
    texts, sizes, losses = zip(*entries, strict=True)
    self._normalized = " ".join(filter(None, texts))
    self._starts = _sums(sizes)  # of the words in `_normalized`
    self._losses = _sums(losses)
    self._chars = _sums(map(len, words))

  def bounds(self, first, last):
    """Returns (start, end) in `text` of the words `first` to `last`."""
    return self._chars[first] + first, self._chars[last + 1] + last

  def locate(self, pieces, first, last):
    """Finds joined pieces in consecutive words, by `get_final_text`'s rule.

    Returns:
      (start, end) in `text`; None where the rule yields all of the words.
    """
    if self._losses[first] != self._losses[last + 1]:
      return None
    normalized, chars = self._normalized, self._chars
    begin = self._starts[first]
    start = normalized.find(pieces, begin, self._starts[last + 1])
    if start < 0:
      return None
    # Numbers of the first and the last character, blanks not counted.
    blanks = normalized.count(" ", begin, start)
    start_char = chars[first] + start - begin - blanks
    blanks = pieces.count(" ")
    end_char = start_char + len(pieces) - 1 - blanks
    start_word = bisect.bisect(chars, start_char) - 1
    return start_char + start_word, end_char + bisect.bisect(chars, end_char)


def _is_unspaced(word):
  """Returns whether a text between two blanks is not a word but a run of many.

  Few letters may well be one word, and so may Latin ones with a Chinese unit.
  """
  count = len(_UNSPACED.findall(word))
  num_letters = sum(map(str.isalnum, word))
  is_mostly = count > _SHORT_RUN and 3 * count > 2 * num_letters
  return is_mostly or count > _LONG_RUN


class _Pieces:
  """The texts of a tokenizer's word pieces, by id.

  Attributes:
    texts: list of str, a blank before those that begin a word.
    sizes: ints, characters of each without the blank; -1 for the unknown token,
      which does not have the characters that it was made of.
    char_sets: uint64, has a bit set for each character but the blank.
    first_chars: uint64, has the bit of the first character set.
  """

  def __init__(self, tokenizer):
    self.texts = [""] * (max(tokenizer.inv_vocab) + 1)
    for index, token in tokenizer.inv_vocab.items():
      is_inner = token.startswith("##")
      self.texts[index] = token[len("##") :] if is_inner else " " + token
    words = [text.removeprefix(" ") or "?" for text in self.texts]
    self.sizes = np.array([len(word) for word in words])
    begins = np.cumsum(self.sizes) - self.sizes
    chars = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    # 64 bits for all of Unicode: some characters share a bit. Knuth's factor
    # separates letters from signs, which are 64 code points before them.
    hashes = chars * np.uint32(2654435761) >> np.uint32(26)
    bits = np.left_shift(np.uint64(1), hashes.astype(np.uint64))
    self.char_sets = np.bitwise_or.reduceat(bits, begins)
    self.first_chars = bits[begins]
    unknown = tokenizer.wordpiece_tokenizer.unk_token
    self.sizes[tokenizer.vocab.get(unknown, [])] = -1

  def join(self, ids):
    """Joins the texts of tokens."""
    return "".join(map(self.texts.__getitem__, ids.tolist())).lstrip(" ")


# Where a candidate's text is: nowhere; at its tokens; at its tokens unless an
# equal text is earlier in its first word; or to be found by upstream's rule.
_NULL, _AT_TOKENS, _INSIDE_WORD, _UNKNOWN = range(4)


class _Tokens:
  """Document tokens of consecutive windows, and which of their words are plain.

  The tokens of a plain word are its characters but for case and accents, one
  for one, with none dropped and a single blank around. Most words are plain. An
  answer of plain words is where its tokens are; no search is needed.

  Args:
    examples: list of SquadExample.
    windows: Windows.
    first: number of the first window.
    last: number after the last window.
    pieces: _Pieces.

  Attributes:
    begin: number of the first token, as in Windows.word_index.
    ids: int32 [tokens].
  """

  def __init__(self, examples, windows, first, last, pieces):
    self._pieces = pieces
    self.begin, end = windows.word_starts[[first, last]].tolist()
    self.ids = _document_ids(windows, first, last)
    words = windows.word_index[self.begin : end]
    begins = windows.word_starts[first:last] - self.begin
    is_first = np.diff(words, prepend=-1) != 0
    is_first[begins] = True
    self._word_begins = np.flatnonzero(is_first)
    self._word_numbers = np.cumsum(is_first) - 1
    starts = windows.char_starts[self.begin : end]
    ends = windows.char_ends[self.begin : end]
    is_odd = ends - starts != pieces.sizes[self.ids]
    # Characters that precede a token: none in a word, one between two words.
    steps = np.diff(words)
    has_gap = (starts[1:] - ends[:-1] != steps) | (steps > 1)
    # A window may begin or end within a word.
    has_gap[begins[1:] - 1] = False
    is_odd[1:] |= has_gap
    is_odd[:-1] |= has_gap
    for tokens, are_cut in _window_edges(examples, windows, first, last):
      is_odd[tokens - self.begin] |= are_cut
    is_odd = np.logical_or.reduceat(is_odd, self._word_begins)
    self._num_odd = np.append(0, np.cumsum(is_odd))

  def kinds(self, spans):
    """Finds where candidates' texts are, and the first tokens of their words.

    Returns:
      (ints [candidates], ints [candidates]).
    """
    starts = spans.start - self.begin
    words = self._word_numbers[starts]
    last_words = self._word_numbers[spans.end - self.begin]
    begins = self._word_begins[words]
    kinds = np.full(len(spans), _AT_TOKENS)
    is_inside = np.flatnonzero(starts > begins)
    kinds[is_inside[self._may_repeat(begins[is_inside], starts[is_inside])]] = (
      _INSIDE_WORD
    )
    kinds[self._num_odd[last_words + 1] > self._num_odd[words]] = _UNKNOWN
    kinds[spans.is_null] = _NULL
    return kinds, begins + self.begin

  def _may_repeat(self, begins, starts):
    """Returns whether tokens' first characters may occur earlier in their word.

    Mostly a bracket or the like comes before, which has none of the characters.
    True also for some that do not occur, since characters share bits.
    """
    if not len(starts):
      return np.zeros(0, bool)
    char_sets = self._pieces.char_sets[self.ids]
    bounds = np.stack([begins, starts], axis=1).ravel()
    before = np.bitwise_or.reduceat(char_sets, bounds)[::2]
    return before & self._pieces.first_chars[self.ids[starts]] != 0


def _document_ids(windows, first, last):
  """Returns the ids of consecutive windows, int32 [document tokens]."""
  sequences = windows.sequences
  counts = np.diff(windows.word_starts[first : last + 1])
  starts = sequences.starts[first:last] + windows.first_doc_token[first:last]
  shift = starts - (np.cumsum(counts) - counts)
  return sequences.flat_ids[np.repeat(shift, counts) + np.arange(counts.sum())]


def _window_edges(examples, windows, first, last):
  """Finds the first and last tokens of windows, and whether they cut a word.

  Returns:
    Two pairs (tokens, bool [windows]): whether the window cuts that word.
  """
  bounds = windows.word_starts[first : last + 1]
  begins, ends = bounds[:-1], bounds[1:] - 1
  of_windows = [examples[x] for x in windows.example_index[first:last].tolist()]
  word_starts = [
    example.word_offsets[word]
    for example, word in zip(
      of_windows, windows.word_index[begins].tolist(), strict=True
    )
  ]
  word_ends = [
    example.word_offsets[word] + len(example.doc_tokens[word])
    for example, word in zip(
      of_windows, windows.word_index[ends].tolist(), strict=True
    )
  ]
  return (
    (begins, windows.char_starts[begins] != word_starts),
    (ends, windows.char_ends[ends] != word_ends),
  )


# The n best -------------------------------------------------------------------


class _Decoder:
  """Chooses the n best and the answer of every question.

  Args:
    examples: list of SquadExample.
    windows: Windows.
    logits: pair of floats [windows, columns].
    tokenizer: FullTokenizer.
    config: DecodingConfig.
  """

  def __init__(self, examples, windows, logits, tokenizer, config):
    self.examples = examples
    self.windows = windows
    self.logits = logits
    self.config = config
    self.pieces = _Pieces(tokenizer)
    self.normalized_words = _NormalizedWords(
      _basic_tokenizer(bool(config.do_lower_case))
    )
    # If not, the text that upstream's rule searches is not made of the pieces.
    casing = tokenizer.basic_tokenizer.do_lower_case
    self.has_same_casing = bool(casing) == bool(config.do_lower_case)
    # By the number of the question.
    self._nbest, self._null_odds, self._best = {}, {}, {}

  def decode(self, first, last):
    """Decodes the questions of windows first, ..., last - 1."""
    tokens = _Tokens(self.examples, self.windows, first, last, self.pieces)
    rows = np.arange(first, last)
    for limit in (self.config.n_best_size + _SPARE_SPANS, None):
      candidates = _Candidates(self, tokens, rows, limit)
      chosen = candidates.choose()
      self._enter(candidates, chosen)
      is_left = ~np.isin(self.windows.example_index[rows], list(chosen))
      rows = rows[is_left]
      if not rows.size:
        break

  def results(self):
    """Returns the Decoded of all questions."""
    decoded = Decoded({}, {}, {}, {})
    for number, example in enumerate(self.examples):
      if number not in self._best:
        self._enter_no_span(number)
      qas_id = example.qas_id
      decoded.best[qas_id] = self._best[number]
      decoded.nbest[qas_id] = self._nbest[number]
      decoded.predictions[qas_id] = self._best[number].text
      if self.config.version_2_with_negative:
        decoded.null_odds[qas_id] = self._null_odds[number]
    return decoded

  def _enter_no_span(self, question):
    """Enters a question without a span: its context is empty, or none fits."""
    text = "" if self.config.version_2_with_negative else NO_SPAN
    logits = {"start_logit": 0.0, "end_logit": 0.0}
    self._nbest[question] = [{"text": text, "probability": 1.0, **logits}]
    self._null_odds[question] = NULL_ODDS_OF_NO_WINDOW
    self._best[question] = Answer(text, 1.0, 0.0)

  def _enter(self, candidates, chosen):
    """Enters the n best that _Candidates.choose returned."""
    sizes = [len(best) for best in chosen.values()]
    numbers = itertools.chain.from_iterable(x.values() for x in chosen.values())
    spans = candidates.spans[np.fromiter(numbers, np.int64)]
    columns = zip(
      itertools.chain.from_iterable(chosen.values()),
      _softmax(spans.scores(), sizes).tolist(),
      spans.start_logit.tolist(),
      spans.end_logit.tolist(),
      strict=True,
    )
    for question, best in chosen.items():
      nbest = [
        {
          "text": text,
          "probability": part,
          "start_logit": start,
          "end_logit": end,
        }
        for text, part, start, end in itertools.islice(columns, len(best))
      ]
      self._nbest[question] = nbest
      entry = nbest[0]
      if self.config.version_2_with_negative:
        entry = self._choose_with_null(question, nbest)
      text = entry["text"]
      bounds = candidates.locate(best[text], text) if text else ()
      score = entry["start_logit"] + entry["end_logit"]
      self._best[question] = Answer(text, entry["probability"], score, *bounds)

  def _choose_with_null(self, question, nbest):
    """Chooses the entry that is predicted in 2.0; enters the null odds."""
    null = next(entry for entry in nbest if not entry["text"])
    best = next((entry for entry in nbest if entry["text"]), None)
    odds = null["start_logit"] + null["end_logit"]
    if best:
      odds = odds - best["start_logit"] - best["end_logit"]
    else:
      # Upstream crashes here. These are the odds against the worst span.
      odds -= self._lowest_score(question)
    self._null_odds[question] = odds
    is_null = odds > self.config.null_score_diff_threshold
    return null if is_null or not best else best

  def _lowest_score(self, question):
    rows = np.flatnonzero(self.windows.example_index == question)
    lengths = self.windows.sequences.lengths[rows, np.newaxis]
    is_token = np.arange(self.logits[0].shape[1]) < lengths
    return sum(float(values[rows][is_token].min()) for values in self.logits)


def _softmax(scores, sizes):
  """Computes probabilities within consecutive groups of scores, none empty."""
  if not sizes:
    return scores
  begins = np.cumsum(sizes) - sizes
  largest = np.maximum.reduceat(scores, begins)
  exponentials = np.exp(scores - np.repeat(largest, sizes))
  return exponentials / np.repeat(np.add.reduceat(exponentials, begins), sizes)


class _Candidates:
  """The candidates of windows, and their texts.

  Args:
    decoder: _Decoder.
    tokens: _Tokens of these windows, perhaps of others too.
    rows: ints, numbers of the windows, in order.
    limit: candidates of a window at most, None for all.

  Attributes:
    spans: _Spans, ranked.
  """

  def __init__(self, decoder, tokens, rows, limit):
    windows = decoder.windows
    self._decoder = decoder
    self._tokens = tokens
    self._passage = None
    self._context = ("", "")
    self.spans, self._cuts = _rank_spans(
      windows, decoder.logits, rows, decoder.config, limit
    )
    kinds, word_begins = tokens.kinds(self.spans)
    if not decoder.has_same_casing:
      kinds[~self.spans.is_null] = _UNKNOWN
    # As lists, which are faster than arrays for single entries.
    odd = np.flatnonzero(kinds != _AT_TOKENS)
    self._odd = odd.tolist()
    columns = (kinds, word_begins, self.spans.start, self.spans.end)
    self._odd_tokens = [column[odd].tolist() for column in columns]
    self._starts = windows.char_starts[self.spans.start].tolist()
    self._ends = windows.char_ends[self.spans.end].tolist()

  def choose(self):
    """Chooses each question's n best.

    Returns:
      {question: {text: number of the candidate}}, without the questions for
      which the limit may have cut off one of the n best.
    """
    questions, begins = np.unique(self.spans.question, return_index=True)
    ends = np.append(begins, len(self.spans))[1:]
    # After a window's last candidate, one that was cut off might be better.
    cuts = np.append(self._cuts, len(self.spans))
    stops = cuts[np.searchsorted(cuts, begins)] + 1
    # One of each question, or in 1.1 none at all.
    nulls = np.flatnonzero(self.spans.is_null).tolist()
    columns = (questions, begins, ends, stops)
    columns = [x.tolist() for x in columns] + [nulls]
    chosen = {}
    for question, begin, end, stop, null in itertools.zip_longest(*columns):
      best = self._choose(question, begin, min(end, stop))
      if len(best) == self._decoder.config.n_best_size or stop > end:
        if null is not None:
          best.setdefault("", null)
        chosen[question] = best
    return chosen

  def _choose(self, question, begin, end):
    """Chooses the n best among a question's candidates: {text: number}."""
    count = self._decoder.config.n_best_size
    example = self._decoder.examples[question]
    best = {}
    # As many at a time as are still missing, mostly all at once.
    while begin < end and len(best) < count:
      stop = min(begin + count - len(best), end)
      texts = self._texts(example, begin, stop)
      for number, text in enumerate(texts, begin):
        best.setdefault(text, number)
      begin = stop
    return best

  def _texts(self, example, begin, end):
    """Returns the texts of consecutive candidates of a question."""
    context = self._blanked(example.context)
    bounds = zip(self._starts[begin:end], self._ends[begin:end], strict=True)
    texts = [context[start:stop] for start, stop in bounds]
    first = bisect.bisect_left(self._odd, begin)
    last = bisect.bisect_left(self._odd, end, first)
    for index in range(first, last):
      number = self._odd[index]
      kind, *tokens = [column[index] for column in self._odd_tokens]
      if kind == _NULL:
        texts[number - begin] = ""
      elif kind == _UNKNOWN or not self._stands_first(*tokens):
        texts[number - begin] = self._search(example, number, *tokens[1:])
    return texts

  def _blanked(self, context):
    """Returns a context with blanks for all white space."""
    # Mostly it is the context of the question before.
    if context != self._context[0]:
      is_blanked = context.isprintable()
      text = context if is_blanked else context.translate(_BLANKS)
      self._context = context, text
    return self._context[1]

  def _stands_first(self, word_begin, start, end):
    """Returns whether a candidate's pieces do not occur before in its words."""
    pieces, whole = self._join(start, end), self._join(word_begin, end)
    return whole.find(pieces) == len(whole) - len(pieces)

  def _join(self, first, last):
    begin = self._tokens.begin
    ids = self._tokens.ids[first - begin : last - begin + 1]
    return self._decoder.pieces.join(ids)

  def _search(self, example, number, start_token, end_token):
    """Finds a candidate's text by upstream's rule.

    If that is whole words, a word that is a run of many is cut at the token.
    """
    word_index = self._decoder.windows.word_index
    first, last = int(word_index[start_token]), int(word_index[end_token])
    words = example.doc_tokens
    # Mostly the passage of the question before.
    if self._passage is None or self._passage.words != words:
      self._passage = _Passage(words, self._decoder.normalized_words)
    pieces = self._join(start_token, end_token)
    bounds = self._passage.locate(pieces, first, last)
    start, end = bounds or self._passage.bounds(first, last)
    if not bounds and _is_unspaced(words[first]):
      start += self._starts[number] - example.word_offsets[first]
    if not bounds and _is_unspaced(words[last]):
      end -= example.word_offsets[last] + len(words[last]) - self._ends[number]
    return self._passage.text[start:end]

  def locate(self, number, text):
    """Finds the (start, end) of a candidate's text in the context.

    It begins at the first token or at that token's word, and ends likewise.
    """
    start, end = self._starts[number], self._ends[number]
    example = self._decoder.examples[self.spans.question[number]]
    if example.context[start:end] == text:
      return start, end
    tokens = [self.spans.start[number], self.spans.end[number]]
    first, last = self._decoder.windows.word_index[tokens].tolist()
    offsets = example.word_offsets
    word_end = offsets[last] + len(example.doc_tokens[last])
    starts, ends = (start, offsets[first]), (end, word_end)
    for start, end in itertools.product(starts, ends):
      words = example.context[start:end].translate(_BLANKS).split(" ")
      if " ".join(filter(None, words)) == text:
        break
    return start, end
