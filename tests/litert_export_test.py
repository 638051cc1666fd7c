"""LiteRT files: the model's numbers, any shape, and what their errors say."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

import modeling
import tokenization
from bert_keras3.data import sequences
from bert_keras3.serving import export as model_export
from bert_keras3.serving import litert
from bert_keras3.tasks import squad_decoding
from run_classifier_test import folder  # noqa: F401  A fixture.
from run_classifier_test import run

MAX_SEQ_LENGTH = 24
VOCAB = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstu")
# Batch size and length; none is a multiple of what vector units take.
SHAPES = [(2, 7), (3, MAX_SEQ_LENGTH), (5, 1)]
# As a share of the largest output: 8 bits round each weight, and what it is
# multiplied with, by up to 1 in 254; measured 0.02 after two layers of them.
LARGEST_INT8_ERROR = 0.04
HEADS = {
  "classifier": (modeling.BertClassifier, {"num_labels": 3}),
  "reader": (modeling.BertSpanLabeler, {}),
  "pretrainer": (modeling.BertPretrainer, {}),
}


def has_interpreter():
  try:
    return bool(litert._interpreter_class())
  except ImportError:
    return False


needs_interpreter = pytest.mark.skipif(
  not has_interpreter(), reason="no LiteRT interpreter is installed"
)


def make_model(kind, **options):
  tf.keras.utils.set_random_seed(0)
  config = modeling.BertConfig(
    len(VOCAB),
    # The converter leaves matrices of less than 1,024 weights in float32.
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=128,
    max_position_embeddings=32,
    type_vocab_size=2,
    initializer_range=0.1,
    **options,
  )
  head, arguments = HEADS[kind]
  return head(config, **arguments)


def make_source():
  """Sequences of 1 to 20 tokens, padded to 8, 16 or 24."""
  rng = np.random.default_rng(0)
  packed = [
    (rng.integers(len(VOCAB), size=length).tolist(), length // 2)
    for length in range(1, 21)
  ]
  return sequences.SequenceSource(
    sequences.Sequences(packed), {}, (8, 16, MAX_SEQ_LENGTH)
  )


def export(kind, model, place, source=None):
  path = str(place / kind)
  vocab_file = place / "vocab.txt"
  vocab_file.write_text("\n".join(VOCAB) + "\n")
  tokenizer = tokenization.FullTokenizer(str(vocab_file))
  settings = {
    "labels": list("xyz"),
    "problem_type": "single_label",
    "long_text": "truncate",
    "max_seq_length": MAX_SEQ_LENGTH,
    "doc_stride": 4,
    "max_query_length": 8,
  }
  more = {
    "classifier": {"has_pairs": False},
    "reader": {"decoding": squad_decoding.DecodingConfig()},
    "pretrainer": {},
  }
  write = {
    "classifier": model_export.export_classifier,
    "reader": model_export.export_squad,
    "pretrainer": model_export.export_pretrainer,
  }[kind]
  write(
    path,
    model,
    tokenizer,
    settings,
    check=litert.Check(source),
    **more[kind],
  )
  return path


def describe(path):
  with open(f"{path}/assets.extra/model.json") as file:
    return json.load(file)


def make_batch(shape, dtype=np.int32):
  rng = np.random.default_rng(0)
  mask = np.ones(shape, dtype)
  mask[0, shape[1] // 2 + 1 :] = 0
  return {
    "input_ids": rng.integers(len(VOCAB), size=shape, dtype=dtype),
    "input_mask": mask,
    "segment_ids": rng.integers(2, size=shape, dtype=dtype),
  }


def expected_outputs(kind, model, batch):
  if kind != "pretrainer":
    return model({name: tf.constant(x) for name, x in batch.items()})
  outputs = model.encode(batch, False, None)
  weights = batch["input_mask"][:, :, np.newaxis]
  total = (outputs["sequence_output"].numpy() * weights).sum(axis=1)
  return {**outputs, "embedding": total / weights.sum(axis=1)}


@needs_interpreter
@pytest.mark.parametrize("kind", HEADS)
def test_litert_computes_what_the_model_does(kind, tmp_path, capsys):
  model = make_model(kind)
  # Without a source, outputs are compared on random tokens.
  source = make_source() if kind == "reader" else None
  path = export(kind, model, tmp_path, source)
  for precision, file in litert.FILES.items():
    lite = litert.LiteRtModel(f"{path}/{file}")
    for shape in SHAPES:
      batch = make_batch(shape)
      expected = expected_outputs(kind, model, batch)
      found = lite(batch)
      assert found.keys() == expected.keys() & found.keys()
      for name, values in found.items():
        assert values.dtype == np.float32
        error = np.abs(values - np.asarray(expected[name])).max()
        # Sums of float32 in another order: measured 9e-7.
        limit = 1e-5
        if precision == "int8":
          limit = LARGEST_INT8_ERROR * np.abs(values).max()
        assert error <= limit
  check_report(describe(path)["litert"], path, capsys.readouterr().out)


def check_report(report, path, out):
  """Sizes are the files', int8 is smaller, and both were compared."""
  sizes = {}
  for precision, file in litert.FILES.items():
    entry = report[precision]
    sizes[precision] = tf.io.gfile.stat(f"{path}/{file}").length
    assert (entry["file"], entry["bytes"]) == (file, sizes[precision])
    assert f"LiteRT {precision}: {file}, {sizes[precision] / 1e6:.1f} MB" in out
    with open(f"{path}/{file}", "rb") as reader:
      # No operation is TensorFlow's: devices have none of those.
      assert b"Flex" not in reader.read()
  assert sizes["int8"] < 0.5 * sizes["float32"]
  exact, rough = (report[x]["largest_deviation"] for x in litert.FILES)
  for name, largest in report["int8"]["largest_value"].items():
    assert exact[name] <= 1e-5 < rough[name] <= LARGEST_INT8_ERROR * largest


def test_a_failed_conversion_leaves_the_saved_model(tmp_path, monkeypatch):
  model = make_model("classifier")
  monkeypatch.setattr(
    tf.lite.TFLiteConverter, "from_saved_model", Unconvertible
  )
  with pytest.raises(ValueError) as error:
    export("classifier", model, tmp_path)
  path = tmp_path / "classifier"
  assert str(error.value) == (
    f"the SavedModel is in {path}, but without LiteRT files: the converter "
    "failed on float32 (no such operation)"
  )
  loaded = tf.saved_model.load(str(path))
  assert set(loaded.signatures) == {"serving_default", "tokens"}
  assert "litert" not in describe(path)
  assert not (path / "litert").exists()


class Unconvertible:
  """A converter of a model that LiteRT cannot run."""

  def __init__(self, directory, signature_keys):
    self.target_spec = tf.lite.TargetSpec()

  def convert(self):
    raise RuntimeError("no such\n  operation")


def test_without_an_interpreter_there_are_files(tmp_path, monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
  monkeypatch.setattr(tf.lite, "Interpreter", None)
  monkeypatch.setattr(
    litert, "_convert", lambda *_: {"float32": b"1234", "int8": b"1"}
  )
  path = export("classifier", make_model("classifier"), tmp_path)
  entry = describe(path)["litert"]["int8"]
  assert entry == {"file": litert.FILES["int8"], "bytes": 1}
  assert "pip install ai-edge-litert" in capsys.readouterr().err


# Whole runs -------------------------------------------------------------------


@needs_interpreter
def test_a_classifier_is_scored_on_the_development_set(folder, capsys):  # noqa: F811
  export_dir = folder / "models" / "1"
  results = run(
    folder,
    do_train=True,
    do_eval=True,
    do_export=True,
    export_dir=str(export_dir),
    export_format=("savedmodel", "litert"),
  )
  assert tf.saved_model.contains_saved_model(str(export_dir))
  report = describe(export_dir)["litert"]
  names = {"eval_accuracy", "eval_macro_f1"}
  expected = {name: results[name] for name in names}
  assert report["model"]["metrics"] == expected
  for precision in litert.FILES:
    assert report[precision]["metrics"].keys() == names
    # So narrow a model has no matrices to quantise but one or two.
    assert report[precision]["metrics"] == pytest.approx(expected)
  value = results["eval_accuracy"]
  line = f"  eval_accuracy: {value:.4f}, the model's {value:.4f}\n"
  assert capsys.readouterr().out.count(line) == 2
