"""Runs the test files, each in a process of its own: what `make test` does.

    python -m tests.support.run -m "not slow" tests/modeling_test.py

TensorFlow is imported once; a process is forked from there for every file, so
that neither its import nor the graphs that a file traces add up. Takes files
(all of tests/ if none), and pytest's options -m and -k.
"""

import argparse
import contextlib
import dataclasses
import gc
import json
import os
import pathlib
import random
import re
import signal
import sys
import tempfile
import time

import pytest

TESTS = pathlib.Path(__file__).resolve().parent.parent
NUM_SLOWEST = 10
SECONDS_TO_END = 10.0


@dataclasses.dataclass
class FileRun:
  """A file that is being tested, or was.

  Attributes:
    path: of the test file.
    folder: where its process puts `output` and `tests.json`.
    start: time.monotonic() when it began.
    seconds: how long it took.
    peak_bytes: most memory its process had.
    tests: list of (test, outcome, seconds).
    status: exit status of pytest, negative for a signal.
    leftovers: list of (number, command line) of processes it left behind.
  """

  path: pathlib.Path
  folder: pathlib.Path
  start: float = 0.0
  seconds: float = 0.0
  peak_bytes: int = 0
  tests: list = dataclasses.field(default_factory=list)
  status: int = 0
  leftovers: list = dataclasses.field(default_factory=list)

  @property
  def is_failed(self):
    """Whether a test failed, or the process ended in another way."""
    no_test_selected = pytest.ExitCode.NO_TESTS_COLLECTED
    return bool(self.leftovers) or self.status not in (0, no_test_selected)

  def count(self, outcome):
    """Counts the tests with an outcome."""
    return sum(x == outcome for _, x, _ in self.tests)


class Recorder:
  """A pytest plugin that notes every test's outcome, and may shuffle."""

  def __init__(self, shuffle_seed=None):
    self.tests = {}
    self._shuffle_seed = shuffle_seed

  def pytest_collection_modifyitems(self, items):
    """Shuffles the tests of a file."""
    if self._shuffle_seed is not None:
      random.Random(self._shuffle_seed).shuffle(items)

  def pytest_runtest_logreport(self, report):
    """Adds a phase of a test: the worst outcome counts, and all seconds."""
    _, outcome, seconds = self.tests.get(report.nodeid, ("", "passed", 0.0))
    if report.outcome != "passed":
      outcome = report.outcome
    seconds += report.duration
    self.tests[report.nodeid] = (report.nodeid, outcome, seconds)


def main(arguments=None):
  """Runs the tests; returns the exit status."""
  options = parse(arguments)
  files = options.files or sorted(TESTS.glob("*_test.py"))
  paths = sorted(map(pathlib.Path, files), key=weight, reverse=True)
  print(f"{len(paths)} test files in {options.processes} processes", flush=True)
  import_tensorflow()
  start = time.monotonic()
  runs = []
  with tempfile.TemporaryDirectory() as folder:
    for run in run_all(paths, options, pathlib.Path(folder)):
      runs.append(run)
      show(run, len(runs), len(paths))
  return summarize(runs, time.monotonic() - start)


def parse(arguments):
  """Parses the command line."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("files", nargs="*")
  parser.add_argument("-m", dest="markers", default="")
  parser.add_argument("-k", dest="keyword", default="")
  parser.add_argument("-n", dest="processes", type=int, default=os.cpu_count())
  parser.add_argument(
    "--shuffle", type=int, help="seed of a random order of each file's tests"
  )
  return parser.parse_args(arguments)


def weight(path):
  """Guesses how long a file takes: long ones begin first."""
  text = path.read_text(encoding="utf-8")
  return len(re.findall(r"mark\.slow", text)), len(text)


def import_tensorflow():
  """Imports what most files need, before processes are forked from this one."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
  import keras  # noqa: F401
  import tensorflow  # noqa: F401
  import tensorflow_text  # noqa: F401

  gc.collect()
  gc.freeze()  # Else every collection goes through all of TensorFlow again.


def run_all(paths, options, folder):
  """Yields a FileRun for each path, in the order they end."""
  waiting = list(paths)
  running = {}
  try:
    while waiting or running:
      while waiting and len(running) < options.processes:
        path = waiting.pop(0)
        run = FileRun(path, folder / path.stem, start=time.monotonic())
        run.folder.mkdir()
        running[fork(run, options)] = run
      pid, status, usage = os.wait4(-1, 0)
      run = running.pop(pid)
      finish(run, pid, status, usage)
      yield run
  finally:
    for pid in running:
      os.killpg(pid, signal.SIGKILL)


def fork(run, options):
  """Starts the process of a file; returns its number."""
  sys.stdout.flush()
  pid = os.fork()
  if pid:
    return pid
  status = 70  # of an error in here
  try:
    os.setsid()
    output = os.open(run.folder / "output", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    recorder = Recorder(options.shuffle)
    arguments = ["-q", "-p", "no:cacheprovider", str(run.path)]
    if options.markers:
      arguments += ["-m", options.markers]
    if options.keyword:
      arguments += ["-k", options.keyword]
    status = int(pytest.main(arguments, plugins=[recorder]))
    tests = list(recorder.tests.values())
    (run.folder / "tests.json").write_text(json.dumps(tests))
    sys.stdout.flush()
  finally:
    os._exit(status)


def finish(run, pid, status, usage):
  """Notes how the process of a file ended."""
  run.seconds = time.monotonic() - run.start
  run.status = os.waitstatus_to_exitcode(status)
  run.peak_bytes = usage.ru_maxrss * 1024
  tests = run.folder / "tests.json"
  if tests.exists():
    run.tests = json.loads(tests.read_text())
  run.leftovers = wait_for_session(pid)
  for process, _ in run.leftovers:
    with contextlib.suppress(ProcessLookupError):
      os.kill(process, signal.SIGKILL)


def wait_for_session(session):
  """Lists the processes of a session that do not end by themselves.

  multiprocessing's servers notice within a moment that their parent is gone.
  """
  deadline = time.monotonic() + SECONDS_TO_END
  while (left := find_session(session)) and time.monotonic() < deadline:
    time.sleep(0.1)
  return left


def find_session(session):
  """Lists (number, command line) of the processes of a session."""
  found = []
  for entry in pathlib.Path("/proc").glob("[0-9]*"):
    try:
      # After the name in parentheses: state, parent, group, session.
      stat = (entry / "stat").read_text().rpartition(")")[2].split()
      command = (entry / "cmdline").read_text().replace("\0", " ")
    except OSError:
      continue  # It has ended.
    if int(stat[3]) == session and stat[0] != "Z":
      found.append((int(entry.name), command))
  return found


def show(run, number, total):
  """Prints the line of a file, and the output if it failed."""
  counts = ", ".join(
    f"{run.count(outcome)} {outcome}"
    for outcome in ("passed", "failed", "skipped")
    if run.count(outcome)
  )
  print(
    f"[{number:{len(str(total))}}/{total}] {run.path.name}: "
    f"{counts or 'no tests'} in {run.seconds:.0f} s, "
    f"{run.peak_bytes / 1e9:.1f} GB",
    flush=True,
  )
  if run.is_failed:
    print((run.folder / "output").read_text(errors="replace"), flush=True)
  if run.status not in set(map(int, pytest.ExitCode)):
    print(f"{run.path}: the process ended with status {run.status}")
  for _, command in run.leftovers:
    print(f"{run.path} left a process behind: {command}")


def summarize(runs, seconds):
  """Prints the slowest tests and the sums; returns the exit status."""
  tests = [test for run in runs for test in run.tests]
  print(f"slowest {NUM_SLOWEST} tests:")
  for name, _, took in sorted(tests, key=lambda x: -x[2])[:NUM_SLOWEST]:
    print(f"  {took:6.1f} s  {name}")
  largest = max(runs, key=lambda run: run.peak_bytes)
  print(
    f"{seconds / 60:.1f} minutes; most memory: "
    f"{largest.peak_bytes / 1e9:.1f} GB, {largest.path.name}"
  )
  for run in runs:
    if run.is_failed:
      print(f"FAILED {run.path}")
  passed, failed, skipped = (
    sum(run.count(outcome) for run in runs)
    for outcome in ("passed", "failed", "skipped")
  )
  print(f"{passed} passed, {failed} failed, {skipped} skipped")
  return int(any(run.is_failed for run in runs))


if __name__ == "__main__":
  sys.exit(main())
