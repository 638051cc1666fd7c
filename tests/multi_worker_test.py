"""Two worker processes on loopback, and what becomes of one without the other.

Every process has an end of its own: one that hangs fails the test.
"""

import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys

import numpy as np
import pytest

import reliability_test
import run_pretraining_test

ROOT = reliability_test.ROOT
newest = reliability_test.newest
folder = reliability_test.folder
classification = reliability_test.classification
pretraining = reliability_test.pretraining
# Of a machine with other work to do; a run takes a tenth of it.
MAX_SECONDS = 120
UMASKS = (0o022, 0o077)
KILLED = -signal.SIGKILL
STOPPED = 75
AGAIN = "start all workers again with the same commands"


def free_ports(count):
  """Ports below those that the system gives to callers, such as the workers."""
  found = []
  while len(found) < count:
    port = random.randrange(10_000, 30_000)
    with socket.socket() as a_socket, contextlib.suppress(OSError):
      a_socket.bind(("127.0.0.1", port))
      found.append(port)
  return found


def start(job, output_dir, addresses, index, end="none", **changes):
  """Starts one worker; its umask tells which files are its own."""
  script, flags = job
  flags = {
    **flags,
    "output_dir": output_dir,
    "distribution_strategy": "multi_worker",
    **changes,
  }
  tf_config = {
    "cluster": {"worker": addresses},
    "task": {"type": "worker", "index": index},
  }
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / "tests" / "stalled_run.py"),
      script,
      end,
      *reliability_test.words_of(flags),
    ],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    umask=UMASKS[index],
    env={
      **os.environ,
      "CUDA_VISIBLE_DEVICES": "",
      "PYTHONPATH": str(ROOT),
      "TF_CONFIG": json.dumps(tf_config),
    },
  )


def run(job, output_dir, ends=("none", "none"), statuses=(0, 0), **changes):
  """Runs both workers to their ends; returns what they said.

  One that is to be killed may be stopped before; it is when the other is done.
  """
  addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
  workers = [
    start(job, output_dir, addresses, index, ends[index], **changes)
    for index in range(2)
  ]
  said = {}
  try:
    for index in sorted(range(2), key=lambda i: statuses[i] == KILLED):
      if statuses[index] == KILLED and "stop" in ends[index]:
        workers[index].kill()
      said[index] = "".join(workers[index].communicate(timeout=MAX_SECONDS))
  finally:
    for index, worker in enumerate(workers):
      worker.kill()
      if index not in said:
        print(f"worker {index}, its end: ", *worker.communicate())
  found = tuple(worker.returncode for worker in workers)
  assert found == statuses, said
  return said[0], said[1], addresses


def last_sentence(said):
  """What the script said about its end; TensorFlow may say more after it."""
  lines = [x for x in said.splitlines() if x.startswith("run_pretraining: ")]
  assert len(lines) == 1 and "Traceback" not in said, said
  return lines[0]


@pytest.fixture
def without_dropout(pretraining):
  """A short run, whose result does not depend on the number of replicas."""
  script, flags = pretraining
  config = json.loads(flags["bert_config_file"].read_text())
  for name in reliability_test.DROPOUT:
    config[name] = 0.0
  flags["bert_config_file"].write_text(json.dumps(config))
  changes = {"num_train_steps": 7, "num_warmup_steps": 1, "learning_rate": 1e-3}
  return script, {**flags, **changes, "save_checkpoints_steps": 2}


@pytest.mark.slow
@pytest.mark.parametrize("on_nan", ["stop", "skip", "rollback"])
def test_two_workers_train_what_one_does(without_dropout, tmp_path, on_nan):
  """Also if the numbers of one batch go wrong in one of them."""
  one, two = tmp_path / "one", tmp_path / "two"
  end = "none" if on_nan == "stop" else "nan:batch:4"
  reliability_test.run(without_dropout, one, end, on_nan=on_nan)
  ends = ("none", end)
  first, second, _ = run(without_dropout, two, ends, on_nan=on_nan)

  assert "step 7/7" in first
  assert "step 7/7" not in second
  news = {"skip": "skipped step 4", "rollback": "rolled back to step 2"}
  for text in (first, second):
    assert news.get(on_nan, "") in text
  assert_same_but_for_rounding(two, one)
  assert_chief_wrote_all(tmp_path)


@pytest.mark.slow
def test_two_workers_keep_the_same_best_weights(classification, tmp_path):
  """And all wait for the chief, who writes them, before they read them.

  Two devices of one process add up the same numbers.
  """
  one, two = tmp_path / "one", tmp_path / "two"
  reliability_test.run(classification, one, **reliability_test.TWO_DEVICES)
  run(classification, two)
  reliability_test.assert_same_run(two, one)
  assert_chief_wrote_all(tmp_path)


@pytest.mark.slow
def test_both_workers_stop_at_a_loss_that_is_no_number(
  without_dropout, tmp_path
):
  ends = ("nan:batch:4", "none")
  first, second, _ = run(without_dropout, tmp_path / "run", ends, (1, 1))
  for text in (first, second):
    assert "error: step 4: the loss is nan, the gradie" in last_sentence(text)
  assert newest(tmp_path / "run").endswith("model.ckpt-2")


def assert_same_but_for_rounding(found, expected):
  weights = [
    run_pretraining_test.final_weights(as_config(x)) for x in (found, expected)
  ]
  for name in weights[1]:
    # Softmax over keys ignores it: its gradient is all rounding.
    if "key/bias" not in name:
      np.testing.assert_allclose(weights[0][name], weights[1][name], atol=1e-6)
  results = [
    run_pretraining_test.manifest(as_config(x))["results"]
    for x in (found, expected)
  ]
  assert results[0] == pytest.approx(results[1], rel=1e-5)


class as_config:
  """What run_pretraining_test's helpers want to know of a run."""

  def __init__(self, output_dir):
    self.output_dir = str(output_dir)


def assert_chief_wrote_all(folder):
  """Every file was made under a mask that is not that of the other worker."""
  paths = [path for path in folder.rglob("*") if path.is_file()]
  assert len(paths) > 10
  for path in paths:
    assert stat.S_IMODE(path.stat().st_mode) & UMASKS[1], path


@pytest.mark.slow
def test_a_worker_whose_peer_does_not_come_ends(pretraining, tmp_path):
  addresses = [f"127.0.0.1:{port}" for port in free_ports(4)]
  workers = [
    start(pretraining, tmp_path / "0", addresses[:2], 0, worker_timeout=2),
    start(pretraining, tmp_path / "1", addresses[2:], 1, worker_timeout=2),
  ]
  try:
    said = [worker.communicate(timeout=MAX_SECONDS)[1] for worker in workers]
  finally:
    for worker in workers:
      worker.kill()
  assert [worker.returncode for worker in workers] == [1, 1], said
  for text, missing in zip(said, (addresses[1], addresses[2]), strict=True):
    assert last_sentence(text).startswith(
      "run_pretraining: error: waited 2 seconds of --worker_timeout in vain "
      f"for {missing}; start every worker that TF_CONFIG lists"
    )
  assert not (tmp_path / "0").exists()


@pytest.mark.slow
def test_workers_that_lose_each_other_go_on_when_started_again(
  pretraining, tmp_path
):
  whole, parts = tmp_path / "whole", tmp_path / "parts"
  run(pretraining, whole)

  # One is killed. The counts are of batches, made a little ahead of the steps.
  ends, statuses = ("none", "kill:batch:11"), (1, KILLED)
  first, _, addresses = run(pretraining, parts, ends, statuses)
  assert "error: after step " in last_sentence(first)
  assert f": {addresses[1]} has ended or stands" in last_sentence(first)
  assert AGAIN in last_sentence(first)

  # One lives, but its data do not come. Neither worker gets on.
  ends, statuses = ("none", "stuck:batch:8"), (1, 1)
  first, second, addresses = run(
    pretraining, parts, ends, statuses, worker_timeout=5
  )
  assert "resuming at step " in first
  for text, other in ((first, addresses[1]), (second, addresses[0])):
    sentence = f": {other} stood still for 5 seconds of --worker_timeout"
    assert sentence in last_sentence(text)

  # The chief stands still, and cannot answer TensorFlow's heartbeats.
  ends, statuses = ("stop:batch:4", "none"), (KILLED, 1)
  _, second, addresses = run(pretraining, parts, ends, statuses)
  assert f": {addresses[0]} has ended or stands" in last_sentence(second)

  # One is asked to stop: all do, at the same step, and the chief has saved.
  ends, statuses = ("none", "term:batch:2"), (STOPPED, STOPPED)
  first, second, _ = run(pretraining, parts, ends, statuses)
  step = newest(parts).rsplit("-", 1)[1]
  end = f"at step {step} and saved; the same command continues from there"
  assert last_sentence(first).endswith(f"a signal to another worker {end}")
  assert last_sentence(second).endswith(f"stopped by SIGTERM {end}")

  first, _, _ = run(pretraining, parts)
  assert f"resuming at step {step}" in first
  reliability_test.assert_same_run(parts, whole)
  assert_chief_wrote_all(tmp_path)
