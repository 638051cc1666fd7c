"""Whole runs of run_squad: files, scores, thresholds, caches, conversations."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import modeling
import run_squad
from bert_keras3.console import conversation
from bert_keras3.serving import predictor
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_results
from bert_keras3.tasks import squad_scores
from bert_keras3.training import devices
from bert_keras3.training.run import open_run
from bert_keras3.weights import companions
from run_classifier_test import answer_elsewhere
from run_forecast_test import listing

ROOT = os.path.dirname(run_squad.__file__)
COLORS = ("red", "blue", "green")
FILLER = ("the", "cat", "is", "of", "mat", "very", "old", ".")
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "what", "color", *COLORS, *FILLER)
NEW_RUN = {"do_train": True, "do_predict": True}


# A task: the answer is the colour of a text, if it has one --------------------


@pytest.fixture
def folder(tmp_path):
  """What `make_folder` makes."""
  return make_folder(tmp_path)


def make_folder(tmp_path):
  """A tiny model's config and vocabulary, and files of questions.

  train.json has 120, dev.json 30, each with an answer; train2.json and
  dev2.json as many, a third of them without one; test.json has no answers.
  """
  model = tmp_path / "model"
  model.mkdir()
  config = modeling.BertConfig(
    len(VOCAB),
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=32,
    type_vocab_size=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    initializer_range=0.3,  # So narrow a model learns nothing from 0.02.
  )
  (model / "bert_config.json").write_text(config.to_json_string())
  (model / "vocab.txt").write_text("\n".join(VOCAB) + "\n")
  rng = np.random.default_rng(0)
  for name, count in (("train", 120), ("dev", 30)):
    write_squad(tmp_path / f"{name}.json", rng, count, impossible=0)
    write_squad(tmp_path / f"{name}2.json", rng, count, impossible=1 / 3)
  write_squad(tmp_path / "test.json", rng, 10, impossible=1 / 3)
  content = json.loads((tmp_path / "test.json").read_text())
  for question in questions_of(content):
    del question["answers"], question["is_impossible"]
  (tmp_path / "test.json").write_text(json.dumps(content))
  return tmp_path


def write_squad(path, rng, count, impossible):
  paragraphs = [make_paragraph(rng, i, impossible) for i in range(count)]
  content = {"version": "1.1", "data": [{"paragraphs": paragraphs}]}
  path.write_text(json.dumps(content))


def make_paragraph(rng, number, impossible):
  # Some are longer than one window.
  words = rng.choice(FILLER, rng.integers(3, 24)).tolist()
  answers = []
  if rng.random() >= impossible:
    place = int(rng.integers(len(words)))
    words.insert(place, str(rng.choice(COLORS)))
    start = len(" ".join([*words[:place], ""]))
    answers = [{"text": words[place], "answer_start": start}]
  question = {
    "id": f"q{number}",
    "question": "what color",
    "is_impossible": not answers,
    "answers": answers,
  }
  return {"context": " ".join(words), "qas": [question]}


def questions_of(content):
  return [
    question
    for article in content["data"]
    for paragraph in article["paragraphs"]
    for question in paragraph["qas"]
  ]


def make_config(folder, **options):
  defaults = {
    "output_dir": str(folder / "out"),
    "train_file": str(folder / "train.json"),
    "predict_file": str(folder / "dev.json"),
    "bert_config_file": str(folder / "model" / "bert_config.json"),
    "vocab_file": str(folder / "model" / "vocab.txt"),
    "max_seq_length": 20,
    "doc_stride": 6,
    "max_query_length": 4,
    "n_best_size": 20,
    "max_answer_length": 3,
    "num_train_epochs": 8.0,
    "learning_rate": 1e-2,
    "train_batch_size": 8,
    "log_every_steps": 50,
    "adam_bias_correction": True,
  }
  return run_squad.SquadConfig(**{**defaults, **options})


def run(folder, **options):
  """Runs with a config's `options`; returns the results."""
  return run_squad.answer_questions(make_config(folder, **options))


def version_2(folder):
  return {
    "train_file": str(folder / "train2.json"),
    "predict_file": str(folder / "dev2.json"),
    "version_2_with_negative": True,
  }


def read(folder, name):
  return (folder / "out" / name).read_text(encoding="utf-8")


def read_json(folder, name):
  return json.loads(read(folder, name))


def numbers(text):
  """Dict of the `key = value` lines of an eval_results.txt."""
  pairs = (line.split(" = ") for line in text.splitlines())
  return {key: float(value) for key, value in pairs}


# Files and scores -------------------------------------------------------------


def test_a_file_becomes_a_model_and_answers_and_scores(folder, capsys):
  results = run(folder, **NEW_RUN)
  assert results["exact_match"] > 90
  assert {
    "bert_config.json",
    "bert_model.ckpt.index",
    "eval_results.txt",
    "nbest_predictions.json",
    "predictions.json",
    "run_manifest.json",
    "training_log.csv",
    "vocab.txt",
  } <= set(os.listdir(folder / "out"))
  assert not (folder / "out" / "null_odds.json").exists()
  found = numbers(read(folder, "eval_results.txt"))
  assert set(found) == {"exact_match", "f1", "global_step"}
  # Of questions, although long texts make windows beyond.
  assert found["global_step"] == 120 / 8 * 8
  assert found["f1"] == pytest.approx(results["f1"], rel=1e-6)
  assert f"{results['f1']:.2f}" in capsys.readouterr().out

  answers = read_json(folder, "predictions.json")
  nbest = read_json(folder, "nbest_predictions.json")
  questions = questions_of(json.loads((folder / "dev.json").read_text()))
  right = sum(answers[x["id"]] == x["answers"][0]["text"] for x in questions)
  assert 100 * right / 30 == pytest.approx(results["exact_match"])
  assert list(answers) == list(nbest) == [f"q{i}" for i in range(30)]
  for qas_id, entries in nbest.items():
    assert entries[0]["text"] == answers[qas_id]
    assert sum(x["probability"] for x in entries) == pytest.approx(1)


def test_a_trained_model_is_used_again_without_naming_its_files(folder):
  run(folder, **NEW_RUN)
  before = read(folder, "nbest_predictions.json")
  os.remove(folder / "out" / "nbest_predictions.json")
  run(folder, do_predict=True, bert_config_file=None, vocab_file=None)
  assert read(folder, "nbest_predictions.json") == before


def test_a_finished_run_is_not_trained_again(folder, capsys):
  run(folder, do_train=True)
  stamp = os.path.getmtime(folder / "out" / "bert_model.ckpt.index")
  run(folder, **NEW_RUN)
  assert "training is skipped" in capsys.readouterr().out
  assert os.path.getmtime(folder / "out" / "bert_model.ckpt.index") == stamp


def test_a_file_without_answers_is_predicted_and_not_scored(folder):
  run(folder, do_train=True)
  test = str(folder / "test.json")
  assert run(folder, do_predict=True, predict_file=test) == {}
  assert len(read_json(folder, "predictions.json")) == 10
  assert not (folder / "out" / "eval_results.txt").exists()


def test_a_dry_run_writes_nothing(folder, capsys):
  before = listing(folder)
  assert run(folder, **NEW_RUN, dry_run=True) == {}
  out = capsys.readouterr().out
  assert out.endswith("nothing was written\nverdict: ready\n")
  assert "train_file: 120 questions in " in out
  assert "predict_file: 30 questions in " in out
  assert "answers of train_file: 0.0% of the questions have none" in out
  assert "steps: 120 of 120, 8 examples each\n" in out
  assert listing(folder) == before


def test_the_case_must_be_that_of_training(folder):
  run(folder, do_train=True)
  with pytest.raises(ValueError, match="--do_lower_case=True"):
    run(folder, do_predict=True, do_lower_case=False)


def test_patience_keeps_the_best_step(folder):
  results = run(
    folder,
    **NEW_RUN,
    eval_steps=30,
    early_stopping_patience=2,
    num_train_epochs=40.0,
  )
  lines = read(folder, "eval_log.csv").splitlines()
  column = lines[0].split(",").index("f1")
  scores = [float(line.split(",")[column]) for line in lines[1:]]
  assert len(scores) < 120 * 40 / 8 / 30
  assert results["f1"] == pytest.approx(max(scores))


def test_patience_needs_answers(folder):
  with pytest.raises(
    ValueError, match="need --do_predict and a --predict_file"
  ):
    run(
      folder,
      **NEW_RUN,
      predict_file=str(folder / "test.json"),
      early_stopping_patience=1,
    )


# Thresholds (2.0) -------------------------------------------------------------


def test_the_best_threshold_is_found_saved_and_applied(folder):
  results = run(folder, **NEW_RUN, **version_2(folder))
  assert results["f1"] > 90
  # No two questions of this file have equal odds.
  assert results["f1"] == pytest.approx(results["best_f1"])
  threshold = float(read(folder, "null_threshold.txt"))
  assert threshold == pytest.approx(results["best_f1_thresh"])
  odds = read_json(folder, "null_odds.json")
  for qas_id, text in read_json(folder, "predictions.json").items():
    assert (text == "") == (odds[qas_id] > threshold)
  found = numbers(read(folder, "eval_results.txt"))
  assert found["HasAns_total"] + found["NoAns_total"] == found["total"] == 30


def test_later_predictions_take_the_saved_threshold(folder):
  run(folder, **NEW_RUN, **version_2(folder))
  for threshold in (1e9, -1e9):
    (folder / "out" / "null_threshold.txt").write_text(f"{threshold}\n")
    run(
      folder,
      do_predict=True,
      **{**version_2(folder), "predict_file": str(folder / "test.json")},
    )
    texts = read_json(folder, "predictions.json").values()
    assert [text == "" for text in texts] == [threshold < 0] * 10


def test_a_threshold_that_is_asked_for_is_taken(folder):
  run(folder, do_train=True, **version_2(folder))
  run(
    folder,
    do_predict=True,
    **version_2(folder),
    null_score_diff_threshold=-1e9,
  )
  assert set(read_json(folder, "predictions.json").values()) == {""}
  assert not (folder / "out" / "null_threshold.txt").exists()


def test_a_damaged_threshold_is_named(folder):
  run(folder, do_train=True, **version_2(folder))
  (folder / "out" / "null_threshold.txt").write_text("lots")
  run(folder, do_train=True, **version_2(folder))  # Has no use for it.
  with pytest.raises(ValueError, match="null_threshold.txt should hold a num"):
    run(
      folder,
      do_predict=True,
      **{**version_2(folder), "predict_file": str(folder / "test.json")},
    )


# Numbers ----------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "replicas"), [(1, 1), (64, 1), (7, 2)])
def test_answers_do_not_depend_on_batches_and_replicas(
  folder, batch_size, replicas
):
  run(folder, **NEW_RUN)
  expected = read_json(folder, "nbest_predictions.json")
  run(
    folder,
    do_predict=True,
    predict_batch_size=batch_size,
    num_devices=replicas,
  )
  found = read_json(folder, "nbest_predictions.json")
  for qas_id, entries in expected.items():
    assert [x["text"] for x in found[qas_id]] == [x["text"] for x in entries]
    # Other shapes, other order of float32 sums.
    assert [x["probability"] for x in found[qas_id]] == pytest.approx(
      [x["probability"] for x in entries], abs=1e-5
    )


def test_micro_batches_learn_what_the_batch_does(folder):
  one, four = (trained_weights(folder, f"out{i}", i) for i in (1, 4))
  for name in one:
    # The others' true gradient is 0: they move by rounding noise.
    if not name.endswith(("key/bias", "output_bias", "output/LayerNorm/beta")):
      # Another order of float32 sums, over 15 steps of 1e-2.
      assert one[name] == pytest.approx(four[name], abs=1e-5), name


def trained_weights(folder, name, num_micro_batches):
  run(
    folder,
    do_train=True,
    output_dir=str(folder / name),
    num_train_epochs=1.0,
    gradient_accumulation_steps=num_micro_batches,
  )
  reader = tf.train.load_checkpoint(str(folder / name / "bert_model.ckpt"))
  return {
    key: reader.get_tensor(key) for key in reader.get_variable_to_dtype_map()
  }


def test_padding_keeps_its_logits_only_if_all_is_padded(folder):
  run(folder, do_train=True)
  config = make_config(folder, do_predict=True, pad_to_max_length=True)
  strategy = devices.make_strategy(config)
  pretrained = companions.open_pretrained(config, config.output_dir)
  padded = open_run(config, strategy, [])
  questions = squad_results.open_data(padded, pretrained).questions
  padded.build(modeling.BertSpanLabeler, pretrained.bert_config)
  arguments = (padded, questions.source, 8)
  padding = np.arange(20) >= questions.windows.sequences.lengths[:, np.newaxis]
  assert padding.any()
  for logits in squad_results.predict_logits(*arguments, keep_padding=True):
    assert np.isfinite(logits).all()
  for logits in squad_results.predict_logits(*arguments, keep_padding=False):
    assert (np.isneginf(logits) == padding).all()


# Caches -----------------------------------------------------------------------


def count_windows_made(monkeypatch, folder, **options):
  """How often windows were made during a run."""
  calls = []
  make_windows = squad_data.make_windows

  def count(*args, **kwargs):
    calls.append(args)
    return make_windows(*args, **kwargs)

  with monkeypatch.context() as patch:
    patch.setattr(squad_data, "make_windows", count)
    run(folder, do_predict=True, **options)
  return len(calls)


def test_windows_are_made_once_for_the_same_files_and_flags(
  folder, monkeypatch
):
  run(folder, do_train=True)
  assert count_windows_made(monkeypatch, folder) == 1
  first = read(folder, "nbest_predictions.json")
  assert count_windows_made(monkeypatch, folder) == 0
  assert read(folder, "nbest_predictions.json") == first
  assert count_windows_made(monkeypatch, folder, doc_stride=5) == 1
  assert count_windows_made(monkeypatch, folder, max_seq_length=19) == 1
  assert count_windows_made(monkeypatch, folder, max_query_length=1) == 1
  assert count_windows_made(monkeypatch, folder) == 1
  path = folder / "dev.json"
  path.write_text(path.read_text().replace("cat", "mat"))
  assert count_windows_made(monkeypatch, folder) == 1
  vocab = folder / "model" / "vocab.txt"
  vocab.write_text(vocab.read_text().replace("very", "cats"))
  assert count_windows_made(monkeypatch, folder) == 1


# Killed -----------------------------------------------------------------------

KILL_WHILE_WRITING = """
import io, os, signal, sys
from bert_keras3.data import files
from bert_keras3.tasks import squad_decoding, squad_results
from bert_keras3.training import output_directory

class DyingFile(io.FileIO):
  def write(self, content):
    if content:
      super().write(content[: len(content) // 2])
      os.kill(os.getpid(), signal.SIGKILL)

files.open = DyingFile
run = output_directory.OutputDirectory(sys.argv[1], {}, [])
decoded = squad_decoding.Decoded({"q": "new"}, {"q": []}, {"q": 1.0}, {})
squad_results.write_predictions(run, decoded)
"""


def test_a_killed_prediction_leaves_no_half_written_json(tmp_path):
  for name in ("predictions", "nbest_predictions", "null_odds"):
    (tmp_path / f"{name}.json").write_text('{"q": "old"}')
  result = subprocess.run(
    [sys.executable, "-c", KILL_WHILE_WRITING, str(tmp_path)],
    cwd=ROOT,
    check=False,
  )
  assert result.returncode == -signal.SIGKILL
  for path in tmp_path.glob("*.json"):
    assert json.loads(path.read_text()) == {"q": "old"}
  (half,) = tmp_path.glob("*.incomplete-*")
  assert half.stat().st_size


# Flags ------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({}, "nothing to do"),
    ({"do_train": True, "train_file": None}, "--do_train needs --train_file"),
    ({"do_predict": True, "predict_file": "no.json"}, "no such file"),
    ({"do_predict": True, "output_dir": None}, "pass --output_dir"),
    (
      {"do_predict": True, "max_seq_length": 7},
      "leaves no room .* it must be 8 or more",
    ),
  ],
)
def test_flags_that_do_not_go_together(folder, options, words):
  with pytest.raises((ValueError, OSError), match=words):
    run_squad.check_flags(make_config(folder, **options))


def test_evaluate_only_does_nothing_else(folder):
  options = {"evaluate_only": "x.json", "do_train": True}
  with pytest.raises(ValueError, match="nothing else; leave out --do_train"):
    run_squad.check_flags(make_config(folder, **options))


def run_script(*args):
  return subprocess.run(
    [sys.executable, os.path.join(ROOT, "run_squad.py"), *args],
    capture_output=True,
    text=True,
    check=False,
  )


def test_the_script_refuses_without_a_traceback(folder):
  result = run_script("--do_predict", "--output_dir=out")
  assert result.returncode == 1
  message = "run_squad: error: --do_predict needs --predict_file\n"
  assert result.stderr == message


def test_evaluate_only_scores_a_file_without_tensorflow(folder):
  questions = questions_of(json.loads((folder / "dev.json").read_text()))
  texts = {x["id"]: x["answers"][0]["text"] for x in questions}
  texts["q0"] = "the wrong one"
  del texts["q1"]
  (folder / "texts.json").write_text(json.dumps(texts))
  script = (
    "import sys, run_squad; code = 0\n"
    "try: run_squad.cli()\n"
    "except SystemExit as error: code = error.code\n"
    "sys.exit(code or 'tensorflow' in sys.modules)"
  )
  result = subprocess.run(
    [
      sys.executable,
      "-c",
      script,
      f"--predict_file={folder / 'dev.json'}",
      f"--evaluate_only={folder / 'texts.json'}",
    ],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  assert "exact_match = 93.333336" in result.stdout
  assert "1 questions have no prediction" in result.stderr


def test_evaluate_only_scores_2_0_with_null_odds(folder, capsys):
  questions = questions_of(json.loads((folder / "dev2.json").read_text()))
  texts = {x["id"]: "red" for x in questions}
  odds = {x["id"]: float(x["is_impossible"]) for x in questions}
  for name, values in (("texts", texts), ("odds", odds)):
    (folder / f"{name}.json").write_text(json.dumps(values))
  results = squad_scores.evaluate_file(
    make_config(
      folder,
      predict_file=str(folder / "dev2.json"),
      evaluate_only=str(folder / "texts.json"),
      null_odds_file=str(folder / "odds.json"),
    )
  )
  is_red = [[a["text"] for a in x["answers"]] == ["red"] for x in questions]
  assert results["exact"] == pytest.approx(100 * sum(is_red) / 30)
  assert results["NoAns_exact"] == 0
  num_impossible = sum(x["is_impossible"] for x in questions)
  best = sum(is_red) + num_impossible
  assert results["best_exact"] == pytest.approx(100 * best / 30)
  assert results["best_exact_thresh"] == 0
  assert numbers(read(folder, "eval_results.txt")).keys() == results.keys()
  assert f"unanswerable{num_impossible:>11}" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("name", "flags"),
  [
    ("run_squad_v1.1", ["--predict_file=inputs/squad/dev-v1.1.json"]),
    (
      "run_squad_v2.0",
      [
        "--predict_file=inputs/squad/dev-v2.0.json",
        "--n_best_size=30",
        "--version_2_with_negative=True",
        "--null_score_diff_threshold=0.25",
      ],
    ),
  ],
)
def test_the_script_answers_as_upstreams_does(goldens, tmp_path, name, flags):
  result = subprocess.run(
    [
      sys.executable,
      os.path.join(ROOT, "run_squad.py"),
      "--do_predict=True",
      "--vocab_file=vocab/vocab.txt",
      "--bert_config_file=model/gelu30k/bert_config.json",
      "--init_checkpoint=model/gelu30k/bert_model.ckpt",
      "--max_seq_length=96",
      "--doc_stride=40",
      "--max_query_length=20",
      f"--output_dir={tmp_path}",
      "--pad_to_max_length",
      *flags,
    ],
    cwd=goldens,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  for golden_file in (goldens / "cli" / name).iterdir():
    golden = json.loads(golden_file.read_text())
    found = json.loads((tmp_path / golden_file.name).read_text())
    assert list(found) == list(golden)
    if golden_file.name == "predictions.json":
      assert found == golden
    elif golden_file.name == "null_odds.json":
      # Sums of four logits of float32, of up to 10.
      assert found == pytest.approx(golden, abs=1e-5)
    else:
      check_nbest(found, golden)


def check_nbest(found, golden):
  for qas_id, entries in golden.items():
    assert [x["text"] for x in found[qas_id]] == [x["text"] for x in entries]
    for ours, theirs in zip(found[qas_id], entries, strict=True):
      assert ours.keys() == theirs.keys()
      assert ours["probability"] == pytest.approx(
        theirs["probability"], abs=1e-6
      )


# Conversation -----------------------------------------------------------------


def talk(answer, lines):
  """Runs a conversation on lines that are typed in."""
  lines = iter(lines)

  def read_line(prompt):
    try:
      return next(lines)
    except StopIteration:
      raise EOFError from None

  conversation.converse(answer, read_line)


def test_texts_and_questions_are_told_apart():
  asked = []
  talk(
    lambda *args: asked.append(args),
    ["", "one", "two ", "", "who?", " why? ", "", "three", "", "how?"],
  )
  assert asked == [
    ("one\ntwo", "who?"),
    ("one\ntwo", "why?"),
    ("three", "how?"),
  ]


def test_a_typed_question_is_answered_with_its_place(
  folder, monkeypatch, capsys
):
  run(folder, do_train=True)
  lines = iter(["The  cat is", "very RED.", "", "What color?"])

  def type_in(prompt):
    for line in lines:
      return line
    raise EOFError

  monkeypatch.setattr("builtins.input", type_in)
  run(folder, interactive=True)
  out = capsys.readouterr().out
  # In "The  cat is\nvery RED.".
  assert "RED (" in out
  assert "characters 17 to 20" in out
  assert "The cat is very [RED]." in out


@pytest.mark.parametrize("has_negatives", [False, True])
def test_a_text_without_a_token_has_no_answer(
  folder, monkeypatch, capsys, has_negatives
):
  run(folder, do_train=True, version_2_with_negative=has_negatives)
  lines = iter(["\u200b", "", "What color?"])

  def type_in(prompt):
    for line in lines:
      return line
    raise EOFError

  monkeypatch.setattr("builtins.input", type_in)
  run(folder, interactive=True, version_2_with_negative=has_negatives)
  assert "  no answer (100.0%)\n" in capsys.readouterr().out


def test_an_export_has_the_flags_of_training(folder):
  run(folder, do_train=True)
  with pytest.raises(ValueError, match="trained with --doc_stride=6, not 5"):
    run(folder, do_export=True, export_dir=str(folder / "1"), doc_stride=5)


def test_no_answer_is_said_so():
  answers = [("", 0.75, None, None), ("red", 0.25, 2, 5)]
  assert conversation.format_answers("a red mat", answers) == (
    "  no answer (75.0%)\n  red (25.0%), characters 2 to 5"
  )


# Export -----------------------------------------------------------------------


def test_an_export_answers_elsewhere_as_the_model_does(folder):
  export_dir = folder / "models" / "1"
  run(
    folder,
    **NEW_RUN,
    **version_2(folder),
    do_export=True,
    export_dir=str(export_dir),
  )
  questions = [
    {"question": question["question"], "context": paragraph["context"]}
    for article in json.loads((folder / "dev2.json").read_text())["data"]
    for paragraph in article["paragraphs"]
    for question in paragraph["qas"]
  ]
  found = answer_elsewhere(
    export_dir,
    {name: [x[name] for x in questions] for name in ("question", "context")},
    place=folder,
  )
  # Its words are plain: text and slice of the context are the same.
  assert found["answer"] == [*read_json(folder, "predictions.json").values()]
  odds = [*read_json(folder, "null_odds.json").values()]
  assert found["null_odds"] == pytest.approx(odds, abs=1e-4)
  for row, question in enumerate(questions):
    start, end = found["start"][row], found["end"][row]
    context = question["context"]
    assert found["answer"][row] == (context[start:end] if start >= 0 else "")


def test_an_old_output_dir_is_exported_and_asked(folder, capsys):
  run(folder, do_train=True)
  export_dir = str(folder / "export")
  run(folder, do_export=True, export_dir=export_dir)
  model = predictor.Predictor(export_dir)
  (result,) = model.predict([("What color?", "The  cat is\nvery RED.")])
  assert (result["answer"], result["start"], result["end"]) == ("RED", 17, 20)
  assert result["answers"][0]["probability"] == result["probability"]
  talk(
    lambda context, question: conversation.format_answers(
      context, run_squad.ask_export(model, context, question)
    ),
    ["The  cat is", "very RED.", "", "What color?"],
  )
  out = capsys.readouterr().out
  assert f"  RED ({result['probability']:.1%}), characters 17 to 20\n" in out
  assert "    The cat is very [RED].\n" in out
