"""Two megabytes of English that every Python ships, as pretraining text.

Python's manual (`pydoc_data.topics`) and the docstrings of the standard
library, read from the source files without importing them. One sentence a line,
a blank line after each document, as create_pretraining_data.py expects.
"""

import ast
import hashlib
import pathlib
import re
import sysconfig
from pydoc_data import topics

# Docstrings of tests and of bundled installers are not prose about Python.
SKIPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "ensurepip"}
MIN_WORDS = 4  # Shorter lines are signatures, headings and rulers.
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(`*])")
# One document in this many is held out from training.
HELD_OUT = 12


def documents(unwanted=frozenset()):
  """Yields (name, list of sentences) of every document with any prose.

  Args:
    unwanted: wordings of sentences to leave out.
  """
  for name, text in [*_manual(), *_standard_library()]:
    sentences = [x for x in split_sentences(text) if wording(x) not in unwanted]
    if len(sentences) >= 2:
      yield name, sentences


def split_sentences(text):
  """Splits prose at sentence ends; drops code, headings and rulers.

  split_sentences("A tuple is never changed. It can be\\nhashed by value.")
  == ["A tuple is never changed.", "It can be hashed by value."]
  """
  sentences = []
  for paragraph in re.split(r"\n\s*\n", text):
    if ">>>" in paragraph or "   |" in paragraph:
      continue
    line = " ".join(paragraph.split())
    sentences.extend(
      sentence
      for sentence in SENTENCE_END.split(line)
      if len(re.findall(r"[A-Za-z]{2,}", sentence)) >= MIN_WORDS
    )
  return sentences


def wording(sentence):
  """Returns a sentence's words, without case, punctuation and markup."""
  return " ".join(re.findall(r"\w+", sentence.lower()))


def is_held_out(name):
  """Returns whether a document is for evaluation, as its name alone decides."""
  return hashlib.sha256(name.encode()).digest()[0] % HELD_OUT == 0


def write_corpus(train_path, eval_path, unwanted=frozenset()):
  """Writes both files; returns the number of documents in each."""
  texts = {False: [], True: []}
  for name, sentences in documents(unwanted):
    texts[is_held_out(name)].append("\n".join(sentences) + "\n")
  for path, key in ((train_path, False), (eval_path, True)):
    pathlib.Path(path).write_text("\n".join(texts[key]), encoding="utf-8")
  return len(texts[False]), len(texts[True])


def _manual():
  return sorted(topics.topics.items())


def _standard_library():
  root = pathlib.Path(sysconfig.get_path("stdlib"))
  for path in sorted(root.rglob("*.py")):
    name = path.relative_to(root)
    if not SKIPPED_FOLDERS & set(name.parts):
      yield str(name), "\n\n".join(_docstrings(path))


def _docstrings(path):
  try:
    tree = ast.parse(path.read_bytes())
  except (SyntaxError, ValueError):  # A template, or deliberately broken.
    return []
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  texts = (ast.get_docstring(x) for x in ast.walk(tree) if isinstance(x, kinds))
  return [text for text in texts if text]
