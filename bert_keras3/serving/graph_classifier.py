"""Classification as TensorFlow ops: texts in, labels out, for SavedModels.

    classifier = GraphClassifier(tokenizer, compute_logits, labels, ...)
    classifier.classify(["a text", "another"])["label"]

What was tokenized in Python for training is tokenized in the graph here, long
texts by the same rules, with the same logits to show for it.
"""

import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.serving import graph_tokenization

# Between the labels of a text that has several.
LABEL_SEPARATOR = ","


class GraphClassifier(tf.Module):
  """A classifier of strings.

  Args:
    tokenizer: graph_tokenization.GraphTokenizer.
    compute_logits: function from a dict of int32 [batch, length] `input_ids`,
      `input_mask` and `segment_ids` to float32 logits [batch, num_labels].
    labels: list of str in the order of the logits, empty for regression.
    problem_type: see task_metrics.
    max_seq_length: tokens of a sequence at most.
    long_text: what becomes of longer texts, see
      classifier_data.tokenize_examples.
    special_ids: ids of `[CLS]` and `[SEP]`.
  """

  def __init__(
    self,
    tokenizer,
    compute_logits,
    labels,
    problem_type,
    max_seq_length,
    long_text,
    special_ids,
  ):
    super().__init__()
    self._tokenizer = tokenizer
    self._compute_logits = compute_logits
    self._labels = list(labels)
    self._problem_type = problem_type
    self._max_seq_length = max_seq_length
    self._long_text = long_text
    self._special_ids = special_ids

  def classify(self, text, text_pair=None):
    """Classifies texts, or pairs of texts.

    Args:
      text: string [batch].
      text_pair: string [batch], or None.

    Returns:
      See `from_logits`.
    """
    first = self._tokenizer.tokenize(text)
    second = None
    if text_pair is not None:
      second = self._tokenizer.tokenize(text_pair)
    first, second, owners = fit(
      first, second, self._max_seq_length, self._long_text
    )
    batch = graph_tokenization.pack(
      first, second, self._max_seq_length, *self._special_ids
    )
    logits = self._compute_logits(batch)
    # The mean over the windows of a text, which mostly is one.
    logits = tf.math.unsorted_segment_mean(logits, owners, tf.shape(text)[0])
    return self.from_logits(logits)

  def classify_tokens(self, input_ids, input_mask, segment_ids):
    """The same for what is int32 [batch, length] already."""
    arrays = (input_ids, input_mask, segment_ids)
    batch = dict(zip(features.SEQUENCE_FEATURES, arrays, strict=True))
    return self.from_logits(self._compute_logits(batch))

  def from_logits(self, logits):
    """What logits say.

    Args:
      logits: float32 [batch, num_labels].

    Returns:
      Dict of `logits`; for regression `score` [batch]; else `probabilities`
      [batch, num_labels] and `label`, string [batch]: the likeliest, or all
      above one half with commas.
    """
    if self._problem_type == "regression":
      return {"logits": logits, "score": logits[:, 0]}
    labels = tf.constant(self._labels)
    if self._problem_type == "multi_label":
      probabilities = tf.sigmoid(logits)
      rows = tf.broadcast_to(labels, tf.shape(logits))
      # As metrics.predict_labels: above one half.
      chosen = tf.ragged.boolean_mask(rows, logits > 0)
      label = tf.strings.reduce_join(chosen, 1, separator=LABEL_SEPARATOR)
    else:
      probabilities = tf.nn.softmax(logits)
      label = tf.gather(labels, tf.argmax(logits, axis=1))
    return {"label": label, "logits": logits, "probabilities": probabilities}


# Long texts -------------------------------------------------------------------


def fit(first, second, max_seq_length, long_text):
  """Makes texts fit, as classifier_data.tokenize_examples does.

  Args:
    first: int32 RaggedTensor [batch, (tokens)].
    second: the same, or None.
    max_seq_length: tokens of a sequence at most.
    long_text: one of classifier_data.LONG_TEXT.

  Returns:
    (first, second, owners): what to pack, and int64 [sequences], the text that
    each sequence is of.
  """
  if second is None:
    second = _take(first, tf.zeros_like(first.row_lengths()))
  owners = tf.range(first.nrows())
  if long_text == "sliding":
    return _slide(first, second, max_seq_length)
  if long_text == "head_tail":
    kept = graph_tokenization.truncate_pair(first, second, max_seq_length)
    pairs = zip((first, second), kept, strict=True)
    first, second = (_drop_middle(x, y.row_lengths()) for x, y in pairs)
  # `pack` drops the end of what is still too long.
  return first, second, owners


def _drop_middle(ids, keep):
  """Of longer rows, the first quarter and the last three of what is kept."""
  lengths = ids.row_lengths()
  head = tf.where(lengths > keep, -(-keep // 4), keep)
  tail = keep - head
  return tf.concat([_take(ids, head), _take(ids, tail, lengths - tail)], axis=1)


def _slide(first, second, max_seq_length):
  """Windows over the longer text; the other keeps half the room at most."""
  num_first, num_second = first.row_lengths(), second.row_lengths()
  room = max_seq_length - tf.where(num_second > 0, 3, 2)
  room = tf.cast(tf.maximum(room, 0), tf.int64)
  fits = num_first + num_second <= room
  slides_first = num_first >= num_second
  longer, shorter = _swap(slides_first, first, second)
  keep_short = tf.where(fits, shorter.row_lengths(), room // 2)
  shorter = _take(shorter, tf.minimum(keep_short, shorter.row_lengths()))
  width = room - shorter.row_lengths()
  stride = tf.maximum(width // 2, 1)
  rest = tf.maximum(longer.row_lengths() - width + stride, 1)
  # Windows of 3 tokens have no room for a pair, and need but one of nothing.
  counts = tf.where(fits | (room < 1), tf.ones_like(rest), -(-rest // stride))
  owners = tf.repeat(tf.range(first.nrows()), counts)
  starts = tf.ragged.range(counts).values * tf.gather(stride, owners)
  longer, shorter = tf.gather(longer, owners), tf.gather(shorter, owners)
  left = longer.row_lengths() - starts
  width = tf.minimum(tf.gather(width, owners), left)
  longer = _take(longer, width, starts)
  return *_swap(tf.gather(slides_first, owners), longer, shorter), owners


def _swap(stays, first, second):
  """(first, second) in rows that stay, (second, first) in the others."""
  stays = tf.cast(stays, tf.int64)

  def choose(a, b):
    rows = [
      _take(a, a.row_lengths() * stays),
      _take(b, b.row_lengths() * (1 - stays)),
    ]
    return tf.concat(rows, axis=1)

  return choose(first, second), choose(second, first)


def _take(ids, counts, starts=0):
  """`counts` ids of each row, from `starts` on."""
  starts = ids.row_starts() + starts
  places = tf.ragged.range(starts, starts + counts)
  return places.with_values(tf.gather(ids.values, places.values))
