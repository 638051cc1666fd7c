"""The training step: gradients, reduce, clip, update.

A device gets its share of the global batch as [micro_batches, rows, ...].

1. Add up the weights of all labels of the global batch. These denominators
   depend on labels alone and come first, so that the gradient is that of the
   true global mean, however the batch is split.
2. Run forward and backward of one micro-batch after the other, and add up.
3. Add up the gradients of all replicas, once, and clip them by global norm.
4. Update every copy of every variable.

Dropout masks are a function of seed, replica, step and micro-batch.
"""

import functools
import typing

import tensorflow as tf

import modeling
import optimization
from bert_keras3.training import devices
from bert_keras3.training import loss_scale


class PartialSums(typing.NamedTuple):
  """Sums over some examples of the global batch, in the end over all of it."""

  # Of the global loss times the loss scale, dense float32.
  gradients: list[tf.Tensor]
  loss: tf.Tensor  # float32 scalar, a share of the global loss
  metrics: tf.Tensor  # float32 [metric, 2], sums and weights by metric_names


class StepResult(typing.NamedTuple):
  """One step's numbers, of the global batch."""

  loss: tf.Tensor
  metrics: tf.Tensor
  learning_rate: tf.Tensor
  gradient_norm: tf.Tensor  # before clipping


class TrainStep:
  """One update of a model; every replica calls it with its share of a batch.

      result = strategy.run(train_step, args=(batch, step))

  Args:
    model: head model of `modeling`.
    config: configs.TrainingConfig.
    jit_compile: compile forward and backward of a micro-batch with XLA.

  Attributes:
    gradients: `compute_gradients`, compiled.
    trainable: dict from name to variable.
    slots: dict from name to the optimizer's variable.
    loss_scale: LossScale.
  """

  def __init__(self, model, config, jit_compile=False):
    """Creates the optimizer's slots; call it in the strategy's scope."""
    self.model = model
    self.seed = config.seed
    self.num_micro_batches = config.gradient_accumulation_steps
    self.clip_norm = config.clip_norm
    self.schedule = make_schedule(config)
    weights = modeling.named_variables(model)
    self.trainable = {k: v for k, v in weights.items() if v.trainable}
    self.optimizer = optimization.OPTIMIZERS[config.optimizer](
      bias_correction=config.adam_bias_correction
    )
    self.lr_factors = optimization.layerwise_factors(
      weights, config.layerwise_lr_decay
    )
    self.slots = self.optimizer.create_slots(self.trainable)
    self.loss_scale = loss_scale.LossScale(model.dtype_policy)
    # With --on_nan=stop the run ends instead; no checkpoint has a bad update.
    self.skips_updates = self.loss_scale.is_active or config.on_nan != "stop"
    self.gradients = tf.function(
      self.compute_gradients, jit_compile=jit_compile or None
    )

  def __call__(self, batch, step):
    """Takes one training step.

    Args:
      batch: dict of [micro_batches, rows, ...], this replica's share.
      step: int64 scalar, number of updates before this one.

    Returns:
      StepResult, the same on every replica.
    """
    replica = tf.distribute.get_replica_context()
    denominators = replica.all_reduce("SUM", self.label_totals(batch))
    gradients, loss, metrics = replica.all_reduce(
      "SUM", self._sum_gradients(batch, denominators, step)
    )
    gradients, gradient_norm = optimization.clip_by_global_norm(
      self.loss_scale.remove(gradients), self.clip_norm
    )
    learning_rate = self.schedule(step)
    replica.merge_call(
      self._update, args=(gradients, loss, gradient_norm, learning_rate, step)
    )
    return StepResult(loss, metrics, learning_rate, gradient_norm)

  def label_totals(self, batch):
    """Adds up what the labels of a replica count.

    Args:
      batch: dict of [micro_batches, rows, ...].

    Returns:
      Dict from each of the model's `loss_names` to a float32 scalar.
    """
    losses = self.model.loss_names

    def weights_of(micro_batch):
      weights = self.model.label_weights(micro_batch)
      return {name: weights[name] for name in losses}

    weights = tf.map_fn(
      weights_of, batch, fn_output_signature=dict.fromkeys(losses, tf.float32)
    )
    return tf.nest.map_structure(tf.reduce_sum, weights)

  def _sum_gradients(self, batch, denominators, step):
    """Returns the PartialSums of all micro-batches of a replica."""

    def gradients_of(i, micro_batch):
      seed = self.dropout_seed(step, i)
      return self.gradients(micro_batch, denominators, seed)

    def add(sums, element):
      return tf.nest.map_structure(tf.add, sums, gradients_of(*element))

    if self.num_micro_batches == 1:  # Saves the memory of zeros to add to.
      return gradients_of(0, {k: tf.squeeze(v, 0) for k, v in batch.items()})
    return tf.foldl(
      add,
      (tf.range(self.num_micro_batches), batch),
      initializer=PartialSums(
        gradients=[tf.zeros(x.shape) for x in self.trainable.values()],
        loss=tf.constant(0.0),
        metrics=tf.zeros([len(self.model.metric_names), 2]),
      ),
      # One after the other: memory holds the activations of one micro-batch.
      parallel_iterations=1,
    )

  def compute_gradients(self, batch, denominators, dropout_seed):
    """Runs forward and backward of one micro-batch.

    Args:
      batch: dict of [rows, ...].
      denominators: dict from loss to the weight of the global batch's labels.
      dropout_seed: int64 [2].

    Returns:
      PartialSums.
    """
    with tf.GradientTape() as tape:
      outputs = self.model(batch, training=True, dropout_seed=dropout_seed)
      terms = self.model.terms(outputs, batch)
      share = {k: (terms[k][0], weight) for k, weight in denominators.items()}
      loss = self.model.total_loss(share)
      scaled = self.loss_scale.add(loss)
    variables = [variable.value for variable in self.trainable.values()]
    gradients = tape.gradient(scaled, variables)
    return PartialSums(
      # Gradients of embedding tables are tf.IndexedSlices.
      [tf.convert_to_tensor(gradient) for gradient in gradients],
      loss,
      self.model.stack_metrics(terms),
    )

  def dropout_seed(self, step, micro_step):
    """Makes an int64 [2] that differs by replica, step and micro-batch."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    seed = (self.seed << 16) + tf.cast(replica, tf.int64)
    position = step * self.num_micro_batches
    return tf.stack([seed, position + tf.cast(micro_step, tf.int64)])

  def _update(self, strategy, gradients, loss, gradient_norm, rate, step):
    """Updates every copy of every variable; runs once for all replicas."""

    def update_all():
      for name, gradient in zip(self.trainable, gradients, strict=True):
        strategy.extended.update(
          self.trainable[name].value,
          functools.partial(self._update_one, name),
          args=(gradient, self._slots_of(name), rate, step),
          group=False,
        )
      return tf.constant(True)

    numbers = devices.first_replica(strategy, [loss, gradient_norm])
    is_finite = tf.reduce_all(tf.math.is_finite(numbers))
    if self.skips_updates:
      tf.cond(is_finite, update_all, lambda: tf.constant(False))
    else:
      update_all()
    self.loss_scale.adapt(is_finite)

  def _update_one(self, name, variable, gradient, slots, rate, step):
    """Updates one copy of a variable, at the rate of its layer."""
    rate *= self.lr_factors[name]
    self.optimizer.update(name, variable, gradient, slots, rate, step)

  def _slots_of(self, name):
    return [self.slots[f"{name}/{slot}"] for slot in self.optimizer.slot_names]


def make_schedule(config):
  """Makes the optimization.LearningRateSchedule of a configs.TrainingConfig."""
  return optimization.LearningRateSchedule(
    init_lr=config.learning_rate,
    num_train_steps=config.num_train_steps,
    num_warmup_steps=config.num_warmup_steps,
    decay=config.schedule,
    power=config.schedule_power,
  )
