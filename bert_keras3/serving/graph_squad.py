"""Reading comprehension as TensorFlow ops, to be put into SavedModels.

Questions and contexts go in as strings, answers come out. The windows are those
of `squad_data.make_windows`, the answers those of `squad_decoding.decode`, but
for the text: it is cut out of the context where the answer's tokens are, and
not searched for as upstream does.

    finder = GraphAnswerFinder(
      graph_tokenization.GraphTokenizer("vocab.txt"),
      compute_logits,
      WindowingConfig(max_seq_length=384),
      squad_decoding.DecodingConfig(),
      special_ids=(101, 102),
    )
    found = finder.answer(["who built it?"], ["It was built by them."])
    found["answer"][0], found["probability"][0], found["start"][0]

All windows of a batch are dealt with at once, and so are all their candidates
for an answer: there is no loop but over what the model can hold.
"""

import dataclasses
import typing

import tensorflow as tf

from bert_keras3.serving import graph_tokenization
from bert_keras3.tasks import squad_decoding

_BLANK = ord(" ")
# What separates words to SQuAD beside the blank, see `squad_data.split_words`.
_OTHER_BLANKS = tuple(map(ord, "\t\r\n\u202f"))
# Where there is no answer.
_NOWHERE = -1
# No Python statement depends on a tensor's value here.
_GRAPH_OF_PAIRS = tf.function(
  input_signature=[tf.TensorSpec([None], tf.string)] * 2, autograph=False
)


@dataclasses.dataclass(frozen=True)
class WindowingConfig:
  """How windows are laid; the first three fields are upstream's flags.

  `windows_at_once` is what `compute_logits` is given at most.

  Raises:
    ValueError: a number is less than 1, or the longest question leaves no room
      for its context.
  """

  max_seq_length: int = 384
  doc_stride: int = 128
  max_query_length: int = 64
  windows_at_once: int = 32

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if value < 1:
        raise ValueError(f"--{field.name}={value}: pass 1 or more")
    # [CLS], two [SEP] and one token of the context.
    if self.max_seq_length < self.max_query_length + 4:
      raise ValueError(
        f"--max_seq_length={self.max_seq_length} leaves no room for a text"
        f" beside --max_query_length={self.max_query_length}; it must be"
        f" {self.max_query_length + 4} or more"
      )


class GraphWindows(typing.NamedTuple):
  """What `squad_data.Windows` holds, of a batch.

  Attributes:
    features: dict of `input_ids`, `input_mask` and `segment_ids`, int32
      [windows, length], as long as the longest window.
    example_index: int32 [windows], the question of each.
    doc_span_index: int32 [windows], counts the windows of a question.
    first_doc_token: int32 [windows], position of the first document token.
    word_index, char_starts, char_ends: int32 RaggedTensors
      [windows, (document tokens)].
    is_max_context: bool RaggedTensor [windows, (document tokens)].
  """

  features: dict
  example_index: tf.Tensor
  doc_span_index: tf.Tensor
  first_doc_token: tf.Tensor
  word_index: tf.RaggedTensor
  char_starts: tf.RaggedTensor
  char_ends: tf.RaggedTensor
  is_max_context: tf.RaggedTensor


class _Candidates(typing.NamedTuple):
  """What may be an answer.

  Attributes:
    question: int32 [candidates], number in the batch.
    score: float64 [candidates], the sum of its logits.
    start, end: int32 [candidates], characters of the context; `_NOWHERE` of a
      question's null answer.
  """

  question: tf.Tensor
  score: tf.Tensor
  start: tf.Tensor
  end: tf.Tensor


class _Layout(typing.NamedTuple):
  """Where windows are, int64 [windows] each.

  Attributes:
    example: the question.
    number: counts the windows of a question.
    last: the number of the question's last window.
    start, stop: tokens of the document.
    room: how many tokens there could be.
    stride: from the start of the one before.
    num_tokens: tokens of the whole document.
  """

  example: tf.Tensor
  number: tf.Tensor
  last: tf.Tensor
  start: tf.Tensor
  stop: tf.Tensor
  room: tf.Tensor
  stride: tf.Tensor
  num_tokens: tf.Tensor


class GraphAnswerFinder(tf.Module):
  """Answers questions about texts, within a graph."""

  def __init__(
    self, tokenizer, compute_logits, windowing, decoding, special_ids
  ):
    """Remembers how to do it.

    Args:
      tokenizer: graph_tokenization.GraphTokenizer.
      compute_logits: function from a dict of `input_ids`, `input_mask` and
        `segment_ids`, int32 [windows, length], to (start logits, end logits),
        floats [windows, length]. To be saved, its variables must belong to what
        is saved: to an attribute of the finder, for example.
      windowing: WindowingConfig.
      decoding: squad_decoding.DecodingConfig; `do_lower_case` is the
        tokenizer's affair here.
      special_ids: ids of `[CLS]` and `[SEP]`.
    """
    super().__init__()
    self.tokenizer = tokenizer
    self._compute_logits = compute_logits
    self._windowing = windowing
    self._decoding = decoding
    self._special_ids = tuple(special_ids)

  @_GRAPH_OF_PAIRS
  def windows(self, questions, contexts):
    """Lays windows over contexts: `squad_data.make_windows` for prediction.

    A context without a token has no window.

    Args:
      questions: string [batch], UTF-8.
      contexts: string [batch], UTF-8.

    Returns:
      GraphWindows.

    Raises:
      tf.errors.InvalidArgumentError: there are more of one than of the other.
    """
    with tf.device("CPU"):
      tf.debugging.assert_equal(
        tf.size(questions),
        tf.size(contexts),
        "each question needs a context; give it again for each",
      )
      queries = self.tokenizer.tokenize(questions)
      queries = queries[:, : self._windowing.max_query_length]
      tokens = self.tokenizer.tokenize_with_offsets(contexts)
      layout = _lay_windows(
        tokens["ids"].row_lengths(),
        self._windowing.max_seq_length - 3 - queries.row_lengths(),
        self._windowing.doc_stride,
      )
      queries = tf.gather(queries, layout.example)
      return self._make_windows(layout, queries, tokens)

  @_GRAPH_OF_PAIRS
  def answer(self, questions, contexts):
    """Finds the answers, as `squad_decoding.decode` does.

    Positions of padding do not compete. Characters are code points, counted in
    the context without bytes that are not UTF-8. A text is the part of the
    context between `start` and `end`, as it stands there. Two candidates of one
    text, runs of white space taken for a blank, count as one.

    With `version_2_with_negative` one of the answers is that there is none, and
    `n_best_size` of them and this one are returned where it is not among those.
    A question without any candidate has "" as its only answer, with probability
    1 and score 0 (`decode` predicts "empty" for it in 1.1).

    Args:
      questions: string [batch], UTF-8.
      contexts: string [batch], UTF-8.

    Returns:
      Dict of the predicted `answer` (string), its `start`, `end` (int32, -1 if
      there is none), `probability` and `score` (float32), [batch] each; the
      same of all answers as `answers`, `starts`, `ends`, `probabilities` and
      `scores`, [batch, n_best_size or, in 2.0, one more], the best first;
      `num_answers` int32 [batch], beyond which these hold "", -1 and 0; in 2.0
      also `null_odds`, float32 [batch].

    Raises:
      tf.errors.InvalidArgumentError: there are more questions than contexts or
        fewer, or the logits are not finite.
    """
    windows = self.windows(questions, contexts)
    logits = self._run_model(windows.features)
    with tf.device("CPU"):
      batch = tf.size(questions)
      spans = _find_spans(windows, logits, self._decoding)
      null_scores, lowest = _score_nulls(windows, logits, batch)
      nulls = self._find_nulls(spans, null_scores)
      candidates = _rank(_join(spans, nulls))
      texts = _Texts(self.tokenizer, contexts)
      candidates = _drop_repeated(candidates, texts)
      found = self._collect(candidates, texts, batch)
      found.update(self._predict(found, null_scores, lowest))
      return _to_float32(found)

  def _make_windows(self, layout, queries, tokens):
    """_Layout, ids of each window's question, the tokenizer's output."""
    shift = tf.gather(tokens["ids"].row_starts(), layout.example)
    places = tf.ragged.range(shift + layout.start, shift + layout.stop)
    columns = {
      name: places.with_values(tf.gather(values.values, places.values))
      for name, values in tokens.items()
    }
    features = graph_tokenization.pack(
      queries,
      columns["ids"],
      self._windowing.max_seq_length,
      *self._special_ids,
    )
    return GraphWindows(
      features,
      tf.cast(layout.example, tf.int32),
      tf.cast(layout.number, tf.int32),
      tf.cast(queries.row_lengths() + 2, tf.int32),
      columns["words"],
      columns["starts"],
      columns["ends"],
      _have_max_context(layout),
    )

  def _run_model(self, features):
    """The logits, float32 [2, windows, length]; -inf for padding.

    No more windows at a time than the model is to be given: a book has
    thousands.
    """
    step = self._windowing.windows_at_once
    count, length = tf.unstack(tf.shape(features["input_ids"]))

    def run(first, done):
      part = {x: features[x][first : first + step] for x in features}
      logits = [tf.cast(x, tf.float32) for x in self._compute_logits(part)]
      return first + step, tf.concat([done, tf.stack(logits)], axis=1)

    _, logits = tf.while_loop(
      lambda first, done: first < count,
      run,
      [0, tf.zeros([2, 0, length])],
      shape_invariants=[tf.TensorShape([]), tf.TensorShape([2, None, None])],
    )
    is_token = tf.cast(features["input_mask"], tf.bool)
    tf.debugging.assert_all_finite(
      tf.where(is_token, logits, 0.0),
      "the logits are not finite; the model is broken or its training diverged",
    )
    return tf.where(is_token, logits, -float("inf"))

  def _find_nulls(self, spans, null_scores):
    """The null answers as _Candidates, of questions that need one.

    That is all of 2.0, and those of 1.1 that have nothing else.
    """
    questions = tf.range(tf.size(null_scores))
    if not self._decoding.version_2_with_negative:
      counts = tf.math.bincount(spans.question, minlength=tf.size(null_scores))
      questions = tf.boolean_mask(questions, counts == 0)
      null_scores = tf.zeros_like(null_scores)
    nowhere = tf.fill(tf.shape(questions), _NOWHERE)
    scores = tf.gather(null_scores, questions)
    return _Candidates(questions, scores, nowhere, nowhere)

  def _collect(self, candidates, texts, batch):
    """The n best of ranked _Candidates, dense.

    Returns:
      Dict of what `answer` returns of all answers.
    """
    count = self._decoding.n_best_size
    candidates = _take(
      candidates,
      (_number_within(candidates.question) < count)
      | (candidates.start == _NOWHERE),
    )
    width = count + int(self._decoding.version_2_with_negative)

    def spread(values, filler):
      rows = tf.RaggedTensor.from_value_rowids(
        values, candidates.question, batch, validate=False
      )
      return rows.to_tensor(filler, shape=[None, width])

    scores = spread(candidates.score, -float("inf"))
    num_answers = tf.math.bincount(candidates.question, minlength=batch)
    return {
      "answers": spread(texts.cut(candidates), ""),
      "starts": spread(candidates.start, _NOWHERE),
      "ends": spread(candidates.end, _NOWHERE),
      "probabilities": tf.nn.softmax(scores),
      "scores": tf.where(scores > -float("inf"), scores, 0.0),
      "num_answers": num_answers,
    }

  def _predict(self, found, null_scores, lowest):
    """The predicted of the answers that were found, by `null_odds` in 2.0."""
    results = {}
    is_null = found["starts"] == _NOWHERE
    # All are null only where there is nothing else.
    chosen = tf.argmin(tf.cast(is_null, tf.int32), axis=1)
    if self._decoding.version_2_with_negative:
      best = tf.gather(found["scores"], chosen, batch_dims=1)
      has_best = ~tf.reduce_all(is_null, axis=1)
      odds = null_scores - tf.where(has_best, best, lowest)
      threshold = self._decoding.null_score_diff_threshold
      no_answer = ~has_best | (odds > threshold)
      null = tf.argmax(tf.cast(is_null, tf.int32), axis=1)
      chosen = tf.where(no_answer, null, chosen)
      results["null_odds"] = odds
    for name, singular in (
      ("answers", "answer"),
      ("starts", "start"),
      ("ends", "end"),
      ("probabilities", "probability"),
      ("scores", "score"),
    ):
      results[singular] = tf.gather(found[name], chosen, batch_dims=1)
    return results


# Windows ----------------------------------------------------------------------


def _lay_windows(num_tokens, room, doc_stride):
  """`squad_data.window_spans` of all documents.

  Args:
    num_tokens: int64 [batch], tokens of each document.
    room: int64 [batch], tokens of it in a window at most.
    doc_stride: int.

  Returns:
    _Layout.
  """
  stride = tf.minimum(room, tf.cast(doc_stride, tf.int64))
  # Rounded up.
  last = -(-tf.maximum(num_tokens - room, 0) // stride)
  numbers = tf.ragged.range(tf.where(num_tokens > 0, last + 1, 0))
  example, number = numbers.value_rowids(), numbers.values
  last, room, stride, num_tokens = (
    tf.gather(x, example) for x in (last, room, stride, num_tokens)
  )
  start = number * stride
  stop = tf.minimum(start + room, num_tokens)
  return _Layout(example, number, last, start, stop, room, stride, num_tokens)


def _have_max_context(layout):
  """`squad_data.best_windows`, which explains it: bool [windows, (tokens)]."""
  positions = tf.ragged.range(layout.start, layout.stop)
  rows = positions.value_rowids()
  _, number, last, _, _, room, stride, num_tokens = (
    tf.gather(x, rows) for x in layout
  )
  nearest = -((room - 1 + stride - 2 * positions.values) // (2 * stride))
  nearest = tf.clip_by_value(nearest, 0, tf.maximum(last - 1, 0))
  score = _context_score(positions.values, nearest * stride, room)
  last_start = last * stride
  last_score = _context_score(
    positions.values, last_start, num_tokens - last_start
  )
  best = tf.where(last_score > score, last, nearest)
  return positions.with_values((last == 0) | (best == number))


def _context_score(positions, starts, length):
  """Upstream's float arithmetic, which decides ties; -inf outside."""
  left = positions - starts
  right = length - 1 - left
  score = tf.cast(tf.minimum(left, right), tf.float64)
  score += 0.01 * tf.cast(length, tf.float64)
  is_inside = (left >= 0) & (right >= 0)
  return tf.where(is_inside, score, -float("inf"))


# Candidates -------------------------------------------------------------------


def _find_spans(windows, logits, config):
  """The spans that have an answer's form, as _Candidates.

  They are in the order of upstream's loops over windows, starts and ends, which
  decides between equals later on: `tf.where` counts so.

  Args:
    windows: GraphWindows.
    logits: float32 [2, windows, length].
    config: squad_decoding.DecodingConfig.
  """
  count = tf.minimum(config.n_best_size, tf.shape(logits)[2])
  # Of equal ones the first comes first, as upstream's stable sort has it.
  values, positions = tf.math.top_k(logits, count)
  values = tf.cast(values, tf.float64)
  tokens = positions - windows.first_doc_token[:, tf.newaxis]
  num_tokens = tf.cast(windows.word_index.row_lengths(), tf.int32)
  is_inside = (tokens >= 0) & (tokens < num_tokens[:, tf.newaxis])
  # Numbers among the tokens of all windows; any where there is none.
  firsts = tf.cast(windows.word_index.row_starts(), tf.int32)
  tokens = tf.where(is_inside, tokens + firsts[:, tf.newaxis], 0)
  may_start = tf.gather(windows.is_max_context.values, tokens[0]) & is_inside[0]
  steps = tokens[1][:, tf.newaxis, :] - tokens[0][:, :, tf.newaxis]
  is_answer = (steps >= 0) & (steps < config.max_answer_length)
  is_answer &= may_start[:, :, tf.newaxis] & is_inside[1][:, tf.newaxis, :]
  window, start, end = tf.unstack(tf.where(is_answer), axis=1)
  start, end = tf.stack([window, start], 1), tf.stack([window, end], 1)
  return _Candidates(
    tf.gather(windows.example_index, window),
    tf.gather_nd(values[0], start) + tf.gather_nd(values[1], end),
    tf.gather(windows.char_starts.values, tf.gather_nd(tokens[0], start)),
    tf.gather(windows.char_ends.values, tf.gather_nd(tokens[1], end)),
  )


def _score_nulls(windows, logits, batch):
  """What the null answers of questions are judged by.

  Args:
    windows: GraphWindows.
    logits: float32 [2, windows, length].
    batch: number of the questions.

  Returns:
    float64 [batch] twice: the lowest score of a `[CLS]`, 0 for a question
    without a window; the score of the worst span that there could be. Where
    there is no window they are as far apart as `decode` has it.
  """

  def lowest(values):
    return tf.math.unsorted_segment_min(values, windows.example_index, batch)

  has_window = lowest(tf.zeros_like(windows.example_index)) == 0
  is_token = tf.cast(windows.features["input_mask"], tf.bool)
  worst = tf.reduce_min(tf.where(is_token, logits, float("inf")), axis=2)
  worst = tf.cast(worst, tf.float64)
  # A slice, for there is no position 0 where there is no window.
  first = tf.reduce_sum(tf.cast(logits[:, :, :1], tf.float64), axis=[0, 2])
  no_window = tf.cast(-squad_decoding.NULL_ODDS_OF_NO_WINDOW, tf.float64)
  return (
    tf.where(has_window, lowest(first), 0.0),
    tf.where(has_window, lowest(worst[0]) + lowest(worst[1]), no_window),
  )


def _take(candidates, which):
  """Some _Candidates: those of a bool mask or of numbers."""
  take = tf.boolean_mask if which.dtype == tf.bool else tf.gather
  return _Candidates(*(take(column, which) for column in candidates))


def _join(*parts):
  return _Candidates(*(tf.concat(x, axis=0) for x in zip(*parts, strict=True)))


def _rank(candidates):
  """Sorts _Candidates by question, then by falling score, stably."""
  order = tf.argsort(candidates.score, direction="DESCENDING", stable=True)
  candidates = _take(candidates, order)
  return _take(candidates, tf.argsort(candidates.question, stable=True))


def _number_within(questions):
  """Counts the members of each question: int32 [candidates].

  Args:
    questions: int32 [candidates], ascending.
  """
  return tf.range(tf.size(questions)) - tf.searchsorted(questions, questions)


def _drop_repeated(candidates, texts):
  """Of a question's ranked _Candidates with the same text the first is kept."""
  keys = tf.strings.join(
    [tf.strings.as_string(candidates.question), texts.cut_blanked(candidates)],
    separator=" ",
  )
  unique, which = tf.unique(keys)
  numbers = tf.range(tf.size(keys))
  first = tf.math.unsorted_segment_min(numbers, which, tf.size(unique))
  return _take(candidates, first)


class _Texts:
  """Contexts, to cut candidates out of.

  As code points, one context after another: a character of a string can only be
  found by counting from its beginning.

  Args:
    tokenizer: GraphTokenizer.
    contexts: string [batch].
  """

  def __init__(self, tokenizer, contexts):
    self._chars, row_splits = tokenizer.decode(contexts)
    self._row_starts = row_splits[:-1]
    is_blank = tf.reduce_any(
      self._chars[:, tf.newaxis] == (_BLANK, *_OTHER_BLANKS), axis=1
    )
    # What follows a blank's like is no first of its run.
    is_kept = ~(is_blank & tf.concat([[False], is_blank[:-1]], axis=0))
    blanked = tf.where(is_blank, _BLANK, self._chars)
    self._blanked = tf.boolean_mask(blanked, is_kept)
    self._blanked_places = tf.cumsum(tf.cast(is_kept, tf.int64), exclusive=True)

  def cut(self, candidates):
    """string [candidates], as written; "" for no answer."""
    return _slices(self._chars, *self._bounds(candidates))

  def cut_blanked(self, candidates):
    """string [candidates], with one blank for each run of white space."""
    starts, ends = (
      tf.gather(self._blanked_places, x) for x in self._bounds(candidates)
    )
    return _slices(self._blanked, starts, ends)

  def _bounds(self, candidates):
    shift = tf.gather(self._row_starts, candidates.question)
    # Nothing from 0 to 0 where there is no answer.
    return [
      shift + tf.cast(tf.maximum(x, 0), tf.int64)
      for x in (candidates.start, candidates.end)
    ]


def _slices(chars, starts, ends):
  """Parts of int32 [characters] as strings."""
  places = tf.ragged.range(starts, ends)
  parts = places.with_values(tf.gather(chars, places.values))
  return tf.strings.unicode_encode(parts, "UTF-8")


def _to_float32(tensors):
  return {
    name: tf.cast(x, tf.float32) if x.dtype == tf.float64 else x
    for name, x in tensors.items()
  }
