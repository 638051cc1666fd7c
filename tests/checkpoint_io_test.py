"""Checkpoints: upstream's names, full match, atomicity, rotation, imports."""

import json
import os

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import modeling
import torch_oracle
from bert_keras3.weights import checkpoints


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
  checkpoints.save(prefix, variables, 7, {"loss_scale": {"scale": 2.0}})
  loaded = zeros_like(variables)
  step, extra = checkpoints.restore(loaded, prefix)
  assert_equal(loaded, variables)
  assert (step, extra) == (7, {"loss_scale": {"scale": 2.0}})


def test_tensorflow_1_reads_what_we_write(tmp_path, variables):
  """The reader behind tf.compat.v1.train.Saver sees plain names."""
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoints.save(prefix, variables, 7)
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
  report = checkpoints.load_weights(variables, str(folder / "bert_model.ckpt"))
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
  assert checkpoints.read_global_step(prefix) == 1011


def test_the_report_names_what_was_not_loaded(tmp_path, variables):
  saved = {
    "bert/a/kernel": variables["bert/a/kernel"],
    "bert/a/kernel/adam_m": tf.zeros([1, 2]),
    "cls/old/output_bias": tf.zeros([2]),
  }
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoints.save(prefix, saved, 3)
  report = checkpoints.load_weights(variables, prefix)
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
  checkpoints.save(prefix, {"output_bias": tf.zeros([2])})
  with pytest.raises(ValueError, match="lacks 1 encoder variables, bert/a"):
    checkpoints.load_weights(variables, prefix)
  np.testing.assert_array_equal(variables["output_bias"], [4.0, 5.0])


def test_another_shape_is_refused_before_anything_changes(tmp_path, variables):
  prefix = str(tmp_path / "bert_model.ckpt")
  changed = {**zeros_like(variables), "output_bias": tf.zeros([3])}
  checkpoints.save(prefix, changed)
  with pytest.raises(ValueError, match=r"output_bias has shape \[3\].*\[2\]"):
    checkpoints.load_weights(variables, prefix)
  np.testing.assert_array_equal(variables["bert/a/kernel"], [[1.0, 2.0]])


def test_a_head_for_other_labels_tells_the_way_out(tmp_path, variables):
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoints.save(prefix, {**variables, "output_bias": tf.zeros([3])})
  with pytest.raises(ValueError, match="another number of labels; .*BertModel"):
    checkpoints.load_weights(variables, prefix)


def test_resuming_needs_every_variable(tmp_path, variables):
  prefix = str(tmp_path / "model.ckpt-1")
  checkpoints.save(prefix, variables)
  with pytest.raises(ValueError, match="cannot be resumed.*global_step"):
    checkpoints.restore(variables, prefix)


@pytest.mark.parametrize(
  "path", ["", "checkpoint", "model.ckpt-5", "model.ckpt-5.index"]
)
def test_every_way_to_name_a_checkpoint(tmp_path, variables, path):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 5, {})
  found = checkpoints.resolve(os.path.join(str(tmp_path), path).rstrip("/"))
  assert found == str(tmp_path / "model.ckpt-5")


def test_a_directory_with_a_released_model_resolves(tmp_path, variables):
  checkpoints.save(str(tmp_path / "bert_model.ckpt"), variables)
  assert checkpoints.resolve(str(tmp_path)) == str(tmp_path / "bert_model.ckpt")


def test_a_finished_runs_last_word_is_its_best(tmp_path, variables):
  checkpoints.CheckpointDirectory(str(tmp_path)).save(variables, 5, {})
  checkpoints.save(str(tmp_path / "bert_model.ckpt"), variables)
  best = str(tmp_path / "bert_model.ckpt")
  assert checkpoints.resolve(str(tmp_path)) == best
  newest = checkpoints.resolve(str(tmp_path / "checkpoint"))
  assert newest == str(tmp_path / "model.ckpt-5")


def test_nothing_there_names_the_path(tmp_path):
  with pytest.raises(FileNotFoundError, match="no checkpoint at .*nowhere"):
    checkpoints.resolve(str(tmp_path / "nowhere"))


def test_a_directory_named_checkpoint_is_one(tmp_path, variables):
  folder = tmp_path / "checkpoint"
  folder.mkdir()
  checkpoints.save(str(folder / "bert_model.ckpt"), variables)
  assert checkpoints.resolve(str(folder)) == str(folder / "bert_model.ckpt")


def test_an_index_without_its_data_is_no_checkpoint(tmp_path, variables):
  checkpoints.save(str(tmp_path / "a.ckpt"), variables)
  (tmp_path / "a.ckpt.data-00000-of-00001").unlink()
  with pytest.raises(FileNotFoundError, match="no checkpoint at .*a.ckpt"):
    checkpoints.resolve(str(tmp_path / "a.ckpt"))


def test_rotation_keeps_the_newest(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path), 2)
  for step in (9, 10, 100):
    directory.save(variables, step, {})
  kept = {path.name.split(".index")[0] for path in tmp_path.glob("*.index")}
  assert kept == {"model.ckpt-10", "model.ckpt-100"}
  names = [path.name for path in tmp_path.iterdir()]
  assert not [name for name in names if "ckpt-9" in name]
  state = tf.train.get_checkpoint_state(str(tmp_path))
  assert [os.path.basename(x) for x in state.all_model_checkpoint_paths] == [
    "model.ckpt-10",
    "model.ckpt-100",
  ]


def test_what_tensorflow_would_not_find_again_is_not_written(
  tmp_path, variables
):
  for path in (tmp_path / "with[1]" / "a.ckpt", tmp_path / "a*.ckpt"):
    path.parent.mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="from a path with any of"):
      checkpoints.save(str(path), variables)
  # Nor read, if someone gave it such a name later.
  checkpoints.save(str(tmp_path / "a.ckpt"), variables)
  for suffix in (".index", ".data-00000-of-00001"):
    (tmp_path / f"a.ckpt{suffix}").rename(tmp_path / f"b[1].ckpt{suffix}")
  with pytest.raises(ValueError, match=r"b\[1\].ckpt: TensorFlow reads no"):
    checkpoints.load_weights(variables, str(tmp_path / "b[1].ckpt"))


def test_one_that_was_being_written_is_none(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 5, {})
  # As a killed process leaves it: whole, but without its name.
  checkpoints.save(str(tmp_path / "model.ckpt-9.incomplete-77"), variables, 9)
  newest = str(tmp_path / "model.ckpt-5")
  assert directory.prefixes() == [newest]
  assert checkpoints.newest_readable(str(tmp_path)) == newest


def test_a_checkpoint_file_that_was_edited_is_followed(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  for step in (5, 9):
    directory.save(variables, step, {})
  (tmp_path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-5"')
  chosen = str(tmp_path / "model.ckpt-5")
  assert checkpoints.newest_readable(str(tmp_path)) == chosen


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001", ".json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_newest_is_passed_over(
  tmp_path, variables, capsys, suffix, damage
):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  for step in (5, 9):
    directory.save(variables, step, {"step": step})
  file = tmp_path / f"model.ckpt-9{suffix}"
  content = file.read_bytes()
  middle = len(content) // 2
  file.write_bytes(
    {
      "cut": content[:middle],
      "empty": b"",
      "flipped": content[:3] + bytes([content[3] ^ 255]) + content[4:],
    }[damage]
  )
  newest = checkpoints.newest_readable(str(tmp_path))
  assert newest == str(tmp_path / "model.ckpt-5")
  assert "model.ckpt-9 is damaged and left out" in capsys.readouterr().err
  assert checkpoints.restore(variables, newest) == (5, {"step": 5})


def test_a_flipped_digit_beside_the_tensors_is_damage(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  extra = {"data_offset": 3, "interval": {"loss": 0.1, "steps": 2.0}}
  for step in (5, 9):
    directory.save(variables, step, extra)
  file = tmp_path / "model.ckpt-9.json"
  file.write_text(
    file.read_text().replace('"data_offset": 3', '"data_offset": 7')
  )
  newest = checkpoints.newest_readable(str(tmp_path))
  assert newest == str(tmp_path / "model.ckpt-5")
  assert checkpoints.restore(variables, newest) == (5, extra)
  # As an earlier version wrote it.
  (tmp_path / "model.ckpt-5.json").write_text('{"data_offset": 1}')
  assert checkpoints.restore(variables, newest)[1] == {"data_offset": 1}


def test_nothing_but_damage_is_no_new_start(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 5, {})
  (tmp_path / "model.ckpt-5.data-00000-of-00001").unlink()
  with pytest.raises(
    ValueError, match="no checkpoint in .* can be read; bring"
  ):
    checkpoints.newest_readable(str(tmp_path))
  assert checkpoints.newest_readable(str(tmp_path / "empty")) is None


def test_a_write_that_cannot_be_read_back_is_no_checkpoint(
  tmp_path, variables, monkeypatch
):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 5, {})
  write = checkpoints._write

  def write_otherwise(prefix, tensors, extra):
    write(prefix, {name: x + 1.0 for name, x in tensors.items()}, extra)

  monkeypatch.setattr(checkpoints, "_write", write_otherwise)
  with pytest.raises(
    OSError, match="ckpt-9 could not be written: .* not read b"
  ):
    checkpoints.save(str(tmp_path / "model.ckpt-9"), variables)
  assert not [x for x in os.listdir(tmp_path) if "-9" in x]


def test_zero_keeps_all(tmp_path, variables):
  directory = checkpoints.CheckpointDirectory(str(tmp_path), 0)
  for step in range(7):
    directory.save(variables, step, {})
  assert len(list(tmp_path.glob("*.index"))) == 7


def test_a_moved_directory_is_followed(tmp_path, variables):
  old, new = tmp_path / "old", tmp_path / "new"
  old.mkdir()
  checkpoints.CheckpointDirectory(str(old)).save(variables, 1, {})
  # Estimator wrote absolute paths; ours are relative.
  state = old / "checkpoint"
  state.write_text(f'model_checkpoint_path: "{old}/model.ckpt-1"\n')
  old.rename(new)
  assert checkpoints.latest(str(new)) == str(new / "model.ckpt-1")


def test_a_failed_write_leaves_the_old_checkpoint(
  tmp_path, variables, monkeypatch
):
  directory = checkpoints.CheckpointDirectory(str(tmp_path))
  directory.save(variables, 1, {})

  def fail(source, target, overwrite=False):
    raise OSError("disk full")

  monkeypatch.setattr(tf.io.gfile, "rename", fail)
  with pytest.raises(OSError, match="disk full"):
    directory.save(zeros_like(variables), 2, {})
  monkeypatch.undo()
  assert checkpoints.latest(str(tmp_path)) == str(tmp_path / "model.ckpt-1")
  loaded = zeros_like(variables)
  assert checkpoints.restore(loaded, str(tmp_path))[0] == 1
  assert_equal(loaded, variables)


# Hugging Face

CONFIG = {
  "vocab_size": 20,
  "hidden_size": 8,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "intermediate_size": 12,
  "max_position_embeddings": 6,
  "type_vocab_size": 2,
}
HEAD_NAMES = {
  "cls/token/output_weights": "classifier.weight",
  "cls/token/output_bias": "classifier.bias",
  "cls/choice/output_weights": "classifier.weight",
  "cls/choice/output_bias": "classifier.bias",
  "cls/predictions/output_bias": "cls.predictions.bias",
  "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
  "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
  "output_weights": "classifier.weight",
  "output_bias": "classifier.bias",
  "cls/squad/output_weights": "qa_outputs.weight",
  "cls/squad/output_bias": "qa_outputs.bias",
}


DECODER_WEIGHT = "cls.predictions.decoder.weight"
DECODER_BIAS = "cls.predictions.decoder.bias"


def their_name(name):
  """Name in transformers; torch_oracle's are checked against PyTorch."""
  if name in HEAD_NAMES:
    return HEAD_NAMES[name]
  if name.endswith("_embeddings"):
    return name.replace("/", ".") + ".weight"
  scope, parameter = name.rsplit("/", 1)
  parameter = "weight" if parameter in ("kernel", "gamma") else "bias"
  if scope in torch_oracle.ENCODER_SCOPES:
    return f"{torch_oracle.ENCODER_SCOPES[scope]}.{parameter}"
  _, _, layer, scope = scope.split("/", 3)
  layer = layer.replace("_", ".")
  return f"bert.encoder.{layer}.{torch_oracle.LAYER_SCOPES[scope]}.{parameter}"


def random_model(head=modeling.BertPretrainer, **arguments):
  """A small model's variables, every one with numbers of its own."""
  model = head(modeling.BertConfig.from_dict(CONFIG), **arguments)
  rng = np.random.default_rng(0)
  variables = modeling.named_variables(model)
  for variable in variables.values():
    variable.assign(rng.normal(size=variable.shape))
  return variables


def their_tensors(variables, dtype=np.float32):
  tensors = {}
  for name, variable in variables.items():
    value = variable.numpy().astype(dtype)
    value = value.T if name.endswith("kernel") else value
    # save_file writes the memory as it lies.
    tensors[their_name(name)] = np.ascontiguousarray(value)
  return tensors


def write_safetensors(directory, tensors):
  path = str(directory / "model.safetensors")
  safetensors.numpy.save_file(tensors, path)
  return path


@pytest.mark.parametrize("prefix", ["bert.", ""])
@pytest.mark.parametrize(
  "dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]
)
def test_every_tensor_of_a_hugging_face_directory_arrives(
  tmp_path, prefix, dtype
):
  variables = random_model()
  tensors = {
    name.replace("bert.", prefix): value
    for name, value in their_tensors(variables, dtype).items()
  }
  path = write_safetensors(tmp_path, tensors)
  loaded = zeros_like(variables)
  report = checkpoints.load_weights(loaded, str(tmp_path))
  assert_equal(
    loaded,
    {
      name: variable.numpy().astype(dtype).astype(np.float32)
      for name, variable in variables.items()
    },
  )
  assert report == checkpoints.LoadReport(path, tuple(variables), (), {})


@pytest.mark.parametrize(
  ("head", "arguments"),
  [
    (modeling.BertClassifier, {"num_labels": 3}),
    (modeling.BertSpanLabeler, {}),
  ],
)
def test_hugging_faces_fine_tuned_heads_arrive(tmp_path, head, arguments):
  variables = random_model(head, **arguments)
  path = write_safetensors(tmp_path, their_tensors(variables))
  loaded = zeros_like(variables)
  report = checkpoints.load_weights(loaded, path)
  assert_equal(loaded, variables)
  assert report.initialised == ()


def test_the_first_files_names_of_layer_norms_are_known(tmp_path):
  variables = random_model()
  tensors = {
    name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
      "LayerNorm.bias", "LayerNorm.beta"
    ): value
    for name, value in their_tensors(variables).items()
  }
  loaded = zeros_like(variables)
  checkpoints.load_weights(loaded, write_safetensors(tmp_path, tensors))
  assert_equal(loaded, variables)


def test_the_report_gives_the_reason_for_hugging_faces_extras(tmp_path):
  variables = random_model()
  tensors = their_tensors(variables)
  tensors |= {
    DECODER_WEIGHT: tensors["bert.embeddings.word_embeddings.weight"],
    DECODER_BIAS: tensors["cls.predictions.bias"],
    "bert.embeddings.position_ids": np.arange(6)[None],
    "logit_scale": np.zeros([1], np.float32),
    "classifier.weight": np.zeros([3, 8], np.float32),
  }
  del tensors["bert.pooler.dense.weight"]
  path = write_safetensors(tmp_path, tensors)
  report = checkpoints.load_weights(variables, path)
  assert report.initialised == ("bert/pooler/dense/kernel",)
  tied = "tied to the word embeddings and output bias"
  assert report.ignored == {
    "cls.predictions.decoder.weight": tied,
    "cls.predictions.decoder.bias": tied,
    "bert.embeddings.position_ids": "a constant, not a weight",
    "logit_scale": "unknown to BERT",
    "output_weights": "a head this model does not have",
  }
  assert "ignored, unknown to BERT: 1 (logit_scale)" in str(report)


@pytest.mark.parametrize("name", [DECODER_WEIGHT, DECODER_BIAS])
def test_an_output_layer_that_is_not_tied_is_refused(tmp_path, name):
  variables = random_model()
  tensors = their_tensors(variables)
  shape = [20, 8] if name == DECODER_WEIGHT else [20]
  tensors[name] = np.zeros(shape, np.float32)
  path = write_safetensors(tmp_path, tensors)
  with pytest.raises(ValueError, match=f"{name} differs from .*ties"):
    checkpoints.load_weights(variables, path)


def test_an_output_bias_may_have_its_other_name_only(tmp_path):
  variables = random_model()
  tensors = their_tensors(variables)
  tensors[DECODER_BIAS] = tensors.pop("cls.predictions.bias")
  loaded = zeros_like(variables)
  checkpoints.load_weights(loaded, write_safetensors(tmp_path, tensors))
  assert_equal(loaded, variables)


def write_config(directory, **values):
  config = {**CONFIG, "model_type": "bert", **values}
  (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
  ("head", "arguments", "architecture"),
  [
    (modeling.BertClassifier, {"num_labels": 2}, "BertForJointIntents"),
    (modeling.BertTokenClassifier, {"num_labels": 2}, "BertForJointIntents"),
    (
      modeling.BertClassifier,
      {"num_labels": 2},
      "BertForSequenceClassification",
    ),
    (
      modeling.BertTokenClassifier,
      {"num_labels": 2},
      "BertForTokenClassification",
    ),
    (modeling.BertMultipleChoice, {}, "BertForMultipleChoice"),
  ],
)
def test_the_config_says_what_a_classifier_is(
  tmp_path, head, arguments, architecture
):
  """Or, of a class of somebody's own, the pooler that only one of them has."""
  variables = random_model(head, **arguments)
  tensors = their_tensors(variables)
  if head is modeling.BertTokenClassifier:
    tensors = {x: y for x, y in tensors.items() if "pooler" not in x}
  write_safetensors(tmp_path, tensors)
  write_config(tmp_path, architectures=[architecture])
  loaded = zeros_like(variables)
  report = checkpoints.load_weights(loaded, str(tmp_path))
  kept = {x: y for x, y in variables.items() if x in report.loaded}
  assert_equal({x: loaded[x] for x in kept}, kept)
  assert len(kept) == len(tensors)
  assert report.ignored == {}


def write_shards(directory, tensors):
  """Three files and an index; the last tensor's file comes first."""
  names = [f"model-0000{i}-of-00003.safetensors" for i in (3, 1, 2)]
  weight_map = {
    tensor: names[number % 3] for number, tensor in enumerate(tensors)
  }
  for name in names:
    part = {x: tensors[x] for x in tensors if weight_map[x] == name}
    safetensors.numpy.save_file(part, directory / name)
  index = directory / "model.safetensors.index.json"
  index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
  return index


@pytest.mark.parametrize("by", ["directory", "index"])
def test_shards_arrive(tmp_path, by):
  variables = random_model()
  index = write_shards(tmp_path, their_tensors(variables))
  loaded = zeros_like(variables)
  path = tmp_path if by == "directory" else index
  report = checkpoints.load_weights(loaded, str(path))
  assert_equal(loaded, variables)
  assert report.prefix == str(index)


def test_a_missing_shard_is_named(tmp_path):
  variables = random_model()
  write_shards(tmp_path, their_tensors(variables))
  (tmp_path / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(ValueError, match="model-00002-of.* is missing, which"):
    checkpoints.load_weights(variables, str(tmp_path))


@pytest.mark.parametrize(
  "text",
  ["", "[]", "[" * 3000, '{"architectures": 3}', '{"architectures": [[], {}]}'],
)
def test_a_config_that_says_nothing_is_no_obstacle_to_weights(tmp_path, text):
  """Whoever needs the config says what is wrong with it."""
  variables = random_model(modeling.BertClassifier, num_labels=2)
  write_safetensors(tmp_path, their_tensors(variables))
  (tmp_path / "config.json").write_text(text)
  loaded = zeros_like(variables)
  checkpoints.load_weights(loaded, str(tmp_path))
  assert_equal(loaded, variables)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_named(tmp_path, text):
  path = tmp_path / "model.safetensors.index.json"
  path.write_text(text)
  with pytest.raises(ValueError, match="index.json is no index of safeten"):
    checkpoints.load_weights({}, str(tmp_path))


# Keras

KERAS_MODELS = {
  "model": (modeling.BertModel, {}),
  "pretrainer": (modeling.BertPretrainer, {}),
  "classifier": (modeling.BertClassifier, {"num_labels": 3}),
  "span": (modeling.BertSpanLabeler, {}),
  "token": (modeling.BertTokenClassifier, {"num_labels": 4}),
  "choice": (modeling.BertMultipleChoice, {}),
}


@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
@pytest.mark.parametrize("kind", KERAS_MODELS)
def test_keras_files_arrive(tmp_path, kind, suffix):
  head, arguments = KERAS_MODELS[kind]
  config = modeling.BertConfig.from_dict(
    modeling.BertConfig(9).to_dict() | CONFIG
  )
  model = head(config, **arguments)
  for number, weight in enumerate(model.weights):
    weight.assign(np.full(weight.shape, number))
  path = str(tmp_path / f"model.{suffix}")
  if suffix == "keras":
    model.compile(optimizer="adam")
    model.save(path)
  else:
    model.save_weights(path)
    (tmp_path / "bert_config.json").write_text(config.to_json_string())
  variables = modeling.named_variables(model)
  loaded = zeros_like(variables)
  report = checkpoints.load_weights(loaded, path)
  assert_equal(loaded, variables)
  assert report == checkpoints.LoadReport(path, tuple(variables), (), {})


def test_keras_weights_need_their_config(tmp_path):
  model = modeling.BertModel(modeling.BertConfig.from_dict(CONFIG))
  path = str(tmp_path / "model.weights.h5")
  model.save_weights(path)
  with pytest.raises(
    FileNotFoundError, match="no BERT config at .*bert_config"
  ):
    checkpoints.load_weights(modeling.named_variables(model), path)
  other = modeling.BertConfig.from_dict({**CONFIG, "hidden_size": 6})
  (tmp_path / "bert_config.json").write_text(other.to_json_string())
  with pytest.raises(ValueError, match="model.weights.h5 is no file that Ker"):
    checkpoints.load_weights(modeling.named_variables(model), path)


@pytest.mark.parametrize("suffix", ["keras", "weights.h5"])
def test_a_broken_keras_file_is_named(tmp_path, suffix):
  write_config(tmp_path)
  (tmp_path / "config.json").rename(tmp_path / "bert_config.json")
  path = tmp_path / f"model.{suffix}"
  path.write_bytes(b"PK nothing")
  with pytest.raises(ValueError, match=f"model.{suffix} is no file that Keras"):
    checkpoints.load_weights({}, str(path))


def test_another_model_of_keras_is_refused(tmp_path):
  path = str(tmp_path / "model.keras")
  keras.Sequential([keras.layers.Dense(2)]).save(path)
  with pytest.raises(ValueError, match="holds a Sequential, which is no model"):
    checkpoints.load_weights({}, path)


# Other networks


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ("bert.encoder.layer.1.output.dense.bias", "another"),
    ("bert.", "roberta."),
    ("bert.encoder.layer", "distilbert.transformer.layer"),
  ],
)
def test_another_network_of_hugging_face_is_refused(tmp_path, old, new):
  variables = random_model()
  tensors = {
    name.replace(old, new): value
    for name, value in their_tensors(variables).items()
  }
  path = write_safetensors(tmp_path, tensors)
  with pytest.raises(ValueError, match="is no checkpoint of this BERT: it lac"):
    checkpoints.load_weights(variables, path)


def test_another_width_is_refused_before_anything_changes(tmp_path):
  variables = random_model()
  tensors = their_tensors(variables)
  tensors["bert.encoder.layer.1.intermediate.dense.weight"] = np.zeros(
    [13, 8], np.float32
  )
  path = write_safetensors(tmp_path, tensors)
  loaded = zeros_like(variables)
  with pytest.raises(
    ValueError, match=r"layer_1/intermediate/dense/kernel .* \[8, 13\].*\[8, 12"
  ):
    checkpoints.load_weights(loaded, path)
  assert_equal(loaded, zeros_like(variables))


@pytest.mark.parametrize(
  ("extra", "words"),
  [
    (
      {"embeddings.LayerNorm.bias": np.zeros([8], np.float32)},
      "LayerNorm/beta twice, as .*embeddings.LayerNorm.bias",
    ),
    (
      {"bert.pooler.dense.weight": np.zeros([8, 8], np.int8)},
      "bert.pooler.dense.weight has type I8, as quantised",
    ),
  ],
)
def test_ambiguous_and_quantised_tensors_are_refused(tmp_path, extra, words):
  variables = random_model()
  path = write_safetensors(tmp_path, their_tensors(variables) | extra)
  with pytest.raises(ValueError, match=f"model.safetensors.*{words}"):
    checkpoints.load_weights(variables, path)


def test_a_broken_safetensors_file_is_named(tmp_path):
  path = tmp_path / "model.safetensors"
  path.write_text("version https://git-lfs.github.com/spec/v1\n")
  with pytest.raises(ValueError, match="model.safetensors is no complete"):
    checkpoints.load_weights({}, str(path))


def test_safetensors_come_after_tensorflow_and_before_pickles(
  tmp_path, variables
):
  (tmp_path / "pytorch_model.bin").touch()
  for path in (tmp_path, tmp_path / "pytorch_model.bin"):
    with pytest.raises(ValueError, match="pytorch_model.bin is not read.*runs"):
      checkpoints.resolve(str(path))
  write_config(tmp_path, architectures=["BertForMaskedLM"])
  with pytest.raises(ValueError, match="BertForMaskedLM.from_pr.*vocab.txt"):
    checkpoints.resolve(str(tmp_path))
  (tmp_path / "pytorch_model.bin").rename(
    tmp_path / "pytorch_model-00001-of-00002.bin"
  )
  with pytest.raises(ValueError, match="00001-of-00002.bin is not read"):
    checkpoints.resolve(str(tmp_path))
  path = write_safetensors(tmp_path, {"classifier.bias": np.zeros([2])})
  assert checkpoints.resolve(str(tmp_path)) == path
  prefix = str(tmp_path / "bert_model.ckpt")
  checkpoints.save(prefix, variables)
  assert checkpoints.resolve(str(tmp_path)) == prefix
  assert checkpoints.resolve(path) == path


def test_remote_safetensors_are_refused(tmp_path):
  write_safetensors(tmp_path, {"classifier.bias": np.zeros([2])})
  with pytest.raises(ValueError, match="file://.* is not a local file"):
    checkpoints.resolve(f"file://{tmp_path}")


def test_safetensors_hold_no_run(tmp_path):
  variables = random_model()
  path = write_safetensors(tmp_path, their_tensors(variables))
  assert checkpoints.read_global_step(path) == 0
  with pytest.raises(ValueError, match="cannot be resumed: it has no global_"):
    checkpoints.restore(variables, path)


def test_a_run_without_its_checkpoint_file_still_has_weights(tmp_path):
  directory = str(tmp_path)
  assert not checkpoints.has_weights(directory)
  path = tmp_path / "model.ckpt-5.index"
  path.touch()
  assert checkpoints.has_weights(directory)
  path.rename(tmp_path / "bert_model.ckpt.index")
  assert checkpoints.has_weights(directory)
  path.with_name("bert_model.ckpt.index").rename(tmp_path / "best_model.index")
  assert not checkpoints.has_weights(directory)
