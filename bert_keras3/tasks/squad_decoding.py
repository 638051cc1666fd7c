"""SQuAD: from the logits of windows to answers, n-best lists and null odds.

Upstream's `write_predictions` looks at every pair of positions in a loop and
tokenises the words of every candidate anew. Here the pairs of all windows are
ranked as arrays and every context is normalised once. The results are
upstream's, exact ties included, but for the differences that
docs/differences.md lists.

    decoded = squad_decoding.decode(
      examples, windows, start_logits, end_logits, tokenizer, config
    )
    decoded.predictions[qas_id]  # the answer's text, "" for none
    decoded.best[qas_id]  # the same with its probability and place

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

# What upstream predicts in 1.1 for a question without any valid span.
NO_SPAN = "empty"
# Null odds of a question about an empty context: the score from which upstream
# begins to look for a lower one. Finite, because JSON has no infinity.
NULL_ODDS_OF_NO_WINDOW = 1000000.0

# To bound memory: windows whose texts are at hand together, and pairs of
# positions that are ranked together.
_WINDOWS_AT_ONCE = 2048
_PAIRS_AT_ONCE = 1 << 20
# Spans of a window that are looked at first, beyond the answers wanted. Several
# may have the same text; where that leaves too few, all spans are looked at.
_SPARE_SPANS = 5

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer,
# kana and the Chinese characters.
_UNSPACED = re.compile(
  "[\u0e00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
  "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
  "\U00020000-\U0003ffff]"
)
# Letters of those scripts between two blanks: up to so many may be one word,
# more than so many are a sentence, whatever stands among them.
_SHORT_RUN, _LONG_RUN = 4, 16
# What separates words to upstream, which joins them again with blanks.
_BLANKS = str.maketrans("\t\r\n\u202f", "    ")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
  """How logits become answers. The fields are upstream's flags.

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

  predictions: dict
  nbest: dict
  null_odds: dict
  best: dict


def decode(examples, windows, start_logits, end_logits, tokenizer, config):
  """Finds the answers, as write_predictions of upstream's run_squad.py does.

  All columns of the logits compete for the n best starts and ends, those of the
  question and of padding as well; what cannot be an answer is dropped only
  afterwards. So it is upstream's results that depend on the padding. A column
  that was not computed should hold -inf.

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
  """Keeps Python from looking for cyclic garbage, of which we make none.

  It would do so again and again as hundreds of thousands of entries are made,
  among all the objects of the process: a fifth of the time and more.
  """
  was_enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    if was_enabled:
      gc.enable()


def apply_null_threshold(nbest, null_odds, threshold):
  """Decides, anew, which questions have no answer (2.0).

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
  """The best text that is not empty; "" if there is none."""
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
  """Yields the first window and the one after the last of some questions."""
  bounds = np.searchsorted(example_index, np.arange(num_examples + 1)).tolist()
  begin = 0
  for end, following in itertools.pairwise([*bounds, math.inf]):
    if end > begin and following - begin > _WINDOWS_AT_ONCE:
      yield begin, end
      begin = end


# Spans ------------------------------------------------------------------------

# In place of starts that no answer may have and of ends outside the document:
# so far off that the way from one to the other is always backwards, in int32.
_NO_START, _NO_END = 1 << 29, -(1 << 29)


@dataclasses.dataclass(frozen=True)
class _Spans:
  """Candidates for an answer, the null answer being one too.

  An array [candidates] each, which is faster than one of records. `question` is
  the number of the example, `start` and `end` are document tokens, numbered as
  in Windows.word_index; logits are float64.
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
    """Some of them, as _Spans."""
    return _Spans(*(column[numbers] for column in self.columns()))

  def columns(self):
    """The arrays, in the order of the fields."""
    return [getattr(self, field.name) for field in dataclasses.fields(self)]

  def scores(self):
    """Sums of logits, float64 [candidates]."""
    # As Python's floats are: float32 would make ties of what is none.
    return self.start_logit + self.end_logit


def best_indexes(values, count):
  """Where the largest values of each row are, as upstream's _get_best_indexes.

  Args:
    values: floats [rows, columns], no NaN.
    count: how many are wanted.

  Returns:
    ints [rows, min(count, columns)]: the largest value first, of equal ones the
    first.
  """
  width = values.shape[1]
  if count >= width:
    return np.argsort(-values, axis=1, kind="stable")
  least = np.partition(values, width - count, axis=1)[:, width - count]
  is_best = values >= least[:, np.newaxis]
  # The sum of all is much faster than those of rows; ties are rare.
  if np.count_nonzero(is_best) > count * len(values):
    tied = np.flatnonzero(np.count_nonzero(is_best, axis=1) > count)
    order = np.argsort(-values[tied], axis=1, kind="stable")
    is_best[tied] = False
    is_best[tied[:, np.newaxis], order[:, :count]] = True
  # Faster than np.nonzero, which looks for rows and columns.
  best = (np.flatnonzero(is_best) % width).reshape(-1, count)
  found = np.take_along_axis(values, best, axis=1)
  ranks = np.argsort(-found, axis=1, kind="stable")
  return np.take_along_axis(best, ranks, axis=1)


def _rank_spans(windows, logits, rows, config, limit):
  """The candidates of some windows.

  Args:
    windows: Windows.
    logits: pair of floats [windows, columns].
    rows: ints, numbers of the windows, by question.
    config: DecodingConfig.
    limit: leave out what is worse than so many others of its window; None for
      all.

  Returns:
    spans: _Spans, by question and then by falling score. Of equal
      scores, that comes first which upstream's loops over windows, starts and
      ends meet first, and the null answer last.
    cuts: ascending numbers of the candidates that are the last of their window
      although there are others, all of them worse.
  """
  pairs = min(config.n_best_size, logits[0].shape[1]) ** 2
  step = max(1, _PAIRS_AT_ONCE // pairs)
  parts, cut_windows = [], []
  for first in range(0, len(rows), step):
    some = rows[first : first + step]
    spans, is_cut = _find_spans(windows, logits, some, config, limit or pairs)
    parts.append(spans)
    cut_windows.append(some[is_cut])
  if config.version_2_with_negative:
    parts.append(_find_nulls(windows, logits, rows))
  columns = zip(*(part.columns() for part in parts), strict=True)
  spans = _Spans(*map(np.concatenate, columns))
  spans = spans[_order(spans.question, -spans.scores())]
  return spans, _find_cuts(spans, np.concatenate(cut_windows))


def _order(questions, values):
  """Sorts by question, then by value, and keeps the order of equal ones.

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
  """The last candidate of each of some windows, as ascending numbers."""
  if not windows.size:
    return windows
  numbers = np.flatnonzero(~spans.is_null)
  last = np.zeros(spans.window.max() + 1, np.int64)
  # Of several values for a place, the last one stays there.
  last[spans.window[numbers]] = numbers
  return np.sort(last[windows])


def _find_nulls(windows, logits, rows):
  """Each question's null answer, of the window that gives it least."""
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
  """The candidates of windows that have an answer's form.

  Returns:
    (_Spans, in the order of upstream's loops over windows, starts and ends;
    bool [rows], whether a window has others, all of them worse).
  """
  (starts, start_logits), (ends, end_logits) = (
    _best_tokens(windows, values[rows], rows, config.n_best_size)
    for values in logits
  )
  is_valid = _are_answers(windows, rows, starts, ends, config.max_answer_length)
  scores = start_logits[:, :, np.newaxis] + end_logits[:, np.newaxis, :]
  is_kept, is_cut = _limit(scores.reshape(is_valid.shape), is_valid, limit)
  # Numbers into the flattened arrays: faster than those of rows and columns.
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
  """Which pairs of positions have an answer's form.

  A start must be where its token has most context, as upstream wants it.

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
  # Without a sign what is negative becomes large: one comparison for both
  # bounds.
  is_valid = steps.view(np.uint32) < min(max_answer_length, _NO_START)
  return is_valid.reshape(len(rows), -1)


def _limit(scores, is_valid, limit):
  """Keeps the best of each row, and all that are as good as the last of them.

  Args:
    scores: floats [rows, columns]; may have been rounded, which makes equal but
      never reverses.
    is_valid: bool [rows, columns].
    limit: how many to keep.

  Returns:
    (bool [rows, columns], the ones to keep; bool [rows], whether there are
    other valid ones).
  """
  is_cut = np.count_nonzero(is_valid, axis=1) > limit
  if is_cut.any():
    found = np.where(is_valid[is_cut], scores[is_cut], -np.inf)
    place = scores.shape[1] - limit
    least = np.partition(found, place, axis=1)[:, place]
    is_valid[is_cut] &= scores[is_cut] >= least[:, np.newaxis]
  return is_valid, is_cut


def _best_tokens(windows, logits, rows, count):
  """The best positions of windows, as document tokens, and their logits.

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
  the place is carried over by counting the characters that are not blanks.

  Args:
    pred_text: pieces joined to words again: "steve smith".
    orig_text: the words that they come from: "Steve Smith's".
    do_lower_case: whether normalising lower-cases and strips accents.

  Returns:
    Part of `orig_text`: "Steve Smith". All of it if the pieces are not found,
    or if it has more or fewer characters than the normalised text.
  """
  # Blanks have no place to be carried over.
  if not pred_text or pred_text != pred_text.strip(" "):
    return orig_text
  words = orig_text.split(" ")
  normalized = _NormalizedWords(_basic_tokenizer(bool(do_lower_case)))
  found = _Passage(words, normalized).locate(pred_text, 0, len(words) - 1)
  return orig_text[slice(*found)] if found else orig_text


@functools.cache
def _basic_tokenizer(do_lower_case):
  return tokenization.BasicTokenizer(do_lower_case)


class _NormalizedWords(dict):
  """What a _Passage adds up, by word; made when first asked for.

  A tuple: the normalised word, its length with the blank that follows it, and
  how many characters were lost, blanks not counted.
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
  """[0, a, a + b, ...]: the sum of what comes before each, and of all."""
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
    """(start, end) in `text` of some words."""
    return self._chars[first] + first, self._chars[last + 1] + last

  def locate(self, pieces, first, last):
    """Finds joined pieces in some words, by the rule of `get_final_text`.

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
  """Whether what stands between two blanks is no word but a run of many.

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
    sizes: ints, characters of each without the blank; -1 of the unknown token,
      which has not the characters that it was made of.
    char_sets: uint64, has a bit set for each character but the blank.
    first_chars: uint64, has that of the first character.
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
    # 64 bits for all of Unicode: some characters share one. Knuth's factor
    # parts letters from signs, which stand 64 places before them.
    hashes = chars * np.uint32(2654435761) >> np.uint32(26)
    bits = np.left_shift(np.uint64(1), hashes.astype(np.uint64))
    self.char_sets = np.bitwise_or.reduceat(bits, begins)
    self.first_chars = bits[begins]
    unknown = tokenizer.wordpiece_tokenizer.unk_token
    self.sizes[tokenizer.vocab.get(unknown, [])] = -1

  def join(self, ids):
    """The text of some tokens."""
    return "".join(map(self.texts.__getitem__, ids.tolist())).lstrip(" ")


# Where a candidate's text is: nowhere, at its tokens, there unless the same
# stands earlier in its first word, or to be found by upstream's rule.
_NULL, _AT_TOKENS, _INSIDE_WORD, _UNKNOWN = range(4)


class _Tokens:
  """Document tokens of consecutive windows, and which of their words are plain.

  The tokens of a plain word are its characters but for case and accents, one
  for one, with none dropped and a single blank around. Most words are plain. An
  answer of plain words is where its tokens are, it need not be searched for.

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
    """Where the texts of candidates are, and the tokens their words begin with.

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
    """Whether the first character of tokens is in those before, of the word.

    Mostly a bracket or the like comes before, and what is in brackets cannot be
    found there. True also of some characters that are not there.
    """
    if not len(starts):
      return np.zeros(0, bool)
    char_sets = self._pieces.char_sets[self.ids]
    bounds = np.stack([begins, starts], axis=1).ravel()
    before = np.bitwise_or.reduceat(char_sets, bounds)[::2]
    return before & self._pieces.first_chars[self.ids[starts]] != 0


def _document_ids(windows, first, last):
  """int32 [document tokens] of consecutive windows."""
  sequences = windows.sequences
  counts = np.diff(windows.word_starts[first : last + 1])
  starts = sequences.starts[first:last] + windows.first_doc_token[first:last]
  shift = starts - (np.cumsum(counts) - counts)
  return sequences.flat_ids[np.repeat(shift, counts) + np.arange(counts.sum())]


def _window_edges(examples, windows, first, last):
  """The tokens that consecutive windows begin and end with.

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
  """Chooses the n best and the answer of question after question.

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
    # Otherwise the text searched by upstream's rule is not made of the pieces.
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
    """The Decoded of all questions."""
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
    """For an empty context; in 1.1 also where no span has an answer's form."""
    text = "" if self.config.version_2_with_negative else NO_SPAN
    logits = {"start_logit": 0.0, "end_logit": 0.0}
    self._nbest[question] = [{"text": text, "probability": 1.0, **logits}]
    self._null_odds[question] = NULL_ODDS_OF_NO_WINDOW
    self._best[question] = Answer(text, 1.0, 0.0)

  def _enter(self, candidates, chosen):
    """Enters what _Candidates.choose gives."""
    sizes = [len(found) for found in chosen.values()]
    numbers = itertools.chain.from_iterable(x.values() for x in chosen.values())
    spans = candidates.spans[np.fromiter(numbers, np.int64)]
    columns = zip(
      itertools.chain.from_iterable(chosen.values()),
      _softmax(spans.scores(), sizes).tolist(),
      spans.start_logit.tolist(),
      spans.end_logit.tolist(),
      strict=True,
    )
    for question, found in chosen.items():
      nbest = [
        {
          "text": text,
          "probability": part,
          "start_logit": start,
          "end_logit": end,
        }
        for text, part, start, end in itertools.islice(columns, len(found))
      ]
      self._nbest[question] = nbest
      entry = nbest[0]
      if self.config.version_2_with_negative:
        entry = self._choose_with_null(question, nbest)
      text = entry["text"]
      place = candidates.place(found[text], text) if text else ()
      score = entry["start_logit"] + entry["end_logit"]
      self._best[question] = Answer(text, entry["probability"], score, *place)

  def _choose_with_null(self, question, nbest):
    """The entry that is predicted in 2.0; enters the null odds."""
    null = next(entry for entry in nbest if not entry["text"])
    best = next((entry for entry in nbest if entry["text"]), None)
    odds = null["start_logit"] + null["end_logit"]
    if best:
      odds = odds - best["start_logit"] - best["end_logit"]
    else:
      # Where upstream crashes. As for the worst span that there could be.
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
  """Probabilities within consecutive groups of scores, none of them empty."""
  if not sizes:
    return scores
  begins = np.cumsum(sizes) - sizes
  largest = np.maximum.reduceat(scores, begins)
  exponentials = np.exp(scores - np.repeat(largest, sizes))
  return exponentials / np.repeat(np.add.reduceat(exponentials, begins), sizes)


class _Candidates:
  """Candidates of some windows, and their texts.

  Args:
    decoder: _Decoder.
    tokens: _Tokens of these windows, of others too.
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
    # As lists, which are faster than arrays where one entry is wanted.
    odd = np.flatnonzero(kinds != _AT_TOKENS)
    self._odd = odd.tolist()
    columns = (kinds, word_begins, self.spans.start, self.spans.end)
    self._odd_tokens = [column[odd].tolist() for column in columns]
    self._starts = windows.char_starts[self.spans.start].tolist()
    self._ends = windows.char_ends[self.spans.end].tolist()

  def choose(self):
    """Chooses each question's n best.

    Returns:
      {question: {text: number of the candidate}}, without the questions whose
      n best may have candidates among them that were left out.
    """
    questions, begins = np.unique(self.spans.question, return_index=True)
    ends = np.append(begins, len(self.spans))[1:]
    # What comes after a window's last candidate might come after one left out.
    cuts = np.append(self._cuts, len(self.spans))
    stops = cuts[np.searchsorted(cuts, begins)] + 1
    # One of each question, or in 1.1 none at all.
    nulls = np.flatnonzero(self.spans.is_null).tolist()
    columns = (questions, begins, ends, stops)
    columns = [x.tolist() for x in columns] + [nulls]
    chosen = {}
    for question, begin, end, stop, null in itertools.zip_longest(*columns):
      found = self._choose(question, begin, min(end, stop))
      if len(found) == self._decoder.config.n_best_size or stop > end:
        if null is not None:
          found.setdefault("", null)
        chosen[question] = found
    return chosen

  def _choose(self, question, begin, end):
    """The n best among candidates of a question: {text: its number}."""
    count = self._decoder.config.n_best_size
    example = self._decoder.examples[question]
    found = {}
    # As many at a time as are still missing, mostly all at once.
    while begin < end and len(found) < count:
      stop = min(begin + count - len(found), end)
      texts = self._texts(example, begin, stop)
      for number, text in enumerate(texts, begin):
        found.setdefault(text, number)
      begin = stop
    return found

  def _texts(self, example, begin, end):
    """The texts of consecutive candidates of a question."""
    context = self._blanked(example.context)
    places = zip(self._starts[begin:end], self._ends[begin:end], strict=True)
    texts = [context[start:stop] for start, stop in places]
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
    """A context whose white space is blanks."""
    # Mostly that of the question before.
    if context != self._context[0]:
      is_blanked = context.isprintable()
      text = context if is_blanked else context.translate(_BLANKS)
      self._context = context, text
    return self._context[1]

  def _stands_first(self, word_begin, start, end):
    """Whether a candidate's pieces stand in its words nowhere before."""
    pieces, whole = self._join(start, end), self._join(word_begin, end)
    return whole.find(pieces) == len(whole) - len(pieces)

  def _join(self, first, last):
    begin = self._tokens.begin
    ids = self._tokens.ids[first - begin : last - begin + 1]
    return self._decoder.pieces.join(ids)

  def _search(self, example, number, start_token, end_token):
    """The text that upstream's rule finds.

    Where that is whole words, one that is a run of many is cut at the token.
    """
    word_index = self._decoder.windows.word_index
    first, last = int(word_index[start_token]), int(word_index[end_token])
    words = example.doc_tokens
    # Mostly the passage of the question before.
    if self._passage is None or self._passage.words != words:
      self._passage = _Passage(words, self._decoder.normalized_words)
    pieces = self._join(start_token, end_token)
    found = self._passage.locate(pieces, first, last)
    start, end = found or self._passage.bounds(first, last)
    if not found and _is_unspaced(words[first]):
      start += self._starts[number] - example.word_offsets[first]
    if not found and _is_unspaced(words[last]):
      end -= example.word_offsets[last] + len(words[last]) - self._ends[number]
    return self._passage.text[start:end]

  def place(self, number, text):
    """Where in the context the text of a candidate stands: (start, end).

    It begins with its first token or the word of that, and ends likewise.
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
