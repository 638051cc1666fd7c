"""Whole runs: files written, resumed, refused; upstream's evaluation."""

import collections
import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text  # noqa: F401  Its ops are in the exports.

import modeling
import run_pretraining
from bert_keras3.data import features as input_pipeline
from bert_keras3.data import order as order_module
from bert_keras3.data import record_writer
from bert_keras3.data import records as records_module
from bert_keras3.serving import predictor
from bert_keras3.tasks import pretraining
from bert_keras3.training import loop
from bert_keras3.weights import checkpoints
from run_forecast_test import listing

ROOT = os.path.dirname(run_pretraining.__file__)
VOCAB_SIZE = 60


def write_records(path, count=40, length=16, predictions=3, vocab_size=60):
  """Random records of the right form."""
  rng = np.random.default_rng(count)
  size = [count, length]
  features = {
    "input_ids": rng.integers(1, vocab_size, size),
    "input_mask": np.ones(size, int),
    "segment_ids": np.zeros(size, int),
    "masked_lm_positions": rng.integers(0, length, [count, predictions]),
    "masked_lm_ids": rng.integers(1, vocab_size, [count, predictions]),
    "masked_lm_weights": np.ones([count, predictions]),
    "next_sentence_labels": rng.integers(0, 2, [count, 1]),
  }
  specs = input_pipeline.pretraining_features(length, predictions)
  with record_writer.RecordWriter(str(path)) as writer:
    for record in input_pipeline.serialize_examples(features, specs):
      writer.write(record)
  return str(path)


def write_config(folder):
  """Writes the config of a tiny BERT; returns its path."""
  bert_config = modeling.BertConfig(
    VOCAB_SIZE,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=16,
    type_vocab_size=2,
  )
  path = folder / "bert_config.json"
  path.write_text(bert_config.to_json_string())
  return path


@pytest.fixture
def config(tmp_path):
  """Trains and evaluates a tiny BERT on 40 records, 17 held out."""
  return run_pretraining.PretrainingConfig(
    bert_config_file=str(write_config(tmp_path)),
    input_file=write_records(tmp_path / "train.tfrecord"),
    eval_input_file=write_records(tmp_path / "eval.tfrecord", count=17),
    output_dir=str(tmp_path / "out"),
    max_seq_length=16,
    max_predictions_per_seq=3,
    do_train=True,
    do_eval=True,
    learning_rate=1e-3,
    num_train_steps=12,
    num_warmup_steps=3,
    train_batch_size=8,
    save_checkpoints_steps=5,
    log_every_steps=4,
  )


def pretrain(config, **options):
  run_pretraining.pretrain(dataclasses.replace(config, **options))


def final_weights(config):
  reader = tf.train.load_checkpoint(config.output_dir + "/bert_model.ckpt")
  names = set(reader.get_variable_to_shape_map()) - {"global_step"}
  return {name: reader.get_tensor(name) for name in names}


def manifest(config):
  with open(config.output_dir + "/run_manifest.json") as file:
    return json.load(file)


def test_a_run_leaves_what_it_promises(config, capsys):
  pretrain(config)
  files = set(os.listdir(config.output_dir))
  assert {
    "bert_config.json",
    "bert_model.ckpt.index",
    "checkpoint",
    "eval_results.txt",
    "model.ckpt-12.index",
    "run_manifest.json",
    "training_log.csv",
  } <= files
  assert not [name for name in files if "incomplete" in name]
  assert "model.ckpt-0.index" not in files

  found = manifest(config)
  assert found["finished"]
  text = open(config.output_dir + "/eval_results.txt").read()
  assert [line.split(" = ")[0] for line in text.splitlines()] == [
    "global_step",
    "loss",
    "masked_lm_accuracy",
    "masked_lm_loss",
    "next_sentence_accuracy",
    "next_sentence_loss",
  ]
  assert "global_step = 12\n" in text
  assert f"loss = {np.float32(found['results']['loss'])!s}\n" in text
  assert text in capsys.readouterr().out

  weights = final_weights(config)
  assert set(weights) == set(
    modeling.named_variables(
      modeling.BertPretrainer(
        modeling.BertConfig.from_json_file(config.bert_config_file)
      )
    )
  )
  rows = list(csv.DictReader(open(config.output_dir + "/training_log.csv")))
  assert [row["step"] for row in rows] == ["4", "8", "12"]


def test_a_finished_run_is_not_trained_again_but_evaluated(config, capsys):
  pretrain(config)
  before = final_weights(config)
  os.remove(config.output_dir + "/eval_results.txt")
  pretrain(config)
  assert "training is skipped" in capsys.readouterr().out
  assert os.path.exists(config.output_dir + "/eval_results.txt")
  after = final_weights(config)
  assert all((before[name] == after[name]).all() for name in before)


def test_an_interrupted_run_ends_with_the_same_weights(
  config, capsys, monkeypatch
):
  whole = dataclasses.replace(config, output_dir=config.output_dir + "-whole")
  pretrain(whole)

  save = checkpoints.CheckpointDirectory.save

  def save_and_stop(self, variables, step, extra):
    save(self, variables, step, extra)
    raise KeyboardInterrupt

  monkeypatch.setattr(checkpoints.CheckpointDirectory, "save", save_and_stop)
  with pytest.raises(KeyboardInterrupt):
    pretrain(config)
  monkeypatch.undo()
  assert not manifest(config)["finished"]

  pretrain(config)
  assert "resuming at step 5" in capsys.readouterr().out
  expected, found = final_weights(whole), final_weights(config)
  for name in expected:
    np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_another_run_is_refused_and_overwritten_only_when_asked(config):
  pretrain(config, learning_rate=1e-4)
  with pytest.raises(ValueError, match=r"--learning_rate=0.0001 \(now 0.001\)"):
    pretrain(config)
  pretrain(config, overwrite_output_dir=True)
  assert manifest(config)["settings"]["learning_rate"] == 1e-3


def test_training_starts_from_a_checkpoint(config, capsys):
  pretrain(config)
  second = dataclasses.replace(
    config,
    init_checkpoint=config.output_dir,
    output_dir=config.output_dir + "-2",
  )
  pretrain(second, learning_rate=0.0, num_train_steps=1, num_warmup_steps=0)
  assert "newly initialised" not in capsys.readouterr().out
  first, weights = final_weights(config), final_weights(second)
  assert all((first[name] == weights[name]).all() for name in first)


def test_a_dry_run_checks_and_writes_nothing(config, tmp_path, capsys):
  before = listing(tmp_path)
  pretrain(dataclasses.replace(config, dry_run=True))
  lines = capsys.readouterr().out.splitlines()
  assert lines[-2].startswith("dry run: 40 records, flags, model")
  assert lines[-1] == "verdict: ready"
  assert {
    "records: 40, all checked",
    "records: 17, all checked",
    "training: would start at step 0",
    "steps: 12 of 12, 8 examples each",
    "examples: 96, that is 2.4 epochs of 40",
    "checkpoints: 3",
  } <= set(lines)
  assert listing(tmp_path) == before
  only_eval = dataclasses.replace(config, dry_run=True, do_train=False)
  with pytest.raises(ValueError, match="no model to use"):
    pretrain(only_eval)


def test_a_dry_run_of_an_overwrite_deletes_nothing(config):
  pretrain(config)
  before = sorted(os.listdir(config.output_dir))
  pretrain(config, dry_run=True, overwrite_output_dir=True, learning_rate=2.0)
  assert sorted(os.listdir(config.output_dir)) == before


def test_a_dry_run_tells_where_a_run_would_go_on(
  config, tmp_path, capsys, monkeypatch
):
  dry = dataclasses.replace(config, dry_run=True)
  with monkeypatch.context() as patch:
    patch.setattr(loop.Trainer, "load_best", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      pretrain(config)
  os.remove(f"{config.output_dir}/model.ckpt-12.index")
  before = listing(tmp_path)
  capsys.readouterr()
  pretrain(dry)
  out = capsys.readouterr().out
  assert "training: would go on at step 10\nsteps: 2 of 12" in out
  assert "checkpoints: 1\n" in out
  assert listing(tmp_path) == before

  pretrain(config)
  before = listing(tmp_path)
  capsys.readouterr()
  pretrain(dry)
  out = capsys.readouterr().out
  assert "training: would be skipped" in out and "steps: " not in out
  assert out.endswith("verdict: ready\n")
  assert listing(tmp_path) == before


def test_a_dry_run_finds_the_bad_record_that_training_would(config, tmp_path):
  """In a process: one sentence, the verdict, and status 1."""
  path = config.input_file
  write_records(path, count=100)
  with open(path, "r+b") as file:
    file.seek(-20, os.SEEK_END)  # Far beyond what every run looks at.
    file.write(b"x")
  before = listing(tmp_path)
  result = run_script(*as_flags(config), "--do_train", "--dry_run")
  assert result.returncode == 1
  problem = f"1 of 100 records are bad, such as {path}: record 99 (counting "
  assert f"\nverdict: 1 problem\n  {problem}" in result.stdout
  (line,) = result.stderr.splitlines()
  assert line.startswith(
    f"run_pretraining: error: the dry run found 1 problem: {problem}"
  )
  assert listing(tmp_path) == before


def test_a_dry_run_on_a_full_disk_is_not_ready(config, capsys, monkeypatch):
  usage = collections.namedtuple("DiskUsage", "free")
  monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=1000))
  with pytest.raises(ValueError, match="make room, choose another disk"):
    pretrain(dataclasses.replace(config, dry_run=True))
  assert "\nverdict: 1 problem\n  --output_dir=" in capsys.readouterr().out


@pytest.mark.parametrize("overwrite", [False, True])
def test_weights_to_start_from_are_never_replaced(config, overwrite):
  pretrain(config)
  before = final_weights(config)
  inside = dataclasses.replace(
    config,
    init_checkpoint=config.output_dir + "/bert_model.ckpt",
    overwrite_output_dir=overwrite,
  )
  with pytest.raises(ValueError, match="lies in --output_dir"):
    pretrain(inside)
  after = final_weights(config)
  assert all((before[name] == after[name]).all() for name in before)


def test_a_config_in_the_output_dir_stays_as_it_is(config):
  os.makedirs(config.output_dir)
  path = config.output_dir + "/bert_config.json"
  with open(config.bert_config_file) as file:
    text = json.dumps(json.load(file))  # One line: not what we would write.
  with open(path, "w") as file:
    file.write(text)
  config = dataclasses.replace(config, bert_config_file=path)
  for _ in range(2):
    pretrain(config)
  assert open(path).read() == text


def test_a_run_of_upstream_is_continued(config, capsys):
  """Its directory has checkpoints with slots, and no manifest."""
  pretrain(config)
  for name in os.listdir(config.output_dir):
    if "ckpt-12" in name or name in ("run_manifest.json", "model.ckpt-10.json"):
      os.remove(os.path.join(config.output_dir, name))
  with open(config.output_dir + "/checkpoint", "w") as file:
    file.write('model_checkpoint_path: "model.ckpt-10"\n')
  expected = final_weights(config)
  pretrain(config)
  assert "resuming at step 10" in capsys.readouterr().out
  found = final_weights(config)
  assert all((expected[name] == found[name]).all() for name in expected)


def test_a_checkpoint_without_heads_is_not_evaluated(config, tmp_path):
  bert_config = modeling.BertConfig.from_json_file(config.bert_config_file)
  encoder = modeling.named_variables(modeling.BertModel(bert_config))
  checkpoints.save(str(tmp_path / "encoder.ckpt"), encoder)
  with pytest.raises(ValueError, match="encoder.ckpt cannot be evaluated: it"):
    pretrain(
      dataclasses.replace(
        config, do_train=False, init_checkpoint=str(tmp_path / "encoder.ckpt")
      )
    )


def test_a_record_that_is_corrupt_stops_training_with_its_number(
  config, tmp_path
):
  path = write_records(tmp_path / "long.tfrecord", count=400)
  size = os.path.getsize(path) // 400
  with open(path, "rb+") as file:
    file.seek(size * 300 + 30)
    file.write(b"\xff\xff")
  with pytest.raises(
    ValueError, match=r"long.tfrecord: record 300 .*is corrupt"
  ):
    pretrain(config, input_file=path, num_train_steps=60, num_warmup_steps=0)


def bad_copy(path, bad_records, name="bad"):
  """Records with junk among them, at those places, and a torn end."""
  specs = input_pipeline.pretraining_features(16, 3)
  source = records_module.RecordSource([path], specs)
  bad_path = path.replace("train", name)
  (junk,) = input_pipeline.serialize_examples(
    {"x": np.zeros([1, 1], int)}, (input_pipeline.FeatureSpec("x", (1,)),)
  )
  records = source.read(range(len(source)))
  for place in bad_records:
    records.insert(place, junk)
  with record_writer.RecordWriter(bad_path) as writer:
    for record in records:
      writer.write(record)
  with open(bad_path, "ab") as file:
    file.write(b"torn")
  return bad_path


def test_bad_records_are_left_out_as_if_they_had_never_been(
  config, capsys, monkeypatch
):
  """Same weights as without them, also after an interruption."""
  clean = dataclasses.replace(config, output_dir=config.output_dir + "-clean")
  pretrain(clean)
  eval_file = bad_copy(config.input_file, [1], "eval")
  config = dataclasses.replace(
    config,
    input_file=bad_copy(config.input_file, [0, 3, 30]),
    eval_input_file=eval_file,
    do_eval=True,
    skip_bad_records=True,
  )
  save = checkpoints.CheckpointDirectory.save

  def save_and_stop(self, *args):
    save(self, *args)
    raise KeyboardInterrupt

  capsys.readouterr()
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.CheckpointDirectory, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
      pretrain(config)
  output = capsys.readouterr().out
  assert "4 of 44 records are bad and left out\n" in output
  assert "bad.tfrecord: record 3 (counting from 0) has no feature" in output

  scanned = []
  find = records_module._find_bad_records
  monkeypatch.setattr(
    records_module,
    "_find_bad_records",
    lambda path, *rest: scanned.append(path) or find(path, *rest),
  )
  pretrain(config)
  assert scanned == []
  output = capsys.readouterr().out
  assert "resuming at step 5" in output
  assert "4 of 44 records are bad and left out\n" in output
  expected, found = final_weights(clean), final_weights(config)
  assert all((expected[name] == found[name]).all() for name in expected)


def test_bad_records_among_the_first_stop_a_run_before_it_begins(config):
  path = bad_copy(config.input_file, [7])
  config = dataclasses.replace(config, input_file=path)
  with pytest.raises(ValueError, match="is truncated .*record 41 .*--skip_bad"):
    pretrain(config)
  with open(path, "rb+") as file:
    file.truncate(os.path.getsize(path) - 4)
  with pytest.raises(ValueError, match="record 7 .*another task.*--skip_bad"):
    pretrain(config)
  assert not os.path.exists(config.output_dir)


def test_whether_bad_records_are_skipped_is_part_of_a_run(config):
  """One that began before there was the flag did not skip any."""
  pretrain(config)
  path = f"{config.output_dir}/run_manifest.json"
  content = manifest(config)
  del content["settings"]["skip_bad_records"]
  with open(path, "w") as file:
    json.dump(content, file)
  pretrain(config)
  with pytest.raises(ValueError, match=r"--skip_bad_records=False \(now True"):
    pretrain(config, skip_bad_records=True)


def test_a_bad_record_leaves_the_checkpoints_before_it(config, tmp_path):
  """Checked where it is read: the first records of the file are right."""
  order = order_module.TrainingOrder(400, 8, 0)
  place = int(order.batch(14).max())
  assert place > pretraining.NUM_CHECKED_RECORDS
  path = str(tmp_path / "long.tfrecord")
  specs = input_pipeline.pretraining_features(16, 3)
  features = {spec.name: np.ones([400, spec.length], int) for spec in specs}
  features["masked_lm_positions"][place, 1] = 16
  with record_writer.RecordWriter(path) as writer:
    for record in input_pipeline.serialize_examples(features, specs):
      writer.write(record)
  words = (
    rf"record {place} \(counting from 0\) has 16 in 'masked_lm_positions', "
  )
  words += r"not 0 to 15 \(--max_seq_length\)"
  with pytest.raises(ValueError, match=words):
    pretrain(config, input_file=path, num_train_steps=40, num_warmup_steps=0)
  assert checkpoints.latest(config.output_dir).endswith("model.ckpt-10")
  assert not manifest(config)["finished"]


def test_a_loss_that_explodes_stops_the_run_and_keeps_checkpoints(config):
  with pytest.raises(
    ValueError, match="the loss is nan, .*records .*--learning_rate"
  ):
    pretrain(config, learning_rate=1e30, num_warmup_steps=6)
  assert not manifest(config)["finished"]


def test_equal_seeds_give_equal_runs(config):
  other = dataclasses.replace(config, output_dir=config.output_dir + "-2")
  for one in (config, other):
    pretrain(one, seed=5)
  first, second = final_weights(config), final_weights(other)
  assert all((first[name] == second[name]).all() for name in first)


def test_evaluation_needs_weights(config):
  with pytest.raises(ValueError, match="no model to use: .*out holds no"):
    pretrain(dataclasses.replace(config, do_train=False))


def test_evaluation_defaults_to_the_training_records(config):
  """As upstream; eval_input_file is an addition."""
  pretrain(config)
  evaluation = dataclasses.replace(config, do_train=False)
  held_out = dict(manifest(config)["results"])
  pretrain(dataclasses.replace(evaluation, eval_input_file=None))
  on_training = dict(manifest(config)["results"])
  assert on_training != held_out
  pretrain(dataclasses.replace(evaluation, eval_input_file=config.input_file))
  assert manifest(config)["results"] == on_training


def test_two_devices_train_the_same(config):
  one = dataclasses.replace(config, output_dir=config.output_dir + "-1")
  for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
    with open(config.bert_config_file) as file:
      changed = {**json.load(file), name: 0.0}
    with open(config.bert_config_file, "w") as file:
      json.dump(changed, file)
  pretrain(one)
  pretrain(config, num_devices=2)
  expected, found = final_weights(one), final_weights(config)
  for name in expected:
    # The keys' bias has no gradient but rounding noise.
    if "key/bias" not in name:
      np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


# Mismatches, found before training


@pytest.mark.parametrize(
  ("records", "changes", "words"),
  [
    (
      {"length": 8},
      {},
      "bad.tfrecord: record 0 .*made with --max_seq_length=8, not 16",
    ),
    (
      {"predictions": 5},
      {},
      "made with --max_predictions_per_seq=5, not 3; pass",
    ),
    (
      {"vocab_size": 600},
      {},
      "bad.tfrecord: record 0 .*in 'input_ids', not 0 to 59 .vocab_size in "
      ".*config.json",
    ),
    (
      {"length": 32},
      {"max_seq_length": 32},
      "--max_seq_length=32 exceeds max_position_embeddings 16",
    ),
  ],
)
def test_records_that_do_not_fit_are_explained(
  config, tmp_path, records, changes, words
):
  bad = write_records(tmp_path / "bad.tfrecord", count=256, **records)
  config = dataclasses.replace(config, input_file=bad, **changes)
  with pytest.raises(ValueError, match=words):
    pretrain(config)
  assert not os.path.exists(config.output_dir)


@pytest.mark.parametrize(
  ("records", "words"),
  [
    ({"length": 8}, "bad.tfrecord: record 0 .* was made with"),
    ({"vocab_size": 600}, "bad.tfrecord: record 0 .* not 0 to 59"),
  ],
)
def test_the_file_that_differs_from_the_others_is_named(
  config, tmp_path, records, words
):
  bad = write_records(tmp_path / "bad.tfrecord", **records)
  config = dataclasses.replace(config, input_file=f"{config.input_file},{bad}")
  with pytest.raises(ValueError, match=words):
    pretrain(config)


def test_records_of_another_task_are_explained(config, tmp_path):
  path = str(tmp_path / "other.tfrecord")
  specs = (input_pipeline.FeatureSpec("label_ids", (1,)),)
  with record_writer.RecordWriter(path) as writer:
    for record in input_pipeline.serialize_examples(
      {"label_ids": np.zeros([2, 1], int)}, specs
    ):
      writer.write(record)
  with pytest.raises(ValueError, match="record 0 .* no feature 'input_ids'"):
    pretrain(dataclasses.replace(config, input_file=path))


# The command line


def run_script(*args, **environment):
  return subprocess.run(
    [sys.executable, os.path.join(ROOT, "run_pretraining.py"), *args],
    capture_output=True,
    text=True,
    env={**os.environ, **environment},
  )


def as_flags(config):
  names = (
    "bert_config_file",
    "input_file",
    "output_dir",
    "max_seq_length",
    "max_predictions_per_seq",
  )
  return [f"--{name}={getattr(config, name)}" for name in names]


def test_the_script_trains_and_evaluates(config):
  result = run_script(
    *as_flags(config),
    "--do_train",
    "--do_eval",
    "--deterministic",
    "--num_train_steps=3",
    "--num_warmup_steps=1",
    "--train_batch_size=4",
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith("step 3/3  loss ")
  assert "global_step = 3" in result.stdout
  assert manifest(config)["settings"]["train_batch_size"] == 4


@pytest.mark.parametrize(
  ("args", "words"),
  [
    (
      ["--do_train", "--input_file=nowhere*"],
      "error: --input_file: no file matches",
    ),
    (
      ["--do_train", "--bert_config_file=none"],
      "error: no BERT config at none",
    ),
    (
      [],
      "error: nothing to do: pass --do_train, --do_eval, --do_export or ",
    ),
  ],
)
def test_a_mistake_is_one_sentence(config, args, words):
  result = run_script(*as_flags(config), *args)
  assert result.returncode == 1
  assert result.stderr.startswith("run_pretraining: " + words)
  assert result.stderr.count("\n") == 1


def test_evaluation_equals_upstreams_command_line(goldens, tmp_path):
  """Upstream repeats a short file; naming it twice gives the same batches."""
  model = goldens / "model" / "gelu30k"
  records = goldens / "pretraining_data" / "sample_default.tfrecord"
  result = run_script(
    f"--input_file={records},{records}",
    f"--output_dir={tmp_path}",
    "--do_eval=True",
    f"--bert_config_file={model}/bert_config.json",
    f"--init_checkpoint={model}/bert_model.ckpt",
    "--max_eval_steps=20",
    "--eval_batch_size=8",
  )
  assert result.returncode == 0, result.stderr
  found, expected = (
    dict(line.split(" = ") for line in path.read_text().splitlines())
    for path in (
      tmp_path / "eval_results.txt",
      goldens / "cli" / "run_pretraining" / "eval_results.txt",
    )
  )
  assert list(found) == list(expected)
  for key in expected:
    assert float(found[key]) == pytest.approx(float(expected[key]), rel=1e-5)


# Export


def write_vocab(folder):
  """A vocabulary of VOCAB_SIZE tokens."""
  special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
  words = [f"w{i}" for i in range(VOCAB_SIZE - len(special))]
  path = folder / "vocab.txt"
  path.write_text("\n".join([*special, *words]) + "\n")
  return str(path)


def test_what_was_pretrained_fills_masks(config, tmp_path):
  config = dataclasses.replace(
    config,
    do_eval=False,
    vocab_file=write_vocab(tmp_path),
    do_export=True,
    export_dir=str(tmp_path / "export"),
  )
  pretrain(config)
  (result,) = predictor.Predictor(config.export_dir).predict(["w1 [MASK] w2"])
  (mask,) = result["masks"]
  assert sum(x["probability"] for x in mask) <= 1 + 1e-5
  # Again from output_dir alone, which has its vocabulary by now.
  again = dataclasses.replace(
    config,
    do_train=False,
    vocab_file=None,
    bert_config_file=None,
    input_file=None,
    export_dir=str(tmp_path / "again"),
  )
  pretrain(again)
  assert predictor.Predictor(again.export_dir).predict(["w1 [MASK] w2"]) == [
    result
  ]


def test_a_checkpoint_without_heads_is_exported_as_encoder(
  config, tmp_path, capsys
):
  bert_config = modeling.BertConfig.from_json_file(config.bert_config_file)
  model = modeling.BertClassifier(bert_config, num_labels=2)
  prefix = str(tmp_path / "init" / "bert_model.ckpt")
  (tmp_path / "init").mkdir()
  checkpoints.save(prefix, modeling.named_variables(model))
  config = dataclasses.replace(
    config,
    do_train=False,
    do_eval=False,
    init_checkpoint=prefix,
    vocab_file=write_vocab(tmp_path),
    do_export=True,
    export_dir=str(tmp_path / "export"),
  )
  pretrain(config)
  assert "only its encoder is exported" in capsys.readouterr().out
  (result,) = predictor.Predictor(config.export_dir).predict(["w1 w2"])
  assert len(result["embedding"]) == bert_config.hidden_size
  with pytest.raises(ValueError, match="exceeds the model's max_position"):
    pretrain(dataclasses.replace(config, max_seq_length=17))


def test_export_needs_a_vocabulary(config, tmp_path):
  config = dataclasses.replace(
    config, do_export=True, export_dir=str(tmp_path / "export")
  )
  with pytest.raises(FileNotFoundError, match="pass --vocab_file"):
    pretrain(config)
