"""The weights that a Monitor found best, in a file of their own."""

import sys

from bert_keras3.weights import checkpoints


class BestWeights:
  """Keeps the weights of a run's best evaluation.

  Args:
    weights: dict from name to variable.
    monitor: Monitor, or None: then no weights are better than the last ones.
    store: Store.
  """

  def __init__(self, weights, monitor, store):
    self.weights = weights
    self.store = store
    self._monitor = monitor

  @property
  def step(self):
    """Step of the best evaluation so far, 0 for none."""
    return self._monitor.best_step if self._monitor else 0

  def save(self, step):
    """Writes the weights of this step as the best ones.

    A checkpoint that says so comes first: a run that is killed between the two
    finds in it what it still has to write.
    """
    self.store.save_best(self.weights, step)

  def mend(self, step):
    """Writes the best weights if a kill came between the two.

    Args:
      step: of the checkpoint that the run goes on from.
    """
    if step and self.step == step and self.store.read_best_step() != step:
      self.save(step)

  def load(self, last_step):
    """Takes back the best weights; returns their step, `last_step` if none."""
    if not self.step:
      return last_step
    path = self.store.best_path
    checkpoints.load_weights(self.weights, path)
    found = self.store.read_best_step()
    if found != self.step:
      print(
        f"{path} is of step {found}, not {self.step}: the checkpoint that was "
        "written with it is damaged or gone",
        file=sys.stderr,
      )
    return found
