"""Many training steps in one call of TensorFlow, without Python in between."""

import tensorflow as tf

from bert_keras3.training import devices
from bert_keras3.training import interval


class InnerLoop:
  """Takes many training steps in one call of a graph.

  Args:
    strategy: tf.distribute strategy.
    train_step: TrainStep.
    is_pausing: bool variable that ends a call after its current step.

  Attributes:
    take: `take_steps`, compiled.
    steps_taken: int64 variable; other threads read it during a call.
  """

  def __init__(self, strategy, train_step, is_pausing):
    self.strategy = strategy
    self.train_step = train_step
    self.is_pausing = is_pausing
    # On the CPU, where it can be read while a GPU hangs in a step.
    with tf.device("CPU"):
      self.steps_taken = tf.Variable(0, trainable=False, dtype=tf.int64)
    self.take = tf.function(self.take_steps)

  def take_steps(self, iterator, first_step, num_steps, sums):
    """Takes `num_steps` steps, fewer on a request or after a bad step.

    Args:
      iterator: over the dataset of devices.distribute_batches.
      first_step: int64 scalar, steps taken before.
      num_steps: int64 scalar.
      sums: interval.Sums to add to.

    Returns:
      (interval.Statistics, number of steps taken).
    """
    learning_rate = gradient_norm = step_loss = tf.constant(0.0)
    is_finite = tf.constant(True)
    i = tf.constant(0, tf.int64)
    while self._may_go_on(i, num_steps, is_finite):
      # A step begins when the one before has ended: `is_finite` is known then.
      self.steps_taken.assign(first_step + i)
      may_shrink = self.train_step.loss_scale.may_shrink()
      result = self.strategy.run(
        self.train_step, args=(next(iterator), first_step + i)
      )
      step_loss, metrics, learning_rate, gradient_norm = devices.first_replica(
        self.strategy, result
      )
      # The gradient is checked as well, as the loss is of the weights before
      # the update. An overflow that the loss scale skips is no bad step.
      is_finite = tf.math.is_finite(step_loss) & (
        tf.math.is_finite(gradient_norm) | may_shrink
      )
      sums = interval.Sums(
        loss=sums.loss + tf.where(is_finite, step_loss, 0.0),
        metrics=sums.metrics + tf.where(is_finite, metrics, 0.0),
        steps=sums.steps + tf.cast(is_finite, tf.float32),
      )
      i += 1
    statistics = interval.Statistics(
      sums, step_loss, learning_rate, gradient_norm, is_finite
    )
    return statistics, i

  def _may_go_on(self, num_taken, num_steps, is_finite):
    if devices.has_other_workers(self.strategy):
      # TensorFlow tells collectives apart by their iteration of the loop, too:
      # one worker that left it earlier would wait for the others forever.
      return (num_taken < num_steps) & is_finite
    # One step at least: a request is answered between two of them.
    is_pausing = (num_taken > 0) & self.is_pausing.read_value()
    return (num_taken < num_steps) & is_finite & ~is_pausing

  def locate(self):
    """Says which step a call has reached, as a phrase."""
    return f"after step {self.steps_taken.numpy()}"
