"""Exported models as LiteRT (once TensorFlow Lite) files, for devices.

    litert.add("models/stars/1", weights, function, vocab_size, check)

    model = litert.LiteRtModel("models/stars/1/litert/model_int8.tflite")
    model(batch)["logits"]

The files compute the outputs of a SavedModel's signature `tokens`, as far as
they are numbers, for any batch size and length. LiteRT has no built-in
operations for text: tokenize before. int8 has its weights in 8 bits and
computes the rest in float.
"""

import collections.abc
import contextlib
import dataclasses
import os
import sys
import tempfile
import warnings

import numpy as np
import tensorflow as tf

from bert_keras3.data import features
from bert_keras3.data import files
from bert_keras3.data import order
from bert_keras3.data import sources
from bert_keras3.serving import predictor

FILES = {
  "float32": "litert/model_float32.tflite",
  "int8": "litert/model_int8.tflite",
}
SIGNATURE = "tokens"
# The most batches to compare outputs on; random ones if there are no examples.
NUM_BATCHES = 4
BATCH_SIZE = 8
# Last characters of the converter's reason; the whole may be many lines.
MAX_REASON = 300


@dataclasses.dataclass(frozen=True)
class Check:
  """Holds examples and metrics that tell how much a conversion has lost.

  Attributes:
    source: examples; None for random tokens.
    score: function from pairs (record numbers, dict of outputs) of the whole
      source to a dict of metrics, or None.
    expected: the model's own metrics, if there is a score.
  """

  source: sources.Source | None = None
  score: collections.abc.Callable | None = None
  expected: dict | None = None


def make_check(config, source=None, score=None, expected=None):
  """Makes the Check of an export, None if it has no LiteRT files.

  Args:
    config: configs.ExportConfig.
    source, score, expected: see Check.
  """
  return Check(source, score, expected) if config.wants_litert else None


class LiteRtModel:
  """Runs a LiteRT file.

  Args:
    content: path of the file, or its bytes.

  Raises:
    ImportError: there is nothing to run it with.
  """

  def __init__(self, content):
    if not isinstance(content, bytes):
      with tf.io.gfile.GFile(content, "rb") as reader:
        content = reader.read()
    interpreter = _interpreter_class()
    with _quiet_stderr(), warnings.catch_warnings():
      warnings.simplefilter("ignore")  # That tf.lite's interpreter moves.
      self._run = interpreter(
        model_content=content, num_threads=os.cpu_count()
      ).get_signature_runner(SIGNATURE)

  def __call__(self, batch):
    """Maps int [batch, length] features to a dict of float32 arrays."""
    names = features.SEQUENCE_FEATURES
    return self._run(**{x: np.asarray(batch[x], np.int32) for x in names})

  def predict(self, source, batch_size=BATCH_SIZE):
    """Yields (record numbers, dict of outputs) of a source, batch by batch."""
    sorted_records = order.inference_order(source)
    for places in order.sequential_batches(len(source), batch_size):
      numbers = sorted_records[places]
      yield numbers, self(source.take(numbers, step=0))


def _interpreter_class():
  """Finds LiteRT's interpreter, or the one that TensorFlow still has."""
  try:
    from ai_edge_litert.interpreter import Interpreter
  except ImportError:
    Interpreter = getattr(tf.lite, "Interpreter", None)
  if Interpreter is None:
    raise ImportError(
      "running a LiteRT model needs its interpreter: pip install ai-edge-litert"
    )
  return Interpreter


def add(export_dir, weights, function, vocab_size, check):
  """Adds LiteRT files to an export, and prints how exact they are.

  Sizes, deviations and metrics are printed, and kept in model.json as `litert`.

  Args:
    export_dir: the export, whole already.
    weights: the variables that `function` reads.
    function: tf.function from the ids, [batch, length], to a dict of floats.
    vocab_size: int, of the ids.
    check: Check.

  Raises:
    ValueError: the converter cannot do it; the export is as it was.
  """
  contents = _convert(weights, function, export_dir)
  tf.io.gfile.makedirs(os.path.join(export_dir, "litert"))
  report = {}
  for name, content in contents.items():
    path = os.path.join(export_dir, FILES[name])
    files.write_atomically(path, content)
    report[name] = {"file": FILES[name], "bytes": len(content)}
  description = predictor.read_description(export_dir)
  batches = list(_batches(check.source, vocab_size, description.max_seq_length))
  try:
    for name, content in contents.items():
      model = LiteRtModel(content)
      report[name] |= _measure(model, function, check, batches)
  except ImportError as error:
    print(f"LiteRT: accuracy not measured; {error}", file=sys.stderr)
  if check.score:
    report["model"] = {"metrics": check.expected}
  _print(report)
  description = dataclasses.replace(description, litert=report)
  path = os.path.join(export_dir, predictor.DESCRIPTION_FILE)
  files.write_atomically(path, description.to_json())


def _convert(weights, function, export_dir):
  """Converts a function to files: dict from precision to bytes."""
  root = tf.Module()
  root.weights = weights
  contents = {}
  with tempfile.TemporaryDirectory() as directory:
    # Of all that converters take, only SavedModels keep a signature's name.
    tf.saved_model.save(root, directory, signatures={SIGNATURE: function})
    for name in FILES:
      converter = tf.lite.TFLiteConverter.from_saved_model(
        directory, signature_keys=[SIGNATURE]
      )
      converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
      if name == "int8":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
      try:
        # A failure prints the whole graph.
        with _quiet_stderr():
          contents[name] = converter.convert()
      except Exception as error:
        reason = " ".join(str(error).split())[-MAX_REASON:]
        raise ValueError(
          f"the SavedModel is in {export_dir}, but without LiteRT files: the "
          f"converter failed on {name} ({reason})"
        ) from error
  return contents


# Accuracy ---------------------------------------------------------------------


def _measure(model, function, check, batches):
  """Measures the accuracy of a file for model.json."""
  differences, values = {}, {}
  for batch in batches:
    ids = [batch[x] for x in features.SEQUENCE_FEATURES]
    expected = function(*[tf.constant(x, tf.int32) for x in ids])
    found = model(batch)
    for name, value in expected.items():
      size = float(tf.reduce_max(tf.abs(value)))
      difference = float(tf.reduce_max(tf.abs(value - found[name])))
      values[name] = max(size, values.get(name, 0.0))
      differences[name] = max(difference, differences.get(name, 0.0))
  report = {"largest_deviation": differences, "largest_value": values}
  if check.score:
    report["metrics"] = check.score(model.predict(check.source))
  return report


def _batches(source, vocab_size, max_seq_length):
  """Yields a few batches, drawn from all of a source or of random tokens."""
  rng = np.random.default_rng(0)
  if source is None:
    for length in np.linspace(1, max_seq_length, NUM_BATCHES, dtype=int):
      shape = [BATCH_SIZE, length]
      ids = rng.integers(vocab_size, size=shape, dtype=np.int32)
      arrays = ids, np.ones(shape, np.int32), np.zeros(shape, np.int32)
      yield dict(zip(features.SEQUENCE_FEATURES, arrays, strict=True))
    return
  count = min(len(source), NUM_BATCHES * BATCH_SIZE)
  numbers = rng.choice(len(source), count, replace=False)
  for start in range(0, count, BATCH_SIZE):
    batch = source.take(numbers[start : start + BATCH_SIZE], step=0)
    yield {x: batch[x] for x in features.SEQUENCE_FEATURES}


def _print(report):
  """Prints a line for each file, and one for each of its numbers."""
  for name in FILES:
    entry = report[name]
    print(f"LiteRT {name}: {entry['file']}, {entry['bytes'] / 1e6:.1f} MB")
    for output, deviation in entry.get("largest_deviation", {}).items():
      largest = entry["largest_value"][output]
      print(
        f"  {output}: off by {deviation:.2g} at most, of up to {largest:.2g}"
      )
    expected = report.get("model", {}).get("metrics")
    for metric, value in entry.get("metrics", {}).items():
      print(f"  {metric}: {value:.4f}, the model's {expected[metric]:.4f}")


@contextlib.contextmanager
def _quiet_stderr():
  """Drops native code's messages; exceptions tell what matters."""
  sys.stderr.flush()
  stderr = os.dup(2)
  try:
    with open(os.devnull, "w") as nowhere:
      os.dup2(nowhere.fileno(), 2)
    yield
  finally:
    os.dup2(stderr, 2)
    os.close(stderr)
