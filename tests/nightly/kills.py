"""Kills runs of each task many times, at random moments, and compares the ends.

    python -m tests.nightly.kills --kills=20
    python -m tests.nightly.kills --tasks=squad --num_devices=2 \
      --mixed_precision=bfloat16

`make nightly` runs all tasks on one and two devices in two precisions. Every
process gets SIGKILL at some moment; the next one continues. At the end
weights, slots, what is saved beside them, the logs' numbers and the results
should be those of a run that nobody touched, bit by bit. Dropout and two
micro-batches a step are on.
"""

import argparse
import csv
import dataclasses
import itertools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.data import record_writer

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = {
  "vocab_size": 500,
  "hidden_size": 64,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 128,
  "max_position_embeddings": 32,
  "type_vocab_size": 2,
}
LENGTH, PREDICTIONS = 32, 5
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [f"w{number}" for number in range(CONFIG["vocab_size"] - len(SPECIAL))]
BATCH_SIZE = 16
COMMON = (
  "--do_train",
  "--deterministic",
  f"--max_seq_length={LENGTH}",
  f"--train_batch_size={BATCH_SIZE}",
  "--gradient_accumulation_steps=2",
  "--save_checkpoints_steps=25",
  "--log_every_steps=10",
  "--learning_rate=1e-3",
)


# Tasks: data of random words --------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Task:
  """What one script trains on.

  Attributes:
    script: its name.
    write: function of (folder, number of steps) that writes the data and
      returns flags.
  """

  script: str
  write: object


def write_pretraining(folder, num_steps, count=2000):
  """Writes random records; returns flags."""
  rng = np.random.default_rng(0)
  size = [count, LENGTH]
  columns = {
    "input_ids": rng.integers(1, CONFIG["vocab_size"], size),
    "input_mask": np.ones(size, int),
    "segment_ids": np.zeros(size, int),
    "masked_lm_positions": rng.integers(0, LENGTH, [count, PREDICTIONS]),
    "masked_lm_ids": rng.integers(
      1, CONFIG["vocab_size"], [count, PREDICTIONS]
    ),
    "masked_lm_weights": np.ones([count, PREDICTIONS]),
    "next_sentence_labels": rng.integers(0, 2, [count, 1]),
  }
  specs = features.pretraining_features(LENGTH, PREDICTIONS)
  path = folder / "train.tfrecord"
  with record_writer.RecordWriter(str(path)) as writer:
    for record in features.serialize_examples(columns, specs):
      writer.write(record)
  return [
    "--do_eval",
    f"--input_file={path}",
    f"--max_predictions_per_seq={PREDICTIONS}",
    f"--num_train_steps={num_steps}",
  ]


def some_words(rng, count):
  """Makes a text of random words."""
  return " ".join(rng.choices(WORDS, k=count))


def write_classification(folder, num_steps, count=800):
  """Writes tables of texts and labels; returns flags, which evaluate too."""
  rng = random.Random(0)
  for name, rows in (("train", count), ("dev", 100)):
    with open(folder / f"{name}.csv", "w", newline="") as file:
      writer = csv.writer(file)
      writer.writerow(["text", "label"])
      for _ in range(rows):
        text = some_words(rng, rng.randint(3, 25))
        writer.writerow([text, rng.choice("ab")])
  return [
    "--do_eval",
    "--task_name=csv",
    f"--data_dir={folder}",
    f"--num_train_epochs={num_steps * BATCH_SIZE / count}",
    "--eval_steps=60",
    "--early_stopping_patience=1000",
  ]


def write_squad(folder, num_steps, count=800):
  """Writes questions about texts of random words; returns flags."""
  rng = random.Random(0)
  for name, questions in (("train", count), ("dev", 100)):
    paragraphs = [write_paragraph(rng, i) for i in range(questions)]
    content = {"version": "1.1", "data": [{"paragraphs": paragraphs}]}
    (folder / f"{name}.json").write_text(json.dumps(content))
  return [
    "--do_predict",
    f"--train_file={folder / 'train.json'}",
    f"--predict_file={folder / 'dev.json'}",
    f"--num_train_epochs={num_steps * BATCH_SIZE / count}",
    "--max_query_length=8",
    "--doc_stride=10",
    "--eval_steps=200",
  ]


def write_paragraph(rng, number):
  """Makes a text and a question that one of its words answers."""
  context = some_words(rng, 12)
  answer = rng.choice(context.split())
  question = {
    "id": f"q{number}",
    "question": some_words(rng, 4),
    "answers": [
      {"text": answer, "answer_start": f" {context} ".index(f" {answer} ")}
    ],
  }
  return {"context": context, "qas": [question]}


TASKS = {
  "pretraining": Task("run_pretraining", write_pretraining),
  "classification": Task("run_classifier", write_classification),
  "squad": Task("run_squad", write_squad),
}


# Runs -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Job:
  """A command but for its output_dir."""

  script: str
  flags: tuple


def make_job(name, num_devices, precision, num_steps, folder):
  """Writes the files of a task; returns its Job."""
  task = TASKS[name]
  (folder / "bert_config.json").write_text(json.dumps(CONFIG))
  (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]) + "\n")
  flags = [
    *COMMON,
    f"--bert_config_file={folder / 'bert_config.json'}",
    f"--vocab_file={folder / 'vocab.txt'}",
    f"--mixed_precision={precision}",
    *task.write(folder, num_steps),
  ]
  if num_devices > 1:
    flags.append("--distribution_strategy=mirrored")
    flags.append(f"--num_devices={num_devices}")
  return Job(task.script, tuple(flags))


def start(job, output_dir):
  """Starts a process that trains, or goes on training."""
  return subprocess.Popen(
    [
      sys.executable,
      str(ROOT / f"{job.script}.py"),
      *job.flags,
      f"--output_dir={output_dir}",
    ],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
    env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
  )


def finish(process):
  """Waits for a process that should end well."""
  _, error = process.communicate()
  if process.returncode:
    sys.exit(f"a run ended with status {process.returncode}:\n{error}")


def wait_for_step(process, output_dir, step):
  """Waits until a run has reported a step, or has ended."""
  while process.poll() is None and last_report(output_dir) < step:
    time.sleep(0.02)


def last_report(output_dir):
  """Reads the step of the last row of the log, 0 without one."""
  try:
    with open(output_dir / "training_log.csv", newline="") as file:
      return max((int(row["step"]) for row in csv.DictReader(file)), default=0)
  except FileNotFoundError:
    return 0


def kill_many_times(job, output_dir, arguments, rng):
  """Kills processes at random moments; returns the checkpoints' steps then.

  One of four at any time of its start, the others somewhat after random steps
  of the whole run.
  """
  found = []
  steps = sorted(rng.sample(range(arguments.steps), arguments.kills))
  for step in steps:
    process = start(job, output_dir)
    if rng.random() < 0.25:
      time.sleep(rng.uniform(0, arguments.seconds_to_start))
    else:
      wait_for_step(process, output_dir, step)
      time.sleep(rng.uniform(0, 0.3))
    if process.poll() is not None:  # Beyond its last report.
      finish(process)
      print("  a run came to its end before it was killed; pass more --steps")
      break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    found.append(newest_step(output_dir))
  finish(start(job, output_dir))
  return found


def newest_step(output_dir):
  """Finds the step of the newest checkpoint, 0 without one."""
  names = [path.stem for path in output_dir.glob("model.ckpt-*.index")]
  steps = [name.removeprefix("model.ckpt-") for name in names]
  return max((int(step) for step in steps if step.isdigit()), default=0)


def read_run(output_dir):
  """Reads what should not differ: tensors, rows of logs, files of results."""
  found = {}
  last = f"model.ckpt-{newest_step(output_dir)}"
  for name in ("bert_model.ckpt", "best_model.ckpt", last):
    if (output_dir / f"{name}.index").exists():
      reader = tf.train.load_checkpoint(str(output_dir / name))
      for tensor in reader.get_variable_to_shape_map():
        found[name, tensor] = reader.get_tensor(tensor).tobytes()
  for path in output_dir.glob("*_log.csv"):
    with open(path, newline="") as file:
      for row in csv.DictReader(file):
        row.pop("examples_per_second", None)
        found[path.name, row["step"]] = row
  for pattern in (f"{last}.json", "*predictions.json", "eval_re*.txt"):
    for path in output_dir.glob(pattern):
      found[path.name] = path.read_bytes()
  return found


def kill_and_compare(job, arguments, folder, rng):
  """Returns how often it was killed, how much compared, what differs."""
  finish(start(job, folder / "whole"))
  found = kill_many_times(job, folder / "killed", arguments, rng)
  print(f"  killed {len(found)} times; newest checkpoint then: {found}")
  whole, killed = (read_run(folder / name) for name in ("whole", "killed"))
  different = [
    key for key in {**whole, **killed} if whole.get(key) != killed.get(key)
  ]
  if different:
    print(f"  different: {different[:5]}")
  return len(found), len(whole), len(different)


def parse_arguments():
  """Returns the options; an option that is not given runs all its values."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--tasks", nargs="+", choices=TASKS, default=[*TASKS])
  parser.add_argument("--num_devices", nargs="+", type=int, default=[1, 2])
  parser.add_argument(
    "--mixed_precision",
    nargs="+",
    choices=("float32", "bfloat16", "float16"),
    default=["float32", "bfloat16"],
  )
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--steps", type=int, default=2000)
  parser.add_argument("--seconds_to_start", type=float, default=10)
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


def main():
  """Prints at which checkpoints each run was killed, and what differs."""
  arguments = parse_arguments()
  rng = random.Random(arguments.seed)
  results = []
  for task, num_devices, precision in itertools.product(
    arguments.tasks, arguments.num_devices, arguments.mixed_precision
  ):
    print(f"{task}, {num_devices} device(s), {precision}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
      folder = pathlib.Path(directory)
      job = make_job(task, num_devices, precision, arguments.steps, folder)
      results.append(kill_and_compare(job, arguments, folder, rng))
    *_, compared, different = results[-1]
    print(f"  {compared} compared, {different} differ")
  kills, compared, different = map(sum, zip(*results, strict=True))
  print(f"in all {kills} kills, {compared} compared, {different} differ")
  sys.exit(different > 0 or kills < arguments.kills * len(results))


if __name__ == "__main__":
  main()
