"""Runs exported models: texts in, answers as plain Python out.

    predictor = Predictor("models/stars/1")
    predictor.predict(["A great film", "I slept"])
    # [{"label": "5", "probabilities": {"1": 0.01, ...}}, ...]

Needs `tensorflow`, `tensorflow_text` and `tqdm`, and nothing else of this
project.
"""

import itertools
import json
import os
import sys

import tqdm

DESCRIPTION_FILE = "assets.extra/model.json"
# Of models that fill masks.
VOCAB_FILE = "assets.extra/vocab.txt"
# Of model.json; to be raised when an old reader would misread a new file.
FORMAT_VERSION = 1


class Predictor:
  """An exported model, loaded once.

  Args:
    export_dir: directory that was given as --export_dir.
    kind: what it should be, as model.json calls it; anything if None.

  Attributes:
    description: dict, what model.json says.
    inputs: names of the texts that an example has.

  Raises:
    FileNotFoundError: there is no export.
    ValueError: it is of a newer format, or of another kind.
    ImportError: tensorflow_text is not installed.
  """

  def __init__(self, export_dir, kind=None):
    self.description = read_description(export_dir)
    if kind not in (None, self.description["kind"]):
      raise ValueError(
        f"{export_dir} holds a {self.description['kind']}, not a {kind}"
      )
    self.inputs = self.description["inputs"]["serving_default"]
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  The model's ops are in there.

    self._tf = tf
    self._model = tf.saved_model.load(export_dir)
    self._function = self._model.signatures["serving_default"]

  def predict(self, examples, batch_size=32, show_progress=False):
    """Answers examples, in their order.

    Args:
      examples: list of str for models that take one text, else of tuples of
        str in the order of `inputs`, or dicts with them as keys.
      batch_size: how many go through the model together; those of about equal
        length do.
      show_progress: whether to draw a bar if standard error is a terminal.

    Returns:
      List of dicts: `label` and `probabilities` by label; or `score`; or
      `answer`, `start`, `end`, `probability` and further `answers`; or `masks`,
      tokens with their probabilities for each mask; or `embedding` and
      `pooled_output`.

    Raises:
      ValueError: an example has other texts than the model takes, or there is
        no list of them.
    """
    if isinstance(examples, str):
      raise ValueError(f"pass a list of texts, not the text {examples!r}")
    if batch_size < 1:
      raise ValueError(f"batch_size is {batch_size}; it must be 1 or more")
    rows = [self._texts(example) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    results = [None] * len(rows)
    with tqdm.tqdm(
      total=len(rows),
      unit="text",
      leave=False,
      disable=not (show_progress and sys.stderr.isatty()),
    ) as bar:
      for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        found = self._predict_batch([rows[i] for i in numbers])
        for number, result in zip(numbers, found, strict=True):
          results[number] = result
        bar.update(len(numbers))
    return results

  def _texts(self, example):
    """The tuple of an example's texts."""
    if isinstance(example, str):
      example = (example,)
    if isinstance(example, dict):
      example = tuple(example.get(name) for name in self.inputs)
    is_text = all(isinstance(text, str) for text in example)
    if len(example) != len(self.inputs) or not is_text:
      raise ValueError(
        f"an example should have the texts {', '.join(self.inputs)}, not "
        f"{example!r}"
      )
    return tuple(example)

  def _predict_batch(self, rows):
    columns = zip(*rows, strict=True)
    # Lone surrogates, which JSON may hold, have no UTF-8. As question marks
    # they leave offsets as they are.
    texts = {
      name: self._tf.constant([x.encode("utf-8", "replace") for x in column])
      for name, column in zip(self.inputs, columns, strict=True)
    }
    outputs = self._function(**texts)
    outputs = {name: value.numpy() for name, value in outputs.items()}
    show = _SHOW[self.description["kind"]]
    return [
      show(self.description, {name: x[i] for name, x in outputs.items()})
      for i in range(len(rows))
    ]


def read_description(export_dir):
  """What model.json of an export says.

  Raises:
    FileNotFoundError: there is no export.
    OSError: its description cannot be read.
    ValueError: it is of a newer format, or damaged.
  """
  path = os.path.join(export_dir, DESCRIPTION_FILE)
  exists, open_file = os.path.exists, open
  if "://" in path:
    import tensorflow as tf

    exists, open_file = tf.io.gfile.exists, tf.io.gfile.GFile
  if not exists(path):
    raise FileNotFoundError(
      f"{export_dir} is no export: it has no {DESCRIPTION_FILE}; name a "
      "directory that was given as --export_dir"
    )
  try:
    with open_file(path, "rb") as reader:
      description = json.loads(reader.read())
    problem = _find_problem(description)
  except OSError as error:
    raise OSError(
      f"{path} cannot be read ({error}); export the model again"
    ) from error
  except (ValueError, RecursionError) as error:
    problem = f"not JSON: {error}"
  if problem:
    raise ValueError(f"{path} is damaged ({problem}); export the model again")
  if description["format"] > FORMAT_VERSION:
    raise ValueError(
      f"{export_dir} was exported by a newer version; install that one here"
    )
  return description


def _find_problem(description):
  """What a description lacks to be used, None for nothing."""
  if not isinstance(description, dict):
    return "not a JSON object"
  version, kind = description.get("format"), description.get("kind")
  if not isinstance(version, int):
    return f"its format is {version!r}, not a number"
  if version > FORMAT_VERSION:
    return None  # Its other parts may have changed.
  if not isinstance(kind, str) or kind not in _SHOW:
    return f"its kind is {kind!r}, not one of {', '.join(_SHOW)}"
  inputs = description.get("inputs")
  names = inputs.get("serving_default") if isinstance(inputs, dict) else None
  is_list = isinstance(names, list) and names
  if not is_list or not all(isinstance(name, str) for name in names):
    return "its inputs have no serving_default, a list of names"
  return _find_label_problem(description) if kind == "classifier" else None


def _find_label_problem(description):
  labels = description.get("labels")
  if not isinstance(labels, list):
    return f"its labels are {labels!r}, not a list"
  if not isinstance(description.get("problem_type"), str):
    return "it has no problem_type"
  return None


# Tensors to Python ------------------------------------------------------------


def _show_classifier(description, outputs):
  if "score" in outputs:
    return {"score": float(outputs["score"])}
  labels = description["labels"]
  probabilities = outputs["probabilities"].tolist()
  label = outputs["label"].decode()
  if description["problem_type"] == "multi_label":
    pairs = zip(labels, outputs["logits"], strict=True)
    label = [name for name, logit in pairs if logit > 0]
  return {
    "label": label,
    "probabilities": dict(zip(labels, probabilities, strict=True)),
  }


def _show_reader(description, outputs):
  del description
  result = {
    "answer": outputs["answer"].decode(),
    **{name: int(outputs[name]) for name in ("start", "end")},
    **{name: float(outputs[name]) for name in ("probability", "score")},
  }
  if "null_odds" in outputs:
    result["null_odds"] = float(outputs["null_odds"])
  names = ("answers", "starts", "ends", "probabilities", "scores")
  columns = (outputs[name].tolist() for name in names)
  rows = zip(*columns, strict=True)
  result["answers"] = [
    {
      "answer": text.decode(),
      "start": start,
      "end": end,
      "probability": probability,
      "score": score,
    }
    for text, start, end, probability, score in itertools.islice(
      rows, outputs["num_answers"]
    )
  ]
  return result


def _show_pretrainer(description, outputs):
  del description
  return {
    "masks": [
      [
        {"token": token.decode(), "probability": probability}
        for token, probability in zip(tokens, probabilities, strict=True)
      ]
      for tokens, probabilities in zip(
        outputs["tokens"].tolist(),
        outputs["probabilities"].tolist(),
        strict=True,
      )
      if probabilities[0] > 0
    ]
  }


def _show_encoder(description, outputs):
  del description
  names = ("embedding", "pooled_output")
  return {name: outputs[name].tolist() for name in names}


_SHOW = {
  "encoder": _show_encoder,
  "classifier": _show_classifier,
  "reader": _show_reader,
  "pretrainer": _show_pretrainer,
}
