"""Signals that ask a run to stop: the first politely, the second at once.

    with signals.watch(requests.ask_to_stop):
      ...

Python runs signal handlers in the main thread between two bytecodes, but that
thread may be inside TensorFlow for many minutes. So another thread reads the
file descriptor to which the C handler writes, and passes the request on.
"""

import contextlib
import os
import signal
import socket
import threading

# EX_TEMPFAIL of BSD's sysexits.h, so that no scheduler takes the run for done.
EXIT_STATUS = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
  """A signal asked a run to stop, and its checkpoint is written."""


@contextlib.contextmanager
def watch(on_signal):
  """Calls a function on the first signal and ends the process on the second.

  Does nothing outside the main thread, where Python allows no handlers.

  Args:
    on_signal: function of the signal's name ("SIGTERM"), called in another
      thread.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  receiver, sender = socket.socketpair()
  sender.setblocking(False)
  # Set before the handlers and reset after them, so that no signal is lost.
  old_descriptor = signal.set_wakeup_fd(
    sender.fileno(), warn_on_full_buffer=False
  )
  # The handlers do nothing, but without them a signal would end the process.
  handlers = {x: signal.signal(x, lambda *_: None) for x in SIGNALS}
  listener = threading.Thread(
    target=_listen, args=(receiver, on_signal), daemon=True
  )
  listener.start()
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(old_descriptor)
    sender.close()  # Ends the listener.
    listener.join()
    receiver.close()


def _listen(receiver, on_signal):
  is_first = True
  while received := receiver.recv(1):
    number = received[0]
    if number not in SIGNALS:
      continue
    if not is_first:
      os._exit(128 + number)  # As a shell reports a process ended by a signal.
    is_first = False
    on_signal(signal.Signals(number).name)
