"""Tokenization in the graph, against the tokenizers package.

    python benchmarks/graph_tokenization.py --vocab_file=vocab.txt \\
      --input_file=text.txt [--cased] [--default_threads]

Batches of 1,024 lines in, ids out, in one process, in turns batch by batch:
what slows the machine for a while slows both sides. One thread each, and for
that the seconds are the processor's; with --default_threads TensorFlow takes
as many as it likes and seconds are the clock's. The graph's batch goes in as a
string tensor and comes out as a ragged tensor of ids, the package's as lists
of both. Blank lines are left out.
"""

import os

# The tokenizers package reads both when it is first used.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse  # noqa: E402
import pathlib  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import tensorflow as tf  # noqa: E402
import tokenizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
# This folder has files of the same names as the modules.
sys.path[:1] = [str(ROOT)]

import tokenization  # noqa: E402
from bert_keras3.serving import graph_tokenization  # noqa: E402

ROUNDS = 5
LINES_PER_BATCH = 1024


def main():
  """Prints how often both sides agree, their medians and the ratio."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--input_file", required=True)
  parser.add_argument("--vocab_file", required=True)
  parser.add_argument("--cased", action="store_true")
  parser.add_argument("--default_threads", action="store_true")
  arguments = parser.parse_args()
  if not arguments.default_threads:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
  lines = list(tokenization.read_lines(arguments.input_file))
  lines = [line for line in lines if line.strip()]
  batches = [
    lines[start : start + LINES_PER_BATCH]
    for start in range(0, len(lines), LINES_PER_BATCH)
  ]
  sides = make_sides(arguments.vocab_file, not arguments.cased)
  report_agreement(batches, sides, arguments.vocab_file, not arguments.cased)
  clock = time.perf_counter if arguments.default_threads else time.process_time
  report_speed(batches, sides, clock)


def make_sides(vocab, do_lower_case):
  """Returns name to (what prepares a batch, what tokenizes it)."""
  graph = graph_tokenization.GraphTokenizer(vocab, do_lower_case)
  # As upstream's cased models: accents go with the capitals.
  peer = tokenizers.BertWordPieceTokenizer(vocab, lowercase=do_lower_case)

  def encode(lines):
    encodings = peer.encode_batch(lines, add_special_tokens=False)
    return [encoding.ids for encoding in encodings]

  # A method that is a tf.function does not keep its object alive.
  in_graph = tf.constant, lambda texts: graph.tokenize(texts)
  return {"graph": in_graph, "tokenizers": (list, encode)}


def report_agreement(batches, sides, vocab, do_lower_case):
  """Prints on how many lines both equal `tokenization.py`."""
  exact = tokenization.FullTokenizer(vocab, do_lower_case)
  expected = [exact.encode(line) for batch in batches for line in batch]
  for name, (prepare, tokenize) in sides.items():
    ids = []
    for batch in batches:
      result = tokenize(prepare(batch))
      ids += result if isinstance(result, list) else result.to_list()
    equal = sum(a == b for a, b in zip(ids, expected, strict=True))
    print(f"{name} equals tokenization.py on {equal} of {len(ids)} lines")


def report_speed(batches, sides, clock):
  """Prints medians of all rounds, and of the rounds' ratios."""
  megabytes = sum(len(x.encode()) for batch in batches for x in batch) / 1e6
  print(
    f"{megabytes:.2f} MB in {len(batches)} batches, {ROUNDS} rounds in turns,"
    f" TensorFlow {tf.__version__}, tokenizers {tokenizers.__version__}"
  )
  rounds = [measure(batches, sides, clock) for _ in range(ROUNDS)]
  for name in sides:
    speeds = [megabytes / seconds[name] for seconds in rounds]
    print(
      f"{name:10} {statistics.median(speeds):6.2f} MB/s"
      f" ({min(speeds):.2f} to {max(speeds):.2f})"
    )
  ratios = [seconds["tokenizers"] / seconds["graph"] for seconds in rounds]
  print(
    f"graph / tokenizers: {statistics.median(ratios):.1f}"
    f" ({min(ratios):.1f} to {max(ratios):.1f})"
  )


def measure(batches, sides, clock):
  """Returns the seconds that each side takes for all batches."""
  seconds = dict.fromkeys(sides, 0)
  for batch in batches:
    for name, (prepare, tokenize) in sides.items():
      texts = prepare(batch)
      started = clock()
      tokenize(texts)
      seconds[name] += clock() - started
  return seconds


if __name__ == "__main__":
  main()
