"""Trained models as SavedModels that take text.

    settings = {"labels": ["1", "5"], "max_seq_length": 128, **others}
    export_classifier("models/stars/1", model, tokenizer, settings, False)

A SavedModel holds weights, vocabulary and tokenizer; `tensorflow` and
`tensorflow_text` are all it takes to run one. `assets.extra/model.json` says
what it is: see predictor.ExportDescription.
"""

import importlib.metadata
import os

import tensorflow as tf

from bert_keras3.data import files
from bert_keras3.serving import graph_classifier
from bert_keras3.serving import graph_encoder
from bert_keras3.serving import graph_squad
from bert_keras3.serving import graph_tokenization
from bert_keras3.serving import litert
from bert_keras3.serving import predictor

# Tokens for each mask of a text.
MASK_TOP_K = 10
# Always one token to models that fill masks.
MASK = "[MASK]"
_PACKAGES = ("tensorflow", "tensorflow_text", "keras")


class _Export(tf.Module):
  """Holds what is saved: the parts of a graph, and the weights that it reads.

  The weights are copies, in no strategy. Keras's model itself is not saved: its
  own functions would be saved with it.
  """

  def __init__(self, model):
    super().__init__()
    copy = type(model).from_config(model.get_config())
    for ours, theirs in zip(copy.weights, model.weights, strict=True):
      ours.assign(theirs.numpy())
    self.weights = [weight.value for weight in copy.weights]
    # Functions are not saved, but the graphs that they make are.
    self.call = lambda batch: copy(batch, training=False)
    self.call_on_ids = lambda *ids: self.call(_batch(*ids))
    self.encode = lambda batch: copy.encode(batch, False, None)
    self.parts = []


def export_classifier(
  export_dir, model, tokenizer, settings, has_pairs, check=None
):
  """Exports a modeling.BertClassifier.

  Signatures: `serving_default` takes `text`, and `text_pair` if there are
  pairs; `tokens` takes `input_ids`, `input_mask` and `segment_ids`. Both return
  the outputs of graph_classifier.GraphClassifier.from_logits.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    settings: dict of fields of predictor.ExportDescription and of further
      settings; `labels`, `problem_type`, `max_seq_length` and `long_text` are
      used.
    has_pairs: whether the task is about pairs of texts.
    check: litert.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  inputs = dict(predictor.KINDS["classifier"].signatures)
  if not has_pairs:
    inputs["serving_default"] = ("text",)
  description = _describe("classifier", settings, inputs)
  root = _Export(model)
  classifier = graph_classifier.GraphClassifier(
    _graph_tokenizer(tokenizer, tokenizer.special_tokens),
    lambda batch: root.call(batch)["logits"],
    description.labels,
    description.problem_type,
    description.max_seq_length,
    description.long_text,
    tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"]),
  )
  root.parts.append(classifier)
  functions = {
    "serving_default": classifier.classify,
    "tokens": classifier.classify_tokens,
  }
  _save(root, functions, export_dir, description)
  numbers = _make_signature(root.call_on_ids, predictor.SEQUENCES)
  _add_litert(root, numbers, export_dir, tokenizer, check)


def export_squad(export_dir, model, tokenizer, settings, decoding, check=None):
  """Exports a modeling.BertSpanLabeler.

  Signatures: `serving_default` takes `question` and `context` and returns the
  outputs of graph_squad.GraphAnswerFinder.answer; `tokens` returns
  `start_logits` and `end_logits`.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    settings: dict of fields of predictor.ExportDescription and of further
      settings; `max_seq_length`, `doc_stride` and `max_query_length` are used.
    decoding: squad_decoding.DecodingConfig.
    check: litert.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  description = _describe("reader", settings)
  root = _Export(model)

  def compute_logits(batch):
    outputs = root.call(batch)
    return outputs["start_logits"], outputs["end_logits"]

  finder = graph_squad.GraphAnswerFinder(
    _graph_tokenizer(tokenizer, tokenizer.special_tokens),
    compute_logits,
    graph_squad.WindowingConfig(
      description.max_seq_length,
      description.doc_stride,
      description.max_query_length,
    ),
    decoding,
    tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"]),
  )
  root.parts.append(finder)
  functions = {"serving_default": finder.answer, "tokens": root.call_on_ids}
  signatures = _save(root, functions, export_dir, description)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, check)


def export_pretrainer(export_dir, model, tokenizer, settings, check=None):
  """Exports a modeling.BertPretrainer.

  Signatures: `serving_default` takes `text` and fills its `[MASK]`s, see
  graph_encoder.GraphMaskFiller; `pair` takes `text` and `text_pair` and returns
  whether one follows the other; `encode` takes `text`, `tokens` ids, and both
  return the outputs of graph_encoder.GraphEncoder; `predict` takes ids and
  int32 `masked_lm_positions` [batch, predictions] and returns the model's
  outputs. `[MASK]` is one token in all of their texts. For those who tokenize
  in Python the export also has the vocabulary.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    settings: dict of fields of predictor.ExportDescription and of further
      settings; `max_seq_length` is used.
    check: litert.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  casing = tokenizer.basic_tokenizer.table.do_lower_case
  description = _describe("pretrainer", {"do_lower_case": casing, **settings})
  root = _Export(model)
  special_tokens = tokenizer.special_tokens or [MASK]
  encoder = _graph_encoder(root, tokenizer, description, special_tokens)
  size = max(tokenizer.inv_vocab) + 1
  tokens = [tokenizer.inv_vocab.get(number, "") for number in range(size)]
  filler = graph_encoder.GraphMaskFiller(encoder, root.call, tokens, MASK_TOP_K)
  root.parts += [encoder, filler]
  functions = {
    "serving_default": filler.fill_mask,
    "pair": filler.score_pair,
    "encode": encoder.encode,
    "tokens": encoder.encode_tokens,
    "predict": root.call_on_ids,
  }
  texts = {predictor.VOCAB_FILE: _vocab_lines(tokenizer)}
  signatures = _save(root, functions, export_dir, description, texts)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, check)


def export_encoder(export_dir, model, tokenizer, settings, check=None):
  """Exports the encoder of a head model.

  Signatures: `serving_default` takes `text`, `tokens` ids, and both return the
  outputs of graph_encoder.GraphEncoder.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    settings: dict of fields of predictor.ExportDescription and of further
      settings; `max_seq_length` is used.
    check: litert.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  description = _describe("encoder", settings)
  root = _Export(model)
  encoder = _graph_encoder(
    root, tokenizer, description, tokenizer.special_tokens
  )
  root.parts.append(encoder)
  functions = {
    "serving_default": encoder.encode,
    "tokens": encoder.encode_tokens,
  }
  signatures = _save(root, functions, export_dir, description)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, check)


# Parts ------------------------------------------------------------------------


def _graph_encoder(root, tokenizer, description, special_tokens):
  return graph_encoder.GraphEncoder(
    _graph_tokenizer(tokenizer, special_tokens),
    root.encode,
    description.max_seq_length,
    _special_ids(tokenizer),
  )


def _graph_tokenizer(tokenizer, special_tokens):
  table = tokenizer.basic_tokenizer.table
  return graph_tokenization.GraphTokenizer(
    tokenizer.vocab, table.do_lower_case, special_tokens
  )


def _special_ids(tokenizer):
  names = ["[CLS]", "[SEP]", MASK]
  return graph_encoder.SpecialIds(*tokenizer.convert_tokens_to_ids(names))


def _vocab_lines(tokenizer):
  """Writes the vocabulary so that tokenization.load_vocab reads it unchanged.

  A line whose token stands on a later line as well has no id of its own, and
  any token of a later line may take its place.
  """
  token, lines = None, []
  for number in range(max(tokenizer.inv_vocab), -1, -1):
    token = tokenizer.inv_vocab.get(number, token)
    lines.append(f"{token}\n")
  return "".join(reversed(lines))


def _batch(*ids):
  """Names the features of a sequence, and the positions if there are any."""
  return dict(zip(predictor.MASKED_SEQUENCES, ids, strict=False))


def _make_signature(function, names):
  """Makes a tf.function of ids [batch, length] and of strings [batch].

  Args:
    function: of tensors.
    names: of its arguments, in their order.
  """
  specs = [
    tf.TensorSpec([None, None], tf.int32, name)
    if name in predictor.MASKED_SEQUENCES
    else tf.TensorSpec([None], tf.string, name)
    for name in names
  ]
  return tf.function(function, input_signature=specs)


def _describe(kind, settings, inputs=None):
  """Makes the ExportDescription of a kind of model.

  Args:
    kind: a key of predictor.KINDS.
    settings: dict of its fields, and of other keys for model.json.
    inputs: the kind's own signatures if None.
  """
  inputs = inputs or predictor.KINDS[kind].signatures
  return predictor.ExportDescription.from_dict(
    {
      "format": predictor.FORMAT_VERSION,
      "kind": kind,
      **settings,
      "inputs": {name: list(names) for name, names in inputs.items()},
      "versions": {x: importlib.metadata.version(x) for x in _PACKAGES},
    }
  )


def _add_litert(root, function, export_dir, tokenizer, check):
  """Adds the outputs of `function` as LiteRT files, if there is a Check."""
  if check:
    size = len(tokenizer.vocab)
    litert.add(export_dir, root.weights, function, size, check)


# Files ------------------------------------------------------------------------


def _save(root, functions, export_dir, description, texts=None):
  """Writes a SavedModel and model.json; the directory is whole or not there.

  Args:
    root: tf.Module.
    functions: dict from a signature's name to a function of its inputs.
    export_dir: where to.
    description: predictor.ExportDescription.
    texts: dict from the names of further files to their texts.

  Returns:
    Dict from name to tf.function, the signatures.
  """
  check_export_dir(export_dir)
  signatures = {
    name: _make_signature(functions[name], names)
    for name, names in description.inputs.items()
  }
  texts = {predictor.DESCRIPTION_FILE: description.to_json(), **(texts or {})}
  with files.replacing_directory(export_dir) as directory:
    tf.saved_model.save(root, directory, signatures=signatures)
    for name, text in texts.items():
      path = os.path.join(directory, name)
      tf.io.gfile.makedirs(os.path.dirname(path))
      files.write_atomically(path, text)
  return signatures


def check_export_dir(export_dir):
  """Makes sure that an export may be written.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  description = os.path.join(export_dir, predictor.DESCRIPTION_FILE)
  if not tf.io.gfile.exists(export_dir) or tf.io.gfile.exists(description):
    return
  if tf.io.gfile.isdir(export_dir) and not tf.io.gfile.listdir(export_dir):
    return
  raise ValueError(
    f"--export_dir={export_dir} holds something else than an export; name "
    "another directory"
  )


def check_export(config):
  """Makes sure that --export_dir may be written, if there is to be an export.

  Args:
    config: configs.ExportConfig.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  if config.do_export:
    check_export_dir(config.export_dir)
