"""Sums over the workers of a run, by which they agree between steps."""

import tensorflow as tf

from bert_keras3.training import devices


class Agreement:
  """Adds up values over workers; all of them must ask at the same step."""

  def __init__(self, strategy):
    self.strategy = strategy
    self._add_up = tf.function(_add_up)

  @property
  def has_others(self):
    """Returns whether there are, or may be, other workers."""
    return devices.has_other_workers(self.strategy)

  def sum(self, value):
    """Returns the sum over all replicas of their worker's value."""
    total = self.strategy.run(self._add_up, args=(tf.constant(float(value)),))
    return float(devices.first_replica(self.strategy, total))

  def check_step(self, step):
    """Checks that all workers continue at the same step.

    Raises:
      ValueError: another worker has read another checkpoint.
    """
    if not self.has_others:
      return
    if self.sum(step) != step * self.strategy.num_replicas_in_sync:
      raise ValueError(
        f"this worker continues at step {step}, another one elsewhere; "
        "--output_dir must be a directory that all workers share"
      )


def _add_up(value):
  # The reduction needs a tensor that has a device; a graph's argument has none.
  value = tf.identity(value)
  return tf.distribute.get_replica_context().all_reduce("SUM", value)
