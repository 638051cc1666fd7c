"""Runs a script as `killed_run.py` does, with two more ends.

    python tests/stalled_run.py run_pretraining stop:batch:7 --flags...

`stop` is SIGSTOP; `stuck` never leaves the place, while the process lives.
"""

import signal
import threading

import killed_run


def arrange(end):
  """Puts the end where it should come."""
  name, *place = end.split(":")
  if name != "stuck":
    killed_run.SIGNALS["stop"] = signal.SIGSTOP
    killed_run.arrange(end)
    return
  for owner, attribute, _ in killed_run.places()[place[0]]:
    function = getattr(owner, attribute)
    setattr(owner, attribute, staying(function, int(place[1])))


def staying(function, number):
  calls = []

  def call(*args, **kwargs):
    calls.append(args)
    if len(calls) == number:
      threading.Event().wait()
    return function(*args, **kwargs)

  return call


if __name__ == "__main__":
  killed_run.main(arrange)
