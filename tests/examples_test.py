"""The demo's corpus, and the demo itself on two steps."""

import pathlib
import subprocess
import sys

import pytest

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

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


@pytest.mark.slow
def test_the_demo_runs_to_its_end(tmp_path):
  result = subprocess.run(
    [
      sys.executable,
      str(EXAMPLES / "pretrain_demo.py"),
      f"--output_dir={tmp_path}",
      "--num_train_steps=2",
    ],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert "masked-LM accuracy on held-out documents: 0." in result.stdout
  assert (tmp_path / "loss.png").stat().st_size > 1000
  assert result.stdout.count("[MASK]") == 4
