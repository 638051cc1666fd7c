"""Round trips bit by bit, and outputs as transformers + PyTorch give them."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

import modeling
import torch_heads
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions
from bert_keras3.weights import conversion
from bert_keras3.weights import hugging_face

HEADS = {
  "BertModel": modeling.BertModel,
  "BertForPreTraining": modeling.BertPretrainer,
  "BertForMaskedLM": modeling.BertPretrainer,
  "BertForNextSentencePrediction": modeling.BertPretrainer,
  "BertForSequenceClassification": modeling.BertClassifier,
  "BertForQuestionAnswering": modeling.BertSpanLabeler,
  "BertForTokenClassification": modeling.BertTokenClassifier,
  "BertForMultipleChoice": modeling.BertMultipleChoice,
}
# float32 rounding over two layers, as a share of the largest value.
TOLERANCE = 1e-5


def make_head(architecture, config):
  arguments = torch_heads.ARCHITECTURES[architecture]
  labels = [x for name, x in arguments.items() if name == "num_labels"]
  return HEADS[architecture](config, *labels)


def our_outputs(architecture, model):
  """What torch_heads.run returns, of a model of ours."""
  batch = torch_heads.make_inputs(architecture)
  if architecture == "BertModel":
    segment_ids = batch.pop("segment_ids")
    outputs = model({**batch, "token_type_ids": segment_ids})
    return {
      "last_hidden_state": outputs["sequence_output"].numpy(),
      "pooler_output": outputs["pooled_output"].numpy(),
    }
  length = batch["input_ids"].shape[-1]
  batch["masked_lm_positions"] = np.tile(np.arange(length), [3, 1])
  outputs = {name: x.numpy() for name, x in model(batch).items()}
  names = {
    "BertForPreTraining": ("masked_lm_logits", "next_sentence_logits"),
    "BertForMaskedLM": ("masked_lm_logits",),
    "BertForNextSentencePrediction": ("next_sentence_logits",),
    "BertForQuestionAnswering": ("start_logits", "end_logits"),
  }.get(architecture, ("logits",))
  theirs = torch_heads.outputs_of(architecture)
  return {x: outputs[name] for x, name in zip(theirs, names, strict=True)}


def assert_same_outputs(architecture, found, expected):
  assert list(found) == list(expected)
  for name, values in expected.items():
    # Rows of padding attend alike but for the size of the mask's adder.
    real = np.ones(values.shape[:2], bool)
    if values.shape[:2] == (3, 11):
      real = torch_heads.make_inputs(architecture)["input_mask"] > 0
    error = np.abs(found[name] - values)[real].max()
    assert error <= TOLERANCE * np.abs(values[real]).max(), name


def load(architecture, directory):
  """A model of ours with the weights of a directory."""
  config_file = companions.find_beside(
    ["bert_config.json", "config.json"], [str(directory)]
  )
  config = modeling.BertConfig.from_json_file(config_file)
  model = make_head(architecture, config)
  variables = modeling.named_variables(model)
  report = checkpoints.load_weights(variables, str(directory))
  needed = [x for x in variables if hugging_face.belongs_to(x, architecture)]
  assert set(needed) <= set(report.loaded)
  return model


def convert(source, target, output_format, architecture=None):
  model, ignored = conversion.read(str(source))
  if output_format == "tf1":
    conversion.write_tf1(str(target), model)
    return ignored
  architecture = architecture or hugging_face.find_architecture(model.tensors)
  model, left_out = conversion.select(model, architecture)
  conversion.write_hugging_face(str(target), model, architecture)
  return ignored + left_out


def read_safetensors(directory):
  return safetensors.numpy.load_file(
    os.path.join(directory, "model.safetensors")
  )


def assert_bitwise(found, expected):
  assert sorted(found) == sorted(expected)
  for name, values in expected.items():
    assert found[name].dtype == values.dtype == np.float32
    assert found[name].tobytes() == values.tobytes(), name


def read_tf1(directory):
  reader = tf.train.load_checkpoint(os.path.join(directory, "bert_model.ckpt"))
  names = reader.get_variable_to_shape_map()
  return {name: reader.get_tensor(name) for name in names}


# Against transformers ---------------------------------------------------------


def check_theirs(architecture, directory, expected, tmp_path):
  """A directory of theirs: our outputs of it, and of it converted."""
  model = load(architecture, directory)
  assert_same_outputs(architecture, our_outputs(architecture, model), expected)
  convert(directory, tmp_path / "tf1", "tf1")
  model = load(architecture, tmp_path / "tf1")
  assert_same_outputs(architecture, our_outputs(architecture, model), expected)


@pytest.mark.parametrize("architecture", torch_heads.ARCHITECTURES)
def test_logits_of_every_head_equal_recorded_pytorch(
  testdata, tmp_path, architecture
):
  directory = testdata / "parity" / "heads" / architecture
  expected = dict(np.load(directory / "outputs.npz"))
  check_theirs(architecture, directory, expected, tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("architecture", torch_heads.ARCHITECTURES)
def test_logits_of_every_head_equal_pytorch(tmp_path, architecture):
  directory = tmp_path / "theirs"
  torch_heads.save_random(architecture, directory)
  expected = torch_heads.run(architecture, directory)
  check_theirs(architecture, directory, expected, tmp_path)


@pytest.mark.parity
@pytest.mark.parametrize("output_format", ["hugging_face", "tf1"])
@pytest.mark.parametrize("architecture", torch_heads.ARCHITECTURES)
def test_pytorch_gives_the_logits_of_every_head_of_ours(
  tmp_path, architecture, output_format
):
  """No key is missing, none unexpected, in both ways from our checkpoint."""
  model = write_random(architecture, tmp_path / "ours")
  source = tmp_path / "ours"
  if output_format == "tf1":  # A detour that should change nothing.
    convert(source, tmp_path / "again", "tf1")
    source = tmp_path / "again"
  convert(source, tmp_path / "theirs", "hugging_face", architecture)
  expected = torch_heads.run(architecture, tmp_path / "theirs")
  assert_same_outputs(architecture, our_outputs(architecture, model), expected)


def write_random(architecture, directory):
  """A checkpoint of ours with a head's random weights; returns the model."""
  activation = {"BertForMaskedLM": "gelu_exact"}.get(architecture, "gelu")
  config = modeling.BertConfig(
    **torch_heads.torch_oracle.CONFIG, hidden_act=activation
  )
  model = make_head(architecture, config)
  rng = np.random.default_rng(1)
  variables = modeling.named_variables(model)
  for variable in variables.values():
    variable.assign(rng.normal(scale=0.3, size=variable.shape))
  os.makedirs(directory, exist_ok=True)
  checkpoints.save(os.path.join(directory, "bert_model.ckpt"), variables, 7)
  with open(os.path.join(directory, "bert_config.json"), "w") as writer:
    writer.write(config.to_json_string())
  return model


# Round trips ------------------------------------------------------------------


@pytest.mark.parametrize("architecture", torch_heads.ARCHITECTURES)
def test_theirs_to_tf1_and_back_is_bitwise(testdata, tmp_path, architecture):
  """What is written has the names that transformers itself writes."""
  theirs = testdata / "parity" / "heads" / architecture
  convert(theirs, tmp_path / "tf1", "tf1")
  convert(tmp_path / "tf1", tmp_path / "back", "hugging_face")
  assert_bitwise(read_safetensors(tmp_path / "back"), read_safetensors(theirs))
  config = json.loads((tmp_path / "back" / "config.json").read_text())
  original = json.loads((theirs / "config.json").read_text())
  # What is written is float32, whatever it was.
  added = {"transformers_version", "problem_type", "dtype"}
  assert {k: v for k, v in original.items() if k not in added} == {
    key: config[key] for key in original if key not in added
  }


@pytest.mark.parametrize("architecture", torch_heads.ARCHITECTURES)
def test_tf1_to_theirs_and_back_is_bitwise(tmp_path, architecture):
  write_random(architecture, tmp_path / "tf1")
  original = read_tf1(tmp_path / "tf1")
  convert(tmp_path / "tf1", tmp_path / "theirs", "hugging_face", architecture)
  convert(tmp_path / "theirs", tmp_path / "back", "tf1")
  expected = {
    name: values
    for name, values in original.items()
    if hugging_face.belongs_to(name, architecture)
  }
  assert_bitwise(read_tf1(tmp_path / "back"), expected)
  ours, back = (
    modeling.BertConfig.from_json_file(str(tmp_path / x / "bert_config.json"))
    for x in ("tf1", "back")
  )
  assert vars(ours).items() <= vars(back).items()


@pytest.mark.parametrize("name", ["tiny", "odd", "gelu30k"])
def test_upstreams_checkpoints_make_the_round_trip(goldens, tmp_path, name):
  """One with three segment types and relu; all have several heads."""
  source = goldens / "model" / name
  original = read_tf1(source)
  for architecture in (
    "BertForPreTraining",
    "BertForSequenceClassification",
    "BertForQuestionAnswering",
  ):
    folder = tmp_path / architecture
    convert(source, folder / "theirs", "hugging_face", architecture)
    convert(folder / "theirs", folder / "back", "tf1")
    expected = {
      name: values
      for name, values in original.items()
      if hugging_face.belongs_to(name, architecture)
    }
    assert_bitwise(read_tf1(folder / "back"), expected)


def test_slots_and_buffers_do_not_travel(testdata, tmp_path):
  write_random("BertModel", tmp_path / "run")
  prefix = str(tmp_path / "run" / "bert_model.ckpt")
  tensors = read_tf1(tmp_path / "run")
  del tensors["global_step"]
  slots = {f"{name}/adam_m": x for name, x in tensors.items()}
  checkpoints.save(prefix, {**tensors, **slots}, 7)
  ignored = convert(tmp_path / "run", tmp_path / "plain", "tf1")
  assert_bitwise(read_tf1(tmp_path / "plain"), tensors)
  assert {row.source for row in ignored} == {*slots, "global_step"}

  theirs = tmp_path / "theirs"
  shutil.copytree(testdata / "parity" / "heads" / "BertForMaskedLM", theirs)
  tensors = read_safetensors(theirs)
  position_ids = "bert.embeddings.position_ids"
  decoder = "cls.predictions.decoder.weight"
  extra = {
    position_ids: np.arange(24, dtype=np.int64)[None],
    decoder: tensors["bert.embeddings.word_embeddings.weight"],
  }
  path = theirs / "model.safetensors"
  safetensors.numpy.save_file({**tensors, **extra}, path)
  ignored = convert(theirs, tmp_path / "back", "hugging_face")
  assert_bitwise(read_safetensors(tmp_path / "back"), tensors)
  assert {row.source: row.reason for row in ignored} == {
    position_ids: "a constant, not a weight",
    decoder: "tied to the word embeddings and output bias",
  }


# Every way --------------------------------------------------------------------


def from_tf1(directory, model, variables):
  checkpoints.save(str(directory / "bert_model.ckpt"), variables, 7)
  return directory


def from_slots(directory, model, variables):
  slots = {f"{name}/adam_m": x for name, x in variables.items()}
  slots |= {f"{name}/adam_v": x for name, x in variables.items()}
  prefix = str(directory / "model.ckpt-9")
  checkpoints.save(prefix, {**variables, **slots}, 9)
  return prefix


def from_output_dir(directory, model, variables):
  """A run that is finished: its best weights are not its newest."""
  newest = {name: x + 1.0 for name, x in variables.items()}
  checkpoints.CheckpointDirectory(str(directory)).save(newest, 9, {})
  return from_tf1(directory, model, variables)


def from_unfinished_run(directory, model, variables):
  run = checkpoints.CheckpointDirectory(str(directory))
  run.save({name: x + 1.0 for name, x in variables.items()}, 5, {})
  run.save(variables, 9, {})
  return directory


def from_hugging_face(directory, model, variables):
  hugging_face.write_weights(
    str(directory / "model.safetensors"),
    {name: x.numpy() for name, x in variables.items()},
    "BertForPreTraining",
  )
  return directory


def from_safetensors(directory, model, variables):
  return from_hugging_face(directory, model, variables) / "model.safetensors"


def from_shards(directory, model, variables):
  tensors = read_safetensors(from_hugging_face(directory, model, variables))
  (directory / "model.safetensors").unlink()
  names = sorted(tensors)
  weight_map = {}
  for number, part in enumerate((names[::2], names[1::2])):
    file = f"model-{number}.safetensors"
    weight_map |= dict.fromkeys(part, file)
    safetensors.numpy.save_file({x: tensors[x] for x in part}, directory / file)
  index = directory / "model.safetensors.index.json"
  index.write_text(json.dumps({"weight_map": weight_map}))
  return directory


def from_keras(directory, model, variables):
  (directory / "bert_config.json").unlink()  # The file has it.
  model.save(directory / "model.keras")
  return directory / "model.keras"


def from_keras_weights(directory, model, variables):
  model.save_weights(directory / "model.weights.h5")
  return directory / "model.weights.h5"


SOURCES = [
  from_tf1,
  from_slots,
  from_output_dir,
  from_unfinished_run,
  from_hugging_face,
  from_safetensors,
  from_shards,
  from_keras,
  from_keras_weights,
]


@pytest.mark.parametrize("target", ["init_checkpoint", "tf1", "hugging_face"])
@pytest.mark.parametrize("make_source", SOURCES, ids=lambda x: x.__name__)
def test_every_cell_of_the_table_in_readme(tmp_path, make_source, target):
  folder = tmp_path / "source"
  model = write_random("BertForPreTraining", folder)
  for file in folder.glob("bert_model.ckpt*"):
    file.unlink()
  variables = modeling.named_variables(model)
  source = make_source(folder, model, variables)
  expected = {name: x.numpy() for name, x in variables.items()}
  if target == "init_checkpoint":
    loaded = {name: tf.Variable(x * 0.0) for name, x in expected.items()}
    checkpoints.load_weights(loaded, str(source))
    assert_bitwise({name: x.numpy() for name, x in loaded.items()}, expected)
    return
  convert(source, tmp_path / "out", target)
  if target == "tf1":
    assert_bitwise(read_tf1(tmp_path / "out"), expected)
  else:
    (tmp_path / "expected").mkdir()
    from_hugging_face(tmp_path / "expected", model, variables)
    assert_bitwise(
      read_safetensors(tmp_path / "out"),
      read_safetensors(tmp_path / "expected"),
    )


def test_tensorflow_1_reads_a_converted_checkpoint(testdata, tmp_path):
  """By init_from_checkpoint, as upstream's model functions do."""
  source = testdata / "parity" / "heads" / "BertForQuestionAnswering"
  convert(source, tmp_path / "tf1", "tf1")
  prefix = str(tmp_path / "tf1" / "bert_model.ckpt")
  names = dict(tf.train.list_variables(prefix))
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    made = [
      tf.compat.v1.get_variable(name, shape) for name, shape in names.items()
    ]
    tf.compat.v1.train.init_from_checkpoint(prefix, {x: x for x in names})
    session.run(tf.compat.v1.global_variables_initializer())
    found = dict(zip(names, session.run(made), strict=True))
  assert_bitwise(found, read_tf1(tmp_path / "tf1"))


# What lies beside the weights -------------------------------------------------


def write_vocab(directory, size=60, words=("a", "b")):
  tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
  tokens += [f"[unused{i}]" for i in range(size - len(tokens))]
  (directory / "vocab.txt").write_text("\n".join(tokens) + "\n")


def test_vocabulary_casing_and_labels_travel(tmp_path):
  source = tmp_path / "run"
  write_random("BertForSequenceClassification", source)
  write_vocab(source, words=("Ab", "x\u2028y"))
  (source / "labels.txt").write_text("bad\ngood\nso so\n")
  manifest = {"settings": {"do_lower_case": False}}
  (source / "run_manifest.json").write_text(json.dumps(manifest))
  convert(source, tmp_path / "theirs", "hugging_face")
  config = json.loads((tmp_path / "theirs" / "config.json").read_text())
  assert config["id2label"] == {"0": "bad", "1": "good", "2": "so so"}
  assert config["label2id"] == {"bad": 0, "good": 1, "so so": 2}
  assert config["pad_token_id"] == 0
  tokenizer = tmp_path / "theirs" / "tokenizer_config.json"
  assert json.loads(tokenizer.read_text())["do_lower_case"] is False
  convert(tmp_path / "theirs", tmp_path / "back", "tf1")
  for name in ("vocab.txt", "labels.txt"):
    assert (tmp_path / "back" / name).read_bytes() == (
      source / name
    ).read_bytes()


@pytest.mark.parametrize(
  ("vocab", "expected"),
  [
    (["[PAD]", "[MASK]", "a", "##b", "1", "\u4e2d"], True),
    (["[PAD]", "a", "##B"], False),
    (["[PAD]", "\u00c4"], False),
    (None, None),
  ],
)
def test_casing_is_told_by_capitals(vocab, expected):
  assert conversion.guess_case(vocab) is expected


@pytest.mark.parametrize("output_format", ["tf1", "hugging_face"])
@pytest.mark.parametrize("labels", ["bad\ngood\n", "a\nb\na\n", "a\n\nb\n"])
def test_labels_that_do_not_fit_are_refused(tmp_path, labels, output_format):
  source = tmp_path / "run"
  write_random("BertForSequenceClassification", source)
  (source / "labels.txt").write_text(labels)
  with pytest.raises(
    ValueError, match="labels for 3 logits; .*: mend|hold a label on"
  ):
    convert(source, tmp_path / "out", output_format)
  assert not list(tmp_path.glob("out*"))


def test_an_encoder_has_no_labels(tmp_path):
  write_random("BertModel", tmp_path / "run")
  (tmp_path / "run" / "labels.txt").write_text("a\nb\n")
  convert(tmp_path / "run", tmp_path / "out", "tf1")
  assert not (tmp_path / "out" / "labels.txt").exists()
  write_random("BertForSequenceClassification", tmp_path / "run2")
  (tmp_path / "run2" / "labels.txt").write_text("a\nb\nc\n")
  model, _ = conversion.read(str(tmp_path / "run2"))
  assert model.labels == ["a", "b", "c"]
  alone, _ = conversion.select(model, "BertModel")
  conversion.write_tf1(str(tmp_path / "out2"), alone)
  assert not (tmp_path / "out2" / "labels.txt").exists()


def test_a_keras_file_tells_its_problem_type(tmp_path):
  config = modeling.BertConfig(**torch_heads.torch_oracle.CONFIG)
  model = modeling.BertClassifier(config, 3, problem_type="multi_label")
  model.save(tmp_path / "model.keras")
  convert(tmp_path / "model.keras", tmp_path / "out", "hugging_face")
  written = json.loads((tmp_path / "out" / "config.json").read_text())
  assert written["problem_type"] == "multi_label_classification"


def test_the_type_of_the_source_is_not_that_of_the_file(testdata, tmp_path):
  """transformers would round float32 weights to it."""
  source = tmp_path / "half"
  shutil.copytree(testdata / "parity" / "heads" / "BertModel", source)
  config = json.loads((source / "config.json").read_text())
  for name in ("dtype", "torch_dtype"):
    config[name] = "float16"
  (source / "config.json").write_text(json.dumps(config))
  convert(source, tmp_path / "out", "hugging_face")
  written = json.loads((tmp_path / "out" / "config.json").read_text())
  assert not {"dtype", "torch_dtype"} & set(written)


def test_casing_travels_through_tf1(tmp_path):
  """The vocabulary alone would say otherwise."""
  source = tmp_path / "run"
  write_random("BertModel", source)
  write_vocab(source)
  (source / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  convert(source, tmp_path / "tf1", "tf1")
  assert conversion.read(str(tmp_path / "tf1"))[0].do_lower_case is False


# Mismatches -------------------------------------------------------------------


def test_several_heads_need_a_choice(tmp_path):
  write_random("BertForSequenceClassification", tmp_path)
  tensors = read_tf1(tmp_path)
  tensors["cls/squad/output_weights"] = np.zeros([2, 16], np.float32)
  tensors["cls/squad/output_bias"] = np.zeros([2], np.float32)
  checkpoints.save(str(tmp_path / "bert_model.ckpt"), tensors)
  with pytest.raises(ValueError, match="heads classifier, cls/squad together"):
    convert(tmp_path, tmp_path / "out", "hugging_face")
  ignored = convert(
    tmp_path, tmp_path / "out", "hugging_face", "BertForQuestionAnswering"
  )
  reason = "BertForQuestionAnswering has no such part"
  assert {row.source for row in ignored if row.reason == reason} == {
    "output_weights",
    "output_bias",
    "bert/pooler/dense/kernel",
    "bert/pooler/dense/bias",
  }


def test_a_head_that_is_not_there_is_refused(tmp_path):
  write_random("BertModel", tmp_path)
  with pytest.raises(ValueError, match="the head cls/squad, which these weig"):
    convert(
      tmp_path, tmp_path / "out", "hugging_face", "BertForQuestionAnswering"
    )


def test_a_missing_pooler_is_drawn_and_told(testdata, tmp_path):
  source = testdata / "parity" / "heads" / "BertForMaskedLM"
  model, _ = conversion.read(str(source))
  model, _ = conversion.select(model, "BertModel")
  rows = conversion.describe(model, "BertModel")
  drawn = [row for row in rows if row.action == "initialised"]
  assert [row.target for row in drawn] == [
    "pooler.dense.weight",
    "pooler.dense.bias",
  ]
  again, _ = conversion.select(conversion.read(str(source))[0], "BertModel")
  assert_bitwise(again.tensors, model.tensors)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"hidden_size": 8},
      r"LayerNorm/beta has shape \[16\], the config .*\[8\]",
    ),
    ({"vocab_size": 61}, r"word_embeddings has shape \[60, 16\].*\[61, 16\]"),
    ({"num_hidden_layers": 3}, "lacks bert/encoder/layer_2/attention"),
    (
      {"num_hidden_layers": 1},
      "has bert/encoder/layer_1/.* nothing in the config",
    ),
    ({"type_vocab_size": 16}, r"token_type_embeddings has shape \[2, 16\]"),
  ],
)
def test_another_config_is_refused(tmp_path, changes, words):
  write_random("BertModel", tmp_path)
  config = {**torch_heads.torch_oracle.CONFIG, **changes}
  (tmp_path / "bert_config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match=words):
    conversion.read(str(tmp_path))


def test_half_a_head_is_refused(tmp_path):
  write_random("BertForQuestionAnswering", tmp_path)
  tensors = read_tf1(tmp_path)
  del tensors["cls/squad/output_bias"]
  checkpoints.save(str(tmp_path / "bert_model.ckpt"), tensors)
  with pytest.raises(ValueError, match="lacks cls/squad/output_bias"):
    conversion.read(str(tmp_path))


@pytest.mark.parametrize(("size", "is_right"), [(60, 1), (12, 1), (61, 0)])
def test_padded_vocabularies_are_known(tmp_path, size, is_right):
  """Rows up to a multiple of 128 are no tokens."""
  write_random("BertModel", tmp_path)
  write_vocab(tmp_path, size)
  if is_right:
    assert len(conversion.read(str(tmp_path))[0].vocab) == size
    return
  with pytest.raises(
    ValueError, match="has 61 tokens, but the .* vocab_size is 60"
  ):
    conversion.read(str(tmp_path))


def test_nothing_is_overwritten(tmp_path, monkeypatch):
  write_random("BertModel", tmp_path / "run")
  (tmp_path / "out").mkdir()
  monkeypatch.chdir(tmp_path / "out")
  convert(tmp_path / "run", ".", "tf1")  # It was empty.
  (tmp_path / "link").symlink_to(tmp_path / "run2")
  (tmp_path / "run2").mkdir()
  convert(tmp_path / "run", tmp_path / "link", "hugging_face")
  assert (tmp_path / "run2" / "model.safetensors").exists()
  (tmp_path / "file").touch()
  with pytest.raises(NotADirectoryError, match="file is a file; name a"):
    convert(tmp_path / "run", tmp_path / "file", "tf1")
  with pytest.raises(OSError, match="file/out cannot be written"):
    convert(tmp_path / "run", tmp_path / "file" / "out", "tf1")
  with pytest.raises(ValueError, match="out is not empty; name a new"):
    convert(tmp_path / "run", tmp_path / "out", "hugging_face")


def test_what_fails_leaves_nothing(tmp_path, monkeypatch):
  write_random("BertModel", tmp_path / "run")

  def fail(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(hugging_face, "write_weights", fail)
  with pytest.raises(OSError, match="disk full"):
    convert(tmp_path / "run", tmp_path / "out", "hugging_face")
  assert [x.name for x in tmp_path.iterdir()] == ["run"]


# The table --------------------------------------------------------------------


def test_the_table_has_every_tensor_once(testdata):
  source = testdata / "parity" / "heads" / "BertForMaskedLM"
  model, _ = conversion.read(str(source))
  rows = conversion.describe(model)
  text = conversion.format_table(rows)
  assert "transposed: kernels are [out, in] in PyTorch" in text
  query = "bert.encoder.layer.N.attention.self.query.weight"
  assert f"    2  {query} " in text
  assert text.endswith(
    "42 tensors: 29 matched, 13 transposed, 0 initialised, 0 ignored"
  )
  numbers = [line.split()[0] for line in text.splitlines()[:-1]]
  assert sum(int(x) for x in numbers if x.isdigit()) == len(model.tensors)


def test_an_unchanged_layout_is_a_match(testdata):
  source = testdata / "parity" / "heads" / "BertForMaskedLM"
  model, _ = conversion.read(str(source))
  rows = conversion.describe(model, "BertForMaskedLM")
  assert {row.action for row in rows} == {"matched"}
  assert all(row.source == row.target for row in rows)


def test_the_gelu_of_hugging_face_is_told(testdata):
  source = testdata / "parity" / "heads" / "BertForMaskedLM"
  model, _ = conversion.read(str(source))
  assert any("gelu_exact" in note for note in conversion.notes(model, False))
  assert not any("gelu_exact" in x for x in conversion.notes(model, True))
  plain = dataclasses.replace(
    model, config=modeling.BertConfig(60, hidden_act="gelu")
  )
  assert not any("gelu" in x for x in conversion.notes(plain, False))
