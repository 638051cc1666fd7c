"""Dynamic loss scaling for float16, as in arXiv 1710.03740 section 3.2."""

import tensorflow as tf

INITIAL_LOSS_SCALE = 2.0**15
MIN_LOSS_SCALE = 1.0
STEPS_BEFORE_DOUBLING_SCALE = 2000


class LossScale:
  """Dynamic loss scaling for float16; does nothing under other policies.

  Gradients below 6e-8 vanish in float16, so the loss is scaled up before the
  backward pass and the gradients down after it. A step whose gradients
  overflow is skipped, its batch consumed: the position in the data and the
  learning rate stay functions of the step number.
  """

  def __init__(self, dtype_policy):
    self._variables = {}
    if dtype_policy.compute_dtype == "float16":
      self._variables = {
        "scale": tf.Variable(INITIAL_LOSS_SCALE, trainable=False),
        "good_steps": tf.Variable(0.0, trainable=False),
      }

  @property
  def is_active(self):
    """Returns whether gradients are scaled, and overflowing steps skipped."""
    return bool(self._variables)

  def may_shrink(self):
    """Returns whether a smaller scale could make gradients finite again."""
    if not self._variables:
      return tf.constant(False)
    return self._variables["scale"] > MIN_LOSS_SCALE

  def state(self):
    """Returns a dict of floats, for the checkpoint."""
    return {k: float(v.numpy()) for k, v in self._variables.items()}

  def restore(self, state):
    """Sets the variables from a dict that `state` returned."""
    for name, variable in self._variables.items():
      variable.assign(state.get(name, variable))

  def add(self, loss):
    """Scales a loss up."""
    return loss * self._variables["scale"] if self._variables else loss

  def remove(self, gradients):
    """Scales gradients down."""
    if not self._variables:
      return gradients
    return [gradient / self._variables["scale"] for gradient in gradients]

  def adapt(self, is_finite):
    """Halves the scale after an overflow, doubles it after many good steps."""
    if not self._variables:
      return
    scale, good_steps = self._variables.values()
    count = tf.where(is_finite, good_steps + 1.0, 0.0)
    is_time = count >= STEPS_BEFORE_DOUBLING_SCALE
    factor = tf.where(is_finite, tf.where(is_time, 2.0, 1.0), 0.5)
    scale.assign(tf.maximum(scale * factor, MIN_LOSS_SCALE))
    good_steps.assign(tf.where(is_time, 0.0, count))
