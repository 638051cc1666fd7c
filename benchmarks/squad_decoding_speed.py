"""SQuAD's decoding: ours against upstream's loops, in turns.

    python -m benchmarks.squad_decoding_speed --predict_file=dev-v1.1.json \
      --vocab_file=vocab.txt [--version_2_with_negative] [--noise]
      [--logits=logits.npz]

From logits to predictions, n-best lists and null odds of all questions: search
for spans, n best, alignment of texts; without reading, tokenizing and writing.
Each side gets logits and windows in the form it works on. The reference is
tests/reference_squad.py, plain Python with upstream's algorithm and cost. Both
sides must give the same results, or no ratio is printed. Questions on texts
with long words of unspaced scripts, where we differ on purpose
(docs/differences.md), may have others and are counted. Seconds are the
processor's.

Without --logits, the logits are made up, with a seed: noise, lower in padding,
on top of which each window has a few answers whose first and last tokens stand
out, and their neighbours less; every third window has one at [CLS]. --noise
leaves these out.
"""

import argparse
import functools
import gc
import math
import sys

import numpy as np

import tokenization
from benchmarks import in_turns
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from tests import reference_squad

SEED = 1
# Noise of a trained model's logits: where nothing is, how it spreads, and how
# much lower it is in padding.
NOISE_MEAN, NOISE_DEVIATION, PADDING_DEPTH = -6, 1.5, 10
# Candidates for an answer in a window, how much the tokens at their bounds
# stand out, and how many tokens further that has fallen to a third.
PEAKS, LOWEST_PEAK, HIGHEST_PEAK, PEAK_WIDTH = 5, 2, 12, 1.5
MEAN_ANSWER_TOKENS = 4
# Sums of exponentials are NumPy's on one side and Python's on the other.
TOLERANCE = 1e-12


def main():
  """Prints whether both sides agree, their medians and the ratio."""
  options = parse_options()
  tokenizer = tokenization.FullTokenizer(
    options.vocab_file, options.do_lower_case
  )
  examples, windows = load(options, tokenizer)
  logits = read_logits(options, windows)
  config = squad_decoding.DecodingConfig(
    do_lower_case=options.do_lower_case,
    version_2_with_negative=options.version_2_with_negative,
  )
  by_example = reference_squad.features_by_example(windows, tokenizer.inv_vocab)
  lists = [values.astype(np.float64).tolist() for values in logits]
  sides = {
    "ours": lambda: run_ours(examples, windows, logits, tokenizer, config),
    "reference": lambda: reference_squad.decode(
      examples, by_example, *lists, config
    ),
  }
  # What was made so far, mostly for the reference, is no garbage for either
  # side to look through.
  gc.collect()
  gc.freeze()
  print(
    f"{len(examples)} questions, {len(windows)} windows,"
    f" {in_turns.describe_machine()}",
    flush=True,
  )
  report_speed(sides, options.rounds, examples)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--predict_file", required=True, help="SQuAD's JSON")
  parser.add_argument("--vocab_file", required=True)
  parser.add_argument(
    "--do_lower_case", action=argparse.BooleanOptionalAction, default=True
  )
  parser.add_argument("--max_seq_length", type=int, default=384)
  parser.add_argument("--doc_stride", type=int, default=128)
  parser.add_argument("--max_query_length", type=int, default=64)
  parser.add_argument("--version_2_with_negative", action="store_true")
  source = parser.add_mutually_exclusive_group()
  source.add_argument(
    "--logits", help=".npz with start_logits and end_logits [windows, columns]"
  )
  source.add_argument(
    "--noise", action="store_true", help="random logits without any answers"
  )
  parser.add_argument("--rounds", type=int, default=3)
  return parser.parse_args()


def load(options, tokenizer):
  """Returns the questions and their windows."""
  examples = squad_data.read_squad_examples(
    options.predict_file, is_training=False
  )
  windows = squad_data.make_windows(
    examples,
    tokenizer,
    options.max_seq_length,
    options.doc_stride,
    options.max_query_length,
    is_training=False,
  )
  return examples, windows


def read_logits(options, windows):
  """Returns floats [windows, columns] of starts and of ends."""
  if options.logits:
    arrays = np.load(options.logits)
    return arrays["start_logits"], arrays["end_logits"]
  rng = np.random.default_rng(SEED)
  shape = [2, len(windows), options.max_seq_length]
  logits = rng.normal(NOISE_MEAN, NOISE_DEVIATION, shape).astype(np.float32)
  is_padding = np.arange(shape[2]) >= windows.sequences.lengths[:, np.newaxis]
  logits[:, is_padding] -= PADDING_DEPTH
  if not options.noise:
    add_peaks(logits, windows, rng)
  return tuple(logits)


def add_peaks(logits, windows, rng):
  """Adds likely answers to logits [2, windows, columns]."""
  columns = np.arange(logits.shape[2])
  for number, length in enumerate(windows.sequences.lengths.tolist()):
    # The document, without the [SEP] behind it.
    bounds = windows.first_doc_token[number], length - 1
    starts = rng.integers(*bounds, size=PEAKS)
    sizes = rng.geometric(1 / MEAN_ANSWER_TOKENS, size=PEAKS)
    ends = np.minimum(starts + sizes, length - 1) - 1
    heights = rng.uniform(LOWEST_PEAK, HIGHEST_PEAK, size=PEAKS)
    if number % 3 == 0:
      starts[0] = ends[0] = 0
    for side, places in enumerate((starts, ends)):
      distances = np.abs(columns - places[:, np.newaxis])
      peaks = heights[:, np.newaxis] * np.exp(-distances / PEAK_WIDTH)
      logits[side, number] += peaks.max(axis=0)


def run_ours(examples, windows, logits, tokenizer, config):
  """Returns predictions, n-best lists and null odds."""
  # A process decodes once, so that there is nothing to remember.
  squad_decoding._basic_tokenizer.cache_clear()
  decoded = squad_decoding.decode(examples, windows, *logits, tokenizer, config)
  return decoded.predictions, decoded.nbest, decoded.null_odds


def report_speed(sides, num_rounds, examples):
  """Runs the sides in turns and prints medians, ranges and the ratio."""
  results = {}

  def decode(name):
    results[name] = sides[name]()

  turns = {
    name: functools.partial(in_turns.seconds, decode, name) for name in sides
  }
  rounds = []
  for _ in range(num_rounds):
    rounds.append(in_turns.take_round(turns))
    report_differences(examples, results["ours"], results["reference"])
  for name in sides:
    spread = in_turns.spread(in_turns.values_of(rounds, name), digits=3)
    print(f"{name:>10}: {spread} s of processor time")
  ratios = in_turns.ratios(rounds, "reference", "ours")
  print(f"ours is faster {in_turns.spread(ratios)} times")


def report_differences(examples, ours, reference):
  """Prints on how many questions both agree; ends the program if on too few.

  Texts, logits and null odds must be the same, probabilities nearly.
  """
  differing = []
  for example in examples:
    (text, nbest, odds), (other_text, other_nbest, other_odds) = (
      [result.get(example.qas_id) for result in results]
      for results in (ours, reference)
    )
    if (text, odds) != (other_text, other_odds) or not is_same(
      nbest, other_nbest
    ):
      differing.append(example)
  wrong = [
    example.qas_id
    for example in differing
    if not any(map(squad_decoding._is_unspaced, example.doc_tokens))
  ]
  if wrong:
    sys.exit(f"the results of {len(wrong)} questions differ: {wrong[:3]} ...")
  num_equal = len(examples) - len(differing)
  print(f"equal results: {num_equal}, on purpose not: {len(differing)}")


def is_same(nbest, expected):
  """Whether two n-best lists of a question are the same."""
  return len(nbest) == len(expected) and all(
    math.isclose(
      entry["probability"], other["probability"], rel_tol=0, abs_tol=TOLERANCE
    )
    and {**entry, "probability": 0} == {**other, "probability": 0}
    for entry, other in zip(nbest, expected, strict=True)
  )


if __name__ == "__main__":
  main()
