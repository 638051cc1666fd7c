"""Words for masks, and scores of texts, by the heads of pretraining.

    model = mask_filling.from_export("models/pretrained/1")
    model.fill_mask(["Paris is the [MASK] of France."])
    model.pseudo_log_likelihood(["A sentence.", ("A question?", "An answer.")])
    model.next_sentence_score("It rained.", "The streets were wet.")

A text is a str, or a tuple of two for a pair. Importing this costs no
TensorFlow; opening a model loads it. mask_models opens checkpoints.
"""

import dataclasses
import glob
import os

import numpy as np

import tokenization
from bert_keras3.data import sequences
from bert_keras3.serving import predictor

MASK = "[MASK]"
# How the names of the variables begin that a task needs. Hugging Face's
# masked-LM models have neither a next-sentence head nor the pooler below it.
MASKED_LM = ("cls/predictions/",)
NEXT_SENTENCE = ("cls/seq_relationship/", "bert/pooler/")
_SEQUENCES = predictor.MASKED_SEQUENCES


class BadText(ValueError):
  """Tells why a text cannot be used; `index` is its number in the list."""

  def __init__(self, problem, index):
    super().__init__(problem)
    self.index = index


@dataclasses.dataclass(frozen=True)
class _Encoded:
  """Holds a text or a pair as the model reads it.

  Attributes:
    ids: int32 [tokens], `[CLS]` and `[SEP]` among them.
    num_first: how many of them are of segment 0.
    places: int32 [n], where the text's own tokens are: all but those around it.
    masks: a list for each text: the place of each `[MASK]`, None if cut off.
    left_out: how many tokens were cut off.
  """

  ids: np.ndarray
  num_first: int
  places: np.ndarray
  masks: list
  left_out: int


class MaskFiller:
  """Asks a pretrained model about texts.

  Args:
    tokenizer: tokenization.FullTokenizer; to fill masks, one that keeps special
      tokens.
    predict: function from a dict of int32 `input_ids`, `input_mask`,
      `segment_ids` [batch, length] and `masked_lm_positions` [batch,
      predictions] to a dict of float32 `masked_lm_logits` [batch, predictions,
      vocab_size] and `next_sentence_logits` [batch, 2].
    max_seq_length: tokens of a text or a pair at most; more are cut off.
    batch_size: sequences that go through the model together.
    missing: names of variables that the checkpoint did not have.

  Attributes:
    max_seq_length: as given.

  Raises:
    ValueError: the vocabulary has no [CLS], [SEP] or [MASK].
  """

  def __init__(
    self, tokenizer, predict, max_seq_length, batch_size=32, missing=()
  ):
    self.max_seq_length = max_seq_length
    self._tokenizer = tokenizer
    self._predict = predict
    self._batch_size = batch_size
    self._missing = missing
    names = ["[CLS]", "[SEP]", MASK]
    self._cls, self._sep, self._mask = tokenizer.convert_tokens_to_ids(names)
    self._vocab_size = max(tokenizer.inv_vocab) + 1

  def fill_mask(self, texts, top_k=5):
    """Finds the likeliest tokens for every `[MASK]`.

    Args:
      texts: list of texts or pairs.
      top_k: how many tokens for each.

    Returns:
      List of dicts: `text`, and `text_pair` of a pair; `masks`, for each
      `[MASK]` a list of dicts of `token` and `probability`, the likeliest
      first, empty if it was cut off; `filled`, and `filled_pair`, the text with
      the likeliest tokens in place; `tokens_left_out`, how many were cut off.

    Raises:
      BadText: a text has no `[MASK]`.
      ValueError: the model has no masked-LM head.
    """
    self._require(MASKED_LM)
    encoded = self._encode(texts)
    _refuse(_find_mask_problem, texts, encoded)
    rows = [(i, _kept_masks(sequence)) for i, sequence in enumerate(encoded)]
    rows = [(i, places) for i, places in rows if places]
    found = [{} for _ in texts]
    for (i, places), outputs in self._run(encoded, rows):
      logits = outputs["masked_lm_logits"][: len(places)]
      best = [self._best_tokens(row, top_k) for row in logits]
      found[i] = dict(zip(places, best, strict=True))
    return [
      {
        **_named(text),
        "masks": [best.get(x, []) for places in sequence.masks for x in places],
        **_filled(text, sequence.masks, best),
        "tokens_left_out": sequence.left_out,
      }
      for text, sequence, best in zip(texts, encoded, found, strict=True)
    ]

  def pseudo_log_likelihood(self, texts):
    """Scores texts by how well each token is predicted from all others.

    The sum of log P(token | rest) over a text's tokens, each masked in turn
    (Salazar et al. 2020, arXiv 1910.14659, equation 1). Its exponential, per
    token and negated, is their pseudo-perplexity.

    Args:
      texts: list of texts or pairs.

    Returns:
      List of dicts: `text`, and `text_pair` of a pair; `log_likelihood`, the
      sum, in nats; `mean_log_likelihood`, per token; `pseudo_perplexity`;
      `tokens`, a list of dicts of `token` and `log_probability`;
      `tokens_left_out`, how many were cut off.

    Raises:
      BadText: a text has no token or has a `[MASK]`.
      ValueError: the model has no masked-LM head.
    """
    self._require(MASKED_LM)
    encoded = self._encode(texts)
    _refuse(_find_score_problem, texts, encoded)
    rows = [(i, [x]) for i, one in enumerate(encoded) for x in one.places]
    scores = [{} for _ in texts]
    for (i, (place,)), outputs in self._run(encoded, rows):
      (logits,) = outputs["masked_lm_logits"]
      scores[i][place] = _log_softmax(logits)[encoded[i].ids[place]]
    return [
      self._score(text, sequence, [score[x] for x in sequence.places])
      for text, sequence, score in zip(texts, encoded, scores, strict=True)
    ]

  def next_sentence(self, pairs):
    """Scores how likely one text follows another.

    Args:
      pairs: list of tuples of two str.

    Returns:
      List of dicts: `text`; `text_pair`; `is_next`, the probability that it
      follows `text`; `tokens_left_out`, how many were cut off.

    Raises:
      ValueError: there are other texts than pairs, or the model has no
        next-sentence head.
    """
    self._require(NEXT_SENTENCE)
    for pair in pairs:
      if isinstance(pair, str):
        raise ValueError(f"pass a pair of texts, not the one text {pair!r}")
    encoded = self._encode(pairs)
    rows = [(i, []) for i in range(len(pairs))]
    shares = {}
    for (i, _), outputs in self._run(encoded, rows):
      logits = outputs["next_sentence_logits"]
      shares[i] = float(np.exp(_log_softmax(logits)[0]))
    return [
      {
        **_named(pair),
        "is_next": shares[i],
        "tokens_left_out": encoded[i].left_out,
      }
      for i, pair in enumerate(pairs)
    ]

  def next_sentence_score(self, first, second):
    """Returns the probability that the text `second` follows `first`."""
    (result,) = self.next_sentence([(first, second)])
    return result["is_next"]

  def _require(self, scopes):
    """Refuses to answer with weights that nothing has trained."""
    for name in self._missing:
      if name.startswith(scopes):
        raise ValueError(
          f"the checkpoint has no {name}, which this task needs; take one with "
          "the heads of pretraining, or pretrain it with run_pretraining.py"
        )

  # Texts to sequences.

  def _encode(self, texts):
    """Encodes texts: a list of `_Encoded`."""
    if isinstance(texts, str):
      raise ValueError(f"pass a list of texts, not the text {texts!r}")
    return [self._encode_one(_parts(text)) for text in texts]

  def _encode_one(self, parts):
    ids = [self._tokenizer.encode(text) for text in parts]
    first, second = (*ids, [])[:2]
    kept = sequences.truncate_texts(first, second, self.max_seq_length)
    packed, num_first = sequences.pack_pair(*kept, self._cls, self._sep)
    # Where the tokens of the first and of the second text begin.
    starts = (1, num_first)
    ranges = [range(x, x + len(y)) for x, y in zip(starts, kept, strict=True)]
    return _Encoded(
      ids=np.array(packed, np.int32),
      num_first=num_first,
      places=np.array([*ranges[0], *ranges[1]], np.int32),
      masks=[
        self._find_masks(row, places)
        for row, places in zip(ids, ranges, strict=False)
      ],
      left_out=len(first) + len(second) - sum(map(len, kept)),
    )

  def _find_masks(self, ids, places):
    """Finds the place of each `[MASK]` of a text, None if it was cut off."""
    numbers = [i for i, number in enumerate(ids) if number == self._mask]
    return [places[i] if i < len(places) else None for i in numbers]

  # Sequences to outputs.

  def _run(self, encoded, rows):
    """Runs sequences with places masked, those of equal length together.

    Args:
      encoded: list of `_Encoded`.
      rows: list of (index of a sequence, list of the places to mask).

    Yields:
      Pairs of a row and the dict of its outputs, without their batch dimension;
      `masked_lm_logits` may have more rows than there are places.
    """
    rows = sorted(rows, key=lambda row: len(encoded[row[0]].ids))
    for start in range(0, len(rows), self._batch_size):
      chunk = rows[start : start + self._batch_size]
      outputs = self._predict(self._batch(encoded, chunk))
      outputs = {name: np.asarray(x) for name, x in outputs.items()}
      for i, row in enumerate(chunk):
        yield row, {name: x[i] for name, x in outputs.items()}

  def _batch(self, encoded, rows):
    """Makes the model's input, padded to the longest of the rows."""
    length = max(len(encoded[i].ids) for i, _ in rows)
    num_predictions = max(len(places) for _, places in rows)
    lengths = (length, length, length, num_predictions)
    batch = {
      name: np.zeros([len(rows), columns], np.int32)
      for name, columns in zip(_SEQUENCES, lengths, strict=True)
    }
    for number, (i, places) in enumerate(rows):
      size = len(encoded[i].ids)
      ids = batch["input_ids"][number]
      ids[:size] = encoded[i].ids
      ids[places] = self._mask
      batch["input_mask"][number, :size] = 1
      batch["segment_ids"][number, encoded[i].num_first : size] = 1
      batch["masked_lm_positions"][number, : len(places)] = places
    return batch

  # Outputs to results.

  def _best_tokens(self, logits, top_k):
    """Returns dicts of the likeliest tokens; logits is [vocab_size]."""
    # Rows that only fill the table of embeddings up are no tokens.
    shares = np.exp(_log_softmax(logits))[: self._vocab_size]
    best = np.argsort(-shares, kind="stable")[:top_k]
    return [
      {
        "token": self._tokenizer.inv_vocab.get(int(i), ""),
        "probability": float(shares[i]),
      }
      for i in best
    ]

  def _score(self, text, sequence, scores):
    tokens = self._tokenizer.convert_ids_to_tokens(
      sequence.ids[sequence.places].tolist()
    )
    mean = float(np.mean(scores))
    return {
      **_named(text),
      "log_likelihood": float(np.sum(scores)),
      "mean_log_likelihood": mean,
      "pseudo_perplexity": float(np.exp(-mean)),
      "tokens": [
        {"token": token, "log_probability": float(score)}
        for token, score in zip(tokens, scores, strict=True)
      ],
      "tokens_left_out": sequence.left_out,
    }


def _parts(text):
  """Returns the tuple of a text's one or two str."""
  parts = (text,) if isinstance(text, str) else tuple(text)
  if not 1 <= len(parts) <= 2 or not all(isinstance(x, str) for x in parts):
    raise ValueError(f"a text should be a str or two of them, not {text!r}")
  return parts


def _named(text):
  return dict(zip(("text", "text_pair"), _parts(text), strict=False))


def _kept_masks(sequence):
  places = [place for places in sequence.masks for place in places]
  return [place for place in places if place is not None]


def _filled(text, masks, best):
  """Puts the best tokens into masks: `filled`, and `filled_pair` of a pair."""
  filled = []
  for part, places in zip(_parts(text), masks, strict=True):
    whole, *others = part.split(MASK)
    for place, other in zip(places, others, strict=True):
      token = best[place][0]["token"] if place in best else MASK
      if token.startswith("##"):
        whole, token = whole.rstrip(), token[2:]
      whole += token + other
    filled.append(whole)
  return dict(zip(("filled", "filled_pair"), filled, strict=False))


def _refuse(find_problem, texts, encoded):
  """Raises BadText for the first text that a task cannot take."""
  for index, pair in enumerate(zip(texts, encoded, strict=True)):
    problem = find_problem(*pair)
    if problem:
      raise BadText(problem, index)


def _find_mask_problem(text, sequence):
  if any(sequence.masks):
    return ""
  if any(MASK in part for part in _parts(text)):
    return (
      f"the tokenizer splits {MASK} in {text!r}; make it with "
      'special_tokens_in_text="keep"'
    )
  return f"there is no {MASK} to fill in {text!r}"


def _find_score_problem(text, sequence):
  if any(sequence.masks):
    return f"{MASK} has no likelihood; write the word that is meant in {text!r}"
  if not len(sequence.places):
    return f"there is no token to score in {text!r}"
  return ""


def _log_softmax(logits):
  """Computes float64 of equal shape, over the last dimension."""
  logits = logits.astype(np.float64)
  logits -= logits.max(axis=-1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


# Opening ----------------------------------------------------------------------


def from_export(
  export_dir,
  special_tokens_in_text="keep",
  max_seq_length=None,
  batch_size=32,
):
  """Opens an export of run_pretraining.py as a `MaskFiller`.

  Args:
    export_dir: directory that was given as --export_dir.
    special_tokens_in_text: see tokenization.FullTokenizer.
    max_seq_length: tokens of a text or a pair at most; the export's if None.
    batch_size: sequences that go through the model together.

  Raises:
    ValueError, OSError: see `read_export`.
    ImportError: tensorflow_text is not installed.
  """
  description = read_export(export_dir, max_seq_length)
  tokenizer = tokenization.FullTokenizer(
    os.path.join(export_dir, predictor.VOCAB_FILE),
    description.do_lower_case,
    special_tokens_in_text,
  )
  import tensorflow as tf
  import tensorflow_text  # noqa: F401  The model's ops are in there.

  model = tf.saved_model.load(export_dir)

  def predict(batch):
    # Looked up in here: a signature does not keep its model alive.
    tensors = {name: tf.constant(x) for name, x in batch.items()}
    return model.signatures["predict"](**tensors)

  return MaskFiller(
    tokenizer,
    predict,
    max_seq_length or description.max_seq_length,
    batch_size,
  )


def list_export_files(export_dir):
  """Lists a local export's files, which no result may overwrite."""
  root = glob.escape(export_dir)
  patterns = ("*.pb", "*/*")  # saved_model.pb; variables, assets.extra
  return sum((glob.glob(os.path.join(root, x)) for x in patterns), [])


def read_export(export_dir, max_seq_length=None):
  """Reads model.json of an export that has the heads of pretraining.

  Needs no TensorFlow.

  Args:
    export_dir: directory that was given as --export_dir.
    max_seq_length: tokens of a text at most, or None for the export's.

  Returns:
    predictor.ExportDescription.

  Raises:
    FileNotFoundError: there is no export.
    ValueError: it is no model with the heads of pretraining, or an old one, or
      max_seq_length exceeds its own.
  """
  description = predictor.read_description(export_dir)
  kind = description.kind
  if kind != "pretrainer":
    raise ValueError(
      f"{export_dir} holds a {kind}, which has no masked-LM head; name an "
      "export of run_pretraining.py"
    )
  if "predict" not in description.inputs:
    raise ValueError(
      f"{export_dir} was exported by an older version, without what is needed "
      "here; export it again: run_pretraining.py --do_export"
    )
  limit = description.max_seq_length
  if max_seq_length and max_seq_length > limit:
    raise ValueError(
      f"--max_seq_length={max_seq_length} exceeds that of {export_dir}; use "
      f"{limit} or less"
    )
  return description
