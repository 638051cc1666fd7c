"""Passages of Python's manual, each labelled with the chapter it is from.

The topics that `help("with")` and its like print (`pydoc_data.topics`) are cut
from nine chapters, six of the Language Reference and three of the Library
Reference. A passage is as many consecutive sentences of a topic as the model
reads at once.

Every chapter is cut into contiguous parts, some of which are held out whole:
sentences drawn at random would leave the other half of an explanation to train
on. A sentence that topics repeat word for word is used once, or not at all if
it belongs to several chapters.
"""

import collections
import csv
import itertools
import pathlib
import re
from pydoc_data import topics

import manual_corpus

# Titles and order of the manual. Topics that are sections of these are not
# listed: "if", "for" and seven more are in "compound".
CHAPTERS = {
  "Lexical analysis": "identifiers strings numbers integers floating imaginary",
  "Data model": "objects types specialnames",
  "Execution model": "execmodel",
  "Expressions": (
    "conversions atom-identifiers atom-literals lists dict "
    "attribute-references subscriptions slicings calls await power unary "
    "binary shifting bitwise comparisons booleans assignment-expressions "
    "lambda exprlists operator-summary"
  ),
  "Simple statements": (
    "assert assignment pass del return yield raise break continue import "
    "global nonlocal"
  ),
  "Compound statements": "compound",
  "Built-in Types": (
    "truth typesseq string-methods typesmapping typesmodules typesfunctions "
    "typesmethods bltin-code-objects bltin-type-objects bltin-null-object "
    "bltin-ellipsis-object specialattrs"
  ),
  "Common string operations": "formatstrings",
  "The Python Debugger": "debugger",
}
PARTS = 20  # Of a chapter; the smallest has four sentences in each.
HELD_OUT_PARTS = {"dev": (4, 14), "test": (2, 7, 12, 17)}
SPLITS = ("train", *HELD_OUT_PARTS)
COLUMNS = ("text", "chapter")
MIN_TOKENS = 15  # Shorter remainders could be from anywhere.
HEADING = re.compile(r"^\S.*\n[*=\-~]{3,}$", re.MULTILINE)


def stretches(manual=topics.topics):
  """Yields (split, chapter, consecutive sentences of one topic).

  Args:
    manual: dict from the name of a topic to its text. Topics that this version
      of Python does not ship are passed over.
  """
  for chapter, rows in _distinct(_read_chapters(manual)).items():
    split_rows = [
      (_split_of_part(number * PARTS // len(rows)), topic, sentence)
      for number, (topic, sentence) in enumerate(rows)
    ]
    for key, group in itertools.groupby(split_rows, lambda row: row[:2]):
      yield key[0], chapter, [sentence for *_, sentence in group]


def held_out_wordings(manual=topics.topics):
  """Returns the wordings of dev and test, to hide from pretraining."""
  return {
    manual_corpus.wording(sentence)
    for split, _, sentences in stretches(manual)
    for sentence in sentences
    if split != "train"
  }


def pack(sentences, count_tokens, max_tokens):
  """Joins consecutive sentences to passages of max_tokens at most.

  Longer sentences, mostly code that was taken for prose, are left out and end a
  passage; passages shorter than MIN_TOKENS are left out too.

  Args:
    sentences: list of str.
    count_tokens: function from str to int.
    max_tokens: of a passage.

  Returns:
    List of str.
  """
  passages, passage, size = [], [], 0
  for sentence in [*sentences, None]:
    count = max_tokens + 1 if sentence is None else count_tokens(sentence)
    if size + count > max_tokens:
      if size >= MIN_TOKENS:
        passages.append(" ".join(passage))
      passage, size = [], 0
    if count <= max_tokens:
      passage.append(sentence)
      size += count
  return passages


def write_files(folder, count_tokens, max_tokens):
  """Writes train.csv, dev.csv and test.csv.

  Returns:
    Dict from split to the list of its rows, (text, chapter).
  """
  rows = {split: [] for split in SPLITS}
  for split, chapter, sentences in stretches():
    passages = pack(sentences, count_tokens, max_tokens)
    rows[split].extend((text, chapter) for text in passages)
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  for split in SPLITS:
    path = folder / f"{split}.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
      csv.writer(file).writerows([COLUMNS, *rows[split]])
  return rows


def _read_chapters(manual):
  """Returns a dict from chapter to its list of (topic, sentence)."""
  return {
    chapter: [
      (topic, sentence)
      for topic in names.split()
      for sentence in _prose(manual.get(topic, ""))
    ]
    for chapter, names in CHAPTERS.items()
  }


def _prose(text):
  """Returns the sentences of a topic, without headings and grammar rules."""
  paragraphs = re.split(r"\n\s*\n", HEADING.sub("", text))
  prose = (paragraph for paragraph in paragraphs if "::=" not in paragraph)
  return manual_corpus.split_sentences("\n\n".join(prose))


def _distinct(chapters):
  """Keeps every wording once, and none that two chapters share."""
  rows_by_wording = collections.defaultdict(dict)  # wording -> chapter -> row
  for chapter, rows in chapters.items():
    for row in rows:
      wording = manual_corpus.wording(row[1])
      rows_by_wording[wording].setdefault(chapter, row)
  distinct = {chapter: [] for chapter in chapters}
  for by_chapter in rows_by_wording.values():
    if len(by_chapter) == 1:
      [(chapter, row)] = by_chapter.items()
      distinct[chapter].append(row)
  return distinct


def _split_of_part(part):
  held_out = [x for x, parts in HELD_OUT_PARTS.items() if part in parts]
  return held_out[0] if held_out else "train"
