"""BERT's optimizers and learning-rate schedules.

An optimizer here is a rule for one variable and its slots; the training loop
reduces and clips gradients and calls `update` on every device. Keras optimizers
would reduce and clip themselves, per replica, and correct Adam's bias.
"""

import dataclasses
import math
import re

import tensorflow as tf

# Variables whose name matches one of these are not decayed (upstream's
# create_optimizer). "bias" covers output_bias as well.
EXCLUDE_FROM_WEIGHT_DECAY = ("LayerNorm", "layer_norm", "bias")
# Gradients are scaled down to this global norm (upstream's create_optimizer).
CLIP_NORM = 1.0


# Schedules --------------------------------------------------------------------


def _linear(progress, power):
  del power
  return 1.0 - progress


def _polynomial(progress, power):
  return (1.0 - progress) ** power


def _cosine(progress, power):
  del power
  return 0.5 * (1.0 + tf.cos(math.pi * progress))


def _constant(progress, power):
  del power
  return tf.ones_like(progress)


# Functions from the share of steps done to the share of the peak rate.
DECAYS = {
  "linear": _linear,
  "polynomial": _polynomial,
  "cosine": _cosine,
  "constant": _constant,
}


@dataclasses.dataclass(frozen=True)
class LearningRateSchedule:
  """Linear warmup, then a decay that reaches its end at `num_train_steps`.

  As upstream, the decay counts from step 0, not from the end of the warmup:
  the rate drops from `init_lr` to `decay(num_warmup_steps / num_train_steps)`
  of it when the warmup ends. Step 0 of a warmup has rate 0.
  """

  init_lr: float
  num_train_steps: int
  num_warmup_steps: int = 0
  decay: str = "linear"
  power: float = 1.0  # of the polynomial decay only

  def __call__(self, step):
    """Returns the float32 learning rate of update `step`, counted from 0."""
    step = tf.cast(step, tf.float32)
    total = float(self.num_train_steps)
    progress = tf.minimum(step, total) / total
    rate = self.init_lr * DECAYS[self.decay](progress, self.power)
    if not self.num_warmup_steps:
      return rate
    warmup_rate = self.init_lr * (step / float(self.num_warmup_steps))
    return tf.where(step < self.num_warmup_steps, warmup_rate, rate)


# Optimizers -------------------------------------------------------------------


class AdamWeightDecay:
  """Adam with decoupled weight decay and, by default, no bias correction.

  m = beta_1 m + (1 - beta_1) g
  v = beta_2 v + (1 - beta_2) g^2
  w = w - lr (m / (sqrt(v) + epsilon) + weight_decay_rate w)

  This is upstream's AdamWeightDecayOptimizer, and Adam (arXiv 1412.6980) except
  for the correction. Biases and LayerNorm parameters are not decayed.

  With `bias_correction`, m and v are divided by 1 - beta ** number of updates,
  as in Adam: the first steps are smaller, which stabilises fine-tuning on small
  data (arXiv 2006.05987, section 4).
  """

  slot_names = ("adam_m", "adam_v")

  def __init__(
    self,
    weight_decay_rate=0.01,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-6,
    exclude_from_weight_decay=EXCLUDE_FROM_WEIGHT_DECAY,
    bias_correction=False,
  ):
    self.weight_decay_rate = weight_decay_rate
    self.beta_1 = beta_1
    self.beta_2 = beta_2
    self.epsilon = epsilon
    self.exclude_from_weight_decay = exclude_from_weight_decay
    self.bias_correction = bias_correction

  def create_slots(self, variables):
    """Creates the moments, filled with zeros.

    Args:
      variables: dict from name to variable.

    Returns:
      Dict from `<name>/adam_m` and `<name>/adam_v` to float32 variables.
    """
    return {
      f"{name}/{slot}": tf.Variable(
        tf.zeros(variable.shape), trainable=False, name=f"{name}/{slot}"
      )
      for name, variable in variables.items()
      for slot in self.slot_names
    }

  def update(self, name, variable, gradient, slots, learning_rate, step):
    """Applies one gradient to one variable.

    Args:
      name: the variable's checkpoint name; decides on weight decay.
      variable: float32 tf.Variable of any shape.
      gradient: float32 tensor of that shape.
      slots: the variable's slots, in the order of `slot_names`.
      learning_rate: float32 scalar.
      step: int64 scalar, number of updates before this one.
    """
    update = self._direction(gradient, slots, step)
    if self.is_decayed(name):
      update += self.weight_decay_rate * variable
    variable.assign_sub(learning_rate * update)

  def is_decayed(self, name):
    """Returns whether weight decay applies to the variable of that name."""
    return bool(self.weight_decay_rate) and not any(
      re.search(pattern, name) for pattern in self.exclude_from_weight_decay
    )

  def _direction(self, gradient, slots, step):
    """Updates the moments; returns m / (sqrt(v) + epsilon)."""
    m, v = slots
    m.assign(self.beta_1 * m + (1.0 - self.beta_1) * gradient)
    v.assign(self.beta_2 * v + (1.0 - self.beta_2) * tf.square(gradient))
    m, v = tf.convert_to_tensor(m), tf.convert_to_tensor(v)
    if self.bias_correction:
      count = tf.cast(step + 1, tf.float32)
      m /= 1.0 - self.beta_1**count
      v /= 1.0 - self.beta_2**count
    return m / (tf.sqrt(v) + self.epsilon)


class Lamb(AdamWeightDecay):
  """LAMB (arXiv 1904.00962, algorithm 2), for large batches.

  Adam's direction, bias-corrected and with the decay added, is scaled for each
  variable to `norm(w) / norm(direction)`. Variables that are not decayed are
  not scaled either.
  """

  def __init__(self, **kwargs):
    super().__init__(**{**kwargs, "bias_correction": True})

  def update(self, name, variable, gradient, slots, learning_rate, step):
    """Applies one gradient to one variable; see AdamWeightDecay.update."""
    update = self._direction(gradient, slots, step)
    if self.is_decayed(name):
      update += self.weight_decay_rate * variable
      update *= _trust_ratio(tf.norm(variable), tf.norm(update))
    variable.assign_sub(learning_rate * update)


def _trust_ratio(weight_norm, update_norm):
  """Returns norm(w) / norm(update), 1 if one is 0 (new or stuck variable)."""
  is_defined = tf.logical_and(weight_norm > 0, update_norm > 0)
  safe_norm = tf.where(is_defined, update_norm, 1.0)
  return tf.where(is_defined, weight_norm / safe_norm, 1.0)


OPTIMIZERS = {"adamw": AdamWeightDecay, "lamb": Lamb}


def layerwise_factors(names, decay):
  """Returns a factor for the learning rate of each variable.

  1 for the head and the pooler, `decay` for the top layer of the encoder,
  `decay` squared for the one below it, and so on down to the embeddings
  (arXiv 1801.06146, section 3.2; ELECTRA's layerwise_lr_decay).

  Args:
    names: checkpoint names of the variables.
    decay: float, 1 for the same rate everywhere.

  Returns:
    Dict from name to float.
  """
  depths = {name: _depth(name) for name in names}
  layers = [depth for depth in depths.values() if depth is not None]
  top = max(layers, default=0) + 1
  return {
    name: decay ** (0 if depth is None else top - depth)
    for name, depth in depths.items()
  }


def _depth(name):
  """Returns 0 for embeddings, 1 for the lowest layer, None above the layers."""
  if name.startswith("bert/embeddings/"):
    return 0
  layer = re.match(r"bert/encoder/layer_(\d+)/", name)
  return int(layer[1]) + 1 if layer else None


def clip_by_global_norm(gradients, clip_norm=CLIP_NORM):
  """Scales gradients down to a joint norm of `clip_norm` at most.

  Args:
    gradients: list of dense float32 tensors.
    clip_norm: float or scalar tensor.

  Returns:
    (list of clipped gradients, their global norm before clipping).
  """
  global_norm = tf.linalg.global_norm(gradients)
  clipped, _ = tf.clip_by_global_norm(gradients, clip_norm, global_norm)
  return clipped, global_norm
