"""Trained models as SavedModels that take text.

    export.export_classifier("models/stars/1", model, source, ...)

A SavedModel holds weights, vocabulary and tokenizer; `tensorflow` and
`tensorflow_text` are all it takes to run one. What it is, says
`assets.extra/model.json`.
"""

import importlib.metadata
import json
import os

import tensorflow as tf

from bert_keras3.serving import graph_classifier
from bert_keras3.serving import graph_encoder
from bert_keras3.serving import graph_squad
from bert_keras3.serving import graph_tokenization
from bert_keras3.serving import litert as litert_export
from bert_keras3.serving import predictor

# Tokens for each mask of a text.
MASK_TOP_K = 10
# Kept as one token by models that fill them, whatever else is.
MASK = "[MASK]"

_TEXTS = tf.TensorSpec([None], tf.string)
_IDS = tf.TensorSpec([None, None], tf.int32)
_SEQUENCES = ("input_ids", "input_mask", "segment_ids")
_MASKED_SEQUENCES = (*_SEQUENCES, "masked_lm_positions")


class _Export(tf.Module):
  """What is saved: the parts of a graph, and the weights that it reads.

  The weights are copies, in no strategy. Keras's model itself is not saved: its
  own functions would be saved with it.
  """

  def __init__(self, model):
    super().__init__()
    copy = type(model).from_config(model.get_config())
    for ours, theirs in zip(copy.weights, model.weights, strict=True):
      ours.assign(theirs.numpy())
    self.weights = [weight.value for weight in copy.weights]
    # Functions are not saved, but what they do is.
    self.call = lambda batch: copy(batch, training=False)
    self.encode = lambda batch: copy.encode(batch, False, None)
    self.parts = []


def export_classifier(
  export_dir, model, tokenizer, description, has_pairs, litert=None
):
  """Exports a modeling.BertClassifier.

  Signatures: `serving_default` takes `text`, and `text_pair` if there are
  pairs; `tokens` takes `input_ids`, `input_mask` and `segment_ids`. Both return
  what graph_classifier.GraphClassifier.from_logits does.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    description: dict for model.json; its `labels`, `problem_type`,
      `max_seq_length` and `long_text` are used.
    has_pairs: whether the task is about pairs of texts.
    litert: litert_export.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  root = _Export(model)
  classifier = graph_classifier.GraphClassifier(
    _graph_tokenizer(tokenizer, tokenizer.special_tokens),
    lambda batch: root.call(batch)["logits"],
    description["labels"],
    description["problem_type"],
    description["max_seq_length"],
    description["long_text"],
    tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"]),
  )
  root.parts.append(classifier)
  names = ["text", "text_pair"] if has_pairs else ["text"]
  signatures = {
    "serving_default": _on_texts(classifier.classify, names),
    "tokens": _on_tokens(classifier.classify_tokens),
  }
  _save(root, signatures, export_dir, "classifier", description)
  numbers = _on_tokens(lambda *ids: root.call(_batch(*ids)))
  _add_litert(root, numbers, export_dir, tokenizer, litert)


def export_reader(
  export_dir, model, tokenizer, description, decoding, litert=None
):
  """Exports a modeling.BertSpanLabeler.

  Signatures: `serving_default` takes `question` and `context` and returns what
  graph_squad.GraphReader.answer does; `tokens` returns `start_logits` and
  `end_logits`.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    description: dict for model.json; its `max_seq_length`, `doc_stride` and
      `max_query_length` are used.
    decoding: squad_decoding.DecodingConfig.
    litert: litert_export.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  root = _Export(model)

  def compute_logits(batch):
    outputs = root.call(batch)
    return outputs["start_logits"], outputs["end_logits"]

  reader = graph_squad.GraphReader(
    _graph_tokenizer(tokenizer, tokenizer.special_tokens),
    compute_logits,
    graph_squad.WindowingConfig(
      description["max_seq_length"],
      description["doc_stride"],
      description["max_query_length"],
    ),
    decoding,
    tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"]),
  )
  root.parts.append(reader)
  signatures = {
    "serving_default": _on_texts(reader.answer, ["question", "context"]),
    "tokens": _on_tokens(lambda *ids: root.call(_batch(*ids))),
  }
  _save(root, signatures, export_dir, "reader", description)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, litert)


def export_pretrainer(export_dir, model, tokenizer, description, litert=None):
  """Exports a modeling.BertPretrainer.

  Signatures: `serving_default` takes `text` and fills its `[MASK]`s, see
  graph_encoder.GraphMaskFiller; `pair` takes `text` and `text_pair` and says
  whether one follows the other; `encode` takes `text`, `tokens` ids, and both
  return what graph_encoder.GraphEncoder does; `predict` takes ids and int32
  `masked_lm_positions` [batch, predictions] and returns what the model does.
  `[MASK]` is one token in all of their texts. For those who tokenize in Python
  the export also has the vocabulary.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    description: dict for model.json; its `max_seq_length` is used.
    litert: litert_export.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  root = _Export(model)
  special_tokens = tokenizer.special_tokens or [MASK]
  encoder = _graph_encoder(root, tokenizer, description, special_tokens)
  size = max(tokenizer.inv_vocab) + 1
  tokens = [tokenizer.inv_vocab.get(number, "") for number in range(size)]
  filler = graph_encoder.GraphMaskFiller(encoder, root.call, tokens, MASK_TOP_K)
  root.parts += [encoder, filler]
  signatures = {
    "serving_default": _on_texts(filler.fill_mask, ["text"]),
    "pair": _on_texts(filler.score_pair, ["text", "text_pair"]),
    "encode": _on_texts(encoder.encode, ["text"]),
    "tokens": _on_tokens(encoder.encode_tokens),
    "predict": _on_tokens(
      lambda *ids: root.call(_batch(*ids)), _MASKED_SEQUENCES
    ),
  }
  table = tokenizer.basic_tokenizer.table
  description = {"do_lower_case": table.do_lower_case, **description}
  files = {predictor.VOCAB_FILE: _vocab_lines(tokenizer)}
  _save(root, signatures, export_dir, "pretrainer", description, files)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, litert)


def export_encoder(export_dir, model, tokenizer, description, litert=None):
  """Exports the encoder of a head model.

  Signatures: `serving_default` takes `text`, `tokens` ids, and both return what
  graph_encoder.GraphEncoder does.

  Args:
    export_dir: directory to make, local or remote.
    model: the model.
    tokenizer: its tokenization.FullTokenizer.
    description: dict for model.json; its `max_seq_length` is used.
    litert: litert_export.Check to add LiteRT files with, or None.

  Raises:
    ValueError: the directory holds something that is no export.
  """
  root = _Export(model)
  encoder = _graph_encoder(
    root, tokenizer, description, tokenizer.special_tokens
  )
  root.parts.append(encoder)
  signatures = {
    "serving_default": _on_texts(encoder.encode, ["text"]),
    "tokens": _on_tokens(encoder.encode_tokens),
  }
  _save(root, signatures, export_dir, "encoder", description)
  _add_litert(root, signatures["tokens"], export_dir, tokenizer, litert)


def _graph_encoder(root, tokenizer, description, special_tokens):
  return graph_encoder.GraphEncoder(
    _graph_tokenizer(tokenizer, special_tokens),
    root.encode,
    description["max_seq_length"],
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
  """The vocabulary as a file that tokenization.load_vocab reads as the same.

  A line whose token stands on a later line as well has no id of its own, and
  any token of a later line may take its place.
  """
  token, lines = None, []
  for number in range(max(tokenizer.inv_vocab), -1, -1):
    token = tokenizer.inv_vocab.get(number, token)
    lines.append(f"{token}\n")
  return "".join(reversed(lines))


def _batch(*ids):
  """The features by name: those of a sequence, perhaps with positions."""
  return dict(zip(_MASKED_SEQUENCES, ids, strict=False))


def _on_texts(function, names):
  """A signature of strings [batch] with these names."""
  specs = [tf.TensorSpec(_TEXTS.shape, _TEXTS.dtype, name) for name in names]
  return tf.function(function, input_signature=specs)


def _on_tokens(function, names=_SEQUENCES):
  """A signature of ids [batch, length] with the features' names."""
  specs = [tf.TensorSpec(_IDS.shape, _IDS.dtype, x) for x in names]
  return tf.function(function, input_signature=specs)


def _add_litert(root, function, export_dir, tokenizer, litert):
  """Adds what `function` makes of ids as LiteRT files, if there is a Check."""
  if litert:
    size = len(tokenizer.vocab)
    litert_export.add(export_dir, root.weights, function, size, litert)


# Files ------------------------------------------------------------------------


def _save(root, signatures, export_dir, kind, description, files=None):
  """Writes a SavedModel and model.json; the directory is whole or not there.

  Args:
    root: tf.Module.
    signatures: dict from name to tf.function.
    export_dir: where.
    kind: of model, for model.json.
    description: dict, for model.json as well.
    files: dict from name to text of what else there is to be.
  """
  check_export_dir(export_dir)
  # With a slash at its end the new directory would lie in the old one.
  export_dir = export_dir.rstrip("/")
  temporary = f"{export_dir}.incomplete-{os.getpid()}"
  tf.saved_model.save(root, temporary, signatures=signatures)
  content = _describe(signatures, kind, description)
  content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
  files = {predictor.DESCRIPTION_FILE: content, **(files or {})}
  for name, text in files.items():
    path = os.path.join(temporary, name)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as writer:
      writer.write(text)
  if tf.io.gfile.exists(export_dir):
    old = f"{export_dir}.old-{os.getpid()}"
    tf.io.gfile.rename(export_dir, old)
    tf.io.gfile.rename(temporary, export_dir)
    tf.io.gfile.rmtree(old)
  else:
    tf.io.gfile.rename(temporary, export_dir)


def _describe(signatures, kind, description):
  """What model.json says."""
  inputs = {
    name: [spec.name for spec in function.input_signature]
    for name, function in signatures.items()
  }
  packages = ("tensorflow", "tensorflow_text", "keras")
  return {
    "format": predictor.FORMAT_VERSION,
    "kind": kind,
    **description,
    "inputs": inputs,
    "versions": {name: importlib.metadata.version(name) for name in packages},
  }


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
