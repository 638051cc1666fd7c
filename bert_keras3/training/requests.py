"""Requests of other threads to a run: to save, to stop."""

import contextlib
import sys
import threading

import tensorflow as tf


class Requests:
  """What other threads ask of a run, which it answers between two steps.

  Attributes:
    is_pausing: bool variable that the graph of the steps reads.
    stop_signal: name of the signal that asked to stop, or None.
  """

  def __init__(self):
    self.is_pausing = tf.Variable(False, trainable=False)
    self.stop_signal = None

  def ask_to_stop(self, signal_name):
    """Asks for a checkpoint and the end of the run."""
    self.stop_signal = signal_name
    self.is_pausing.assign(True)
    # The signal may have ended whoever reads this, such as `tee`.
    with contextlib.suppress(OSError):
      sys.stderr.write(
        f"{signal_name}: saving as soon as possible; a second signal stops at "
        "once\n"
      )

  @contextlib.contextmanager
  def ask_to_save_every(self, seconds):
    """Asks for a checkpoint now and then; never if `seconds` is 0."""
    is_over = threading.Event()

    def ask():
      while not is_over.wait(seconds):
        self.is_pausing.assign(True)

    if seconds:
      threading.Thread(target=ask, daemon=True).start()
    try:
      yield
    finally:
      is_over.set()

  def take(self):
    """Answers requests.

    Returns:
      (whether there was one, name of the signal that asked to stop or None).
    """
    was_asked = bool(self.is_pausing.numpy())
    # In this order: a signal from here on pauses the next steps again.
    self.is_pausing.assign(False)
    stop_signal = self.stop_signal
    return was_asked or bool(stop_signal), stop_signal
