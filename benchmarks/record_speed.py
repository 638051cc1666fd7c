"""Pretraining data: ours against upstream's algorithm, whole jobs in turns.

    python -m benchmarks.record_speed [--vocab=vocab.txt] [FILES...]

Both sides tokenize, cut into pairs, mask, serialize and write, 128 tokens and
ten times over, in one process; TensorFlow is imported before. The reference is
tests/reference_*.py, plain Python with upstream's algorithm and cost, and
`tf.train.Example`. Without FILES the text is the manual in Python's pydoc.
"""

import argparse
import collections
import contextlib
import functools
import io
import os
import pathlib
import pydoc_data.topics
import re
import statistics
import tempfile
import tracemalloc

import tensorflow as tf

import create_pretraining_data
import tokenization
from benchmarks import in_turns
from bert_keras3.data import pretraining_instances
from tests import reference_pretraining_data
from tests import reference_tokenization


def main():
  """Prints medians of both sides and their ratio."""
  options = parse_options()
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    files = options.files or [write_manual(folder / "manual.txt")]
    vocab = options.vocab or write_vocab(folder / "vocab.txt", files)
    sides = {"ours": run_ours, "reference": run_reference}
    report_speed(sides, options.rounds, files, vocab, folder / "records")
    if options.memory:
      report_memory(sides, files, vocab)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("files", nargs="*", help="UTF-8 text files")
  parser.add_argument("--vocab", help="a vocabulary; default: built from FILES")
  parser.add_argument("--rounds", type=int, default=9)
  parser.add_argument(
    "--memory", action="store_true", help="also measure the peak of memory"
  )
  return parser.parse_args()


def write_manual(path):
  """Writes Python's manual, one topic a document, one line a sentence."""
  topics = pydoc_data.topics.topics.values()
  lines = (re.sub(r"\n\s*\n", "\n", topic.strip()) for topic in topics)
  path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
  return str(path)


def write_vocab(path, files):
  """Writes a vocabulary of the text's characters and frequent words."""
  words = collections.Counter()
  for file in files:
    text = pathlib.Path(file).read_text(encoding="utf-8")
    words.update(reference_tokenization.basic(text, do_lower_case=True))
  characters = sorted({char for word in words for char in word})
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  tokens += characters + [f"##{char}" for char in characters]
  tokens += [word for word, _ in words.most_common(20000) if len(word) > 1]
  path.write_text("\n".join(tokens), encoding="utf-8")
  return str(path)


def run_ours(files, vocab, output):
  """Returns how many instances were written, or only made without `output`."""
  with contextlib.redirect_stderr(io.StringIO()):
    tokenizer = tokenization.FullTokenizer(vocab)
    documents = pretraining_instances.read_documents(files, tokenizer)
    instances = pretraining_instances.create_training_instances(
      documents, tokenizer, pretraining_instances.DataConfig()
    )
    if output:
      create_pretraining_data.write_instance_to_example_files(
        instances, [f"{output}.ours"]
      )
  return len(instances)


class SlowTokenizer:
  """reference_tokenization behind the interface of upstream's tokenizer."""

  def __init__(self, vocab_file):
    self.vocab = tokenization.load_vocab(vocab_file)

  def tokenize(self, text):
    """Returns the tokens of `text`."""
    return reference_tokenization.tokenize(text, self.vocab, True)


def run_reference(files, vocab, output):
  """Returns how many instances were written, or only made without `output`."""
  tokenizer = SlowTokenizer(vocab)
  options = reference_pretraining_data.DEFAULTS
  documents = reference_pretraining_data.read_documents(files, tokenizer)
  instances = reference_pretraining_data.create_instances(
    documents, list(tokenizer.vocab), options
  )
  if output:
    with tf.io.TFRecordWriter(f"{output}.reference") as writer:
      for instance in instances:
        features = reference_pretraining_data.features(
          instance, tokenizer.vocab, options
        )
        writer.write(to_example(features).SerializeToString())
  return len(instances)


def to_example(features):
  """Returns a tf.train.Example, made as upstream makes it."""
  protos = {}
  for name, values in features.items():
    if isinstance(values[0], float):
      values = tf.train.FloatList(value=values)
      protos[name] = tf.train.Feature(float_list=values)
    else:
      values = tf.train.Int64List(value=values)
      protos[name] = tf.train.Feature(int64_list=values)
  return tf.train.Example(features=tf.train.Features(feature=protos))


def report_speed(sides, num_rounds, files, vocab, output):
  """Runs the sides in turns and prints medians, ranges and the ratio."""
  turns = {
    name: functools.partial(in_turns.seconds, run, files, vocab, output)
    for name, run in sides.items()
  }
  instances = run_ours(files, vocab, None)
  megabytes = sum(map(os.path.getsize, files)) / 1e6
  print(
    f"{megabytes:.2f} MB of text, {instances} instances, {num_rounds} rounds,"
    f" {in_turns.describe_machine()}"
  )
  rounds = [in_turns.take_round(turns) for _ in range(num_rounds)]
  for name in sides:
    seconds = in_turns.values_of(rounds, name)
    speed = instances / statistics.median(seconds)
    spread = in_turns.spread(seconds, digits=3)
    print(f"{name:>10}: {speed:9.0f} instances/s, {spread} s of processor time")
  ratios = in_turns.ratios(rounds, "reference", "ours")
  print(f"ours is faster {in_turns.spread(ratios)} times")


def report_memory(sides, files, vocab):
  """Prints the most memory either side holds while it makes instances."""
  for name, run in sides.items():
    tracemalloc.start()
    run(files, vocab, None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    times = peak / sum(map(os.path.getsize, files))
    print(f"{name:>10}: {peak / 1e6:9.1f} MB at most, {times:.1f} x the text")


if __name__ == "__main__":
  main()
