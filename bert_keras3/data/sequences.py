"""Packs and pads token sequences in memory, in batches of a few lengths."""

import itertools

import numpy as np

from bert_keras3.data import features
from bert_keras3.data import sources

# The most shapes that batches of mixed lengths have. XLA compiles each of them.
MAX_BUCKETS = 6


# Lengths are multiples of this, the number of rows of a matrix unit.
BUCKET_MULTIPLE = 8


def truncate_pair(num_a, num_b, max_seq_length):
  """Counts the tokens of two texts that are kept when they are packed.

  Upstream's _truncate_seq_pair, in closed form: it drops the last token of the
  longer text (of the second one if lengths are equal) until both fit beside
  `[CLS]` and one `[SEP]` each. Without a second text there is one `[SEP]`.

  Returns:
    (tokens of the first text, tokens of the second).
  """
  if not num_b:
    return min(num_a, max_seq_length - 2), 0
  room = max_seq_length - 3
  keep_b = min(num_b, max(room // 2, room - num_a))
  return min(num_a, room - keep_b), keep_b


def truncate_texts(tokens_a, tokens_b, max_seq_length):
  """Truncates two texts as `truncate_pair` says.

  Args:
    tokens_a: list of the first text's tokens.
    tokens_b: list of the second text's tokens; empty without a second text.
    max_seq_length: the most tokens of the packed texts.

  Returns:
    Two lists, the kept tokens of each text.
  """
  keep_a, keep_b = truncate_pair(len(tokens_a), len(tokens_b), max_seq_length)
  return tokens_a[:keep_a], tokens_b[:keep_b]


def pack_pair(tokens_a, tokens_b, cls_id, sep_id):
  """Makes the ids of `[CLS] a [SEP] b [SEP]`, or of `[CLS] a [SEP]` without b.

  Returns:
    (list of ids, number of the ids in segment 0).
  """
  first = [cls_id, *tokens_a, sep_id]
  second = [*tokens_b, sep_id] if tokens_b else []
  return first + second, len(first)


class Sequences:
  """Holds token sequences of different lengths, without padding.

  Args:
    packed: list of results of `pack_pair`.

  Attributes:
    lengths: int32 [sequences], tokens of each.
    num_first: int32 [sequences], tokens of each that are in segment 0.
    starts: int64 [sequences], index in `flat_ids` where each begins.
    flat_ids: int32 [tokens of all], one sequence after another.
  """

  def __init__(self, packed):
    ids = itertools.chain.from_iterable(ids for ids, _ in packed)
    self._set(
      np.fromiter(ids, np.int32),
      np.array([len(ids) for ids, _ in packed], np.int32),
      np.array([first for _, first in packed], np.int32),
    )

  @classmethod
  def from_arrays(cls, flat_ids, lengths, num_first):
    """Makes Sequences from their attributes."""
    sequences = cls.__new__(cls)
    sequences._set(flat_ids, lengths, num_first)
    return sequences

  def _set(self, flat_ids, lengths, num_first):
    self.flat_ids = flat_ids
    self.lengths = lengths
    self.num_first = num_first
    self.starts = np.cumsum(lengths, dtype=np.int64) - lengths

  def __len__(self):
    return len(self.lengths)

  def ids(self, number):
    """Returns the ids of one sequence, int32 [tokens]."""
    start = self.starts[number]
    return self.flat_ids[start : start + self.lengths[number]]

  def pad(self, numbers, length):
    """Pads sequences to one length.

    Args:
      numbers: of the sequences, in any order, perhaps repeated.
      length: tokens; no sequence may be longer.

    Returns:
      Dict of `features.sequence_features`, int32 [batch, length].
    """
    numbers = np.asarray(numbers)
    positions = np.arange(length)
    is_token = positions < self.lengths[numbers, np.newaxis]
    indices = self.starts[numbers, np.newaxis] + positions
    values = {
      "input_ids": self.flat_ids[np.where(is_token, indices, 0)],
      "input_mask": 1,
      "segment_ids": positions >= self.num_first[numbers, np.newaxis],
    }
    return {
      spec.name: np.where(is_token, values[spec.name], spec.padding).astype(
        spec.dtype, copy=False
      )
      for spec in features.sequence_features(length)
    }


class SequenceSource:
  """Pads sequences batch by batch and adds labels; a `sources.Source`.

  Args:
    sequences: Sequences.
    columns: dict from name to array [sequences, ...], labels for example.
    bucket_lengths: ascending lengths; a batch is padded to the first that holds
      its longest sequence.

  Raises:
    ValueError: a sequence is longer than the last bucket.
  """

  def __init__(self, sequences, columns, bucket_lengths):
    self.sequences = sequences
    self.columns = columns
    self.lengths = sequences.lengths
    self.bucket_lengths = tuple(bucket_lengths)
    # With one bucket all batches have the same shape.
    length = None if len(bucket_lengths) > 1 else self.bucket_lengths[0]
    self.specs = (
      *features.sequence_features(length),
      *features.specs_of(columns),
    )
    # All sequences are in memory, so a permutation may mix them all.
    self.block_size = len(sequences)
    longest = int(self.lengths.max(initial=0))
    if longest > self.bucket_lengths[-1]:
      raise ValueError(
        f"a sequence of {longest} tokens does not fit into "
        f"{self.bucket_lengths[-1]}"
      )

  def __len__(self):
    return len(self.sequences)

  def take(self, numbers, step):
    """Pads the sequences of a batch, see `sources.Source`."""
    del step
    longest = self.lengths[numbers].max()
    bucket = np.searchsorted(self.bucket_lengths, longest)
    batch = self.sequences.pad(numbers, self.bucket_lengths[bucket])
    columns = {name: values[numbers] for name, values in self.columns.items()}
    return {**batch, **columns}

  def locate(self, number):
    """Returns the number alone: the file of a sequence is not known."""
    return sources.Location(None, number)


def bucket_lengths(lengths, max_seq_length, max_buckets=MAX_BUCKETS):
  """Finds the bucket lengths with the least padding, by dynamic programming.

  Args:
    lengths: int array [sequences].
    max_seq_length: the longest bucket allowed.
    max_buckets: the most buckets allowed.

  Returns:
    Ascending tuple of lengths, the last of which holds the longest sequence;
    multiples of BUCKET_MULTIPLE, except for max_seq_length.
  """
  longest = int(np.max(lengths, initial=1))
  ends = [*range(BUCKET_MULTIPLE, longest, BUCKET_MULTIPLE)]
  last = -(-longest // BUCKET_MULTIPLE) * BUCKET_MULTIPLE
  ends = np.array([0, *ends, min(last, max_seq_length)])
  # counts[j]: sequences of at most ends[j] tokens.
  counts = np.searchsorted(np.sort(lengths), ends, side="right")
  # best[j]: fewest positions for those sequences; at first without a bucket.
  best = np.where(ends > 0, np.inf, 0.0)
  choices = []
  for _ in range(max_buckets):
    # cost[i, j]: sequences of ends[i] + 1 to ends[j] tokens are padded to
    # ends[j], shorter ones by best[i].
    cost = best[:, np.newaxis] + (counts - counts[:, np.newaxis]) * ends
    cost[np.tril_indices(len(ends), -1)] = np.inf
    choices.append(cost.argmin(axis=0))
    best = cost.min(axis=0)
  chosen = set()
  end = len(ends) - 1
  for choice in reversed(choices):
    chosen.add(int(ends[end]))
    end = choice[end]
  return tuple(sorted(chosen - {0}))
