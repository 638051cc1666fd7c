"""Times sentence vectors against sentence-transformers, and weighs them.

    python benchmarks/features.py --model_dir=MINILM --input_file=lines.txt \
      [--num_threads=1]

Sentence vectors: in turns, a process each; ours from the lines of a file to a
file of arrays, theirs from a list to an array. Numbers as JSON: ours against
upstream's way, in one process. Memory: peaks of whole runs of a tiny model on
few and on many short lines. Needs the `bench` extra and sentence-transformers.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import extract_features  # noqa: E402
import tokenization  # noqa: E402
from bert_keras3.console import start as start_module  # noqa: E402
from bert_keras3.tasks import feature_extraction  # noqa: E402
from bert_keras3.tasks import feature_files  # noqa: E402

BATCH_SIZE = 32
MAX_SEQ_LENGTH = 256  # sentence-transformers' for MiniLM
TINY = {
  "hidden_size": 32,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 64,
}
NUM_LINES = (2_000, 50_000)


def main():
  """Prints the three comparisons."""
  options = parse_options()
  compare_speed(options)
  compare_writing()
  for pooling in ("none", "mean"):
    compare_memory(options, pooling)


def parse_options():
  """The command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  for name in ("model_dir", "input_file"):
    parser.add_argument(f"--{name}", required=True)
  parser.add_argument("--num_threads", type=int, default=1)
  parser.add_argument("--rounds", type=int, default=3)
  return parser.parse_args()


def compare_speed(options):
  """Prints sentences per second, medians over the rounds, and ratios.

  By the clock, and by the processor, whose seconds another load on the machine
  does not add to.
  """
  lines = [x.strip() for x in tokenization.read_lines(options.input_file)]
  # A process each: two frameworks' threads would be in each other's way.
  context = multiprocessing.get_context("spawn")
  pipes = [start(context, x, options, lines) for x in (make_ours, make_theirs)]
  ours, theirs = (pipe.recv() for pipe in pipes)
  print(f"largest difference of two numbers: {np.abs(ours - theirs).max():.1g}")
  rounds = []
  for _ in range(options.rounds):
    rounds.append([take_turn(pipe) for pipe in pipes])
  for kind, unit in enumerate(("second", "second of the processor")):
    for number, name in enumerate(("ours", "sentence-transformers")):
      seconds = statistics.median(x[number][kind] for x in rounds)
      print(f"{name}: {len(lines) / seconds:.0f} sentences a {unit}")
    ratios = sorted(theirs[kind] / ours[kind] for ours, theirs in rounds)
    print(
      f"sentence-transformers takes {statistics.median(ratios):.2f} times as "
      f"long ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    )


def start(context, make, options, lines):
  """Starts an engine in a process; returns the pipe to it."""
  ours, theirs = context.Pipe()
  arguments = (make, options, lines, theirs)
  context.Process(target=serve, args=arguments, daemon=True).start()
  return ours


def serve(make, options, lines, pipe):
  """Runs once, sends the vectors, then takes turns until nobody asks."""
  run = make(options, lines)
  pipe.send(run())
  with contextlib.suppress(EOFError):
    while pipe.recv():
      begin = time.monotonic(), time.process_time()
      run()
      pipe.send((time.monotonic() - begin[0], time.process_time() - begin[1]))


def take_turn(pipe):
  """Seconds of one engine while the other waits, of clock and processor."""
  pipe.send("go")
  return pipe.recv()


def make_ours(options, lines):
  """Function without arguments that gives the vectors."""
  del lines
  start_module.load_tensorflow()
  import tensorflow as tf

  from bert_keras3.training import devices

  tf.config.threading.set_intra_op_parallelism_threads(options.num_threads)
  tf.config.threading.set_inter_op_parallelism_threads(options.num_threads)
  config = extract_features.FeatureConfig(
    input_file=options.input_file,
    output_file=f"{tempfile.mkdtemp()}/vectors.npz",
    init_checkpoint=options.model_dir,
    layers="-1",
    max_seq_length=MAX_SEQ_LENGTH,
    batch_size=BATCH_SIZE,
    output_format="npz",
    pooling="mean",
    normalize=True,
  )
  extractor = feature_extraction.FeatureExtractor(
    config, devices.DeviceConfig()
  )

  def run():
    extract_features.write_features(config, extractor)
    return np.load(config.output_file)["embeddings"][:, 0]

  return run


def make_theirs(options, lines):
  """The same of sentence-transformers."""
  import sentence_transformers
  import torch

  torch.set_num_threads(options.num_threads)
  model = sentence_transformers.SentenceTransformer(
    options.model_dir, device="cpu"
  )
  return lambda: model.encode(
    lines, batch_size=BATCH_SIZE, normalize_embeddings=True
  )


def compare_writing():
  """Prints nanoseconds per number that becomes JSON."""
  values = np.random.default_rng(0).normal(size=[500, 768]).astype(np.float32)
  ways = {
    "ours": lambda: feature_files.format_rows(values),
    "upstream's": lambda: [
      json.dumps([round(float(x), 6) for x in row.flat]) for row in values
    ],
  }
  for way in ways.values():
    way()
  rounds = [[timed(way) for way in ways.values()] for _ in range(5)]
  for number, name in enumerate(ways):
    seconds = statistics.median(x[number] for x in rounds)
    print(f"JSON, {name} way: {1e9 * seconds / values.size:.0f} ns a number")


def timed(function):
  """Seconds of the processor that a call takes."""
  begin = time.process_time()
  function()
  return time.process_time() - begin


def compare_memory(options, pooling):
  """Prints the peak memory of a run on few lines and of one on many."""
  with tempfile.TemporaryDirectory() as folder:
    make_tiny_model(options.model_dir, folder)
    for num_lines in NUM_LINES:
      with open(f"{folder}/lines.txt", "w") as writer:
        writer.writelines(
          f"line {i} is a short one\n" for i in range(num_lines)
        )
      for output_format in ("jsonl", "npz"):
        peak = peak_megabytes(
          f"--input_file={folder}/lines.txt",
          f"--output_file={folder}/features",
          f"--init_checkpoint={folder}",
          "--layers=-1,-2",
          f"--pooling={pooling}",
          f"--output_format={output_format}",
        )
        size = os.path.getsize(f"{folder}/features") / 2**20
        print(
          f"{num_lines} lines, pooling {pooling}, {output_format}: "
          f"{peak:.0f} MB at most, the file has {size:.0f} MB"
        )


def make_tiny_model(model_dir, folder):
  """Random weights for the vocabulary of a model, in a process of its own."""
  program = (
    "import sys, shutil, modeling;"
    "from bert_keras3.weights import checkpoints;"
    f"model_dir, folder = {model_dir!r}, {folder!r};"
    "shutil.copy(f'{model_dir}/vocab.txt', folder);"
    "size = len(open(f'{folder}/vocab.txt').readlines());"
    f"config = modeling.BertConfig(size, **{TINY!r});"
    "open(f'{folder}/bert_config.json', 'w').write(config.to_json_string());"
    "variables = modeling.named_variables(modeling.BertModel(config));"
    "checkpoints.save(f'{folder}/bert_model.ckpt', variables)"
  )
  subprocess.run(
    [sys.executable, "-c", program],
    check=True,
    cwd=ROOT,
    stderr=subprocess.DEVNULL,
  )


def peak_megabytes(*args):
  """The most memory that a run of the script takes."""
  script = str(ROOT / "extract_features.py")
  process = subprocess.Popen(
    [sys.executable, script, *args], stdout=subprocess.DEVNULL
  )
  _, status, usage = os.wait4(process.pid, 0)
  if status:
    sys.exit("extract_features.py failed")
  return usage.ru_maxrss / 1024


if __name__ == "__main__":
  main()
