"""Checkpoints: upstream's names, full match, atomicity, rotation."""

import os

import numpy as np
import pytest
import tensorflow as tf

import checkpoint_io
import modeling


@pytest.fixture
def variables():
  return {
    "bert/a/kernel": tf.Variable([[1.0, 2.0]]),
    "bert/pooler/dense/bias": tf.Variable([3.0]),
    "output_bias": tf.Variable([4.0, 5.0]),
  }


def zeros_like(variables):
  return {
    name: tf.Variable(tf.zeros_like(value)) for name, value in variables.items()
  }


def assert_equal(actual, expected):
  assert list(actual) == list(expected)
  for name in expected:
    np.testing.assert_array_equal(actual[name], expected[name])


def test_round_trip_is_bitwise(tmp_path, variables):
  prefix = str(tmp_path / "model.ckpt-7")
  checkpoint_io.save(prefix, variables, 7, {"loss_scale": {"scale": 2.0}})
  loaded = zeros_like(variables)
  step, extra = checkpoint_io.restore(loaded, prefix)
  assert_equal(loaded, variables)
  assert (step, extra) == (7, {"loss_scale": {"scale": 2.0}})


def test_tensorflow_1_reads_what_we_write(tmp_path, variables):
  """The reader behind tf.compat.v1.train.Saver sees plain names."""
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoint_io.save(prefix, variables, 7)
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    bias = tf.compat.v1.get_variable("output_bias", [2])
    step = tf.compat.v1.get_variable("global_step", [], tf.int64)
    tf.compat.v1.train.Saver().restore(session, prefix)
    np.testing.assert_array_equal(session.run(bias), [4.0, 5.0])
    assert session.run(step) == 7


@pytest.mark.parametrize("name", ["tiny", "odd", "gelu30k"])
def test_upstreams_checkpoints_load_in_full(goldens, name):
  folder = goldens / "model" / name
  config = modeling.BertConfig.from_json_file(str(folder / "bert_config.json"))
  variables = modeling.named_variables(modeling.BertPretrainer(config))
  report = checkpoint_io.load_weights(
    variables, str(folder / "bert_model.ckpt")
  )
  assert set(report.loaded) == set(variables)
  assert report.initialised == ()
  assert set(report.ignored) == {
    "cls/squad/output_weights",
    "cls/squad/output_bias",
    "output_weights",
    "output_bias",
    "global_step",
  }
  reader = tf.train.load_checkpoint(str(folder / "bert_model.ckpt"))
  for variable_name, variable in variables.items():
    np.testing.assert_array_equal(variable, reader.get_tensor(variable_name))


def test_upstreams_global_step_is_read(goldens):
  prefix = str(goldens / "model" / "tiny" / "bert_model.ckpt")
  assert checkpoint_io.read_global_step(prefix) == 1011


def test_the_report_names_what_was_not_loaded(tmp_path, variables):
  saved = {
    "bert/a/kernel": variables["bert/a/kernel"],
    "bert/a/kernel/adam_m": tf.zeros([1, 2]),
    "cls/old/output_bias": tf.zeros([2]),
  }
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoint_io.save(prefix, saved, 3)
  report = checkpoint_io.load_weights(variables, prefix)
  assert report.loaded == ("bert/a/kernel",)
  assert report.initialised == ("bert/pooler/dense/bias", "output_bias")
  text = str(report)
  assert "newly initialised, not in the checkpoint: bert/pooler" in text
  assert "a head this model does not have: 1 (cls/old/output_bias)" in text
  assert "state of the run that wrote it: 2" in text


def test_an_incomplete_encoder_is_refused_before_anything_changes(
  tmp_path, variables
):
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoint_io.save(prefix, {"output_bias": tf.zeros([2])})
  with pytest.raises(ValueError, match="lacks 1 encoder variables, bert/a"):
    checkpoint_io.load_weights(variables, prefix)
  np.testing.assert_array_equal(variables["output_bias"], [4.0, 5.0])


def test_another_shape_is_refused_before_anything_changes(tmp_path, variables):
  prefix = str(tmp_path / "bert_model.ckpt")
  changed = {**zeros_like(variables), "output_bias": tf.zeros([3])}
  checkpoint_io.save(prefix, changed)
  with pytest.raises(ValueError, match=r"output_bias has shape \[3\].*\[2\]"):
    checkpoint_io.load_weights(variables, prefix)
  np.testing.assert_array_equal(variables["bert/a/kernel"], [[1.0, 2.0]])


def test_resuming_needs_every_variable(tmp_path, variables):
  prefix = str(tmp_path / "model.ckpt-1")
  checkpoint_io.save(prefix, variables)
  with pytest.raises(ValueError, match="cannot be resumed.*global_step"):
    checkpoint_io.restore(variables, prefix)


@pytest.mark.parametrize(
  "path", ["", "checkpoint", "model.ckpt-5", "model.ckpt-5.index"]
)
def test_every_way_to_name_a_checkpoint(tmp_path, variables, path):
  directory = checkpoint_io.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 5, {})
  found = checkpoint_io.resolve(os.path.join(str(tmp_path), path).rstrip("/"))
  assert found == str(tmp_path / "model.ckpt-5")


def test_a_directory_with_a_released_model_resolves(tmp_path, variables):
  checkpoint_io.save(str(tmp_path / "bert_model.ckpt"), variables)
  assert checkpoint_io.resolve(str(tmp_path)) == str(
    tmp_path / "bert_model.ckpt"
  )


def test_nothing_there_names_the_path(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint at .*nowhere"):
    checkpoint_io.resolve(str(tmp_path / "nowhere"))


def test_a_directory_named_checkpoint_is_one(tmp_path, variables):
  folder = tmp_path / "checkpoint"
  folder.mkdir()
  checkpoint_io.save(str(folder / "bert_model.ckpt"), variables)
  assert checkpoint_io.resolve(str(folder)) == str(folder / "bert_model.ckpt")


def test_an_index_without_its_data_is_no_checkpoint(tmp_path, variables):
  checkpoint_io.save(str(tmp_path / "a.ckpt"), variables)
  (tmp_path / "a.ckpt.data-00000-of-00001").unlink()
  with pytest.raises(FileNotFoundError, match="no checkpoint at .*a.ckpt"):
    checkpoint_io.resolve(str(tmp_path / "a.ckpt"))


@pytest.mark.parametrize("name", ["plain", "with[1]brackets*"])
def test_rotation_keeps_the_newest(tmp_path, variables, name):
  tmp_path = tmp_path / name
  tmp_path.mkdir()
  (tmp_path / "model.ckpt-3.incomplete-77.index").touch()
  directory = checkpoint_io.CheckpointDirectory(str(tmp_path), 2)
  for step in (9, 10, 100):
    directory.save(variables, step, {})
  kept = {path.name.split(".index")[0] for path in tmp_path.glob("*.index")}
  assert kept == {"model.ckpt-10", "model.ckpt-100"}
  names = [path.name for path in tmp_path.iterdir()]
  assert not [name for name in names if "ckpt-9" in name or "77" in name]
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert [os.path.basename(x) for x in state.all_model_checkpoint_paths] == [
    "model.ckpt-10",
    "model.ckpt-100",
  ]


def test_zero_keeps_all(tmp_path, variables):
  directory = checkpoint_io.CheckpointDirectory(str(tmp_path), 0)
  for step in range(7):
    directory.save(variables, step, {})
  assert len(list(tmp_path.glob("*.index"))) == 7


def test_a_moved_directory_is_followed(tmp_path, variables):
  old, new = tmp_path / "old", tmp_path / "new"
  old.mkdir()
  checkpoint_io.CheckpointDirectory(str(old)).save(variables, 1, {})
  # Estimator wrote absolute paths; ours are relative.
  state = old / "checkpoint"
  state.write_text(f'model_checkpoint_path: "{old}/model.ckpt-1"\n')
  old.rename(new)
  assert checkpoint_io.latest(str(new)) == str(new / "model.ckpt-1")


def test_a_failed_write_leaves_the_old_checkpoint(
  tmp_path, variables, monkeypatch
):
  directory = checkpoint_io.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 1, {})

  def fail(source, target, overwrite=False):
    raise OSError("disk full")

  monkeypatch.setattr(tf.io.gfile, "rename", fail)
  with pytest.raises(OSError, match="disk full"):
    directory.save(zeros_like(variables), 2, {})
  monkeypatch.undo()
  assert checkpoint_io.latest(str(tmp_path)) == str(tmp_path / "model.ckpt-1")
  loaded = zeros_like(variables)
  assert checkpoint_io.restore(loaded, str(tmp_path))[0] == 1
  assert_equal(loaded, variables)
