"""Reads weights from Keras' own files, .keras and .weights.h5."""

import os

import h5py
import keras

import modeling
from bert_keras3.weights import file_names

KERAS_SUFFIXES = (".keras", ".weights.h5")


class KerasReader:
  """Reads a `.keras` or `.weights.h5` file of a model of `modeling`.

  Args:
    path: of the file.
    bert_config_file: config of a `.weights.h5`, None for the one beside it.

  Raises:
    FileNotFoundError: there is no config beside a `.weights.h5`.
    ValueError: the file is damaged, or not of a model of `modeling`.
  """

  ignored = {}

  def __init__(self, path, bert_config_file=None):
    model = _load_keras_model(path, bert_config_file)
    self.path = path
    self.bert_config = model.config
    self.problem_type = getattr(model, "problem_type", None)
    self._variables = modeling.named_variables(model)
    self.shapes = {name: list(x.shape) for name, x in self._variables.items()}

  def get_tensor(self, name):
    """Returns the array of a variable of that name."""
    return self._variables[name].numpy()

  def source_name(self, name):
    """Returns the name of a variable in the file, as a report shows it."""
    return name


def _load_keras_model(path, bert_config_file):
  """Loads the model in a Keras file.

  Raises:
    FileNotFoundError: there is no config beside a `.weights.h5`.
    ValueError: the file is damaged, or not of a model of `modeling`.
  """
  config = None
  if path.endswith(".h5"):
    beside = os.path.join(os.path.dirname(path), file_names.CONFIG)
    config = modeling.BertConfig.from_json_file(bert_config_file or beside)
  try:
    if not config:
      model = keras.saving.load_model(path, compile=False)
    else:
      model = _make_keras_model(path, config)
      model.load_weights(path)
  except Exception as error:  # Keras, HDF5 and zip raise many types.
    raise ValueError(
      f"{path} is no file that Keras saved of a model of modeling.py, or the "
      f"config belongs to another model: {error}"
    ) from error
  if not isinstance(model, modeling.MODELS):
    raise ValueError(
      f"{path} holds a {type(model).__name__}, which is no model of modeling.py"
    )
  return model


def _make_keras_model(path, config):
  """Makes the model that has the groups of a `.weights.h5`."""
  with h5py.File(path) as file:
    if "bert" not in file:
      return modeling.BertModel(config)
    if "layers/masked_lm_head" in file:
      return modeling.BertPretrainer(config)
    if "vars/0" in file:
      return modeling.BertClassifier(config, file["vars/0"].shape[0])
    # Keras walks attributes by name: `choice` before `layers`, `token` after.
    if "choice" in file:
      return modeling.BertMultipleChoice(config)
    head = file["layers/output_projection/vars"]
    if head.attrs["name"] == "token":
      return modeling.BertTokenClassifier(config, head["0"].shape[0])
    return modeling.BertSpanLabeler(config)
