"""The command line of exported models."""

import dataclasses
import io
import json
import re

import pytest
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import model_export_test
import run_predict
from bert_keras3.serving import predictor
from bert_keras3.training import dry_run

# A model that fills masks, exported once.
tokenizer = model_export_test.tokenizer
model = model_export_test.model
export_dir = model_export_test.export_dir


def make_config(export_dir, **options):
  defaults = {
    "export_dir": export_dir,
    "text": [],
    "input_file": None,
    "columns": [],
    "header": True,
    "skip_bad_rows": False,
    "output_file": None,
    "predict_batch_size": 2,
  }
  return run_predict.PredictConfig(**{**defaults, **options})


@pytest.mark.parametrize(
  ("name", "content", "columns"),
  [
    ("a.txt", "a [MASK]\nthe cat\n\u2028[MASK]", []),
    ("a.csv", 'id,text\n1,a [MASK]\n2,the cat\n3,"\u2028[MASK]"\n', []),
    ("a.csv", 'no,Satz\n1,a [MASK]\n2,the cat\n3,"\u2028[MASK]"\n', ["Satz"]),
    ("B.CSV", 'text\na [MASK]\nthe cat\n"\u2028[MASK]"\n', []),
    ("a.tsv", "text\na [MASK]\nthe cat\n\u2028[MASK]\n", []),
    (
      "a.jsonl",
      '{"text": "a [MASK]"}\n{"text": "the cat"}\n{"text": "\u2028[MASK]"}\n',
      [],
    ),
  ],
)
def test_texts_of_files(tmp_path, name, content, columns):
  path = tmp_path / name
  path.write_text(content, encoding="utf-8")
  config = make_config("", input_file=str(path), columns=columns)
  assert run_predict.read_texts(config, ["text"]) == [
    ("a [MASK]",),
    ("the cat",),
    ("\u2028[MASK]",),
  ]


def test_a_table_without_header(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("1,a\n2,b\n")
  config = make_config("", input_file=str(path), columns=["1"], header=False)
  assert run_predict.read_texts(config, ["text"]) == [("a",), ("b",)]


def test_half_a_surrogate_pair_can_be_written(tmp_path):
  path = tmp_path / "a.jsonl"
  path.write_text('{"text": "a\\ud800b"}\n')
  config = make_config("", input_file=str(path))
  assert run_predict.read_texts(config, ["text"]) == [("a?b",)]


def test_pairs_of_a_file(tmp_path):
  path = tmp_path / "a.csv"
  path.write_text("context,question\nIt is.,Is it?\n")
  names = ["question", "context"]
  config = make_config("", input_file=str(path))
  assert run_predict.read_texts(config, names) == [("Is it?", "It is.")]
  config = make_config("", text=["Is it?", "It is."])
  assert run_predict.read_texts(config, names) == [("Is it?", "It is.")]


def test_texts_of_standard_input(monkeypatch):
  monkeypatch.setattr("sys.stdin", io.StringIO("a\r\nb c\n\nd"))
  config = make_config("", input_file="-")
  found = run_predict.read_texts(config, ["text"])
  assert found == [("a",), ("b c",), ("",), ("d",)]


@pytest.mark.parametrize(
  ("options", "names", "words"),
  [
    ({}, ["text"], "either --text or --input_file"),
    ({"text": ["a"], "input_file": "b"}, ["text"], "either --text or"),
    ({"text": ["a"]}, ["question", "context"], "pass --text 2 times, not 1"),
    ({"input_file": "a.txt"}, ["question", "context"], "should be a .csv"),
    (
      {"input_file": "a.csv", "columns": ["x", "y"]},
      ["text"],
      "should name 1 columns, for text",
    ),
  ],
)
def test_flags_that_do_not_go_together(options, names, words):
  with pytest.raises(ValueError, match=words):
    run_predict.read_texts(make_config("", **options), names)


def test_a_json_line_for_each_text(export_dir, tmp_path, capsys):
  examples = [("the [MASK]",), ("é",)]
  run_predict.predict(make_config(export_dir), examples)
  lines = capsys.readouterr().out.splitlines()
  found = [json.loads(line) for line in lines]
  assert [x["text"] for x in found] == ["the [MASK]", "é"]
  assert '"é"' in lines[1]
  expected = predictor.Predictor(export_dir).predict(examples, 2)
  assert [x["masks"] for x in found] == [x["masks"] for x in expected]
  path = tmp_path / "out.jsonl"
  config = make_config(export_dir, output_file=str(path))
  run_predict.predict(config, examples)
  assert path.read_text(encoding="utf-8").splitlines() == lines


def test_a_dry_run_tries_a_sample_and_writes_nothing(
  export_dir, tmp_path, capsys, monkeypatch
):
  monkeypatch.setattr(dry_run, "format_bytes", str)
  examples = [("the [MASK]" + " a" * number,) for number in range(100)]
  path = tmp_path / "out.jsonl"
  config = make_config(export_dir, output_file=str(path), dry_run=True)
  run_predict.predict(config, examples)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == "examples: 100, 64 of them tried"
  assert lines[1].startswith("time: ") and lines[1].endswith(" for all")
  told = re.search(rf"output_file: {path} .*, (.*) needed", lines[2])
  assert lines[-1] == "verdict: ready"
  assert not path.exists()
  run_predict.predict(dataclasses.replace(config, dry_run=False), examples)
  # Lengths grow evenly, and so does the sample.
  assert int(told[1]) == pytest.approx(path.stat().st_size, rel=0.02)
