"""Decides which examples each batch gets, purely by seed, epoch and step."""

import functools

import numpy as np

from bert_keras3.data import features

# Records permuted together. At 1 kB a record two cached blocks take 32 MB.
BLOCK_RECORDS = 1 << 14


# Batches whose examples are sorted by length together: enough of them for
# little padding, few enough for random batches.
BATCHES_PER_GROUP = 50


# 0 for rows that only fill a batch, 1 for all others.
EXAMPLE_WEIGHTS = features.FeatureSpec("example_weights", (), "float32")


class TrainingOrder:
  """Gives each training step its record numbers, without end.

  Each epoch is a permutation of all records: blocks are permuted, and records
  within their block, so that a block is read from disk once an epoch. A batch
  may end one epoch and begin the next; no record is dropped.

  Args:
    num_records: records in the source.
    batch_size: global batch size.
    seed: int; another seed, another order.
    block_size: records permuted together.
  """

  def __init__(self, num_records, batch_size, seed, block_size=BLOCK_RECORDS):
    self.num_records = num_records
    self.batch_size = batch_size
    self.seed = seed
    self.block_size = block_size
    # A batch may end one epoch or block and begin the next.
    self._epoch_layout = functools.lru_cache(2)(self._make_epoch_layout)
    self._block_records = functools.lru_cache(2)(self._make_block_records)

  def batch(self, step):
    """Returns the record numbers [batch_size] of a step."""
    start = step * self.batch_size
    positions = np.arange(start, start + self.batch_size)
    epochs = positions // self.num_records
    pieces = []
    for epoch in np.unique(epochs).tolist():
      blocks, starts = self._epoch_layout(epoch)
      offsets = positions[epochs == epoch] % self.num_records
      slots = np.searchsorted(starts, offsets, side="right") - 1
      for slot in np.unique(slots).tolist():
        records = self._block_records(epoch, int(blocks[slot]))
        pieces.append(records[offsets[slots == slot] - starts[slot]])
    return np.concatenate(pieces)

  def _make_epoch_layout(self, epoch):
    """Returns the blocks in an epoch's order, and their first positions."""
    num_blocks = -(-self.num_records // self.block_size)
    blocks = _permutation(num_blocks, [self.seed, epoch, num_blocks])
    sizes = np.minimum(
      self.block_size, self.num_records - blocks * self.block_size
    )
    return blocks, np.cumsum(sizes) - sizes

  def _make_block_records(self, epoch, block):
    """Returns a block's record numbers in an epoch's order."""
    start = block * self.block_size
    size = min(self.block_size, self.num_records - start)
    return start + _permutation(size, [self.seed, epoch, block])


class LengthGroupedOrder:
  """Groups a TrainingOrder's sequences into batches of similar lengths.

  An epoch is cut into groups of BATCHES_PER_GROUP batches; a group's sequences
  are sorted by length and cut into batches again, which are permuted. A batch
  that ends one epoch and begins the next is left as it is: every sequence still
  comes once an epoch, and a step's batch is still a pure function of the step.

  Args:
    order: TrainingOrder.
    lengths: int array [sequences].
  """

  def __init__(self, order, lengths):
    self.order = order
    self.lengths = lengths
    self._group = functools.lru_cache(1)(self._make_group)

  def batch(self, step):
    """Returns the sequence numbers [batch_size] of a step."""
    first, last = self._group_bounds(step)
    return self._group(first, last)[step - first]

  def _group_bounds(self, step):
    """Returns the first step of a step's group, and the first one after it."""
    size, num_records = self.order.batch_size, self.order.num_records
    epoch, position = divmod(step * size, num_records)
    if position + size > num_records:
      return step, step + 1
    # Only batches that lie wholly in the epoch.
    epoch_start = -(-epoch * num_records // size)
    epoch_end = (epoch + 1) * num_records // size
    first = step - (step - epoch_start) % BATCHES_PER_GROUP
    return first, min(first + BATCHES_PER_GROUP, epoch_end)

  def _make_group(self, first, last):
    batches = np.stack([self.order.batch(step) for step in range(first, last)])
    if len(batches) == 1:
      return batches
    numbers = batches.ravel()
    by_length = numbers[np.argsort(self.lengths[numbers], kind="stable")]
    batches = by_length.reshape(batches.shape)
    return batches[_permutation(len(batches), [self.order.seed, first, last])]


def training_order(source, batch_size, seed):
  """Makes the order of training on a Source, by length if shapes differ."""
  order = TrainingOrder(len(source), batch_size, seed, source.block_size)
  if not features.vary(source.specs):
    return order
  return LengthGroupedOrder(order, source.lengths)


def inference_order(source):
  """Lists the numbers of a Source's examples, by length if shapes differ."""
  if not features.vary(source.specs):
    return np.arange(len(source))
  return np.argsort(source.lengths, kind="stable")


def _permutation(size, key):
  """Permutes range(size) by `key`, a list of non-negative ints.

  Sorts raw words of Philox: NumPy promises never to change its bit stream, but
  not the results of `Generator.permutation`.
  """
  words = np.random.Philox(np.random.SeedSequence(key)).random_raw(size)
  return np.argsort(words, kind="stable")


def sequential_batches(num_records, batch_size, max_batches=None):
  """Yields the record numbers of each batch of one pass in order.

  The last batch may be smaller; no record is repeated or dropped.
  """
  starts = range(0, num_records, batch_size)
  for start in starts[:max_batches]:
    yield np.arange(start, min(start + batch_size, num_records))


def pad_batch(batch, size):
  """Fills a batch up to `size` rows that carry no weight.

  Args:
    batch: dict of arrays [rows, ...].
    size: rows wanted.

  Returns:
    Dict of `padded_features`, `size` rows each: copies of the last row are
    added (valid input for any model), whose `example_weights` are 0, and their
    masked-LM weights too.
  """
  rows = len(next(iter(batch.values())))
  chosen = np.minimum(np.arange(size), rows - 1)
  padded = {name: values[chosen] for name, values in batch.items()}
  is_real = np.arange(size) < rows
  padded[EXAMPLE_WEIGHTS.name] = is_real.astype(EXAMPLE_WEIGHTS.dtype)
  if "masked_lm_weights" in padded:
    padded["masked_lm_weights"][rows:] = 0
  return padded


def padded_features(specs):
  """Returns the features of a batch that `pad_batch` has filled."""
  return (*specs, EXAMPLE_WEIGHTS)
