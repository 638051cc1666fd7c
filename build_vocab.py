"""Learns a WordPiece vocabulary for `tokenization.py` from text.

    python build_vocab.py --input_file=text.txt --output_file=vocab.txt

Words are made by `tokenization.BasicTokenizer`, so the vocabulary fits the
words that the tokenizer will look up: it has pieces for every word it was
learnt from. Pieces are learnt by the `tokenizers` package, which joins the most
frequent pair of pieces repeatedly until the vocabulary is full.

The same text and flags give the same file, byte by byte.
"""

import collections
import dataclasses
import os
import sys
import time

import tokenizers
import tqdm

import tokenization
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.data import files

# Google-research/bert's vocabularies begin like this, [unusedN] after [PAD].
_PADDING = "[PAD]"
_OTHER_SPECIAL_TOKENS = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]

# The tokenizer gives up on longer words anyway.
_MAX_WORD_CHARS = 200

# The trainer gets a word as often as it occurs, this many times at once.
_REPEATS = 1000


@dataclasses.dataclass(frozen=True)
class VocabConfig(fields.Config):
  """Holds the flags: text to learn from, size of the vocabulary."""

  input_file: str | None = fields.flag(
    None,
    "UTF-8 text to learn from: comma-separated files or patterns.",
    is_required=True,
  )
  output_file: str | None = fields.flag(
    None, "The vocabulary to write, one token a line.", is_required=True
  )
  vocab_size: int = fields.flag(
    30522,  # of the published English models
    "The most entries to write, special tokens included.",
    lower_bound=1,
  )
  do_lower_case: bool = fields.flag(
    True, "Whether text is lower-cased; models need the same value later."
  )
  num_unused_tokens: int = fields.flag(
    0,
    "Entries [unused0], [unused1]... to reserve for words added later.",
    lower_bound=0,
  )
  min_frequency: int = fields.flag(
    2,
    "How often a piece must occur to be learnt; single characters always are.",
    lower_bound=1,
  )
  limit_alphabet: int = fields.flag(
    1000,  # enough for texts without ideographs; the tokenizers package's too
    "How many different characters to keep, the most frequent ones. A word"
    " with another one becomes [UNK]. Chinese needs several thousand.",
    lower_bound=1,
  )


def main(config):
  """Learns the vocabulary that the flags ask for and prints its numbers."""
  started = time.monotonic()
  # A file that two patterns match is counted once.
  input_files = list(
    dict.fromkeys(files.find_files("input_file", config.input_file))
  )
  files.check_output_files("output_file", [config.output_file], input_files)

  counts, num_lines = count_words(input_files, config.do_lower_case)
  tokens, num_unknown = learn_vocab(
    counts,
    vocab_size=config.vocab_size,
    num_unused_tokens=config.num_unused_tokens,
    min_frequency=config.min_frequency,
    limit_alphabet=config.limit_alphabet,
  )
  write_vocab(config.output_file, tokens)

  num_words = counts.total()
  seconds = time.monotonic() - started
  print(
    f"{num_lines} lines, {num_words} words, {len(counts)} distinct:"
    f" {len(tokens)} tokens written to {config.output_file} in {seconds:.1f} s."
    f" {num_unknown / num_words:.2%} of the words are [UNK]."
  )
  if len(tokens) < config.vocab_size:
    print(
      f"No other piece occurs {config.min_frequency} times:"
      f" set vocab_size to {len(tokens)} in the model's bert_config.json."
    )


# Files ------------------------------------------------------------------------


def write_vocab(output_file, tokens):
  """Writes one token a line: the whole file or, if interrupted, nothing."""
  files.write_atomically(output_file, "".join(f"{x}\n" for x in tokens))


# Learning ---------------------------------------------------------------------


def count_words(input_files, do_lower_case):
  """Counts the words of all files.

  Returns:
    A `collections.Counter` of words, as `BasicTokenizer` makes them, and the
    number of lines.

  Raises:
    ValueError: a line is not UTF-8, or no file has a word.
  """
  tokenize = tokenization.BasicTokenizer(do_lower_case).tokenize
  counts = collections.Counter()
  num_lines = 0
  with tqdm.tqdm(
    desc="counting words",
    total=sum(map(os.path.getsize, input_files)),
    unit="B",
    unit_scale=True,
    disable=None,  # unless stderr is a terminal
  ) as bar:
    for path in input_files:
      for line in tokenization.read_lines(path):
        counts.update(tokenize(line))
        num_lines += 1
        bar.update(len(line.encode()) + 1)
  if not counts:
    raise ValueError(
      f"--input_file: no words in {', '.join(input_files)}; is it the right"
      " file?"
    )
  return counts, num_lines


def learn_vocab(
  counts, *, vocab_size, num_unused_tokens, min_frequency, limit_alphabet
):
  """Learns the pieces of words that are frequent in `counts`.

  Args:
    counts: mapping from word to how often it occurs.
    vocab_size: the most entries, special tokens included.
    num_unused_tokens: number of `[unusedN]` entries.
    min_frequency: how often a piece must occur to be learnt.
    limit_alphabet: how many different characters to keep.

  Returns:
    The tokens in the order of their ids, and how many of the counted words,
    repetitions included, cannot be written with them.

  Raises:
    ValueError: `vocab_size` has no room for special tokens and characters.
  """
  alphabet = _most_frequent_characters(counts, limit_alphabet)
  known = {
    word: count
    for word, count in counts.items()
    if len(word) <= _MAX_WORD_CHARS and alphabet.issuperset(word)
  }
  inside = set().union(*(word[1:] for word in known))
  unused = [f"[unused{number}]" for number in range(num_unused_tokens)]
  tokens = [
    _PADDING,
    *unused,
    *_OTHER_SPECIAL_TOKENS,
    *sorted(alphabet),
    *(f"##{char}" for char in sorted(inside)),
  ]
  if len(tokens) > vocab_size:
    raise ValueError(
      f"--vocab_size={vocab_size} is too small for {5 + len(unused)} special"
      f" tokens and the pieces of {len(alphabet)} characters; pass"
      f" {len(tokens)} or more, or lower --limit_alphabet={limit_alphabet}"
    )
  tokens = _grow(tokens, known, vocab_size, min_frequency)
  return tokens, sum(counts.values()) - sum(known.values())


def _most_frequent_characters(counts, limit):
  frequencies = collections.Counter()
  for word, count in counts.items():
    for char in word:
      frequencies[char] += count
  # Ties go to the smaller code point.
  ranked = sorted(frequencies, key=lambda char: (-frequencies[char], char))
  return set(ranked[:limit])


def _grow(tokens, counts, vocab_size, min_frequency):
  """Returns `tokens`, which has every single character, with pieces added.

  By default the trainer numbers characters in the order of a hash table, and of
  equally frequent pairs joins the one with smaller numbers first: each run has
  another vocabulary. As "special" tokens the characters have fixed numbers.
  """
  learner = tokenizers.Tokenizer(tokenizers.models.WordPiece())
  learner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  trainer = tokenizers.trainers.WordPieceTrainer(
    vocab_size=vocab_size,
    min_frequency=min_frequency,
    special_tokens=tokens,
    continuing_subword_prefix="##",
    show_progress=sys.stderr.isatty(),
  )
  learner.train_from_iterator(_repeat(counts), trainer)
  ids = learner.get_vocab(with_added_tokens=False)
  return sorted(ids, key=ids.get)


def _repeat(counts):
  for word, count in counts.items():
    for first in range(0, count, _REPEATS):
      yield f"{word} " * min(_REPEATS, count - first)


def cli():
  """Runs the console script."""
  start.run(main, VocabConfig)


if __name__ == "__main__":
  cli()
