"""Runs a script that meets its end at a chosen place.

    python tests/killed_run.py run_pretraining kill:batch:7 --flags...

The place is `batch` (the making of the seventh batch, a little ahead of the
steps), `rename` (the seventh file of a checkpoint that gets its name), `verify`
(the seventh checkpoint is written, no file has its name yet), `best` (the
seventh file of the best weights that gets its name), or `log` (before the
seventh row of log.csv). The end is SIGKILL, or for `term`
and `int` a signal that asks; `none` is none. After `nan:batch:7` a run goes on,
but the losses of that batch are no numbers.
"""

import importlib
import os
import signal
import sys

import tensorflow as tf

from bert_keras3.data import records
from bert_keras3.data import sequences
from bert_keras3.training import log
from bert_keras3.weights import checkpoints

SIGNALS = {
  "kill": signal.SIGKILL,
  "term": signal.SIGTERM,
  "int": signal.SIGINT,
}


def places():
  """Where a run may end: (object, attribute, whether a call counts)."""

  def always(*args):
    return True

  def is_checkpoint(source, target, *args):
    return "/model.ckpt-" in target

  def is_best(source, target, *args):
    return "/best_model.ckpt" in target

  return {
    "batch": [
      (records.RecordSource, "take", always),
      (sequences.SequenceSource, "take", always),
    ],
    "rename": [(tf.io.gfile, "rename", is_checkpoint)],
    "best": [(tf.io.gfile, "rename", is_best)],
    "verify": [(checkpoints, "verify", always)],
    "log": [(log.CsvLog, "add", always)],
  }


def arrange(end):
  """Puts the end where it should come."""
  if end == "none":
    return
  name, place, number = end.split(":")
  for owner, attribute, counts in places()[place]:
    function = getattr(owner, attribute)
    setattr(owner, attribute, ending(function, counts, name, int(number)))


def ending(function, counts, name, number):
  calls = []

  def call(*args, **kwargs):
    calls.append(counts(*args))
    is_the_one = sum(calls) == number and calls[-1]
    if is_the_one and name in SIGNALS:
      os.kill(os.getpid(), SIGNALS[name])
    result = function(*args, **kwargs)
    if is_the_one and name == "nan":
      result["masked_lm_weights"][:] = float("nan")
    return result

  return call


def speak_into(path, words):
  """Does what the words of a command line say; stdout and stderr are a file."""
  with open(path, "w") as file:
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
  sys.argv = ["", *words]
  main(arrange)


def main(arrange_end):
  """Runs the script of the command line, its end arranged."""
  _, script, end, *flags = sys.argv
  module = importlib.import_module(script)
  arrange_end(end)
  sys.argv = [script, *flags]
  module.cli()


if __name__ == "__main__":
  main(arrange)
