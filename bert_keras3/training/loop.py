"""Training of any head, on any strategy.

One step is: split the global batch over replicas and micro-batches; forward and
backward of each; one all-reduce of the sums; clip; update. Denominators come
from the labels of the whole global batch first, so the gradient is that of the
true global mean, however it was split.

The state of a run is its weights, its slots and the number of steps taken.
Batches and dropout masks are pure functions of that number and the seed.
"""

import functools
import os
import sys
import time

import tensorflow as tf

import modeling
import optimization
from bert_keras3.data import order as order_module
from bert_keras3.data import sources
from bert_keras3.training import devices
from bert_keras3.training import log as training_log
from bert_keras3.training import loss_scale
from bert_keras3.training import requests
from bert_keras3.training import signals
from bert_keras3.weights import checkpoints

# More in a row mean that the cause is not in the data.
MAX_ROLLBACKS = 5
MAX_SKIPPED_STEPS = 20
MAX_SHOWN_RECORDS = 32


def make_schedule(config):
  """Makes the optimization.LearningRateSchedule of a configs.TrainingConfig."""
  return optimization.LearningRateSchedule(
    init_lr=config.learning_rate,
    num_train_steps=config.num_train_steps,
    num_warmup_steps=config.num_warmup_steps,
    decay=config.schedule,
    power=config.schedule_power,
  )


# Training ---------------------------------------------------------------------


def _apply_if(condition, apply):
  """Calls `apply()` in a graph if a bool tensor says so."""

  def apply_in_branch():
    apply()
    return tf.constant(True)

  tf.cond(condition, apply_in_branch, lambda: tf.constant(False))


class Trainer:
  """A model, its optimizer state and its place in a run.

      strategy = devices.make_strategy(device_config)
      with strategy.scope():
        model = modeling.BertPretrainer(config)
      trainer = Trainer(strategy, model, training_config)
      trainer.resume()
      trainer.fit(source)

  Args:
    strategy: tf.distribute strategy.
    model: head model of `modeling`, created in the strategy's scope.
    config: configs.TrainingConfig.
    jit_compile: compile each micro-batch with XLA.
    monitor: Monitor that evaluates every config.eval_steps, or None.

  Raises:
    ValueError: the batch cannot be split over replicas and micro-batches.
  """

  def __init__(self, strategy, model, config, jit_compile=False, monitor=None):
    _check_batch_split(strategy, config)
    self.strategy = strategy
    self.model = model
    self.config = config
    self.monitor = monitor
    self.step = 0
    # Batches that were passed over by rolling back, in all.
    self.data_offset = 0
    self.interval = training_log.Interval(model.metric_names, 0)
    self._requests = requests.Requests()
    # Other threads read it while TensorFlow takes many steps in one call; from
    # the CPU, because a GPU may be caught in the step that does not end.
    with tf.device("CPU"):
      self._steps_taken = tf.Variable(0, trainable=False, dtype=tf.int64)
    self._rollbacks = 0
    self._skips = 0
    self.weights = modeling.named_variables(model)
    self.trainable = {
      name: variable
      for name, variable in self.weights.items()
      if variable.trainable
    }
    self.optimizer = optimization.OPTIMIZERS[config.optimizer](
      bias_correction=config.adam_bias_correction
    )
    self._schedule = make_schedule(config)
    self.lr_factors = optimization.layerwise_factors(
      self.weights, config.layerwise_lr_decay
    )
    with strategy.scope():
      self.slots = self.optimizer.create_slots(self.trainable)
      self.loss_scale = loss_scale.LossScale(model.dtype_policy)
    self._micro_gradients = tf.function(
      self._micro_gradients, jit_compile=jit_compile or None
    )
    self._train_steps = tf.function(self._train_steps)
    self._add_up = tf.function(_add_up)

  # State

  def resume(self, path=None):
    """Continues from a checkpoint; returns the step.

    Args:
      path: of the checkpoint; None for the newest of output_dir that can be
        read, or for nothing when there is none.

    Raises:
      ValueError: there are checkpoints, but none can be used.
    """
    if not path:
      path = checkpoints.newest_readable(self.config.output_dir)
    if path:
      self.step, extra = checkpoints.restore(self._state(), path)
      self.data_offset = extra.get("data_offset", 0)
      self.interval = training_log.Interval(self.model.metric_names, self.step)
      self.interval.restore(extra.get("interval", {}))
      self.loss_scale.restore(extra.get("loss_scale", {}))
      if self.monitor:
        self.monitor.restore(extra.get("monitor", {}))
    return self.step

  def save(self):
    """Writes `model.ckpt-STEP`; on a multi-worker run the chief does."""
    self._rollbacks = 0
    if not devices.is_chief(self.strategy):
      return
    directory = checkpoints.CheckpointDirectory(
      self.config.output_dir, self.config.keep_checkpoint_max
    )
    extra = {
      "loss_scale": self.loss_scale.state(),
      "interval": self.interval.state(),
      "data_offset": self.data_offset,
    }
    if self.monitor:
      extra["monitor"] = self.monitor.state()
    directory.save(self._state(), self.step, extra)

  @property
  def best_path(self):
    """Prefix of the checkpoint with the weights a Monitor found best."""
    return os.path.join(self.config.output_dir, "best_model.ckpt")

  def load_best(self):
    """Takes back the weights a Monitor found best; returns their step."""
    if not self.monitor or not self.monitor.best_step:
      return self.step
    checkpoints.load_weights(self.weights, self.best_path)
    step = self._read_best_step()
    if step != self.monitor.best_step:
      print(
        f"{self.best_path} is of step {step}, not {self.monitor.best_step}: "
        "the checkpoint that was written with it is damaged or gone",
        file=sys.stderr,
      )
    return step

  def _read_best_step(self):
    """Step of the weights at best_path, 0 if there are none that are whole."""
    try:
      return checkpoints.read_global_step(self.best_path)
    except (FileNotFoundError, ValueError):
      return 0

  def _state(self):
    return {**self.weights, **self.slots}

  # Loop

  def fit(self, source, log_to=None):
    """Trains from the current step to the last one.

    Args:
      source: sources.Source of the examples to train on.
      log_to: directory for the log; this process logs nothing if None.

    Raises:
      signals.Interrupted: a signal came, and the run's place is saved.
      ValueError: the numbers went wrong, see TrainingConfig.on_nan.
    """
    self._check_workers_agree()
    self._mend_best()
    with (
      signals.watch(self._requests.ask_to_stop),
      self._requests.ask_to_save_every(self.config.save_checkpoints_secs),
    ):
      while not self.is_done:
        self._fit_until_rollback(source, log_to)
      # One may have come while the last checkpoint was written. And no worker
      # goes on, to read the best weights, before the chief is here.
      self._stop_if_asked(self._take_requests(is_at_boundary=True)[1])

  def _fit_until_rollback(self, source, log_to):
    failure = devices.Failure()
    log = log_to and training_log.TrainingLog(log_to, self.step, self.config)
    self.interval.start_clock(self.step)
    try:
      with failure.explain():
        self._loop(iter(self._distribute(source, failure)), log, source)
    finally:
      if log:
        log.close()

  def _loop(self, iterator, log, source):
    """Takes steps until the last one, or until it has rolled back."""
    while not self.is_done:
      first_step = self.step
      boundary = first_step + self.config.steps_until_boundary(first_step)
      statistics = self.train_steps(
        iterator, boundary - first_step, self.interval.sums
      )
      self.interval.update(statistics)
      if statistics["is_finite"] or self.step > first_step + 1:
        self._skips = 0
      if not statistics["is_finite"]:
        if self._handle_nan(statistics, source) == "rolled back":
          return
      # Evaluated first: it may say that this step is the last.
      is_best = self._is_time_to_evaluate() and self._evaluate(log)
      if self._is_time(self.config.log_every_steps):
        report = self.interval.close(self.step, self.config)
        if log:
          log.write(report)
      is_asked, signal_name = self._take_requests(self.step == boundary)
      if (
        is_asked or is_best or self._is_time(self.config.save_checkpoints_steps)
      ):
        self.save()
      if is_best:
        self._save_best()
      self._stop_if_asked(signal_name)

  def _stop_if_asked(self, signal_name):
    """Ends a run whose place is saved, if a signal asked for it.

    Raises:
      signals.Interrupted: one did.
    """
    if signal_name:
      raise signals.Interrupted(
        f"stopped by {signal_name} at step {self.step} and saved; the same "
        "command continues from there"
      )

  def _take_requests(self, is_at_boundary):
    """Answers requests to this worker, and to others that it should stop.

    Returns:
      See Requests.take.
    """
    if not devices.has_other_workers(self.strategy):
      return self._requests.take()
    # All of them are at the same step only where no request cut it short.
    if not is_at_boundary:
      return False, None
    is_asked, signal_name = self._requests.take()
    if self._sum_over_workers(bool(signal_name)):
      return True, signal_name or "a signal to another worker"
    return is_asked, None

  @property
  def is_done(self):
    """Whether all steps are taken, or a Monitor has lost its patience."""
    return self.step >= self.config.num_train_steps or bool(
      self.monitor and self.monitor.is_out_of_patience
    )

  def _sum_over_workers(self, value):
    """The sum of what every worker says, once for each of its replicas."""
    total = self.strategy.run(self._add_up, args=(tf.constant(float(value)),))
    return float(devices.first_replica(self.strategy, total))

  def _check_workers_agree(self):
    """Finds workers that read their checkpoints from different disks.

    Raises:
      ValueError: another process is at another step.
    """
    if not devices.has_other_workers(self.strategy):
      return
    expected = self.step * self.strategy.num_replicas_in_sync
    if self._sum_over_workers(self.step) != expected:
      raise ValueError(
        f"this worker continues at step {self.step}, another one elsewhere; "
        "--output_dir must be a directory that all workers share"
      )

  def _is_time(self, interval):
    return self.is_done or (interval and self.step % interval == 0)

  def _is_time_to_evaluate(self):
    return self.monitor and self._is_time(self.config.eval_steps)

  def _evaluate(self, log):
    """Lets the Monitor evaluate; returns whether it was the best so far."""
    start = time.monotonic()
    results, is_best = self.monitor.check(self.step)
    if log:
      log.write_evaluation(self.step, results, is_best)
    self.interval.exclude(time.monotonic() - start)
    return is_best

  def _save_best(self):
    """Writes the weights of this step as the best ones.

    A checkpoint that says so comes first: a run that is killed between the two
    finds in it what it still has to write.
    """
    if devices.is_chief(self.strategy):
      checkpoints.save(self.best_path, self.weights, self.step)

  def _mend_best(self):
    """Does what a run that was killed between the two left undone."""
    if not self.monitor or self.monitor.best_step != self.step or not self.step:
      return
    if self._read_best_step() != self.step:
      self._save_best()

  def _handle_nan(self, statistics, source):
    """Does what config.on_nan says about a step whose numbers are not finite.

    Returns:
      "skipped" or "rolled back".

    Raises:
      ValueError: the run should stop, or rolling back does not help.
    """
    step = self.step - 1
    loss, norm = statistics["step_loss"], statistics["gradient_norm"]
    what = (
      f"step {self.step}: the loss is {loss}, the gradient norm {norm}; "
      f"{self._describe_batch(step, source)}"
    )
    if self.config.on_nan == "skip":
      return self._skip(what)
    if self.config.on_nan == "rollback":
      return self._roll_back(step, what)
    path = checkpoints.latest(self.config.output_dir)
    start = f"from it with --init_checkpoint={path}" if path else "again"
    saved = f"{path} is from before it" if path else "nothing is saved yet"
    raise ValueError(
      f"{what}; {saved}: go on with --on_nan=skip or rollback, or start "
      f"{start} in another --output_dir, with a lower --learning_rate"
    )

  def _skip(self, what):
    """Goes on behind a step that changed nothing."""
    self._skips += 1
    if self._skips > MAX_SKIPPED_STEPS:
      raise ValueError(
        f"{what}; {MAX_SKIPPED_STEPS} steps before it were skipped in a row; "
        "try a lower --learning_rate"
      )
    print(f"skipped {what}", file=sys.stderr)
    return "skipped"

  def _roll_back(self, step, what):
    """Returns to the last checkpoint and passes over the batches since.

    As in arXiv 2204.02311, section 5.1: the same batches from another state
    do not bring the same spike.
    """
    offset = self.data_offset
    path = checkpoints.newest_readable(self.config.output_dir)
    if not path:
      raise ValueError(
        f"{what}; there is no checkpoint yet to roll back to; try a lower "
        "--learning_rate or more --num_warmup_steps"
      )
    self._rollbacks += 1
    if self._rollbacks > MAX_ROLLBACKS:
      raise ValueError(
        f"{what}; that was rolled back {MAX_ROLLBACKS} times in a row; try a "
        "lower --learning_rate"
      )
    self.resume(path)
    # Those of rollbacks since that checkpoint are passed over already.
    self.data_offset = offset + step + 1 - self.step
    print(f"rolled back to step {self.step} after {what}", file=sys.stderr)
    return "rolled back"

  def _describe_batch(self, step, source):
    """Where a step's batch comes from."""
    numbers = self._order(source).batch(step + self.data_offset)
    shown = sorted(int(number) for number in numbers[:MAX_SHOWN_RECORDS])
    text = sources.describe_examples(source, shown)
    more = len(numbers) - len(shown)
    return f"its batch: {text}" + (f" and {more} more" if more else "")

  def _order(self, source):
    return order_module.training_order(
      source, self.config.train_batch_size, self.config.seed
    )

  def _distribute(self, source, failure):
    """The distributed batches of all steps from the current one on."""
    config = self.config
    order = self._order(source)
    steps = range(
      self.step + self.data_offset, config.num_train_steps + self.data_offset
    )

    def batches():
      return (source.take(order.batch(step), step) for step in steps)

    return devices.distribute_batches(
      self.strategy,
      lambda: failure.watch(batches),
      source.specs,
      config.train_batch_size,
      config.gradient_accumulation_steps,
    )

  def train_steps(self, iterator, num_steps, sums=None):
    """Takes `num_steps` batches.

    Takes fewer when a request comes, or after a step that is not finite.

    Args:
      iterator: of what devices.distribute_batches returns.
      num_steps: int.
      sums: dict `loss`, `metrics` and `steps` to go on adding to, so that it
        does not matter where a pause was; zeros if None.

    Returns:
      Dict of arrays: `loss`, the sum over `steps`; `metrics` [metric, 2], sums
      and weights in the order of the model's metric_names; of the last step
      `step_loss`, `learning_rate`, `gradient_norm` (before clipping) and
      `is_finite`. A step that is not finite is in no sum.
    """
    if sums is None:
      sums = training_log.Interval(self.model.metric_names, 0).sums
    args = (
      iterator,
      tf.constant(self.step, tf.int64),
      tf.constant(num_steps, tf.int64),
      tf.nest.map_structure(tf.constant, sums),
    )
    # Traced before the clock starts: that is this worker's own time.
    self._train_steps.get_concrete_function(*args)
    self._steps_taken.assign(self.step)
    with devices.watchdog_of(self.strategy).waiting(self._locate):
      statistics, num_taken = self._train_steps(*args)
      self.step += int(num_taken)
    return tf.nest.map_structure(lambda x: x.numpy(), statistics)

  def _locate(self):
    return f"after step {self._steps_taken.numpy()}"

  def _train_steps(self, iterator, first_step, num_steps, sums):
    loss, metrics, steps = sums["loss"], sums["metrics"], sums["steps"]
    learning_rate = gradient_norm = step_loss = tf.constant(0.0)
    is_finite = tf.constant(True)
    i = tf.constant(0, tf.int64)
    while self._may_go_on(i, num_steps, is_finite):
      # One begins when the one before has ended: `is_finite` is known then.
      self._steps_taken.assign(first_step + i)
      may_shrink = self.loss_scale.may_shrink()
      outcome = self.strategy.run(
        self._replica_step, args=(next(iterator), first_step + i)
      )
      step_loss, step_metrics, learning_rate, gradient_norm = (
        devices.first_replica(self.strategy, outcome)
      )
      # The gradient counts as well: the loss was still that of the weights
      # before the update. An overflow that float16 skips changes nothing.
      is_finite = tf.math.is_finite(step_loss) & (
        tf.math.is_finite(gradient_norm) | may_shrink
      )
      loss += tf.where(is_finite, step_loss, 0.0)
      metrics += tf.where(is_finite, step_metrics, 0.0)
      steps += tf.cast(is_finite, tf.float32)
      i += 1
    statistics = {
      "loss": loss,
      "metrics": metrics,
      "steps": steps,
      "step_loss": step_loss,
      "learning_rate": learning_rate,
      "gradient_norm": gradient_norm,
      "is_finite": is_finite,
    }
    return statistics, i

  def _may_go_on(self, num_taken, num_steps, is_finite):
    if devices.has_other_workers(self.strategy):
      # TensorFlow tells collectives apart by their iteration of the loop, too:
      # one worker that left it earlier would wait for the others forever.
      return (num_taken < num_steps) & is_finite
    is_pausing = self._requests.is_pausing.read_value()
    # One step at least: a request is answered between two of them.
    is_free = tf.logical_or(num_taken < 1, tf.logical_not(is_pausing))
    return (num_taken < num_steps) & is_finite & is_free

  def _replica_step(self, batch, step):
    """One update, seen by one replica.

    Args:
      batch: dict of [micro_batches, rows, ...], this replica's share.
      step: int64 scalar, updates taken before this one.

    Returns:
      (loss, metrics, learning rate, gradient norm) of the global batch.
    """
    replica = tf.distribute.get_replica_context()
    merged = {
      name: tf.reshape(values, tf.concat([[-1], tf.shape(values)[2:]], 0))
      for name, values in batch.items()
    }
    weights = replica.all_reduce("SUM", self.model.loss_weights(merged))
    sums = self._accumulate(batch, weights, step)
    gradients, loss, metrics = replica.all_reduce("SUM", sums)
    gradients, gradient_norm = optimization.clip_by_global_norm(
      self.loss_scale.remove(gradients), self.config.clip_norm
    )
    learning_rate = self._schedule(step)
    replica.merge_call(
      self._update, args=(gradients, loss, gradient_norm, learning_rate, step)
    )
    return loss, metrics, learning_rate, gradient_norm

  def _accumulate(self, batch, weights, step):
    """Sums (gradients, loss, metrics) over this replica's micro-batches."""

    def micro_step(i):
      micro_batch = {name: values[i] for name, values in batch.items()}
      return self._micro_gradients(
        micro_batch, weights, self._dropout_seed(step, i)
      )

    num_micro_batches = self.config.gradient_accumulation_steps
    if num_micro_batches == 1:
      return micro_step(0)
    zeros = (
      [tf.zeros(variable.shape) for variable in self.trainable.values()],
      tf.constant(0.0),
      tf.zeros([len(self.model.metric_names), 2]),
    )
    _, sums = tf.while_loop(
      lambda i, sums: i < num_micro_batches,
      lambda i, sums: (
        i + 1,
        tf.nest.map_structure(tf.add, sums, micro_step(i)),
      ),
      (0, zeros),
      # One at a time: their activations together are what should be spared.
      parallel_iterations=1,
    )
    return sums

  def _dropout_seed(self, step, micro_step):
    """int64 [2], different for every (seed, replica, step, micro-step)."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    seed = (self.config.seed << 16) + tf.cast(replica, tf.int64)
    position = step * self.config.gradient_accumulation_steps + tf.cast(
      micro_step, tf.int64
    )
    return tf.stack([seed, position])

  def _micro_gradients(self, batch, weights, dropout_seed):
    """Forward and backward of one micro-batch.

    Returns:
      (dense float32 gradients of its share of the global loss times the loss
      scale, that share, its metric sums).
    """
    with tf.GradientTape() as tape:
      outputs = self.model(batch, training=True, dropout_seed=dropout_seed)
      sums = self.model.loss_sums(outputs, batch)
      loss = self.model.total_loss(sums, weights)
      scaled = self.loss_scale.add(loss)
    variables = list(self.trainable.values())
    gradients = tape.gradient(scaled, [v.value for v in variables])
    metrics = self.model.metric_sums(outputs, batch)
    return (
      [tf.convert_to_tensor(gradient) for gradient in gradients],
      loss,
      tf.stack([tf.stack(metrics[name]) for name in self.model.metric_names]),
    )

  def _update(self, strategy, gradients, loss, gradient_norm, rate, step):
    """Updates every copy of every variable; runs once for all replicas."""

    def apply():
      self._apply(strategy, gradients, rate, step)

    is_finite = functools.reduce(
      tf.logical_and,
      [
        tf.math.is_finite(strategy.experimental_local_results(x)[0])
        for x in (loss, gradient_norm)
      ],
    )
    if self.loss_scale.is_active or self.config.on_nan != "stop":
      _apply_if(is_finite, apply)
    else:
      apply()  # The run ends, and no checkpoint gets these weights.
    self.loss_scale.adapt(is_finite)

  def _apply(self, strategy, gradients, learning_rate, step):
    for (name, variable), gradient in zip(
      self.trainable.items(), gradients, strict=True
    ):
      slots = [
        self.slots[f"{name}/{slot}"] for slot in self.optimizer.slot_names
      ]
      strategy.extended.update(
        variable.value,
        functools.partial(self._update_one, name),
        args=(gradient, slots, learning_rate, step),
        group=False,
      )

  def _update_one(self, name, variable, gradient, slots, learning_rate, step):
    learning_rate *= self.lr_factors[name]
    self.optimizer.update(name, variable, gradient, slots, learning_rate, step)


def _add_up(value):
  # An argument of a graph is on no device, which this reduction wants to know.
  value = tf.identity(value)
  return tf.distribute.get_replica_context().all_reduce("SUM", value)


def _check_batch_split(strategy, config):
  replicas = strategy.num_replicas_in_sync
  parts = replicas * config.gradient_accumulation_steps
  if config.train_batch_size % parts:
    raise ValueError(
      f"--train_batch_size={config.train_batch_size} cannot be split evenly "
      f"over {replicas} devices and --gradient_accumulation_steps="
      f"{config.gradient_accumulation_steps}; use a multiple of {parts}"
    )
