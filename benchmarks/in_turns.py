"""Times several sides in turns, so that a slow moment slows all of them.

    turns = {
      "ours": lambda: in_turns.seconds(encode, lines),
      "theirs": lambda: in_turns.seconds(peer.encode, lines),
    }
    rounds = [in_turns.take_round(turns) for _ in range(5)]
    ratios = in_turns.ratios(rounds, "theirs", "ours")
    print(f"theirs takes {in_turns.spread(ratios)} times as long")

A round is a dict from the name of a side to what its turn measured. Ratios are
taken within a round: the speed of a machine drifts, but less within a round.
"""

import atexit
import contextlib
import gc
import multiprocessing
import os
import platform
import random
import statistics
import time

import numpy as np

# For a process that is asked nothing more, before it is terminated.
SECONDS_TO_END = 10
# Another order each time, lest one side always follows the other.
_ORDER = random.Random(0)


def take_round(turns):
  """Lets every side take its turn, in a random order.

  Args:
    turns: dict from the name of a side to a function without arguments.

  Returns:
    Dict from name to what the function returned.
  """
  results = {}
  for name in _shuffled(turns):
    gc.collect()
    results[name] = turns[name]()
  return {name: results[name] for name in turns}


def time_pieces(sides, pieces, clock=time.process_time):
  """Lets every side work on every piece, in turns piece by piece.

  Args:
    sides: dict from the name of a side to a function of a piece.
    pieces: iterable.
    clock: see `seconds`.

  Returns:
    Dict from name to the seconds for all pieces.
  """
  gc.collect()
  totals = dict.fromkeys(sides, 0.0)
  for piece in pieces:
    for name in _shuffled(sides):
      totals[name] += seconds(sides[name], piece, clock=clock)
  return totals


def _shuffled(names):
  return _ORDER.sample(list(names), len(names))


def seconds(function, *args, clock=time.process_time):
  """Measures the seconds of a call.

  Args:
    function: to call.
    *args: its arguments.
    clock: function that tells the seconds. By default those of the processor,
      which others use too: by the clock on the wall the same call was seen to
      take three times as long.
  """
  begin = clock()
  function(*args)
  return clock() - begin


# Numbers ----------------------------------------------------------------------


def values_of(rounds, name):
  """Lists what one side measured in each round."""
  return [measured[name] for measured in rounds]


def ratios(rounds, name, base):
  """Lists, for each round, how many times one side's number is another's."""
  return [measured[name] / measured[base] for measured in rounds]


def spread(values, digits=1):
  """Formats the median and the range of numbers: "1.6 (1.5 to 1.7)"."""
  median, low, high = (
    f"{value:.{digits}f}"
    for value in (statistics.median(values), min(values), max(values))
  )
  return f"{median} ({low} to {high})"


def describe_machine():
  """Says on what the numbers were measured, such as the instruction set."""
  found = np.show_config(mode="dicts")["SIMD Extensions"]
  widest = [*found["baseline"], *found.get("found", ())][-1:]
  machine = " with ".join([platform.machine(), *widest])
  python = platform.python_version()
  return f"{machine}, {os.cpu_count()} cores, Python {python}"


# Processes --------------------------------------------------------------------


class Remote:
  """An object in a process of its own, where its methods are called.

  Two frameworks' threads would be in each other's way in one process.

  Args:
    make: function of a module that makes the object.
    *args: its arguments.
  """

  def __init__(self, make, *args):
    context = multiprocessing.get_context("spawn")
    self._pipe, theirs = context.Pipe()
    self._process = context.Process(
      target=_serve, args=(theirs, make, args), daemon=True
    )
    self._process.start()
    # So that reading ends if the process does.
    theirs.close()
    atexit.register(self._end)

  def call(self, method, *args):
    """Returns what a method returns.

    Raises:
      EOFError, OSError: the process has ended.
    """
    return self._ask(method, args)[0]

  def time(self, method, *args):
    """Returns the seconds of a call: by the clock, of the processor."""
    return self._ask(method, args)[1:]

  def _end(self):
    """Lets the process end by itself; a daemon would be terminated."""
    self._pipe.close()
    self._process.join(SECONDS_TO_END)

  def _ask(self, method, args):
    self._pipe.send((method, args))
    return self._pipe.recv()


def _serve(pipe, make, args):
  """Makes an object, then calls its methods until nobody asks."""
  made = make(*args)
  with contextlib.suppress(EOFError):
    while True:
      method, args = pipe.recv()
      begin = time.monotonic(), time.process_time()
      result = getattr(made, method)(*args)
      end = time.monotonic(), time.process_time()
      pipe.send((result, end[0] - begin[0], end[1] - begin[1]))
