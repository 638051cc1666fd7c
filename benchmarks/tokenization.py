"""Tokenization: ours against upstream's algorithm and the tokenizers package.

    python benchmarks/tokenization.py [--vocab=vocab.txt] [FILES...]

Lines in, lists of ids out, lower-cased, one process and one thread, 20,000
lines in turns: what slows the machine for a while slows all sides. Seconds are
the processor's. Ours starts each round anew, with an empty memo ("cold");
"warm" is the same tokenizer over the same lines once more. The reference is
tests/reference_tokenization.py, plain Python with upstream's algorithm (12 %
faster than upstream's own code). Without FILES the text is the manual in
Python's pydoc, without --vocab a vocabulary is learnt from the text.
"""

import os

# The tokenizers package reads both when it is first used.
os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import collections  # noqa: E402
import gc  # noqa: E402
import pathlib  # noqa: E402
import pydoc_data.topics  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

import tokenizers  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parent.parent
# This folder has files of the same names as the modules.
sys.path[:1] = [str(ROOT), str(ROOT / "tests")]

import build_vocab  # noqa: E402
import reference_tokenization  # noqa: E402
import tokenization  # noqa: E402

ROUNDS = 5
LINES_PER_TURN = 20000
# The tokenizers package is fastest on a list; it keeps much of every line.
LINES_PER_LIST = 1000


def main(arguments):
  """Prints how often all sides agree, their medians and the ratios."""
  files = [x for x in arguments if not x.startswith("--vocab=")]
  vocabs = [x.split("=", 1)[1] for x in arguments if x.startswith("--vocab=")]
  with tempfile.TemporaryDirectory() as folder:
    files = files or [write_manual(os.path.join(folder, "manual.txt"))]
    vocabs = vocabs or [learn_vocab(os.path.join(folder, "vocab.txt"), files)]
    lines = [line for path in files for line in tokenization.read_lines(path)]
    report_agreement(lines, vocabs[-1])
    report_speed(lines, vocabs[-1])


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
    f" Python {sys.version.split()[0]}, tokenizers {tokenizers.__version__}"
  )
  rounds = [measure(lines, vocab) for _ in range(ROUNDS)]
  for name in rounds[0]:
    speeds = [megabytes / seconds[name] for seconds in rounds]
    print(
      f"{name:10} {statistics.median(speeds):6.2f} MB/s"
      f" ({min(speeds):.2f} to {max(speeds):.2f})"
    )
  for ours in ("ours, cold", "ours, warm"):
    for peer in ("reference", "tokenizers"):
      ratios = [seconds[peer] / seconds[ours] for seconds in rounds]
      print(
        f"{ours} / {peer}: {statistics.median(ratios):.1f}"
        f" ({min(ratios):.1f} to {max(ratios):.1f})"
      )


def measure(lines, vocab):
  """Returns the seconds that each side takes for all lines."""
  ours = make_ours(vocab)
  cold = {
    "reference": make_reference(vocab),
    "tokenizers": make_tokenizers(vocab),
    "ours, cold": ours,
  }
  seconds = collections.Counter()
  for sides in (cold, {"ours, warm": ours}):
    gc.collect()
    for turn in slices(lines, LINES_PER_TURN):
      for name, encode in sides.items():
        started = time.process_time()
        for _ in encode(turn):
          pass
        seconds[name] += time.process_time() - started
  return seconds


def slices(lines, size):
  """Yields `size` lines at a time."""
  for start in range(0, len(lines), size):
    yield lines[start : start + size]


if __name__ == "__main__":
  main(sys.argv[1:])
