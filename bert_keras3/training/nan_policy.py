"""Policies for a step whose loss or gradient is not finite.

`handle` gets the Trainer, which has just taken that step, and a text that says
which step it was, its numbers and its batch.
"""

import enum
import sys

# More in a row mean that the cause is not in the data.
MAX_ROLLBACKS = 5
MAX_SKIPPED_STEPS = 20


class Outcome(enum.Enum):
  """The position of a run after a bad step."""

  SKIPPED = "behind it, its weights unchanged"
  ROLLED_BACK = "at an earlier step, with other batches to come"


class Stop:
  """Ends the run."""

  def handle(self, trainer, trouble):
    """Raises an error that explains how to go on.

    Raises:
      ValueError: always.
    """
    path = trainer.store.latest()
    start = f"from it with --init_checkpoint={path}" if path else "again"
    saved = f"{path} is from before it" if path else "nothing is saved yet"
    raise ValueError(
      f"{trouble}; {saved}: go on with --on_nan=skip or rollback, or start "
      f"{start} in another --output_dir, with a lower --learning_rate"
    )


class Skip:
  """Goes on after the step, which changed nothing."""

  def __init__(self):
    self._last_step = None
    self._count = 0

  def handle(self, trainer, trouble):
    """Counts the step.

    Returns:
      Outcome.

    Raises:
      ValueError: too many steps in a row were bad.
    """
    is_next = trainer.step - 1 == self._last_step
    self._count = self._count + 1 if is_next else 1
    self._last_step = trainer.step
    if self._count > MAX_SKIPPED_STEPS:
      raise ValueError(
        f"{trouble}; {MAX_SKIPPED_STEPS} steps before it were skipped in a "
        "row; try a lower --learning_rate"
      )
    print(f"skipped {trouble}", file=sys.stderr)
    return Outcome.SKIPPED


class RollBack:
  """Returns to the last checkpoint and skips the batches since then.

  As in arXiv 2204.02311, section 5.1: from another state, these batches do not
  cause the spike again.
  """

  def __init__(self):
    self._last_path = None
    self._count = 0

  def handle(self, trainer, trouble):
    """Resumes from the last checkpoint.

    Returns:
      Outcome.

    Raises:
      ValueError: there is no checkpoint, or too many times in a row none was
        written between two bad steps.
    """
    path = trainer.store.newest()
    if not path:
      raise ValueError(
        f"{trouble}; there is no checkpoint yet to roll back to; try a lower "
        "--learning_rate or more --num_warmup_steps"
      )
    self._count = self._count + 1 if path == self._last_path else 1
    self._last_path = path
    if self._count > MAX_ROLLBACKS:
      raise ValueError(
        f"{trouble}; that was rolled back {MAX_ROLLBACKS} times in a row; try "
        "a lower --learning_rate"
      )
    # data_offset has the batches that earlier rollbacks skipped.
    next_batch = trainer.step + trainer.data_offset
    trainer.resume(path)
    trainer.data_offset = next_batch - trainer.step
    print(
      f"rolled back to step {trainer.step} after {trouble}", file=sys.stderr
    )
    return Outcome.ROLLED_BACK


POLICIES = {"stop": Stop, "skip": Skip, "rollback": RollBack}
