"""Runs exported models: texts in, answers as plain Python out.

    predictor = Predictor("models/stars/1")
    predictor.predict(["A great film", "I slept"])
    # [{"label": "5", "probabilities": {"1": 0.01, ...}}, ...]

Needs `tensorflow`, `tensorflow_text` and `tqdm`, and nothing else of this
project.
"""

import collections.abc
import dataclasses
import itertools
import json
import os

import tqdm

DESCRIPTION_FILE = "assets.extra/model.json"
# Of models that fill masks.
VOCAB_FILE = "assets.extra/vocab.txt"
# Of model.json; to be raised when old code would misread a new file.
FORMAT_VERSION = 1
# Inputs that are ids; all others are texts.
SEQUENCES = ("input_ids", "input_mask", "segment_ids")
MASKED_SEQUENCES = (*SEQUENCES, "masked_lm_positions")


def _field(problem, **options):
  """Declares a field with the words for a value of another type."""
  return dataclasses.field(metadata={"problem": problem}, **options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportDescription:
  """Describes an export, as `model.json` does in one JSON object.

  Attributes:
    format: the FORMAT_VERSION of the code that wrote it.
    kind: a key of KINDS.
    task: name of the task that the model was trained for.
    labels: list of str in the order of the logits, empty for regression.
    problem_type: "single_label", "multi_label" or "regression".
    do_lower_case: whether texts are lower-cased.
    special_tokens_in_text: see tokenization.FullTokenizer.
    max_seq_length: tokens of a sequence at most.
    long_text: what becomes of longer texts, see classifier_data.LONG_TEXT.
    doc_stride, max_query_length: see graph_squad.WindowingConfig.
    settings: dict of the other keys, which are kept and not read.
    inputs: dict from a signature's name to the list of its inputs' names.
    versions: dict from name to version of the packages that wrote the export.
    litert: dict of the sizes and the accuracy of the LiteRT files.
  """

  format: int = _field("its format is {value!r}, not a number")
  kind: str = _field("its kind is {value!r}, not one of {kinds}")
  task: str | None = None
  labels: list | None = _field(
    "its labels are {value!r}, not a list", default=None
  )
  problem_type: str | None = _field("it has no problem_type", default=None)
  do_lower_case: bool | None = None
  special_tokens_in_text: str | None = None
  max_seq_length: int | None = None
  long_text: str | None = None
  doc_stride: int | None = None
  max_query_length: int | None = None
  settings: dict = dataclasses.field(default_factory=dict)
  inputs: dict = _field("its inputs have no serving_default, a list of names")
  versions: dict | None = None
  litert: dict | None = None

  @classmethod
  def from_dict(cls, content):
    """Makes a description of the object that model.json holds."""
    names = {field.name for field in _json_fields()}
    declared = {x: y for x, y in content.items() if x in names}
    settings = {x: y for x, y in content.items() if x not in names}
    return cls(**declared, settings=settings)

  def to_dict(self):
    """Returns the object that model.json holds; from_dict's inverse."""
    content = {}
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name == "settings":
        content.update(value)
      elif value is not None:
        content[field.name] = value
    return content

  def to_json(self):
    """Returns the text of model.json."""
    return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"


def _json_fields():
  """Returns the fields of ExportDescription that are keys of model.json."""
  fields = dataclasses.fields(ExportDescription)
  return [field for field in fields if field.name != "settings"]


class Predictor:
  """Answers texts with an exported model, which is loaded once.

  Args:
    export_dir: directory that was given as --export_dir.
    kind: the kind that it must be, a key of KINDS; any if None.

  Attributes:
    description: ExportDescription.
    inputs: names of the texts that an example has.

  Raises:
    FileNotFoundError: there is no export.
    ValueError: it is of a newer format, or of another kind.
    ImportError: tensorflow_text is not installed.
  """

  def __init__(self, export_dir, kind=None):
    self.description = read_description(export_dir)
    if kind not in (None, self.description.kind):
      raise ValueError(
        f"{export_dir} holds a {self.description.kind}, not a {kind}"
      )
    self.inputs = self.description.inputs["serving_default"]
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
      disable=None if show_progress else True,
    ) as bar:
      for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        found = self._predict_batch([rows[i] for i in numbers])
        for number, result in zip(numbers, found, strict=True):
          results[number] = result
        bar.update(len(numbers))
    return results

  def _texts(self, example):
    """Returns the tuple of an example's texts."""
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
    show = KINDS[self.description.kind].show
    return [
      show(self.description, {name: x[i] for name, x in outputs.items()})
      for i in range(len(rows))
    ]


# The description --------------------------------------------------------------


def read_description(export_dir):
  """Reads model.json of an export.

  Args:
    export_dir: directory that was given as --export_dir, local or remote.

  Returns:
    ExportDescription.

  Raises:
    FileNotFoundError: there is no export.
    OSError: its description cannot be read.
    ValueError: it is of a newer format, or damaged.
  """
  path = os.path.join(export_dir, DESCRIPTION_FILE)
  # Not by data/files.py: this module works where it was copied alone.
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
    with open_file(path, "rb") as file:
      content = json.loads(file.read())
    problem = _find_problem(content)
  except OSError as error:
    raise OSError(
      f"{path} cannot be read ({error}); export the model again"
    ) from error
  except (ValueError, RecursionError) as error:
    problem = f"not JSON: {error}"
  if problem:
    raise ValueError(f"{path} is damaged ({problem}); export the model again")
  if content["format"] > FORMAT_VERSION:
    raise ValueError(
      f"{export_dir} was exported by a newer version; install that one here"
    )
  return ExportDescription.from_dict(content)


def _find_problem(content):
  """Finds what keeps a JSON value from being a description, None if nothing."""
  if not isinstance(content, dict):
    return "not a JSON object"
  version = content.get("format")
  if isinstance(version, int) and version > FORMAT_VERSION:
    return None  # Its other parts may have changed.
  fields = {field.name: field for field in _json_fields()}
  for name, field in fields.items():
    if not isinstance(content.get(name), field.type):
      return _describe_problem(field, content)
  if content["kind"] not in KINDS:
    return _describe_problem(fields["kind"], content)
  names = content["inputs"].get("serving_default")
  is_list = isinstance(names, list) and names
  if not is_list or not all(isinstance(name, str) for name in names):
    return _describe_problem(fields["inputs"], content)
  for name in KINDS[content["kind"]].needs:
    if content.get(name) is None:
      return _describe_problem(fields[name], content)
  return None


def _describe_problem(field, content):
  """Says that a field has a value of another type, or none."""
  problem = field.metadata.get("problem", "its {name} is {value!r}")
  value = content.get(field.name)
  return problem.format(name=field.name, value=value, kinds=", ".join(KINDS))


# Tensors to Python ------------------------------------------------------------


def _show_classifier(description, outputs):
  """Returns `score`, or `label` and `probabilities`."""
  if "score" in outputs:
    return {"score": float(outputs["score"])}
  labels = description.labels
  probabilities = outputs["probabilities"].tolist()
  label = outputs["label"].decode()
  if description.problem_type == "multi_label":
    pairs = zip(labels, outputs["logits"], strict=True)
    label = [name for name, logit in pairs if logit > 0]
  return {
    "label": label,
    "probabilities": dict(zip(labels, probabilities, strict=True)),
  }


def _show_answer(description, outputs):
  """Returns the predicted answer, with all `answers` as dicts."""
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


def _show_masks(description, outputs):
  """Returns the tokens for each of a text's `masks`."""
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


def _show_vectors(description, outputs):
  """Returns `embedding` and `pooled_output` as lists."""
  del description
  names = ("embedding", "pooled_output")
  return {name: outputs[name].tolist() for name in names}


# Kinds ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Kind:
  """Describes the inputs and outputs of one kind of models.

  Attributes:
    signatures: dict from a signature's name to its inputs' names. Those of
      MASKED_SEQUENCES are ids, others are texts.
    show: function from an ExportDescription and one example's outputs, a dict
      of arrays, to the dict that Predictor.predict returns.
    needs: names of fields that its ExportDescription must have.
  """

  signatures: dict
  show: collections.abc.Callable
  needs: tuple = ()


KINDS = {
  "encoder": Kind(
    {"serving_default": ("text",), "tokens": SEQUENCES}, _show_vectors
  ),
  # Models of single texts take no `text_pair`.
  "classifier": Kind(
    {"serving_default": ("text", "text_pair"), "tokens": SEQUENCES},
    _show_classifier,
    needs=("labels", "problem_type"),
  ),
  # Of SQuAD.
  "reader": Kind(
    {"serving_default": ("question", "context"), "tokens": SEQUENCES},
    _show_answer,
  ),
  "pretrainer": Kind(
    {
      "serving_default": ("text",),
      "pair": ("text", "text_pair"),
      "encode": ("text",),
      "tokens": SEQUENCES,
      "predict": MASKED_SEQUENCES,
    },
    _show_masks,
  ),
}
