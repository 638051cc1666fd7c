"""Statistics of the steps between two reports.

The sums for the next report are saved in checkpoints, so that a run that was
killed and resumed logs the same rows as one that was not.
"""

import dataclasses
import time
import typing

import numpy as np


class Sums(typing.NamedTuple):
  """Sums over the steps whose numbers are finite."""

  loss: np.ndarray  # float32 scalar
  metrics: np.ndarray  # float32 [metric, 2], sums and weights
  steps: np.ndarray  # float32 scalar, how many steps are in the sums

  @classmethod
  def zeros(cls, num_metrics):
    """Returns the sums over no step."""
    zeros = np.zeros([num_metrics, 2], np.float32)
    return cls(np.float32(0.0), zeros, np.float32(0.0))


class Statistics(typing.NamedTuple):
  """Sums after a call that took steps, and the numbers of its last step."""

  sums: Sums
  step_loss: np.ndarray
  learning_rate: np.ndarray
  gradient_norm: np.ndarray  # before clipping
  is_finite: np.ndarray  # bool: whether the last step is, and is in the sums


@dataclasses.dataclass(frozen=True)
class StepReport:
  """Means over the steps since the last report."""

  step: int
  num_train_steps: int
  values: dict[str, float]  # in the order they are shown
  seconds_per_step: float

  @property
  def eta_seconds(self):
    """Returns the seconds until the last step, at this interval's speed."""
    return self.seconds_per_step * (self.num_train_steps - self.step)


class Interval:
  """The statistics between two reports.

  Args:
    metric_names: names of a model's metrics.
    step: step it begins at.
    clock: function that returns seconds.

  Attributes:
    sums: Sums that training goes on adding to.
  """

  def __init__(self, metric_names, step, clock=time.monotonic):
    self.metric_names = metric_names
    self.clock = clock
    self._restart(step)

  def _restart(self, step):
    self.sums = Sums.zeros(len(self.metric_names))
    self.last = None
    self.start_clock(step)

  def start_clock(self, step):
    """Restarts the timer; speed is averaged over the steps after `step`."""
    self._timed_from = step
    self._start_time = self.clock()

  def state(self):
    """Returns a JSON-serialisable dict, for the checkpoint."""
    # JSON's doubles hold every float32 exactly.
    return {name: x.tolist() for name, x in self.sums._asdict().items()}

  def restore(self, state):
    """Sets the sums from a dict that `state` returned."""
    arrays = {name: np.asarray(x, np.float32) for name, x in state.items()}
    self.sums = self.sums._replace(**arrays)

  def update(self, statistics):
    """Takes the Statistics that Trainer.train_steps returned."""
    self.sums = statistics.sums
    self.last = statistics

  def exclude(self, seconds):
    """Excludes seconds from the reported speed."""
    self._start_time += seconds

  def close(self, step, config):
    """Returns the StepReport of the interval and begins the next one."""
    # Speed counts steps of this process only, as its timer does.
    seconds = (self.clock() - self._start_time) / (step - self._timed_from)
    report = StepReport(
      step=step,
      num_train_steps=config.num_train_steps,
      seconds_per_step=seconds,
      values={
        **self._means(),
        "learning_rate": float(self.last.learning_rate),
        "gradient_norm": float(self.last.gradient_norm),
        "examples_per_second": config.train_batch_size / seconds,
      },
    )
    self._restart(step)
    return report

  def _means(self):
    """Returns a dict of floats: the loss, then the metrics."""
    metrics = self.sums.metrics.astype(np.float64)
    means = metrics[:, 0] / np.maximum(metrics[:, 1], 1e-12)
    loss = self.sums.loss / np.maximum(self.sums.steps, 1)
    if not self.sums.steps:  # All were skipped.
      means[:] = loss = np.nan
    names = zip(self.metric_names, means.tolist(), strict=True)
    return {"loss": float(loss), **dict(names)}
