"""Kills a pretraining run many times, at random moments, and compares its end.

    python benchmarks/kills.py --kills=20 --mixed_precision=bfloat16 \
      --num_devices=2

Every process gets some seconds of training and then SIGKILL; the next one
continues. At the end weights, slots and the log's numbers should be those of a
run that nobody touched, bit by bit.
"""

import argparse
import csv
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
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


def parse_arguments():
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--steps", type=int, default=3000)
  parser.add_argument("--num_devices", type=int, default=1)
  parser.add_argument("--mixed_precision", default="float32")
  parser.add_argument("--seed", type=int, default=0)
  return parser.parse_args()


def write_records(path, count=2000):
  """Random records of the right form."""
  import numpy as np

  import input_pipeline

  rng = np.random.default_rng(0)
  size = [count, LENGTH]
  features = {
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
  specs = input_pipeline.pretraining_features(LENGTH, PREDICTIONS)
  with input_pipeline.RecordWriter(str(path)) as writer:
    for record in input_pipeline.serialize_examples(features, specs):
      writer.write(record)


def start(arguments, folder, output_dir):
  """A process that trains, or goes on training."""
  flags = [
    f"--input_file={folder / 'train.tfrecord'}",
    f"--bert_config_file={folder / 'bert_config.json'}",
    f"--output_dir={output_dir}",
    "--do_train",
    "--deterministic",
    f"--max_seq_length={LENGTH}",
    f"--max_predictions_per_seq={PREDICTIONS}",
    f"--num_train_steps={arguments.steps}",
    "--train_batch_size=16",
    "--gradient_accumulation_steps=2",
    "--save_checkpoints_steps=25",
    "--log_every_steps=10",
    "--learning_rate=1e-3",
    f"--mixed_precision={arguments.mixed_precision}",
    f"--num_devices={arguments.num_devices}",
  ]
  if arguments.num_devices > 1:
    flags.append("--distribution_strategy=mirrored")
  return subprocess.Popen(
    [sys.executable, str(ROOT / "run_pretraining.py"), *flags],
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


def time_whole_run(arguments, folder, output_dir):
  """Seconds until a run's first report, and until its end."""
  begin = time.monotonic()
  process = start(arguments, folder, output_dir)
  log = output_dir / "training_log.csv"
  while not log.exists() and process.poll() is None:
    time.sleep(0.05)
  first_report = time.monotonic() - begin
  finish(process)
  return first_report, time.monotonic() - begin


def kill_many_times(arguments, folder, output_dir, seconds):
  """Kills processes after random times within `seconds`; returns the steps."""
  rng = random.Random(arguments.seed)
  steps = []
  for _ in range(arguments.kills):
    process = start(arguments, folder, output_dir)
    try:
      process.wait(rng.uniform(*seconds))
      print("a run came to its end before it was killed; pass more --steps")
      break
    except subprocess.TimeoutExpired:
      process.send_signal(signal.SIGKILL)
      process.communicate()
    steps.append(newest_step(output_dir))
  finish(start(arguments, folder, output_dir))
  return steps


def newest_step(output_dir):
  """Step of the newest checkpoint, 0 without one."""
  names = [path.stem for path in output_dir.glob("model.ckpt-*.index")]
  steps = [name.removeprefix("model.ckpt-") for name in names]
  return max((int(step) for step in steps if step.isdigit()), default=0)


def read_run(output_dir, last_step):
  """What should be the same: tensors and rows of the log."""
  import tensorflow as tf

  found = {}
  for name in ("bert_model.ckpt", f"model.ckpt-{last_step}"):
    reader = tf.train.load_checkpoint(str(output_dir / name))
    for tensor in reader.get_variable_to_shape_map():
      found[name, tensor] = reader.get_tensor(tensor).tobytes()
  with open(output_dir / "training_log.csv", newline="") as file:
    for row in csv.DictReader(file):
      row.pop("examples_per_second")
      found["log", row["step"]] = row
  return found


def main():
  """Prints at which checkpoints it was killed, and what differs."""
  arguments = parse_arguments()
  sys.path.insert(0, str(ROOT))
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    (folder / "bert_config.json").write_text(json.dumps(CONFIG))
    write_records(folder / "train.tfrecord")
    first, last = time_whole_run(arguments, folder, folder / "whole")
    # From before the first step to a share of the run that leaves enough for
    # the kills to come.
    share = (last - first) / (arguments.kills + 1)
    seconds = (0.7 * first, first + 1.5 * share)
    steps = kill_many_times(arguments, folder, folder / "killed", seconds)
    print(f"killed {len(steps)} times; newest checkpoint then: {steps}")
    whole, killed = (
      read_run(folder / name, arguments.steps) for name in ("whole", "killed")
    )
    different = [
      key for key in {**whole, **killed} if whole.get(key) != killed.get(key)
    ]
    print(f"{len(whole)} tensors and rows compared, {len(different)} differ")
    sys.exit(bool(different))


if __name__ == "__main__":
  main()
