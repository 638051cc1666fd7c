"""Tokenization in the graph, against the tokenizers package.

    python -m benchmarks.graph_tokenizer_speed --vocab_file=vocab.txt \\
      --input_file=text.txt [--cased] [--default_threads]

Batches of 1,024 lines in, ids out, in one process, in turns batch by batch. One
thread each, and for that the seconds are the processor's; with
--default_threads TensorFlow takes as many as it likes and seconds are the
clock's. The graph's batch goes in as a string tensor and comes out as a ragged
tensor of ids, the package's as lists of both. Blank lines are left out.
"""

import os

# The tokenizers package reads both when it is first used.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import argparse  # noqa: E402
import time  # noqa: E402

import tensorflow as tf  # noqa: E402
import tokenizers  # noqa: E402

import tokenization  # noqa: E402
from benchmarks import in_turns  # noqa: E402
from bert_keras3.serving import graph_tokenization  # noqa: E402

ROUNDS = 5
LINES_PER_BATCH = 1024


def main():
  """Prints how often both sides agree, their medians and the ratio."""
  options = parse_options()
  if not options.default_threads:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
  lines = list(tokenization.read_lines(options.input_file))
  lines = [line for line in lines if line.strip()]
  batches = [
    lines[start : start + LINES_PER_BATCH]
    for start in range(0, len(lines), LINES_PER_BATCH)
  ]
  sides = make_sides(options.vocab_file, not options.cased)
  report_agreement(batches, sides, options.vocab_file, not options.cased)
  clock = time.perf_counter if options.default_threads else time.process_time
  report_speed(batches, sides, clock)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--input_file", required=True)
  parser.add_argument("--vocab_file", required=True)
  parser.add_argument("--cased", action="store_true")
  parser.add_argument("--default_threads", action="store_true")
  return parser.parse_args()


def make_sides(vocab, do_lower_case):
  """Returns name to function of a pair: a batch as a tensor, and as a list."""
  graph = graph_tokenization.GraphTokenizer(vocab, do_lower_case)
  # As upstream's cased models: accents go with the capitals.
  peer = tokenizers.BertWordPieceTokenizer(vocab, lowercase=do_lower_case)

  def encode(batch):
    encodings = peer.encode_batch(batch[1], add_special_tokens=False)
    return [encoding.ids for encoding in encodings]

  # A method that is a tf.function does not keep its object alive.
  return {"graph": lambda batch: graph.tokenize(batch[0]), "tokenizers": encode}


def report_agreement(batches, sides, vocab, do_lower_case):
  """Prints on how many lines both equal `tokenization.py`."""
  exact = tokenization.FullTokenizer(vocab, do_lower_case)
  expected = [exact.encode(line) for batch in batches for line in batch]
  for name, tokenize in sides.items():
    ids = []
    for batch in batches:
      result = tokenize((tf.constant(batch), batch))
      ids += result if isinstance(result, list) else result.to_list()
    equal = sum(a == b for a, b in zip(ids, expected, strict=True))
    print(f"{name} equals tokenization.py on {equal} of {len(ids)} lines")


def report_speed(batches, sides, clock):
  """Prints medians of all rounds, and of the rounds' ratios."""
  megabytes = sum(len(x.encode()) for batch in batches for x in batch) / 1e6
  print(
    f"{megabytes:.2f} MB in {len(batches)} batches, {ROUNDS} rounds in turns,"
    f" TensorFlow {tf.__version__}, tokenizers {tokenizers.__version__},"
    f" {in_turns.describe_machine()}"
  )
  pairs = [(tf.constant(batch), batch) for batch in batches]
  rounds = [in_turns.time_pieces(sides, pairs, clock) for _ in range(ROUNDS)]
  for name in sides:
    speeds = [megabytes / x for x in in_turns.values_of(rounds, name)]
    print(f"{name:10} {in_turns.spread(speeds, digits=2)} MB/s")
  ratios = in_turns.ratios(rounds, "tokenizers", "graph")
  print(f"graph / tokenizers: {in_turns.spread(ratios)}")


if __name__ == "__main__":
  main()
