"""What the workers of a run find out about each other between steps."""

import tensorflow as tf

from bert_keras3.training import devices


class Agreement:
  """Sums over workers, which all have to ask for at the same step."""

  def __init__(self, strategy):
    self.strategy = strategy
    self._add_up = tf.function(_add_up)

  @property
  def has_others(self):
    """Whether there are other workers, or may be."""
    return devices.has_other_workers(self.strategy)

  def sum(self, value):
    """Returns the sum of every worker's value, once for each replica of it."""
    total = self.strategy.run(self._add_up, args=(tf.constant(float(value)),))
    return float(devices.first_replica(self.strategy, total))

  def check_step(self, step):
    """Finds workers that read their checkpoints from different disks.

    Raises:
      ValueError: another process is at another step.
    """
    if not self.has_others:
      return
    if self.sum(step) != step * self.strategy.num_replicas_in_sync:
      raise ValueError(
        f"this worker continues at step {step}, another one elsewhere; "
        "--output_dir must be a directory that all workers share"
      )


def _add_up(value):
  # An argument of a graph is on no device, which this reduction wants to know.
  value = tf.identity(value)
  return tf.distribute.get_replica_context().all_reduce("SUM", value)
