"""Signals to a process that is inside a call Python cannot interrupt."""

import os
import pathlib
import signal
import subprocess
import sys
import threading

import pytest

from bert_keras3.training import signals

ROOT = pathlib.Path(__file__).resolve().parent.parent
# ctypes' sleep through PyDLL would hold the GIL; CDLL lets threads run, as
# TensorFlow does, and is not woken by Python's handlers.
PROGRAM = """
import ctypes, os, sys
from bert_keras3.training import signals

def wait():
  # poll() on nothing, begun again as often as a signal interrupts it.
  library = ctypes.CDLL(None)
  for _ in range(60):
    library.poll(None, 0, 1000)

def tell(name):
  print("asked by", name, flush=True)

with signals.watch(tell):
  print("ready", flush=True)
  wait()
"""


def start():
  process = subprocess.Popen(
    [sys.executable, "-c", PROGRAM],
    stdout=subprocess.PIPE,
    text=True,
    env={**os.environ, "PYTHONPATH": str(ROOT)},
  )
  assert process.stdout.readline() == "ready\n"
  return process


@pytest.mark.parametrize("first", signals.SIGNALS)
@pytest.mark.parametrize("second", signals.SIGNALS)
def test_the_first_asks_and_the_second_ends(first, second):
  process = start()
  process.send_signal(first)
  assert process.stdout.readline() == f"asked by {first.name}\n"
  assert process.poll() is None
  process.send_signal(second)
  assert process.wait(timeout=30) == 128 + second
  process.stdout.close()


def test_handlers_are_as_before_afterwards():
  before = {x: signal.getsignal(x) for x in signals.SIGNALS}
  with signals.watch(print):
    assert signal.getsignal(signal.SIGINT) != before[signal.SIGINT]
  assert {x: signal.getsignal(x) for x in signals.SIGNALS} == before


def test_other_threads_do_without():
  seen = []

  def work():
    with signals.watch(print):
      seen.append(signal.getsignal(signal.SIGINT))

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()
  assert seen == [signal.getsignal(signal.SIGINT)]
