"""The weights that a Monitor found best, in a file of their own."""

import sys

from bert_keras3.weights import checkpoints


class BestWeights:
  """Keeps the weights of a run's best evaluation.

  Args:
    weights: dict from name to variable.
    monitor: Monitor that knows the best step, or None without evaluation.
    store: Store.
  """

  def __init__(self, weights, monitor, store):
    self.weights = weights
    self.store = store
    self._monitor = monitor

  @property
  def step(self):
    """Returns the step of the best evaluation so far, 0 for none."""
    return self._monitor.best_step if self._monitor else 0

  def save(self, step):
    """Writes the weights of this step to best_model.ckpt.

    Call it after writing the checkpoint that names this step as the best:
    `mend` completes a run that was killed between the two.
    """
    self.store.save_best(self.weights, step)

  def mend(self, step):
    """Writes best_model.ckpt if a kill came after its checkpoint, before it.

    Args:
      step: of the checkpoint that the run continues from.
    """
    if step and self.step == step and self.store.read_best_step() != step:
      self.save(step)

  def load(self, last_step):
    """Loads the best weights; returns their step, `last_step` if none."""
    if not self.step:
      return last_step
    path = self.store.best_path
    checkpoints.load_weights(self.weights, path)
    step = self.store.read_best_step()
    if step != self.step:
      print(
        f"{path} is of step {step}, not {self.step}: the checkpoint that was "
        "written with it is damaged or gone",
        file=sys.stderr,
      )
    return step
