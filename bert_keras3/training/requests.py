"""Requests of signals and of a timer to a run: to save, to stop."""

import contextlib
import sys
import threading
import typing

import tensorflow as tf

from bert_keras3.training import signals


class Answer(typing.NamedTuple):
  """The requests since the last call of `Requests.take`."""

  is_asked: bool  # whether a checkpoint is due
  signal_name: str | None  # of the signal that asked to stop


class Requests:
  """Collects requests of signals and a timer, to be handled between two steps.

  Args:
    agreement: Agreement of the run's workers.

  Attributes:
    is_pausing: bool variable that the graph of the steps reads.
    stop_signal: name of the signal that asked to stop, or None.
  """

  def __init__(self, agreement):
    self.agreement = agreement
    self.is_pausing = tf.Variable(False, trainable=False)
    self.stop_signal = None

  @contextlib.contextmanager
  def listening(self, seconds_between_saves):
    """Collects requests of signals and of a timer; 0 seconds for no timer."""
    with (
      signals.watch(self.ask_to_stop),
      self._asking_to_save_every(seconds_between_saves),
    ):
      yield

  def ask_to_save(self):
    """Asks for a checkpoint."""
    self.is_pausing.assign(True)

  def ask_to_stop(self, signal_name):
    """Asks for a checkpoint and the end of the run."""
    self.stop_signal = signal_name
    self.is_pausing.assign(True)
    # The signal may have ended the reader of stderr, such as `tee`.
    with contextlib.suppress(OSError):
      sys.stderr.write(
        f"{signal_name}: saving as soon as possible; a second signal stops at "
        "once\n"
      )

  @contextlib.contextmanager
  def _asking_to_save_every(self, seconds):
    is_over = threading.Event()

    def ask():
      while not is_over.wait(seconds):
        self.ask_to_save()

    if seconds:
      threading.Thread(target=ask, daemon=True).start()
    try:
      yield
    finally:
      is_over.set()

  def take(self, is_at_boundary=True):
    """Takes the requests; a stop request to any worker stops all of them.

    Args:
      is_at_boundary: whether all workers are at the same step, as no request
        cut this call short. Several workers take requests only there.

    Returns:
      Answer.
    """
    if not self.agreement.has_others:
      return self._take_own()
    if not is_at_boundary:
      return Answer(False, None)
    answer = self._take_own()
    if self.agreement.sum(bool(answer.signal_name)):
      return Answer(True, answer.signal_name or "a signal to another worker")
    return answer

  def _take_own(self):
    was_asked = bool(self.is_pausing.numpy())
    # Reset before reading stop_signal: a later signal pauses the next steps.
    self.is_pausing.assign(False)
    stop_signal = self.stop_signal
    return Answer(was_asked or bool(stop_signal), stop_signal)
