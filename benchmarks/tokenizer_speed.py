"""Tokenization: ours against upstream's algorithm and the tokenizers package.

    python -m benchmarks.tokenizer_speed [--vocab=vocab.txt] [FILES...]

Lines in, lists of ids out, lower-cased, one process and one thread, 20,000
lines in turns. Seconds are the processor's. Ours starts each round anew, with
an empty memo ("cold"); "warm" is the same tokenizer over the same lines once
more. The reference is tests/reference_tokenization.py, plain Python with
upstream's algorithm (12 % faster than upstream's own code). Without FILES the
text is the manual in Python's pydoc, without --vocab a vocabulary is learnt
from the text.
"""

import os

# The tokenizers package reads both when it is first used.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse  # noqa: E402
import pathlib  # noqa: E402
import pydoc_data.topics  # noqa: E402
import tempfile  # noqa: E402

import tokenizers  # noqa: E402

import build_vocab  # noqa: E402
import tokenization  # noqa: E402
from benchmarks import in_turns  # noqa: E402
from tests import reference_tokenization  # noqa: E402

ROUNDS = 5
LINES_PER_TURN = 20000
# The tokenizers package is fastest on a list; it keeps much of every line.
LINES_PER_LIST = 1000


def main():
  """Prints how often all sides agree, their medians and the ratios."""
  options = parse_options()
  with tempfile.TemporaryDirectory() as folder:
    files = options.files or [write_manual(os.path.join(folder, "manual.txt"))]
    vocab = options.vocab or learn_vocab(f"{folder}/vocab.txt", files)
    lines = [line for path in files for line in tokenization.read_lines(path)]
    report_agreement(lines, vocab)
    report_speed(lines, vocab)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("files", nargs="*", help="UTF-8 text files")
  parser.add_argument("--vocab", help="a vocabulary; default: built from FILES")
  return parser.parse_args()


def write_manual(path):
  """Writes the manual that comes with Python."""
  topics = pydoc_data.topics.topics
  text = "\n\n".join(topics[name].strip() for name in sorted(topics))
  pathlib.Path(path).write_text(text, encoding="utf-8")
  return path


def learn_vocab(path, files):
  """Learns a vocabulary as build_vocab.py does by default."""
  counts, _ = build_vocab.count_words(files, do_lower_case=True)
  tokens, _ = build_vocab.learn_vocab(
    counts,
    vocab_size=30522,
    num_unused_tokens=0,
    min_frequency=2,
    limit_alphabet=1000,
  )
  build_vocab.write_vocab(path, tokens)
  return path


# Each makes a function that yields the ids of each of many lines.


def make_ours(vocab):
  """Ours."""
  encode = tokenization.FullTokenizer(vocab).encode
  return lambda lines: map(encode, lines)


def make_reference(vocab):
  """Upstream's algorithm."""
  ids = tokenization.load_vocab(vocab)
  encode = reference_tokenization.encode
  return lambda lines: (encode(line, ids, True) for line in lines)


def make_tokenizers(vocab):
  """The tokenizers package."""
  tokenizer = tokenizers.BertWordPieceTokenizer(vocab, lowercase=True)

  def encode(lines):
    for some in slices(lines, LINES_PER_LIST):
      for encoding in tokenizer.encode_batch(some, add_special_tokens=False):
        yield encoding.ids

  return encode


def report_agreement(lines, vocab):
  """Prints on how many lines the others equal the reference."""
  makers = (make_ours, make_reference, make_tokenizers)
  ours, reference, peer = (list(make(vocab)(lines)) for make in makers)
  for name, ids in (("ours", ours), ("tokenizers", peer)):
    equal = sum(a == b for a, b in zip(ids, reference, strict=True))
    print(f"{name} equals the reference on {equal} of {len(lines)} lines")


def report_speed(lines, vocab):
  """Prints medians of all rounds, and of the rounds' ratios."""
  megabytes = sum(len(line.encode()) for line in lines) / 1e6
  print(
    f"{megabytes:.2f} MB, {ROUNDS} rounds in turns, one thread each,"
    f" tokenizers {tokenizers.__version__}, {in_turns.describe_machine()}"
  )
  rounds = [measure(lines, vocab) for _ in range(ROUNDS)]
  for name in rounds[0]:
    speeds = [megabytes / x for x in in_turns.values_of(rounds, name)]
    print(f"{name:10} {in_turns.spread(speeds, digits=2)} MB/s")
  for ours in ("ours, cold", "ours, warm"):
    for peer in ("reference", "tokenizers"):
      ratios = in_turns.ratios(rounds, peer, ours)
      print(f"{ours} / {peer}: {in_turns.spread(ratios)}")


def measure(lines, vocab):
  """Returns the seconds that each side takes for all lines."""
  ours = make_ours(vocab)
  cold = {
    "reference": make_reference(vocab),
    "tokenizers": make_tokenizers(vocab),
    "ours, cold": ours,
  }
  seconds = {}
  for sides in (cold, {"ours, warm": ours}):
    readers = {name: reader(encode) for name, encode in sides.items()}
    turns = slices(lines, LINES_PER_TURN)
    seconds.update(in_turns.time_pieces(readers, turns))
  return seconds


def reader(encode):
  """Returns a function that reads all that `encode` yields of lines."""

  def read(lines):
    for _ in encode(lines):
      pass

  return read


def slices(lines, size):
  """Yields `size` lines at a time."""
  for start in range(0, len(lines), size):
    yield lines[start : start + size]


if __name__ == "__main__":
  main()
