"""Whole runs of run_classifier: files, results, resumption, refusals."""

import csv
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import modeling
import run_classifier
from bert_keras3.data import tables
from bert_keras3.serving import predictor
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import classifier_results
from bert_keras3.training import dry_run
from bert_keras3.training import output_directory
from run_forecast_test import listing

ROOT = os.path.dirname(run_classifier.__file__)
WORDS = ("good", "bad", "fine", "poor", "a", "film", "plot", "it", "is", ".")
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS)
NEW_RUN = {"do_train": True, "do_eval": True, "do_predict": True}


@pytest.fixture
def folder(tmp_path):
  """A tiny model's config and vocabulary; reviews whose words tell the label.

  train.csv has 60 rows, dev.csv 23 and test.csv 11.
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
  for name, count in (("train", 60), ("dev", 23), ("test", 11)):
    with open(tmp_path / f"{name}.csv", "w", newline="") as file:
      writer = csv.writer(file)
      writer.writerow(["id", "review", "opinion", "score", "tags"])
      writer.writerows(make_review(rng, i) for i in range(count))
  return tmp_path


def make_review(rng, number):
  is_good = rng.random() < 0.5
  filler = rng.choice(WORDS[4:], rng.integers(1, 8))
  words = rng.choice(["good", "fine"] if is_good else ["bad", "poor"], 3)
  text = " ".join([*words, *filler, "."])
  tags = "kind,loud" if is_good else "rude"
  return [f"r{number}", text, "+" if is_good else "-", 2.5 * is_good, tags]


def make_config(folder, **options):
  defaults = {
    "task_name": "csv",
    "output_dir": str(folder / "out"),
    "data_dir": str(folder),
    "bert_config_file": str(folder / "model" / "bert_config.json"),
    "vocab_file": str(folder / "model" / "vocab.txt"),
    "max_seq_length": 24,
    "text_a": "review",
    "label_column": "opinion",
    "id_column": "id",
    "num_train_epochs": 6.0,
    "learning_rate": 1e-2,
    "train_batch_size": 8,
    "log_every_steps": 50,
    "adam_bias_correction": True,
  }
  return run_classifier.ClassifierConfig(**{**defaults, **options})


def run(folder, **options):
  """Runs with a config's `options`; returns the results."""
  return run_classifier.classify(make_config(folder, **options))


def read(folder, name):
  return (folder / "out" / name).read_text(encoding="utf-8")


def predictions(folder, name="predictions.jsonl"):
  return [json.loads(line) for line in read(folder, name).splitlines()]


def numbers(text):
  """Dict of the `key = value` lines of an eval_results.txt."""
  pairs = (line.split(" = ") for line in text.splitlines())
  return {key: float(value) for key, value in pairs}


# Files ------------------------------------------------------------------------


def test_a_csv_becomes_a_model_and_predictions(folder, capsys):
  results = run(folder, **NEW_RUN)
  assert results["eval_accuracy"] > 0.9
  assert {
    "bert_config.json",
    "bert_model.ckpt.index",
    "confusion_matrix.tsv",
    "eval_report.txt",
    "eval_results.txt",
    "labels.txt",
    "predictions.jsonl",
    "run_manifest.json",
    "test_results.tsv",
    "training_log.csv",
    "vocab.txt",
  } <= set(os.listdir(folder / "out"))
  assert read(folder, "labels.txt") == "+\n-\n"
  found = numbers(read(folder, "eval_results.txt"))
  assert set(found) == {
    "eval_accuracy",
    "eval_loss",
    "eval_macro_f1",
    "global_step",
    "loss",
  }
  assert found["global_step"] == int(60 / 8 * 6)
  assert read(folder, "eval_results.txt") in capsys.readouterr().out

  lines = predictions(folder)
  assert [line["id"] for line in lines] == [f"r{i}" for i in range(11)]
  for line in lines:
    assert set(line) == {"id", "text", "label", "probabilities"}
    shares = line["probabilities"]
    assert list(shares) == ["+", "-"]
    assert line["label"] == max(shares, key=shares.get)
  rows = [x.split("\t") for x in read(folder, "test_results.tsv").splitlines()]
  assert [list(map(float, row)) for row in rows] == [
    [*line["probabilities"].values()] for line in lines
  ]


def test_a_trained_model_is_used_again_without_naming_its_files(folder):
  run(folder, **NEW_RUN)
  before = read(folder, "test_results.tsv")
  os.remove(folder / "out" / "test_results.tsv")
  run(
    folder,
    do_predict=True,
    bert_config_file=None,
    vocab_file=None,
    predict_file=str(folder / "test.csv"),
    data_dir=None,
  )
  assert read(folder, "test_results.tsv") == before


def test_a_finished_run_is_not_trained_again(folder, capsys):
  run(folder, do_train=True)
  stamp = os.path.getmtime(folder / "out" / "bert_model.ckpt.index")
  run(folder, **NEW_RUN)
  assert "training is skipped" in capsys.readouterr().out
  assert os.path.getmtime(folder / "out" / "bert_model.ckpt.index") == stamp
  assert (folder / "out" / "eval_results.txt").exists()


def test_labels_of_a_test_file_do_not_matter(folder):
  run(folder, **NEW_RUN)
  before = read(folder, "test_results.tsv")
  text = (folder / "test.csv").read_text()
  (folder / "test.csv").write_text(text.replace(",+,", ",?,"))
  run(folder, do_predict=True)
  assert read(folder, "test_results.tsv") == before


def test_scores_are_learnt_and_predicted(folder):
  results = run(
    folder, **NEW_RUN, problem_type="regression", label_column="score"
  )
  assert results["eval_pearson"] > 0.8
  assert set(numbers(read(folder, "eval_results.txt"))) == {
    "eval_loss",
    "eval_pearson",
    "eval_spearman",
    "global_step",
    "loss",
  }
  lines = predictions(folder)
  rows = read(folder, "test_results.tsv").splitlines()
  assert [line["score"] for line in lines] == pytest.approx(
    [float(row) for row in rows]
  )
  assert not (folder / "out" / "labels.txt").exists()


def test_several_labels_are_learnt_and_predicted(folder):
  results = run(
    folder,
    **NEW_RUN,
    problem_type="multi_label",
    label_column="tags",
    num_seeds=1,
  )
  assert results["eval_micro_f1"] > 0.8
  assert read(folder, "labels.txt") == "kind\nloud\nrude\n"
  for line in predictions(folder):
    likely = [name for name, p in line["probabilities"].items() if p > 0.5]
    assert line["label"] == likely


def test_long_texts_in_windows_are_one_prediction_each(folder):
  run(folder, **NEW_RUN, max_seq_length=8, long_text="sliding")
  assert len(predictions(folder)) == 11
  assert numbers(read(folder, "eval_results.txt"))["eval_accuracy"] > 0.8


def test_matched_and_mismatched_sets_get_files_of_their_own(folder):
  write_mnli(folder)
  run(folder, **NEW_RUN, task_name="mnli", max_seq_length=12)
  assert {
    "eval_results.txt",
    "eval_results_mismatched.txt",
    "MNLI-m.tsv",
    "MNLI-mm.tsv",
    "predictions_mismatched.jsonl",
    "test_results_mismatched.tsv",
  } <= set(os.listdir(folder / "out"))
  lines = read(folder, "MNLI-mm.tsv").splitlines()
  assert lines[0] == "index\tprediction"
  assert [line.split("\t")[0] for line in lines[1:]] == ["0", "1", "2", "3"]
  assert {x.split("\t")[1] for x in lines[1:]} <= set(
    classifier_data.NLI_LABELS
  )


def write_mnli(folder):
  header = "\t".join(f"c{i}" for i in range(11)) + "\tgold_label"
  for name, count in (
    ("train", 12),
    ("dev_matched", 6),
    ("dev_mismatched", 3),
    ("test_matched", 5),
    ("test_mismatched", 4),
  ):
    rows = [
      "\t".join(
        [str(i), *["x"] * 7, "it is good", "it is bad", "x"]
        + [classifier_data.NLI_LABELS[i % 3]]
      )
      for i in range(count)
    ]
    (folder / f"{name}.tsv").write_text("\n".join([header, *rows]) + "\n")


def test_the_diagnostic_set_is_predicted_by_a_model_of_mnli(folder):
  write_mnli(folder)
  run(folder, do_train=True, task_name="mnli", max_seq_length=12)
  (folder / "diagnostic.tsv").write_text(
    "index\tsentence1\tsentence2\n0\tit is good\tit is bad\n"
  )
  run(
    folder,
    do_predict=True,
    task_name="ax",
    init_checkpoint=str(folder / "out" / "bert_model.ckpt"),
    output_dir=str(folder / "ax"),
  )
  assert (folder / "ax" / "AX.tsv").read_text().startswith("index\tprediction")


# Numbers ----------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("replicas", [1, 2])
def test_metrics_do_not_depend_on_batches_and_replicas(
  folder, batch_size, replicas
):
  expected = run(folder, do_train=True, do_eval=True, eval_batch_size=8)
  found = run(
    folder,
    do_eval=True,
    eval_batch_size=batch_size,
    num_devices=replicas,
  )
  for name in ("eval_accuracy", "eval_macro_f1"):
    assert found[name] == expected[name]
  # Other shapes, other order of float32 sums.
  assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-5)


def test_loss_is_the_mean_of_the_batches_means(folder):
  results = run(folder, do_train=True, do_eval=True, eval_batch_size=8)
  again = run(folder, do_eval=True, eval_batch_size=64)
  assert again["loss"] == pytest.approx(again["eval_loss"], rel=1e-5)
  assert results["loss"] != pytest.approx(again["loss"], rel=1e-5)


def test_one_length_gives_the_metrics_of_several(folder):
  run(folder, do_train=True)
  several = run(folder, do_eval=True)
  one = run(folder, do_eval=True, pad_to_max_length=True)
  assert one["eval_accuracy"] == several["eval_accuracy"]
  assert one["eval_loss"] == pytest.approx(several["eval_loss"], rel=1e-5)


def test_several_seeds_report_mean_and_deviation(folder, capsys):
  summary = run(folder, **NEW_RUN, num_seeds=3, seed=5)
  each = [numbers(read(folder, f"run_{i}/eval_results.txt")) for i in (1, 2, 3)]
  losses = [result["eval_loss"] for result in each]
  assert len(set(losses)) == 3
  assert summary["eval_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
  assert summary["eval_loss_sd"] == pytest.approx(
    np.std(losses, ddof=1), rel=1e-3
  )
  found = numbers(read(folder, "eval_results.txt"))
  assert (found["num_seeds"], found["first_seed"]) == (3, 5)
  assert found["eval_loss_sd"] == pytest.approx(summary["eval_loss_sd"])
  assert " ± " in capsys.readouterr().out
  manifest = json.loads(read(folder, "run_2/run_manifest.json"))
  assert manifest["settings"]["seed"] == 6


def test_a_seed_of_several_is_the_run_of_that_seed_alone(folder):
  run(folder, do_train=True, num_seeds=2)
  alone = str(folder / "alone")
  run(folder, do_train=True, output_dir=alone, seed=1)
  for name in ("output_weights", "bert/pooler/dense/kernel"):
    first, second = (
      tf.train.load_checkpoint(f"{path}/bert_model.ckpt").get_tensor(name)
      for path in (folder / "out" / "run_2", alone)
    )
    np.testing.assert_array_equal(first, second)


def test_patience_ends_training_with_the_best_weights(folder):
  # So high a rate that the first evaluations cannot be the best for long.
  results = run(
    folder,
    do_train=True,
    do_eval=True,
    num_train_epochs=20.0,
    early_stopping_patience=2,
    eval_steps=3,
  )
  rows = [*csv.DictReader(read(folder, "eval_log.csv").splitlines())]
  scores = [float(row["eval_accuracy"]) for row in rows]
  best = scores.index(max(scores))
  assert len(scores) == best + 3 < 50
  assert results["eval_accuracy"] == pytest.approx(scores[best])
  found = numbers(read(folder, "eval_results.txt"))
  assert found["global_step"] == int(rows[best]["step"])


def test_patience_without_steps_evaluates_every_epoch(folder):
  run(folder, do_train=True, do_eval=True, early_stopping_patience=1)
  rows = [*csv.DictReader(read(folder, "eval_log.csv").splitlines())]
  assert int(rows[0]["step"]) == 60 // 8


def test_upper_layers_learn_faster_and_frozen_ones_nothing(folder):
  run(
    folder,
    do_train=True,
    freeze_layers="embeddings",
    layerwise_lr_decay=0.5,
  )
  reader = tf.train.load_checkpoint(str(folder / "out"))
  names = reader.get_variable_to_shape_map()
  assert "output_weights/adam_m" in names
  assert not [x for x in names if x.startswith("bert/emb") and "adam" in x]


def test_a_model_with_one_answer_is_reported():
  task = classifier_data.find_task("mrpc")
  logits = np.tile(np.float32([0.1, 0.2]), [10, 1])
  labels = np.arange(10) % 2
  warning = classifier_results.collapse_warning(task, labels, logits)
  assert "'1' to everything" in warning
  assert "--adam_bias_correction" in warning
  logits[0, 0] = 1
  assert not classifier_results.collapse_warning(task, labels, logits)


@pytest.mark.parametrize(
  ("text", "expected"),
  [("", None), ("balanced", [2.0, 2 / 3]), ("1,0.5", [1.0, 0.5])],
)
def test_class_weights(text, expected):
  labels = np.array([0, 1, 1, 1], np.int32)
  found = classifier_results.class_weights(text, labels, 2)
  assert found == (expected and pytest.approx(expected))


@pytest.mark.parametrize("text", ["1", "1,2,3", "a,b", "-1,2", "0,0", "nan,1"])
def test_class_weights_that_make_no_sense_are_refused(text):
  labels = np.array([0, 1], np.int32)
  with pytest.raises(ValueError, match="neither 'balanced' nor 2 numbers"):
    classifier_results.class_weights(text, labels, 2)


def test_balanced_weights_need_one_label_each():
  with pytest.raises(ValueError, match="one label per example"):
    classifier_results.class_weights("balanced", np.zeros([2, 3]), 3)


# Submissions ------------------------------------------------------------------


@pytest.mark.parametrize(
  ("task_name", "split", "file", "answer"),
  [
    ("cola", "test", "CoLA.tsv", "1"),
    ("sst-2", "test", "SST-2.tsv", "1"),
    ("mrpc", "test", "MRPC.tsv", "1"),
    ("sts-b", "test", "STS-B.tsv", "2.500"),
    ("qqp", "test", "QQP.tsv", "1"),
    ("mnli", "test", "MNLI-m.tsv", "entailment"),
    ("mnli", "test_mismatched", "MNLI-mm.tsv", "entailment"),
    ("qnli", "test", "QNLI.tsv", "not_entailment"),
    ("rte", "test", "RTE.tsv", "not_entailment"),
    ("wnli", "test", "WNLI.tsv", "1"),
    ("ax", "test", "AX.tsv", "entailment"),
  ],
)
def test_submissions_have_the_names_and_form_of_glue(
  tmp_path, task_name, split, file, answer
):
  task = classifier_data.find_task(task_name)
  logits = np.zeros([1, max(1, len(task.labels))], np.float32)
  logits[0, -1 if len(task.labels) < 3 else 1] = 2.5
  examples = [tables.InputExample("test-7", "text", row_id="7")]
  run_dir = output_directory.OutputDirectory(str(tmp_path / "out"), {}, [])
  classifier_results.write_predictions(run_dir, task, examples, logits, split)
  text = (tmp_path / "out" / file).read_text()
  assert text == f"index\tprediction\n7\t{answer}\n"


def test_scores_beyond_the_scale_are_cut_in_submissions(tmp_path):
  task = classifier_data.find_task("sts-b")
  run_dir = output_directory.OutputDirectory(str(tmp_path), {}, [])
  examples = [tables.InputExample(None, "a", row_id=str(i)) for i in range(2)]
  logits = np.float32([[5.4], [-0.1]])
  classifier_results.write_predictions(run_dir, task, examples, logits, "test")
  assert (tmp_path / "STS-B.tsv").read_text().split() == [
    *("index", "prediction"),
    *("0", "5.000", "1", "0.000"),
  ]
  # The other files keep what the model said.
  assert (tmp_path / "test_results.tsv").read_text() == "5.4\n-0.1\n"


# Mistakes ---------------------------------------------------------------------


def refusals():
  """(name, what to do to the folder, options, text of the error)."""

  def no_change(folder):
    del folder

  def empty_train(folder):
    (folder / "train.csv").write_text("")

  def unseen_label(folder):
    with open(folder / "dev.csv", "a") as file:
      file.write("r99,good film,?,1,rude\n")

  def small_vocab(folder):
    (folder / "model" / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\n" * 50)

  train = {"do_train": True, "do_eval": True}
  return [
    (
      "no data_dir",
      no_change,
      {**train, "data_dir": "/no"},
      "directory /no",
    ),
    ("nothing to read", no_change, {**train, "data_dir": None}, "--train_file"),
    (
      "no file",
      lambda folder: os.remove(folder / "dev.csv"),
      train,
      "has no dev.csv",
    ),
    ("empty", empty_train, train, "train.csv holds no example"),
    ("column", no_change, {**train, "label_column": "stars"}, "column 'stars'"),
    ("unseen", unseen_label, train, r"dev.csv, line 25: unknown label '\?'"),
    (
      "floats as labels",
      no_change,
      {**train, "label_column": "score"},
      "problem_type=regression",
    ),
    (
      "words as scores",
      no_change,
      {**train, "problem_type": "regression"},
      "train.csv, line 2: .* is no number",
    ),
    ("long", no_change, {**train, "max_seq_length": 33}, "use 32 or less"),
    ("vocabulary", small_vocab, train, "has 200 tokens, .* vocab_size is 14"),
    ("no model", no_change, {"do_predict": True}, "no model to use"),
    ("task", no_change, {**train, "task_name": "x"}, "Task not found: x"),
    (
      "no dev set",
      no_change,
      {**train, "task_name": "ax"},
      "has no train file",
    ),
    (
      "short",
      no_change,
      {**train, "num_train_epochs": 0.1},
      "less than one batch of 8",
    ),
    (
      "patience",
      no_change,
      {"do_train": True, "early_stopping_patience": 1},
      "need --do_eval",
    ),
    ("layers", no_change, {**train, "freeze_layers": "9"}, "no '9' to freeze"),
  ]


@pytest.mark.parametrize(
  ("change", "options", "text"),
  [pytest.param(*case, id=name) for name, *case in refusals()],
)
def test_a_mistake_is_one_sentence_and_writes_nothing(
  folder, change, options, text
):
  change(folder)
  with pytest.raises((ValueError, OSError), match=text):
    run(folder, **options)
  assert not (folder / "out").exists()


def test_a_checkpoint_of_another_width_is_refused(folder):
  run(folder, do_train=True)
  path = folder / "model" / "bert_config.json"
  path.write_text(path.read_text().replace(": 16,", ": 32,", 1))
  with pytest.raises(ValueError, match="has shape .* the model needs"):
    run(
      folder,
      do_train=True,
      output_dir=str(folder / "other"),
      init_checkpoint=str(folder / "out" / "bert_model.ckpt"),
    )
  assert not (folder / "other").exists()


def test_an_output_dir_of_another_task_is_refused(folder):
  write_mnli(folder)
  run(folder, do_train=True)
  with pytest.raises(ValueError, match="--task_name=csv"):
    run(folder, do_train=True, task_name="mnli")
  with pytest.raises(ValueError, match="--task_name=csv, not mnli"):
    run(folder, do_eval=True, task_name="mnli")


def test_a_dry_run_writes_nothing(folder, capsys):
  before = listing(folder)
  assert run(folder, **NEW_RUN, dry_run=True) == {}
  out = capsys.readouterr().out
  assert out.endswith("nothing was written\nverdict: ready\n")
  assert "train: 60 examples, the longest of " in out
  assert "dev: 23 examples, " in out and "test: 11 examples, " in out
  labels = [
    row["opinion"] for row in csv.DictReader(open(folder / "train.csv"))
  ]
  counts = f"+ {labels.count('+')}, - {labels.count('-')}"
  assert f"labels of train: {counts}\n" in out
  assert "steps: 45 of 45, 8 examples each\n" in out
  assert "warning" not in out
  assert listing(folder) == before


def test_a_dry_run_of_several_seeds_needs_room_for_all(
  folder, capsys, monkeypatch
):
  monkeypatch.setattr(dry_run, "SMALL_FILES_BYTES", 0)
  monkeypatch.setattr(dry_run, "format_bytes", str)
  sizes = []
  for num_seeds in (1, 2):
    run(folder, do_train=True, dry_run=True, num_seeds=num_seeds)
    out = capsys.readouterr().out
    assert out.count("steps: ") == out.count("time: ") == num_seeds
    assert out.count("verdict: ") == out.count("loss: ") == 1
    sizes.append(int(re.search(r"written to, (\d+) needed", out)[1]))
  assert sizes[1] == 2 * sizes[0]
  assert not (folder / "out").exists()


def test_a_dry_run_warns_of_cut_texts_and_absent_labels(folder, capsys):
  options = {
    "problem_type": "multi_label",
    "label_column": "tags,none",
    "id_column": None,
    "max_seq_length": 8,
  }
  with open(folder / "train.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  with open(folder / "train.csv", "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["review", "tags", "none"])
    writer.writerows([x["review"], len(x["tags"]) > 4, 0] for x in rows)
  text = (folder / "train.csv").read_text()
  text = text.replace("True", "1").replace("False", "0")
  (folder / "train.csv").write_text(text)
  run(folder, do_train=True, dry_run=True, **options)
  out = capsys.readouterr().out
  assert "% of the texts of train are truncated; raise --max_seq" in out
  assert "warning: no example of train has the label none\n" in out
  assert out.endswith("verdict: ready\n")


def test_a_dry_run_of_a_finished_run_would_skip_training(folder, capsys):
  run(folder, do_train=True)
  before = listing(folder)
  capsys.readouterr()
  run(folder, **NEW_RUN, dry_run=True)
  out = capsys.readouterr().out
  assert "training: would be skipped" in out
  assert out.endswith("verdict: ready\n")
  run(folder, do_eval=True, dry_run=True)
  assert listing(folder) == before


# Upstream ---------------------------------------------------------------------


def run_script(*args):
  return subprocess.run(
    [sys.executable, f"{ROOT}/run_classifier.py", *args],
    capture_output=True,
    text=True,
  )


@pytest.mark.parametrize(
  ("task", "flags"),
  [
    ("mrpc", ["--max_seq_length=64"]),
    (
      "cola",
      [
        "--max_seq_length=128",
        "--eval_batch_size=4",
        "--predict_batch_size=3",
        "--do_lower_case=False",
      ],
    ),
  ],
)
def test_upstreams_commands_give_upstreams_results(
  goldens, tmp_path, task, flags
):
  result = run_script(
    f"--task_name={task.upper()}",
    "--do_eval=true",
    "--do_predict=true",
    f"--data_dir={goldens}/inputs/{task}",
    f"--vocab_file={goldens}/vocab/vocab.txt",
    f"--bert_config_file={goldens}/model/gelu30k/bert_config.json",
    f"--init_checkpoint={goldens}/model/gelu30k/bert_model.ckpt",
    f"--output_dir={tmp_path}",
    *flags,
  )
  assert not result.returncode, result.stderr
  expected_folder = goldens / "cli" / f"run_classifier_{task}"
  expected = numbers((expected_folder / "eval_results.txt").read_text())
  found = numbers((tmp_path / "eval_results.txt").read_text())
  # Two frameworks' float32 through one layer.
  assert {key: found[key] for key in expected} == pytest.approx(
    expected, rel=1e-6
  )
  tables = [
    np.loadtxt(path / "test_results.tsv", delimiter="\t")
    for path in (tmp_path, expected_folder)
  ]
  np.testing.assert_allclose(*tables, atol=1e-6)


@pytest.mark.parametrize(
  ("options", "text"),
  [
    ({"task_name": "mrpc", "problem_type": "multi_label"}, "mrpc is single"),
    ({"problem_type": "regression", "class_weights": "1"}, "class_weights"),
    ({"problem_type": "multi_label", "label_smoothing": 0.1}, "smoothing has"),
    ({"task_name": "sts-b", "label_smoothing": 0.1}, "no meaning for regress"),
  ],
)
def test_flags_without_effect_are_refused(folder, options, text):
  config = make_config(folder, do_train=True, **options)
  with pytest.raises(ValueError, match=text):
    run_classifier.check_flags(config)


@pytest.mark.parametrize(
  ("flags", "text"),
  [
    (["--task_name=mrpc", "--output_dir=o"], "nothing to do"),
    (["--task_name=glue", "--output_dir=o", "--do_eval"], "Task not found"),
  ],
)
def test_mistakes_on_the_command_line_are_one_sentence(flags, text):
  result = run_script(*flags)
  assert result.returncode == 1
  assert result.stderr.startswith("run_classifier: error: ")
  assert text in result.stderr
  assert result.stderr.count("\n") == 1


# Export -----------------------------------------------------------------------

ANSWER_ELSEWHERE = """
import json, sys
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.
import tensorflow_text

model = tf.saved_model.load(sys.argv[1])
texts = json.loads(sys.stdin.read())
texts = {name: tf.constant(column) for name, column in texts.items()}
outputs = model.signatures["serving_default"](**texts)
ours = {"modeling", "tokenization", "graph_tokenization", "keras"}
assert not ours & {*sys.modules} - {"keras"}, sys.modules.keys()
result = {name: x.numpy().tolist() for name, x in outputs.items()}
print(json.dumps(result, default=bytes.decode))
"""


def answer_elsewhere(export_dir, texts, place):
  """What an export answers in a process that cannot import our modules."""
  result = subprocess.run(
    [sys.executable, "-I", "-c", ANSWER_ELSEWHERE, str(export_dir)],
    input=json.dumps(texts),
    cwd=place,
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return json.loads(result.stdout)


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"text_b": "opinion"},
    {"problem_type": "multi_label", "label_column": "tags"},
    {"problem_type": "regression", "label_column": "score"},
    {"long_text": "sliding", "max_seq_length": 8},
    {"long_text": "head_tail", "max_seq_length": 8},
  ],
)
def test_an_export_answers_elsewhere_as_the_model_does(folder, options):
  export_dir = folder / "models" / "1"
  run(
    folder,
    do_train=True,
    do_predict=True,
    do_export=True,
    export_dir=str(export_dir),
    num_train_epochs=2.0,
    **options,
  )
  with open(folder / "test.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  texts = {"text": [row["review"] for row in rows]}
  if "text_b" in options:
    texts["text_pair"] = [row["opinion"] for row in rows]
  found = answer_elsewhere(export_dir, texts, place=folder)
  expected = predictions(folder)
  if options.get("problem_type") == "regression":
    scores = [line["score"] for line in expected]
    assert found["score"] == pytest.approx(scores, abs=1e-5)
    return
  labels = [line["label"] for line in expected]
  if options.get("problem_type") == "multi_label":
    labels = [",".join(label) for label in labels]
  assert found["label"] == labels
  for row, line in zip(found["probabilities"], expected, strict=True):
    values = [*line["probabilities"].values()]
    assert row == pytest.approx(values, abs=1e-5)


def test_special_tokens_are_kept_by_model_and_export(folder):
  """An entry of the vocabulary in brackets, [E1], in place of "plot"."""
  for path in (folder / "model" / "vocab.txt", *folder.glob("*.csv")):
    path.write_text(path.read_text().replace("plot", "[E1]"))
  with open(folder / "test.csv", "a") as file:
    file.write("x,a good [E1],+,0,kind\ny,a good [E2],+,0,kind\n")
  export_dir = str(folder / "export")
  options = {"special_tokens_in_text": "keep", "do_predict": True}
  run(folder, **options, do_train=True, do_export=True, export_dir=export_dir)
  with open(folder / "test.csv", newline="") as file:
    texts = [row["review"] for row in csv.DictReader(file)]
  expected = predictions(folder)
  # Apart, both would be three unknown tokens.
  assert expected[-1]["probabilities"] != expected[-2]["probabilities"]
  model = predictor.Predictor(export_dir)
  assert model.description.special_tokens_in_text == "keep"
  for line, result in zip(expected, model.predict(texts), strict=True):
    assert result["label"] == line["label"]
    assert result["probabilities"] == pytest.approx(
      line["probabilities"], abs=1e-5
    )
  with pytest.raises(ValueError, match="with --special_tokens_in_text=keep"):
    run(folder, do_predict=True)


def test_a_run_from_before_special_tokens_goes_on(folder, capsys):
  run(folder, do_train=True, num_train_epochs=1.0)
  path = folder / "out" / "run_manifest.json"
  manifest = json.loads(path.read_text())
  del manifest["settings"]["special_tokens_in_text"]
  path.write_text(json.dumps(manifest))
  run(folder, do_train=True, do_predict=True, num_train_epochs=1.0)
  assert "training is skipped" in capsys.readouterr().out


def test_an_old_output_dir_is_exported_without_training(folder):
  run(folder, do_train=True)
  stamp = os.path.getmtime(folder / "out" / "bert_model.ckpt.index")
  export_dir = folder / "export"
  run(folder, do_export=True, export_dir=str(export_dir), data_dir=None)
  assert os.path.getmtime(folder / "out" / "bert_model.ckpt.index") == stamp
  with open(export_dir / "assets.extra" / "model.json") as file:
    description = json.load(file)
  assert description["kind"] == "classifier"
  assert description["labels"] == ["+", "-"]
  assert description["inputs"] == {
    "serving_default": ["text"],
    "tokens": ["input_ids", "input_mask", "segment_ids"],
  }
  run(folder, do_export=True, export_dir=str(export_dir))  # Replaces it.


def test_an_export_replaces_nothing_else(folder):
  (folder / "mine").mkdir()
  (folder / "mine" / "thesis.txt").write_text("important")
  with pytest.raises(ValueError, match="holds something else than an export"):
    run(folder, **NEW_RUN, do_export=True, export_dir=str(folder / "mine"))
  assert not (folder / "out").exists()


@pytest.mark.parametrize(
  ("devices", "tolerance"),
  [
    ({"num_devices": 2}, 1e-5),
    # The same arithmetic in another order, 8 bits of a number each.
    ({"mixed_precision": "bfloat16"}, 1e-2),
  ],
)
def test_an_export_of_a_model_on_devices(folder, devices, tolerance):
  export_dir = str(folder / "export")
  run(folder, **NEW_RUN, **devices, do_export=True, export_dir=export_dir)
  lines = predictions(folder)
  found = predictor.Predictor(export_dir).predict([x["text"] for x in lines])
  for line, result in zip(lines, found, strict=True):
    assert result["probabilities"] == pytest.approx(
      line["probabilities"], abs=tolerance
    )
