"""Evaluation during training: the best weights, and when to stop."""

import numpy as np


class Monitor:
  """Evaluates during training, knows the best step, says when to stop.

  Args:
    evaluate: function without arguments that returns a dict of floats.
    metric: key of the dict whose value decides; larger is better.
    patience: evaluations in a row without a new best that end training; 0 for
      never.
  """

  def __init__(self, evaluate, metric, patience=0):
    self.evaluate = evaluate
    self.metric = metric
    self.patience = patience
    self._state = {"best": None, "best_step": 0, "num_worse": 0}

  @property
  def best_step(self):
    """Returns the step with the best metric so far."""
    return self._state["best_step"]

  @property
  def is_out_of_patience(self):
    """Returns whether training should stop."""
    return 0 < self.patience <= self._state["num_worse"]

  def state(self):
    """Returns a JSON-serialisable dict, for the checkpoint."""
    return dict(self._state)

  def restore(self, state):
    """Sets the state from a dict that `state` returned."""
    self._state.update(state)

  def check(self, step):
    """Evaluates; returns (results, whether they are the best so far)."""
    results = self.evaluate()
    best, value = self._state["best"], results[self.metric]
    # False for NaN, since no later value could be greater.
    is_best = value > (-np.inf if best is None else best)
    if is_best:
      self._state = {"best": value, "best_step": step, "num_worse": 0}
    else:
      self._state["num_worse"] += 1
    return results, is_best
