"""Training of any head, on any strategy: steps, then what is due after them.

`Trainer.fit` takes the steps up to the next boundary in one call, then
evaluates, reports, saves and answers requests, as far as each is due.

The state of a run is its weights, its slots and the number of steps taken.
Batches and dropout masks are pure functions of that number and the seed.
"""

import contextlib
import time

import tensorflow as tf

import modeling
from bert_keras3.data import order
from bert_keras3.data import sources
from bert_keras3.training import agreement
from bert_keras3.training import best_weights
from bert_keras3.training import devices
from bert_keras3.training import inner_loop
from bert_keras3.training import interval
from bert_keras3.training import log
from bert_keras3.training import nan_policy
from bert_keras3.training import requests
from bert_keras3.training import signals
from bert_keras3.training import step
from bert_keras3.training import store
from bert_keras3.weights import checkpoints

MAX_SHOWN_RECORDS = 32


class Trainer:
  """Trains a model; has its optimizer state and its position in a run.

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
    clock: function that returns seconds.

  Attributes:
    step: number of steps taken.
    data_offset: number of batches that rollbacks skipped.
    weights: dict from name to variable of the model.
    trainable: likewise, of those that are trained.
    slots: dict from name to variable of the optimizer.
    train_step: step.TrainStep.
    inner_loop: inner_loop.InnerLoop.
    interval: interval.Interval since the last report.
    agreement: agreement.Agreement of the run's workers.
    requests: requests.Requests.
    nan_policy: nan_policy.Stop, Skip or RollBack.
    store: store.Store.
    best: best_weights.BestWeights.

  Raises:
    ValueError: the batch cannot be split over replicas and micro-batches.
  """

  def __init__(
    self,
    strategy,
    model,
    config,
    jit_compile=False,
    monitor=None,
    clock=time.monotonic,
  ):
    _check_batch_split(strategy, config)
    self.strategy = strategy
    self.model = model
    self.config = config
    self.monitor = monitor
    self.clock = clock
    self.step = 0
    self.data_offset = 0
    self.interval = interval.Interval(model.metric_names, 0, clock)
    self.agreement = agreement.Agreement(strategy)
    self.requests = requests.Requests(self.agreement)
    self.nan_policy = nan_policy.POLICIES[config.on_nan]()
    with strategy.scope():
      self.train_step = step.TrainStep(model, config, jit_compile)
    self.inner_loop = inner_loop.InnerLoop(
      strategy, self.train_step, self.requests.is_pausing
    )
    self.weights = modeling.named_variables(model)
    self.trainable = self.train_step.trainable
    self.slots = self.train_step.slots
    self.loss_scale = self.train_step.loss_scale
    self.store = store.open_store(
      strategy, config.output_dir, config.keep_checkpoint_max
    )
    self.best = best_weights.BestWeights(self.weights, monitor, self.store)

  # State

  @property
  def state(self):
    """Returns a dict from name to variable: weights and slots."""
    return {**self.weights, **self.slots}

  def resume(self, path=None):
    """Continues from a checkpoint; returns the step.

    Args:
      path: of the checkpoint; None for the newest readable one in output_dir,
        if there is any.

    Raises:
      ValueError: there are checkpoints, but none can be used.
    """
    path = path or self.store.newest()
    if path:
      self.step, extra = checkpoints.restore(self.state, path)
      self.data_offset = extra.get("data_offset", 0)
      self.interval = interval.Interval(
        self.model.metric_names, self.step, self.clock
      )
      self.interval.restore(extra.get("interval", {}))
      self.loss_scale.restore(extra.get("loss_scale", {}))
      if self.monitor:
        self.monitor.restore(extra.get("monitor", {}))
    return self.step

  def save(self):
    """Writes `model.ckpt-STEP`; of several workers only the chief does."""
    extra = {
      "loss_scale": self.loss_scale.state(),
      "interval": self.interval.state(),
      "data_offset": self.data_offset,
    }
    if self.monitor:
      extra["monitor"] = self.monitor.state()
    self.store.save(self.state, self.step, extra)

  def load_best(self):
    """Loads the weights of the best evaluation; returns their step."""
    return self.best.load(self.step)

  # Loop

  def fit(self, source, log_to=None):
    """Trains from the current step to the last one.

    Args:
      source: sources.Source of the examples to train on.
      log_to: directory for the log; this process logs nothing if None.

    Raises:
      signals.Interrupted: a signal came, and a checkpoint is written.
      ValueError: the numbers went wrong, see TrainingConfig.on_nan.
    """
    self.agreement.check_step(self.step)
    self.best.mend(self.step)
    with self.requests.listening(self.config.save_checkpoints_secs):
      while not self.is_done:
        self._fit_until_rollback(source, log_to)
      # A signal may have come during the last checkpoint. This is a barrier as
      # well: workers read the best weights once the chief has written them.
      self._stop_if_asked(self.requests.take().signal_name)

  def _fit_until_rollback(self, source, log_to):
    """Takes steps until the last one, or until it has rolled back."""
    with self._open(source, log_to) as (iterator, run_log):
      for boundary in self._boundaries():
        statistics = self.train_steps(
          iterator, boundary - self.step, self.interval.sums
        )
        self.interval.update(statistics)
        if self._is_rolled_back(statistics, source):
          return
        self._pause(run_log, is_at_boundary=self.step == boundary)

  @property
  def is_done(self):
    """Returns whether all steps are taken, or early stopping ends the run."""
    return self.step >= self.config.num_train_steps or bool(
      self.monitor and self.monitor.is_out_of_patience
    )

  @contextlib.contextmanager
  def _open(self, source, log_to):
    """Opens the batches and the log of the steps from the current one on."""
    failure = devices.Failure()
    run_log = log.open_log(log_to, self.step, self.config)
    self.interval.start_clock(self.step)
    with contextlib.closing(run_log), failure.explain():
      yield iter(self.batches(source, failure)), run_log

  def _boundaries(self):
    """Yields the next step after which Python has work, until the last."""
    while not self.is_done:
      yield self.step + self.config.steps_until_boundary(self.step)

  def train_steps(self, iterator, num_steps, sums=None):
    """Takes `num_steps` batches.

    Takes fewer when a request comes, or after a step that is not finite.

    Args:
      iterator: over the dataset of devices.distribute_batches.
      num_steps: int.
      sums: interval.Sums to add to, so that pauses do not change them; zeros if
        None.

    Returns:
      interval.Statistics of numpy arrays.
    """
    if sums is None:
      sums = interval.Sums.zeros(len(self.model.metric_names))
    args = (
      iterator,
      tf.constant(self.step, tf.int64),
      tf.constant(num_steps, tf.int64),
      tf.nest.map_structure(tf.constant, sums),
    )
    # Traced before the timeout starts: tracing is not waiting for others.
    self.inner_loop.take.get_concrete_function(*args)
    self.inner_loop.steps_taken.assign(self.step)
    watchdog = devices.watchdog_of(self.strategy)
    with watchdog.waiting(self.inner_loop.locate):
      statistics, num_taken = self.inner_loop.take(*args)
      self.step += int(num_taken)
    return tf.nest.map_structure(lambda x: x.numpy(), statistics)

  def _is_rolled_back(self, statistics, source):
    """Lets the NaN policy handle a step that is not finite.

    Returns:
      Whether the run has gone back to an earlier step.

    Raises:
      ValueError: the policy ends the run.
    """
    if statistics.is_finite:
      return False
    trouble = (
      f"step {self.step}: the loss is {statistics.step_loss}, the gradient "
      f"norm {statistics.gradient_norm}; "
      f"{self._describe_batch(self.step - 1, source)}"
    )
    outcome = self.nan_policy.handle(self, trouble)
    return outcome is nan_policy.Outcome.ROLLED_BACK

  def _pause(self, run_log, is_at_boundary):
    """Evaluates, reports, saves and stops, as far as each is due."""
    # Evaluation comes first, since it may make this step the last.
    is_best = self._is_time_to_evaluate() and self._evaluate(run_log)
    if self._is_time(self.config.log_every_steps):
      run_log.write(self.interval.close(self.step, self.config))
    request = self.requests.take(is_at_boundary)
    is_time = self._is_time(self.config.save_checkpoints_steps)
    if request.is_asked or is_best or is_time:
      self.save()
    if is_best:
      self.best.save(self.step)
    self._stop_if_asked(request.signal_name)

  def _is_time(self, num_steps):
    """Returns whether work of every `num_steps` and of the last step is due."""
    return self.is_done or (num_steps and self.step % num_steps == 0)

  def _is_time_to_evaluate(self):
    return self.monitor and self._is_time(self.config.eval_steps)

  def _evaluate(self, run_log):
    """Lets the Monitor evaluate; returns whether it was the best so far."""
    start = self.clock()
    results, is_best = self.monitor.check(self.step)
    run_log.write_evaluation(self.step, results, is_best)
    self.interval.exclude(self.clock() - start)
    return is_best

  def _stop_if_asked(self, signal_name):
    """Ends a run that is saved, if a signal asked for it.

    Raises:
      signals.Interrupted: a signal asked for it.
    """
    if signal_name:
      raise signals.Interrupted(
        f"stopped by {signal_name} at step {self.step} and saved; the same "
        "command continues from there"
      )

  # Batches

  def _describe_batch(self, step, source):
    """Says which records a step's batch has."""
    numbers = self.order(source).batch(step + self.data_offset)
    shown = sorted(int(number) for number in numbers[:MAX_SHOWN_RECORDS])
    text = sources.describe_examples(source, shown)
    more = len(numbers) - len(shown)
    return f"its batch: {text}" + (f" and {more} more" if more else "")

  def order(self, source):
    """Returns the data.order object that says which records a step gets."""
    return order.training_order(
      source, self.config.train_batch_size, self.config.seed
    )

  def batches(self, source, failure):
    """Distributes the batches of all steps from the current one on.

    Args:
      source: see `fit`.
      failure: devices.Failure that remembers their error.
    """
    config = self.config
    batch_order = self.order(source)
    steps = range(
      self.step + self.data_offset, config.num_train_steps + self.data_offset
    )

    def batches():
      return (source.take(batch_order.batch(step), step) for step in steps)

    return devices.distribute_batches(
      self.strategy,
      lambda: failure.watch(batches),
      source.specs,
      config.train_batch_size,
      config.gradient_accumulation_steps,
    )


def _check_batch_split(strategy, config):
  replicas = strategy.num_replicas_in_sync
  parts = replicas * config.gradient_accumulation_steps
  if config.train_batch_size % parts:
    raise ValueError(
      f"--train_batch_size={config.train_batch_size} cannot be split evenly "
      f"over {replicas} devices and --gradient_accumulation_steps="
      f"{config.gradient_accumulation_steps}; use a multiple of {parts}"
    )
