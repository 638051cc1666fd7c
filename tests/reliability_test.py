"""Runs that are killed end as runs that are not: real processes and signals."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
import run_classifier_test
import run_pretraining_test
import run_squad_test
import tensorflow as tf

TESTS = pathlib.Path(__file__).resolve().parent
KILLED = -signal.SIGKILL
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
  """Of a classifier, evaluated on the way, its best weights kept."""
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
    "num_train_epochs": 3,
    "train_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "eval_steps": 6,
    "early_stopping_patience": 3,
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
  }


def start(job, output_dir, end="none", **changes):
  """Starts the job as a process of its own."""
  script, flags = job
  flags = {**flags, "output_dir": output_dir, **changes}
  words = [
    f"--{name}={str(value).lower() if value is True else value}"
    for name, value in flags.items()
  ]
  return subprocess.Popen(
    [sys.executable, str(TESTS / "killed_run.py"), script, end, *words],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env={
      **os.environ,
      "CUDA_VISIBLE_DEVICES": "",
      "PYTHONPATH": str(TESTS.parent),
    },
  )


def run(job, output_dir, end="none", status=0, **changes):
  """Runs the job to its end; returns what it said."""
  process = start(job, output_dir, end, **changes)
  stdout, stderr = process.communicate()
  assert process.returncode == status, stderr
  return stdout + stderr


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
  results = [
    json.loads((x / "run_manifest.json").read_text())["results"]
    for x in (actual, expected)
  ]
  assert results[0] == results[1]


# The places are spread over a run: before its first checkpoint, while one is
# written, between it and the log, and near the end.
@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "changes", "ends"),
  [
    (
      "pretraining",
      {**TWO_DEVICES, "mixed_precision": "bfloat16"},
      ["batch:3", "verify:1", "rename:2", "log:2", "batch:11"],
    ),
    ("classification", {}, ["batch:9", "rename:3", "log:3"]),
    ("reading", TWO_DEVICES, ["verify:2", "batch:8"]),
  ],
)
def test_a_run_that_is_killed_ends_as_one_that_is_not(
  request, tmp_path, kind, changes, ends
):
  job = request.getfixturevalue(kind)
  whole, killed = tmp_path / "whole", tmp_path / "killed"
  run(job, whole, **changes)
  for end in ends:
    run(job, killed, f"kill:{end}", KILLED, **changes)
  run(job, killed, **changes)
  assert_same_run(killed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["term", "int"])
def test_a_signal_saves_at_the_next_step(pretraining, tmp_path, name):
  whole, stopped = tmp_path / "whole", tmp_path / "stopped"
  run(pretraining, whole, log_every_steps=23)
  said = run(pretraining, stopped, f"{name}:batch:9", 75, log_every_steps=23)
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
