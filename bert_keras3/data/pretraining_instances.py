"""Makes masked pairs of segments from documents, as upstream does."""

import array
import bisect
import collections.abc
import dataclasses
import itertools
import os
import random
import sys
import time
import typing

import numpy as np
import tqdm

import tokenization
from bert_keras3.data import fields
from bert_keras3.data import files
from bert_keras3.data import word_stream

# Of the tokens chosen, 80 % become [MASK], 10 % stay, 10 % become any token of
# the vocabulary, [PAD] and [unused3] included (paper, section 3.1).
MASK_PROBABILITY = 0.8


# Sentinel among the ids of replacements: the token stays as it is.
_UNCHANGED = -1


# The value of `WordStream.flips` for `random() < 0.5`.
_HEADS = b"\0"


# [CLS] A [SEP] B [SEP]
_SPECIAL_TOKENS = 3


_LINES_PER_PROGRESS = 1 << 12


_SECONDS_PER_PROGRESS_LINE = 2


@dataclasses.dataclass(frozen=True)
class DataConfig(fields.Config):
  """Holds the settings that records depend on.

  Raises:
    ValueError: no record can be made with these settings.
  """

  max_seq_length: int = fields.flag(
    128, "Tokens of a record, [CLS] and [SEP] included."
  )
  max_predictions_per_seq: int = fields.flag(
    20, "The most tokens masked in a record."
  )
  random_seed: int = fields.flag(12345, "Another seed, other records.")
  dupe_factor: int = fields.flag(
    10, "How often the text is gone through, masked differently."
  )
  masked_lm_prob: float = fields.flag(0.15, "Share of the tokens to mask.")
  short_seq_prob: float = fields.flag(
    0.1,
    "Share of the documents cut into shorter records than there is room for.",
  )
  do_whole_word_mask: bool = fields.flag(
    False, "Whether all pieces of a word are masked, or none."
  )

  def __post_init__(self):
    if self.max_seq_length < _SPECIAL_TOKENS + 2:
      raise ValueError(
        f"--max_seq_length={self.max_seq_length} is too short for [CLS] A [SEP]"
        f" B [SEP]; pass {_SPECIAL_TOKENS + 2} or more"
      )
    most = self.max_seq_length - _SPECIAL_TOKENS
    if not 1 <= self.max_predictions_per_seq <= most:
      raise ValueError(
        f"--max_predictions_per_seq={self.max_predictions_per_seq} does not fit"
        f" --max_seq_length={self.max_seq_length}; pass 1 to {most}, about"
        " max_seq_length * masked_lm_prob"
      )
    if self.dupe_factor < 1:
      raise ValueError(
        f"--dupe_factor={self.dupe_factor} makes no record; pass 1 or more"
      )
    if not 0 < self.masked_lm_prob <= 1:
      raise ValueError(
        f"--masked_lm_prob={self.masked_lm_prob} is not a share of the tokens;"
        " pass a number above 0 and up to 1"
      )
    if not 0 <= self.short_seq_prob <= 1:
      raise ValueError(
        f"--short_seq_prob={self.short_seq_prob} is not a probability; pass a"
        " number from 0 to 1"
      )


class Documents(typing.NamedTuple):
  """Holds text as ids, sentence after sentence, document after document.

  Attributes:
    token_ids: int32 [tokens].
    sentences: int64 [sentences + 1], index in `token_ids` of each one's start.
    documents: int64 [documents + 1], index of each one's first sentence.
  """

  token_ids: np.ndarray
  sentences: array.array
  documents: array.array

  def __str__(self):
    return (
      f"{len(self.documents) - 1} documents, {len(self.sentences) - 1}"
      f" sentences, {len(self.token_ids)} tokens"
    )


def read_documents(input_files, tokenizer):
  """Reads and tokenizes text files; returns `Documents`.

  A file's end does not end a document, only a blank line does, as in upstream.

  Raises:
    FileNotFoundError: a file does not exist.
    ValueError: a line is not UTF-8, or there is no token in any file.
  """
  input_files = [os.fspath(path) for path in input_files]
  token_ids = array.array("i")
  sentences = array.array("q", [0])
  documents = array.array("q", [0])
  for line in _stripped_lines(input_files):
    ids = tokenizer.encode(line)
    if ids:
      token_ids.extend(ids)
      sentences.append(len(token_ids))
    # A line of only control characters is neither a sentence nor a blank line.
    elif not line and documents[-1] < len(sentences) - 1:
      documents.append(len(sentences) - 1)
  if not token_ids:
    raise ValueError(
      f"--input_file: no text in {', '.join(input_files)}; there should be a"
      " sentence on each line"
    )
  if documents[-1] < len(sentences) - 1:
    documents.append(len(sentences) - 1)
  return Documents(_as_numpy(token_ids), sentences, documents)


def _stripped_lines(input_files):
  total = sum(map(files.file_size, input_files))
  lines = itertools.chain.from_iterable(
    map(tokenization.read_lines, input_files)
  )
  with Progress("Reading text", total, "B") as progress:
    while chunk := list(itertools.islice(lines, _LINES_PER_PROGRESS)):
      yield from map(str.strip, chunk)
      progress.update(len("\n".join(chunk).encode()) + 1)


def _as_numpy(values):
  """Views an `array.array` as an ndarray, without a copy."""
  return np.frombuffer(values, values.typecode)


class TrainingInstance(typing.NamedTuple):
  """Holds one record in readable form, as in upstream.

  Attributes:
    tokens: [CLS] A [SEP] B [SEP], with replacements made.
    segment_ids: 0 up to the first [SEP], then 1.
    masked_lm_positions: positions of the tokens to predict, replaced or not.
    masked_lm_labels: the original tokens there.
    is_random_next: whether B comes from elsewhere.
  """

  tokens: list[str]
  segment_ids: list[int]
  masked_lm_positions: list[int]
  masked_lm_labels: list[str]
  is_random_next: bool


def create_training_instances(documents, tokenizer, config):
  """Makes all instances of `Documents`, in the order of the records.

  Args:
    documents: `Documents`.
    tokenizer: the `FullTokenizer` that tokenized them.
    config: `DataConfig`.

  Returns:
    `TrainingInstances`.

  Raises:
    ValueError: the vocabulary has no [CLS], [SEP] or [MASK].
  """
  for token in ("[CLS]", "[SEP]", "[MASK]"):
    if token not in tokenizer.vocab:
      raise ValueError(
        f"--vocab_file: there is no {token} among its {len(tokenizer.vocab)}"
        " tokens; use a vocabulary made for BERT"
      )
  planner = _Planner(documents, tokenizer.vocab, config)
  return TrainingInstances(documents, tokenizer, config, planner.plan())


class _Plan(typing.NamedTuple):
  """Holds all random decisions, instance by instance.

  Attributes:
    ranges: int64 [instances, 4], begin and end of A and of B in `token_ids`.
    is_random_next: int8 [instances].
    masked_ends: int64 [instances + 1], bounds of each instance's masked tokens
      in the next two arrays.
    masked: unsigned [masked tokens], the token's index in A + B.
    replacements: int32 [masked tokens], an id or `_UNCHANGED`.
    order: int64 [instances], their numbers in the order of writing.
  """

  ranges: np.ndarray
  is_random_next: np.ndarray
  masked_ends: np.ndarray
  masked: np.ndarray
  replacements: np.ndarray
  order: np.ndarray


class _Planner:
  """Draws all random numbers, in upstream's order, and keeps the decisions."""

  def __init__(self, documents, vocab, config):
    self._sentences = documents.sentences
    self._documents = documents.documents
    self._config = config
    self._room = config.max_seq_length - _SPECIAL_TOKENS
    self._stream = word_stream.WordStream(random.Random(config.random_seed))
    # Upstream draws an index of its list of tokens, which is not the id if the
    # vocabulary repeats a token.
    self._vocab_ids = list(vocab.values())
    self._mask_id = vocab["[MASK]"]
    self._candidates = list(range(self._room))
    self._num_to_predict = [
      _num_to_predict(length + _SPECIAL_TOKENS, config)
      for length in range(self._room + 1)
    ]
    if config.do_whole_word_mask:
      self._continues_word = _continuation_marks(documents.token_ids, vocab)
    self._ranges = array.array("q")
    self._is_random_next = array.array("b")
    # Begins with an unused entry: all words may be too long to be masked whole,
    # and NumPy's `take` fails on an empty array.
    self._masked_ends = array.array("q", [1])
    self._masked = array.array("H" if self._room < 1 << 16 else "I", [0])
    self._replacements = array.array("i", [0])

  def plan(self):
    """Goes through all documents `dupe_factor` times; returns the `_Plan`."""
    self._shuffled = list(range(len(self._documents) - 1))
    self._stream.shuffle(self._shuffled)
    rounds = self._config.dupe_factor
    total = rounds * len(self._shuffled)
    with Progress("Making instances", total, "documents") as progress:
      for _ in range(rounds):
        for number in range(len(self._shuffled)):
          self._plan_document(number)
          progress.update(1)
    order = array.array("q", range(len(self._is_random_next)))
    self._stream.shuffle(order)
    return _Plan(
      ranges=_as_numpy(self._ranges).reshape(-1, 4),
      is_random_next=_as_numpy(self._is_random_next),
      masked_ends=_as_numpy(self._masked_ends),
      masked=_as_numpy(self._masked),
      replacements=_as_numpy(self._replacements),
      order=_as_numpy(order),
    )

  def _plan_document(self, number):
    """Plans the instances of the document that was shuffled to `number`."""
    target = self._room
    if self._stream.random() < self._config.short_seq_prob:
      target = 2 + self._stream.below(self._room - 1)
    first, last = self._sentence_range(number)
    while first < last:
      end = self._end_of_stretch(first, last, target)
      middle = first + 1
      if end > middle:
        middle += self._stream.below(end - middle)
      a = self._sentences[first], self._sentences[middle]
      # Upstream draws no number where nothing is left for B.
      is_random_next = end == first + 1 or self._stream.flips(1) == _HEADS
      if is_random_next:
        b = self._random_stretch(number, target - (a[1] - a[0]))
        # The sentences after A, which are not B now, are used again.
        first = middle
      else:
        b = a[1], self._sentences[end]
        first = end
      a, b = self._truncate_seq_pair(a, b)
      self._ranges.extend(a + b)
      self._is_random_next.append(is_random_next)
      self._mask(a, b)

  def _sentence_range(self, number):
    document = self._shuffled[number]
    return self._documents[document], self._documents[document + 1]

  def _end_of_stretch(self, first, last, wanted):
    """Finds the end of a stretch from `first` with at least `wanted` tokens."""
    target = self._sentences[first] + wanted
    return bisect.bisect_left(self._sentences, target, first + 1, last)

  def _random_stretch(self, number, wanted):
    # Ten tries to get another document, as in upstream.
    for _ in range(10):
      other = self._stream.below(len(self._shuffled))
      if other != number:
        break
    first, last = self._sentence_range(other)
    first += self._stream.below(last - first)
    end = self._end_of_stretch(first, last, wanted)
    return self._sentences[first], self._sentences[end]

  def _truncate_seq_pair(self, a, b):
    """Cuts tokens off the longer of two ranges (B if equal) until they fit.

    Each time a random number decides whether the first or the last token goes.
    At first all cuts are in the longer range; once the lengths are about equal,
    they alternate.
    """
    a_length = a[1] - a[0]
    b_length = b[1] - b[0]
    excess = a_length + b_length - self._room
    if excess <= 0:
      return a, b
    flips = self._stream.flips(excess)
    if a_length > b_length:
      run = a_length - b_length
      a_flips, b_flips = flips[:run] + flips[run + 1 :: 2], flips[run::2]
    else:
      run = b_length - a_length + 1
      b_flips, a_flips = flips[:run] + flips[run + 1 :: 2], flips[run::2]
    return (
      (a[0] + a_flips.count(0), a[1] - a_flips.count(1)),
      (b[0] + b_flips.count(0), b[1] - b_flips.count(1)),
    )

  def _mask(self, a, b):
    length = a[1] - a[0] + b[1] - b[0]
    wanted = self._num_to_predict[length]
    if self._config.do_whole_word_mask:
      masked = self._choose_words(a, b, length, wanted)
    else:
      masked = self._candidates[:length]
      self._stream.shuffle(masked, kept=wanted)
      del masked[wanted:]
    self._masked.extend(masked)
    self._masked_ends.append(len(self._masked))
    self._replacements.extend(self._draw_replacements(len(masked)))

  def _choose_words(self, a, b, length, wanted):
    """Chooses tokens of A + B to mask, word by word; skips words too long.

    As in upstream, B's first token joins A's last word if it begins with "##",
    as it may after truncation.
    """
    marks = self._continues_word[slice(*a)] + self._continues_word[slice(*b)]
    begins = [0, *(i for i in range(1, length) if not marks[i])]
    words = list(map(range, begins, [*begins[1:], length]))
    self._stream.shuffle(words)
    masked = []
    for word in words:
      if len(masked) + len(word) <= wanted:
        masked.extend(word)
    return masked

  def _draw_replacements(self, count):
    """Draws the ids that replace `count` masked tokens.

    A hot loop, hence without calls. Reserves enough words for seven rejections
    of every number; raises IndexError if even these run out.
    """
    stream = self._stream
    stream.reserve(12 * count + 256)
    words, position = stream.words, stream.position
    is_mask, flips = stream.is_below[MASK_PROBABILITY], stream.leading[1]
    limit = len(self._vocab_ids)
    shift = 32 - limit.bit_length()
    replacements = [self._mask_id] * count
    for i in range(count):
      if is_mask[position]:
        position += 2
      elif flips[position + 2]:
        position += 4
        while (number := words[position] >> shift) >= limit:
          position += 1
        position += 1
        replacements[i] = self._vocab_ids[number]
      else:
        position += 4
        replacements[i] = _UNCHANGED
    stream.position = position
    return replacements


def _num_to_predict(length, config):
  # Python 3 rounds a half to the even neighbour, and so does upstream.
  share = round(length * config.masked_lm_prob)
  return min(config.max_predictions_per_seq, max(1, share))


def _continuation_marks(token_ids, vocab):
  """Returns bytes: 1 for each of `token_ids` whose token begins with "##"."""
  marks = np.zeros(max(vocab.values()) + 1, np.uint8)
  marks[[vocab[token] for token in vocab if token.startswith("##")]] = 1
  return marks[token_ids].tobytes()


class TrainingInstances(collections.abc.Sequence):
  """A sequence of `TrainingInstance`, stored in about 150 bytes each."""

  def __init__(self, documents, tokenizer, config, plan):
    self.config = config
    self._token_ids = documents.token_ids
    self._tokenizer = tokenizer
    self._plan = plan

  def __len__(self):
    return len(self._plan.order)

  def __getitem__(self, number):
    number = range(len(self))[number]
    rows = self.features(number, number + 1)
    row = {name: values[0] for name, values in rows.items()}
    tokens_of = self._tokenizer.convert_ids_to_tokens
    length = row["input_mask"].sum()
    count = int(row["masked_lm_weights"].sum())
    return TrainingInstance(
      tokens=tokens_of(row["input_ids"][:length].tolist()),
      segment_ids=row["segment_ids"][:length].tolist(),
      masked_lm_positions=row["masked_lm_positions"][:count].tolist(),
      masked_lm_labels=tokens_of(row["masked_lm_ids"][:count].tolist()),
      is_random_next=bool(row["next_sentence_labels"][0]),
    )

  def features(self, first, last):
    """Makes the features of records `first` to `last` - 1.

    Returns:
      Dict from the names of `features.pretraining_features` to arrays
      [records, length of the feature], padded with 0.
    """
    rows = self._plan.order[first:last]
    ranges = self._plan.ranges[rows]
    features = self._text_features(ranges)
    features.update(self._masked_features(rows, ranges, features["input_ids"]))
    features["next_sentence_labels"] = self._plan.is_random_next[
      rows, np.newaxis
    ]
    return features

  def _text_features(self, ranges):
    a_begin, a_end, b_begin, b_end = ranges.T[:, :, np.newaxis]
    b_column = a_end - a_begin + 2
    length = b_column + b_end - b_begin + 1
    column = np.arange(self.config.max_seq_length)
    is_b = column >= b_column
    is_used = column < length
    source = np.where(is_b, b_begin - b_column, a_begin - 1) + column
    input_ids = self._token_ids.take(source, mode="clip")
    vocab = self._tokenizer.vocab
    input_ids[:, 0] = vocab["[CLS]"]
    np.put_along_axis(input_ids, b_column - 1, vocab["[SEP]"], axis=1)
    np.put_along_axis(input_ids, length - 1, vocab["[SEP]"], axis=1)
    return {
      "input_ids": input_ids * is_used,
      "input_mask": is_used.astype(np.int32),
      "segment_ids": (is_b & is_used).astype(np.int32),
    }

  def _masked_features(self, rows, ranges, input_ids):
    """Makes features of masked tokens; puts replacements into `input_ids`."""
    tokens, replacements, is_used = self._masked_in_order(rows)
    a_length = (ranges[:, 1] - ranges[:, 0])[:, np.newaxis]
    # [CLS] precedes A; [CLS] and [SEP] precede B.
    positions = (tokens + 1 + (tokens >= a_length)) * is_used
    labels = np.take_along_axis(input_ids, positions, axis=1)
    replaced = np.where(replacements == _UNCHANGED, labels, replacements)
    row, slot = np.nonzero(is_used)
    input_ids[row, positions[row, slot]] = replaced[row, slot]
    return {
      "masked_lm_positions": positions,
      "masked_lm_ids": labels * is_used,
      "masked_lm_weights": is_used.astype(np.float32),
    }

  def _masked_in_order(self, rows):
    """Finds the masked tokens of records, in the order of the text.

    Returns:
      Three arrays [records, max_predictions_per_seq]: indexes of tokens in
      A + B; ids that replace them; which slots are used.
    """
    plan = self._plan
    begins = plan.masked_ends[rows, np.newaxis]
    source = begins + np.arange(self.config.max_predictions_per_seq)
    is_used = source < plan.masked_ends[rows + 1, np.newaxis]
    # Index and replacement are sorted as one integer; unused slots go last.
    pairs = plan.masked.take(source, mode="clip").astype(np.int64) << 32
    pairs += plan.replacements.take(source, mode="clip") - _UNCHANGED
    pairs[~is_used] = np.iinfo(np.int64).max
    pairs.sort(axis=1)
    return pairs >> 32, (pairs & 0xFFFFFFFF) + _UNCHANGED, is_used


class Progress:
  """Shows progress: a bar on a terminal, else a line for every tenth."""

  def __init__(self, label, total, unit):
    self._bar = tqdm.tqdm(
      desc=label,
      total=total,
      unit=unit if unit == "B" else f" {unit}",
      unit_scale=True,
      disable=not sys.stderr.isatty(),
    )
    self._line = f"{label}: {{}} % of {total} {unit}\n"
    self._total = total
    self._done = 0
    self._next_percent = 10
    self._next_time = time.monotonic() + _SECONDS_PER_PROGRESS_LINE

  def update(self, amount):
    """Adds `amount` to the work done."""
    self._bar.update(amount)
    self._done += amount
    percent = self._done * 100 // self._total
    if self._bar.disable and percent >= self._next_percent:
      self._next_percent = percent // 10 * 10 + 10
      self._write_line(percent)

  def _write_line(self, percent):
    now = time.monotonic()
    if now >= self._next_time:
      sys.stderr.write(self._line.format(percent))
      self._next_time = now + _SECONDS_PER_PROGRESS_LINE

  def __enter__(self):
    return self

  def __exit__(self, *error):
    self._bar.close()
