"""Signals that ask a run to stop: the first politely, the second at once.

    with signals.watch(requests.ask_to_stop):
      ...

Python runs its own handlers between two lines of the main thread, which may be
inside TensorFlow for many minutes. So a thread reads what the system's handler
writes, and can pass the request on meanwhile.
"""

import contextlib
import os
import signal
import socket
import threading

# "Try again" of BSD's sysexits.h, so that no scheduler takes the run for done.
EXIT_STATUS = 75
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
  """A run was asked to stop and has saved its place."""


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
  # The descriptor first and last: no signal should find handlers without it.
  old_descriptor = signal.set_wakeup_fd(
    sender.fileno(), warn_on_full_buffer=False
  )
  # What a handler does is of no account, but without one the process ends.
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
