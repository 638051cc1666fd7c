"""Runs that are killed end as runs that are not: real processes and signals."""

import csv
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import re
import shlex
import signal
import subprocess
import sys

import pytest
import tensorflow as tf

import killed_run
import run_classifier_test
import run_pretraining_test
import run_squad_test
import training_log_test

ROOT = pathlib.Path(__file__).resolve().parent.parent
KILLED = -signal.SIGKILL
MAX_SECONDS = 300  # A run takes ten.
# Both dropouts of the config are on; training is deterministic by seed.
DROPOUT = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
COMMON = {
  "do_train": True,
  "deterministic": True,
  "seed": 3,
  "learning_rate": 1e-2,
  "save_checkpoints_steps": 5,
  "log_every_steps": 4,
}
TWO_DEVICES = {"distribution_strategy": "mirrored", "num_devices": 2}
folder = run_classifier_test.folder


def with_dropout(path):
  config = json.loads(path.read_text())
  path.write_text(json.dumps({**config, **DROPOUT}))


@pytest.fixture
def pretraining(tmp_path):
  """Script and flags of a pretraining run of 23 steps."""
  config = run_pretraining_test.write_config(tmp_path)
  with_dropout(config)
  records = run_pretraining_test.write_records(tmp_path / "train.tfrecord")
  return "run_pretraining", {
    **COMMON,
    "bert_config_file": config,
    "input_file": records,
    "do_eval": True,
    "max_seq_length": 16,
    "max_predictions_per_seq": 3,
    "num_train_steps": 23,
    "num_warmup_steps": 3,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
  }


@pytest.fixture
def classification(folder):
  """Of a classifier: five times the best so far, then patience is lost."""
  with_dropout(folder / "model" / "bert_config.json")
  return "run_classifier", {
    **COMMON,
    "do_eval": True,
    "task_name": "csv",
    "data_dir": folder,
    "bert_config_file": folder / "model" / "bert_config.json",
    "vocab_file": folder / "model" / "vocab.txt",
    "max_seq_length": 24,
    "text_a": "review",
    "label_column": "opinion",
    "learning_rate": 3e-4,
    "num_train_epochs": 4,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "eval_steps": 2,
    "early_stopping_patience": 5,
  }


@pytest.fixture
def reading(tmp_path):
  """Of a reader."""
  run_squad_test.make_folder(tmp_path)
  with_dropout(tmp_path / "model" / "bert_config.json")
  return "run_squad", {
    **COMMON,
    "do_predict": True,
    "train_file": tmp_path / "train.json",
    "predict_file": tmp_path / "dev.json",
    "bert_config_file": tmp_path / "model" / "bert_config.json",
    "vocab_file": tmp_path / "model" / "vocab.txt",
    "max_seq_length": 20,
    "doc_stride": 6,
    "max_query_length": 4,
    "num_train_epochs": 1,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
  }


# A server that has imported what the runs import forks one process for each:
# a third of a short run's time would be TensorFlow's import.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
  [
    "tensorflow",
    "bert_keras3.tasks.fine_tuning",
    "bert_keras3.tasks.squad_results",
    "bert_keras3.training.dry_run",
  ]
)


def words_of(flags):
  """Flags as a command line has them."""
  return [
    f"--{name}={str(value).lower() if value is True else value}"
    for name, value in flags.items()
  ]


def run(job, output_dir, end="none", status=0, **changes):
  """Runs the job to its end in a process of its own; returns what it said.

  Args:
    job: what the fixtures return.
    output_dir: path.
    end: see killed_run.
    status: of the process at its end.
    **changes: of the job's flags.
  """
  script, flags = job
  words = words_of({**flags, "output_dir": output_dir, **changes})
  said = pathlib.Path(f"{output_dir}.said")
  process = SERVER.Process(
    target=killed_run.speak_into, args=(said, [script, end, *words])
  )
  process.start()
  process.join(MAX_SECONDS)
  process.kill()
  process.join()
  assert process.exitcode == status, said.read_text()
  return said.read_text()


def read_checkpoint(path):
  reader = tf.train.load_checkpoint(str(path))
  return {
    name: reader.get_tensor(name).tobytes()
    for name in reader.get_variable_to_shape_map()
  }


def read_log(path):
  """Rows without what the clock has a part in."""
  with open(path, newline="") as file:
    rows = list(csv.DictReader(file))
  for row in rows:
    row.pop("examples_per_second", None)
  return rows


def read_events(directory):
  """What TensorBoard gets, without what the clock has a part in."""
  scalars = training_log_test.read_scalars(directory)
  return [x for x in scalars if x[0] != "examples_per_second"]


def is_finished(directory):
  return json.loads((directory / "run_manifest.json").read_text())["finished"]


def newest(output_dir):
  return tf.train.latest_checkpoint(str(output_dir))


def assert_same_run(actual, expected):
  """Weights, slots, what is saved beside them, logs and results, bit by bit."""
  assert os.path.basename(newest(actual)) == os.path.basename(newest(expected))
  names = ["bert_model.ckpt", os.path.basename(newest(expected))]
  if (expected / "best_model.ckpt.index").exists():
    names.append("best_model.ckpt")
  for name in names:
    assert read_checkpoint(actual / name) == read_checkpoint(expected / name)
  extras = [
    json.loads(open(newest(x) + ".json").read()) for x in (actual, expected)
  ]
  assert extras[0] == extras[1]
  for name in ("training_log.csv", "eval_log.csv"):
    if (expected / name).exists():
      assert read_log(actual / name) == read_log(expected / name)
  assert read_events(actual) == read_events(expected)
  results = [
    json.loads((x / "run_manifest.json").read_text())["results"]
    for x in (actual, expected)
  ]
  assert results[0] == results[1]


def random_ends(kind, number):
  """Ends that a run meets whatever it has met before; each kind has its own."""
  generator = random.Random(kind)
  last = {"batch": 9, "verify": 2, "rename": 4, "log": 2}
  places = generator.sample(sorted(last), number)
  return [f"{place}:{generator.randint(1, last[place])}" for place in places]


# The places are spread over a run: before its first checkpoint, while one is
# written, between it and the log, and near the end.
THOROUGH = {
  ("pretraining", 2, "bfloat16"): [
    "batch:2",
    "verify:1",
    "rename:2",
    "log:2",
    "batch:10",
  ],
  # The fourth file of the best weights is the index of the second ones.
  ("classification", 1, "float32"): ["best:4", "batch:8", "rename:3", "log:3"],
  ("reading", 2, "float32"): ["verify:2", "batch:7"],
  # Its loss scale goes on from where it was.
  ("pretraining", 1, "float16"): ["batch:13"],
}
KINDS = ("pretraining", "classification", "reading")


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "num_devices", "precision"),
  [
    *itertools.product(KINDS, (1, 2), ("float32", "bfloat16")),
    ("pretraining", 1, "float16"),
  ],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(
  request, tmp_path, kind, num_devices, precision
):
  key = (kind, num_devices, precision)
  changes = {"mixed_precision": precision}
  if num_devices == 2:
    changes |= TWO_DEVICES
  ends = THOROUGH.get(key) or random_ends(str(key), 1)
  job = request.getfixturevalue(kind)
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  run(job, whole, **changes)
  for end in ends:
    run(job, killed, f"kill:{end}", KILLED, **changes)
  run(job, killed, **changes)
  assert_same_run(killed, whole)


@pytest.mark.slow
def test_runs_of_several_seeds_go_on_with_the_one_that_was_killed(
  classification, tmp_path
):
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  run(classification, whole, num_seeds=2)
  # The first seed's run stops before its 30 steps.
  assert newest(whole / "run_1").endswith("model.ckpt-24")
  for end in ("batch:4", "verify:18"):
    run(classification, killed, f"kill:{end}", KILLED, num_seeds=2)
  assert newest(killed / "run_2") and not is_finished(killed / "run_2")
  run(classification, killed, num_seeds=2)
  for name in ("run_1", "run_2"):
    assert_same_run(killed / name, whole / name)
  results = [(x / "eval_results.txt").read_text() for x in (killed, whole)]
  assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["term", "int"])
def test_a_signal_saves_at_the_next_step(pretraining, tmp_path, name):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  run(pretraining, whole, log_every_steps=23)
  said = run(pretraining, stopped, f"{name}:batch:8", 75, log_every_steps=23)
  step = int(newest(stopped).rsplit("-", 1)[1])
  assert step % 5  # No step at which it would have saved anyway.
  signal_name = f"SIG{name.upper()}"
  sentence = (
    f"run_pretraining: stopped by {signal_name} at step {step} and saved; the "
    "same command continues from there\n"
  )
  assert said.endswith(sentence)
  assert "Traceback" not in said
  assert f"resuming at step {step}" in run(
    pretraining, stopped, log_every_steps=23
  )
  assert_same_run(stopped, whole)


# A disk of a run's own, in a name space that ends with the shell. The run's
# status and what it left come out, then it has room and goes on.
ON_A_SMALL_DISK = """
mount -t tmpfs -o size={size} tmpfs {disk} || exit 99
{command}; echo "status $?"; ls {disk}
mount -o remount,size=100m {disk}
{command} && cp -r {disk}/run {copy}
"""


@pytest.mark.slow
def test_a_full_disk_costs_no_more_than_the_steps_since_the_checkpoint(
  pretraining, tmp_path
):
  if subprocess.run(["unshare", "-rm", "true"]).returncode:
    pytest.skip("this system lets nobody mount a disk of their own")
  whole, disk, copy = (tmp_path / x for x in ("whole", "disk", "copy"))
  run(pretraining, whole)
  disk.mkdir()
  script, flags = pretraining
  words = words_of({**flags, "output_dir": disk / "run"})
  sizes = [path.stat().st_size for path in whole.glob("model.ckpt-23*")]
  shell = ON_A_SMALL_DISK.format(
    command=shlex.join([sys.executable, str(ROOT / f"{script}.py"), *words]),
    size=int(2.5 * sum(sizes)),
    disk=disk,
    copy=copy,
  )
  result = subprocess.run(
    ["unshare", "-rm", "sh", "-c", shell],
    capture_output=True,
    text=True,
    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
  )
  said = result.stdout + result.stderr
  assert result.returncode == 0, said
  assert "status 1\n" in result.stdout
  step = re.search(r"ckpt-(\d+) could not be written: the disk is full", said)
  assert step, said
  assert "Traceback" not in said
  assert f"resuming at step {int(step[1]) - 5}" in result.stdout
  assert_same_run(copy, whole)
