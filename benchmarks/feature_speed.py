"""Times sentence vectors against sentence-transformers, and weighs them.

    python -m benchmarks.feature_speed --model_dir=MINILM \
      --input_file=lines.txt [--num_threads=1]

Sentence vectors: in turns, a process each; ours from the lines of a file to a
file of arrays, theirs from a list to an array. Numbers as JSON: ours against
upstream's way, in one process. Memory: peaks of whole runs of a tiny model on
few and on many short lines. Needs the `bench` extra and sentence-transformers.
"""

import argparse
import functools
import json
import multiprocessing
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np

import extract_features
import tokenization
from benchmarks import in_turns
from bert_keras3.console import start
from bert_keras3.tasks import feature_files

ROOT = pathlib.Path(__file__).resolve().parent.parent
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
  """Returns the options of the command line."""
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
  with tempfile.TemporaryDirectory() as folder:
    engines = {
      "ours": in_turns.Remote(Ours, options, folder),
      "sentence-transformers": in_turns.Remote(Theirs, options, lines),
    }
    ours, theirs = (x.call("compute") for x in engines.values())
    difference = np.abs(ours - theirs).max()
    print(f"largest difference of two numbers: {difference:.1g}")
    turns = {
      name: functools.partial(engine.time, "compute")
      for name, engine in engines.items()
    }
    rounds = [in_turns.take_round(turns) for _ in range(options.rounds)]
  print(in_turns.describe_machine())
  for kind, unit in enumerate(("second", "second of the processor")):
    of_kind = [{x: y[kind] for x, y in both.items()} for both in rounds]
    for name in engines:
      seconds = statistics.median(in_turns.values_of(of_kind, name))
      print(f"{name}: {len(lines) / seconds:.0f} sentences a {unit}")
    ratios = in_turns.ratios(of_kind, "sentence-transformers", "ours")
    spread = in_turns.spread(ratios, digits=2)
    print(f"sentence-transformers takes {spread} times as long")


class Ours:
  """Writes vectors as extract_features does, and reads them."""

  def __init__(self, options, folder):
    start.load_tensorflow()
    # They cost TensorFlow, which has no place in the process of the peer.
    import tensorflow as tf

    from bert_keras3.tasks import feature_extraction

    tf.config.threading.set_intra_op_parallelism_threads(options.num_threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.num_threads)
    self._config = extract_features.FeatureConfig(
      input_file=options.input_file,
      output_file=f"{folder}/vectors.npz",
      init_checkpoint=options.model_dir,
      layers="-1",
      max_seq_length=MAX_SEQ_LENGTH,
      batch_size=BATCH_SIZE,
      output_format="npz",
      pooling="mean",
      normalize=True,
    )
    self._extractor = feature_extraction.FeatureExtractor(self._config)

  def compute(self):
    """Returns float32 [lines, width]."""
    extract_features.write_features(self._config, self._extractor)
    return np.load(self._config.output_file)["embeddings"][:, 0]


class Theirs:
  """Computes vectors with sentence-transformers."""

  def __init__(self, options, lines):
    # They cost PyTorch, which has no place in our process.
    import sentence_transformers
    import torch

    torch.set_num_threads(options.num_threads)
    self._model = sentence_transformers.SentenceTransformer(
      options.model_dir, device="cpu"
    )
    self._lines = lines

  def compute(self):
    """Returns float32 [lines, width]."""
    return self._model.encode(
      self._lines, batch_size=BATCH_SIZE, normalize_embeddings=True
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
  turns = {x: functools.partial(in_turns.seconds, ways[x]) for x in ways}
  in_turns.take_round(turns)  # First calls.
  rounds = [in_turns.take_round(turns) for _ in range(5)]
  for name in ways:
    seconds = in_turns.values_of(rounds, name)
    spread = in_turns.spread([1e9 * x / values.size for x in seconds], digits=0)
    print(f"JSON, {name} way: {spread} ns a number")


def compare_memory(options, pooling):
  """Prints the peak memory of a run on few lines and of one on many."""
  with tempfile.TemporaryDirectory() as folder:
    # In a process of its own: a child's peak is never below its parent's size.
    args = (options.model_dir, folder)
    context = multiprocessing.get_context("spawn")
    maker = context.Process(target=make_tiny_model, args=args)
    maker.start()
    maker.join()
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
  """Saves random weights for the vocabulary of a model."""
  start.load_tensorflow()
  # They cost TensorFlow, whose memory the caller does without.
  import modeling
  from bert_keras3.weights import checkpoints

  vocab_file = shutil.copy(f"{model_dir}/vocab.txt", folder)
  vocab_size = len(tokenization.load_vocab(vocab_file))
  config = modeling.BertConfig(vocab_size, **TINY)
  path = pathlib.Path(folder) / "bert_config.json"
  path.write_text(config.to_json_string())
  variables = modeling.named_variables(modeling.BertModel(config))
  checkpoints.save(f"{folder}/bert_model.ckpt", variables)


def peak_megabytes(*args):
  """Runs extract_features; returns the most memory that it took."""
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
