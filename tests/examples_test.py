"""The demo's corpus and passages, its baselines, and itself on a few steps."""

import collections
import csv
import pathlib
import re
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import fine_tune_demo  # noqa: E402
import manual_chapters  # noqa: E402
import manual_corpus  # noqa: E402


def test_sentences_without_code_and_headings():
  text = """Tuples
======

A tuple is never changed. It can be
hashed by value.

   >>> t[0]
   'this is code'

Two words."""
  assert manual_corpus.split_sentences(text) == [
    "A tuple is never changed.",
    "It can be hashed by value.",
  ]


def test_documents_are_split_by_name_alone():
  names = [f"module_{i}.py" for i in range(1000)]
  share = sum(map(manual_corpus.is_held_out, names)) / len(names)
  assert share == pytest.approx(1 / manual_corpus.HELD_OUT, abs=0.03)


def test_unwanted_sentences_are_in_no_document():
  unwanted = manual_chapters.held_out_wordings()
  found = {
    manual_corpus.wording(sentence)
    for _, sentences in manual_corpus.documents(unwanted)
    for sentence in sentences
  }
  assert len(found) > 10000
  assert not found & unwanted


def test_wording_ignores_case_and_markup():
  a = manual_corpus.wording('The "with" statement\'s *body*.')
  assert a == manual_corpus.wording("The `with` Statement's body")
  assert a != manual_corpus.wording("The with statement's bodies")


def _chapter_sentences():
  """Wordings by split, and by chapter the splits of its sentences in order."""
  wordings = collections.defaultdict(list)
  splits = collections.defaultdict(list)
  for split, chapter, sentences in manual_chapters.stretches():
    wordings[split].extend(map(manual_corpus.wording, sentences))
    splits[chapter].extend([split] * len(sentences))
  return wordings, splits


def test_no_sentence_is_in_two_splits_or_twice_in_one():
  wordings, _ = _chapter_sentences()
  assert set(wordings) == {"train", "dev", "test"}
  found = [wording for split in wordings.values() for wording in split]
  assert len(found) == len(set(found)) > 2000
  held_out = manual_chapters.held_out_wordings()
  assert held_out == {*wordings["dev"], *wordings["test"]}


def test_every_chapter_has_its_share_of_every_split_in_whole_parts():
  _, splits = _chapter_sentences()
  assert list(splits) == list(manual_chapters.CHAPTERS)
  for chapter, row in splits.items():
    # Parts differ by one sentence at most, of which the smallest have four.
    assert row.count("test") / len(row) == pytest.approx(0.2, abs=0.03), chapter
    assert row.count("dev") / len(row) == pytest.approx(0.1, abs=0.03), chapter
    changes = sum(a != b for a, b in zip(row, row[1:], strict=False))
    assert changes == 2 * 6, chapter


def test_repeated_and_shared_sentences():
  manual = {
    "pass": "Four words on top\n***\n\nIt is a null operation. It is quite so.",
    "del": "pass_stmt ::= it is a rule\n\nIt is quite so. This one says three.",
    "compound": "It is a null operation. We say here something else.",
  }
  found = collections.defaultdict(list)
  for _, chapter, sentences in manual_chapters.stretches(manual):
    found[chapter].extend(sentences)
  assert found == {
    "Simple statements": ["It is quite so.", "This one says three."],
    "Compound statements": ["We say here something else."],
  }


def test_passages_are_consecutive_sentences_that_fit():
  sizes = [10, 10, 31, 14, 20, 5, 1, 30]
  sentences = [f"{i}" + " x" * (size - 1) for i, size in enumerate(sizes)]
  passages = manual_chapters.pack(sentences, lambda x: len(x.split()), 30)
  numbers = [re.findall(r"\d", passage) for passage in passages]
  # 2 is too long, 3 too short on its own.
  assert numbers == [["0", "1"], ["4", "5", "6"], ["7"]]


def test_passages_are_written_as_labelled_tables(tmp_path):
  rows = manual_chapters.write_files(tmp_path, lambda x: len(x.split()), 40)
  for split in ("train", "dev", "test"):
    assert {chapter for _, chapter in rows[split]} == set(
      manual_chapters.CHAPTERS
    )
    assert all(15 <= len(text.split()) <= 40 for text, _ in rows[split])
    with open(tmp_path / f"{split}.csv", newline="") as file:
      table = list(csv.reader(file))
    assert table == [["text", "chapter"], *map(list, rows[split])]


def test_baselines():
  train = [
    ("a loop runs over a list", "for"),
    ("a loop runs once more", "for"),
    ("a loop runs", "for"),
    ("an error is raised", "try"),
    ("an error is caught", "try"),
  ]
  test = [("this error was caught", "try"), ("which loop", "for")]
  assert fine_tune_demo.majority_baseline(train, test) == ["for", "for"]
  # Too much regularisation answers "for" to all; dev finds that out.
  dev = [("some error", "try"), ("caught", "try"), ("some loop", "for")]
  answers = fine_tune_demo.tfidf_baseline(train, dev, test)
  assert answers == ["try", "for"]
  assert fine_tune_demo.count_hits(["for", "for"], test) == [0, 1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
  """The folder of a demo of few steps, and what its halves print."""
  folder = tmp_path_factory.mktemp("demo")
  outputs = []
  for script, length in (
    ("pretrain_demo.py", "--num_train_steps=2"),
    ("fine_tune_demo.py", "--num_train_epochs=2"),
  ):
    result = subprocess.run(
      [sys.executable, EXAMPLES / script, f"--output_dir={folder}", length],
      capture_output=True,
      text=True,
    )
    assert result.returncode == 0, result.stderr
    outputs.append(result.stdout)
  return folder, *outputs


@pytest.mark.slow
def test_the_first_half_runs_to_its_end(demo):
  folder, output, _ = demo
  assert "masked-LM accuracy on held-out documents: 0." in output
  assert (folder / "demo.png").stat().st_size > 1000
  assert output.count("[MASK]") == 4


@pytest.mark.slow
def test_the_second_half_prints_what_the_files_say(demo):
  folder, _, output = demo
  assert "$ python run_classifier.py --do_train" in output
  train, test = (
    fine_tune_demo.read_passages(folder, x) for x in ("train", "test")
  )
  lines = fine_tune_demo.read_predictions(folder)
  assert [line["text"] for line in lines] == [text for text, _ in test]
  right = sum(a["label"] == b for a, (_, b) in zip(lines, test, strict=True))
  (common, _), *_ = collections.Counter(x for _, x in train).most_common()
  share = sum(chapter == common for _, chapter in test) / len(test)
  printed = dict(re.findall(r"(?m)^  (\S.*?) +(-?\d\.\d+) \(\d", output))
  assert printed["BERT"] == f"{right / len(test):.4f}"
  assert printed["most frequent chapter"] == f"{share:.4f}"
  tfidf = float(printed["TF-IDF + logistic regression"])
  assert tfidf > share
  difference = float(printed["BERT minus TF-IDF"])
  assert difference == pytest.approx(right / len(test) - tfidf, abs=1e-4)
  assert len(re.findall(r"\d% \(", output)) >= fine_tune_demo.NUM_SHOWN
