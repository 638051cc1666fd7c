"""The checkpoints of a run; of several workers, only the chief writes them."""

import os

from bert_keras3.training import devices
from bert_keras3.weights import checkpoints


def open_store(strategy, output_dir, keep_checkpoint_max):
  """Returns the Store of this process; only the chief's writes."""
  make = Store if devices.is_chief(strategy) else ReadOnlyStore
  return make(output_dir, keep_checkpoint_max)


class Store:
  """The checkpoints of a run: of its newest steps, and the best weights.

  Args:
    output_dir: directory.
    keep_checkpoint_max: see checkpoints.CheckpointDirectory.
  """

  def __init__(self, output_dir, keep_checkpoint_max):
    self.output_dir = output_dir
    self._directory = checkpoints.CheckpointDirectory(
      output_dir, keep_checkpoint_max
    )

  def newest(self):
    """Returns the prefix of the newest checkpoint that can be read, or None.

    Raises:
      ValueError: there are checkpoints, but none can be used.
    """
    return checkpoints.newest_readable(self.output_dir)

  def latest(self):
    """Returns the prefix of the checkpoint that was written last, or None."""
    return checkpoints.latest(self.output_dir)

  def save(self, state, step, extra):
    """Writes `model.ckpt-STEP`; see checkpoints.CheckpointDirectory."""
    self._directory.save(state, step, extra)

  @property
  def best_path(self):
    """Returns the prefix of the best weights."""
    return os.path.join(self.output_dir, "best_model.ckpt")

  def save_best(self, weights, step):
    """Writes best_model.ckpt, the best weights so far, of `step`."""
    checkpoints.save(self.best_path, weights, step)

  def read_best_step(self):
    """Returns the step of the best weights, 0 if missing or damaged."""
    try:
      return checkpoints.read_global_step(self.best_path)
    except (FileNotFoundError, ValueError):
      return 0


class ReadOnlyStore(Store):
  """The Store of a worker that is not the chief."""

  def save(self, state, step, extra):
    """Does nothing; the chief writes."""

  def save_best(self, weights, step):
    """Does nothing; the chief writes."""
