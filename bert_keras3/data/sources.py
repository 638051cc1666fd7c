"""Declares the protocol of a source of examples, which makes batches."""

import typing

import numpy as np

from bert_keras3.data import features


class Location(typing.NamedTuple):
  """Names an example's file, and its number there."""

  path: str | None  # of its file; None for an example that is only in memory
  number: int  # within the file, or within the source; from 0


@typing.runtime_checkable
class Source(typing.Protocol):
  """Gives batches of examples to training, evaluation and prediction.

  Attributes:
    specs: tuple of FeatureSpec, the features of a batch.
    lengths: int array [examples], the tokens of each, by which examples are
      batched if the specs vary; None if all are padded to one length.
    bucket_lengths: ascending tuple, the lengths that batches may have: a batch
      has the first that holds its longest example. Empty without `lengths`.
    block_size: number of examples that training permutes together, because they
      are read from disk together.
  """

  specs: tuple[features.FeatureSpec, ...]
  lengths: np.ndarray | None
  bucket_lengths: tuple[int, ...]
  block_size: int

  def __len__(self) -> int:
    """Returns the number of examples."""

  def take(self, numbers, step) -> dict[str, np.ndarray]:
    """Makes a batch, a pure function of its arguments.

    Args:
      numbers: int array [batch] of examples.
      step: int, the number of the training batch: the global step plus the
        batches that rollbacks skipped; 0 for evaluation and prediction. Sources
        whose examples never change ignore it.

    Returns:
      Dict from feature name to an array [batch, *spec.shape].

    Raises:
      ValueError: an example cannot be used; says where it comes from.
    """

  def locate(self, number) -> Location:
    """Finds where an example comes from, for messages."""


def describe_examples(source, numbers):
  """Says where examples come from, such as "records 3, 5 of a.tfrecord".

  Args:
    source: Source.
    numbers: list of int; the examples of one file are named together.
  """
  by_path = {}
  for number in numbers:
    path, position = source.locate(number)
    by_path.setdefault(path, []).append(str(position))
  return "; ".join(
    f"records {', '.join(positions)} of {path}"
    if path
    else f"examples {', '.join(positions)}"
    for path, positions in by_path.items()
  )
