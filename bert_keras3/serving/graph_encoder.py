"""Encoding and masked words as TensorFlow ops, for SavedModels.

    encoder = GraphEncoder(tokenizer, encode, max_seq_length, special_ids)
    encoder.encode(["a text"])["embedding"]

    filler = GraphMaskFiller(encoder, predict, tokens, top_k=10)
    filler.fill_mask(["a [MASK] text"])["tokens"]

Texts go in as strings and are tokenized in the graph.
"""

import typing

import tensorflow as tf

from bert_keras3.serving import graph_tokenization


class SpecialIds(typing.NamedTuple):
  """Holds the ids of `[CLS]`, `[SEP]` and `[MASK]`."""

  cls: int
  sep: int
  mask: int


class GraphEncoder(tf.Module):
  """Computes BERT's outputs for strings.

  Args:
    tokenizer: graph_tokenization.GraphTokenizer.
    encode: function from a dict of int32 [batch, length] `input_ids`,
      `input_mask` and `segment_ids` to a dict of `sequence_output` [batch,
      length, width] and `pooled_output` [batch, width].
    max_seq_length: tokens of a sequence at most.
    special_ids: SpecialIds.
  """

  def __init__(self, tokenizer, encode, max_seq_length, special_ids):
    super().__init__()
    self.tokenizer = tokenizer
    self._encode = encode
    self._max_seq_length = max_seq_length
    self.special_ids = special_ids

  def pack(self, first, second=None):
    """Packs int32 RaggedTensors [batch, (tokens)] into a model's input."""
    return graph_tokenization.pack(
      first,
      second,
      self._max_seq_length,
      self.special_ids.cls,
      self.special_ids.sep,
    )

  def encode(self, text):
    """Encodes string [batch]; see `encode_tokens`."""
    return self._outputs(self.pack(self.tokenizer.tokenize(text)))

  def encode_tokens(self, input_ids, input_mask, segment_ids):
    """Encodes int32 [batch, length].

    Returns:
      Dict of float32 `sequence_output` [batch, length, width], `pooled_output`
      [batch, width], and `embedding` [batch, width], the mean of the sequence's
      outputs without its padding.
    """
    return self._outputs(
      {
        "input_ids": input_ids,
        "input_mask": input_mask,
        "segment_ids": segment_ids,
      }
    )

  def _outputs(self, batch):
    outputs = self._encode(batch)
    sequence_output = tf.cast(outputs["sequence_output"], tf.float32)
    # Not [:, :, tf.newaxis], which LiteRT has no operation for.
    weights = tf.expand_dims(tf.cast(batch["input_mask"], tf.float32), 2)
    total = tf.reduce_sum(sequence_output * weights, axis=1)
    return {
      "sequence_output": sequence_output,
      "pooled_output": tf.cast(outputs["pooled_output"], tf.float32),
      "embedding": tf.math.divide_no_nan(total, tf.reduce_sum(weights, axis=1)),
    }


class GraphMaskFiller(tf.Module):
  """Applies the masked-LM and the next-sentence head to strings.

  Args:
    encoder: GraphEncoder, whose tokenizer keeps `[MASK]` as one token.
    predict: function from a dict as of GraphEncoder's `encode`, with int32
      `masked_lm_positions` [batch, predictions], to a dict of
      `masked_lm_logits` [batch, predictions, vocab_size] and
      `next_sentence_logits` [batch, 2].
    tokens: list of str, by id.
    top_k: how many tokens for each mask.
  """

  def __init__(self, encoder, predict, tokens, top_k):
    super().__init__()
    self._encoder = encoder
    self._predict = predict
    self._tokens = tokens
    self._top_k = min(top_k, len(tokens))

  def fill_mask(self, text):
    """Finds words for every `[MASK]` of texts.

    Args:
      text: string [batch].

    Returns:
      Dict of `tokens`, string [batch, masks, top_k], the likeliest first, and
      `probabilities`, float32 of that shape. Texts with fewer masks than
      others, or with masks beyond max_seq_length, have "" and 0 there.
    """
    batch = self._encoder.pack(self._encoder.tokenizer.tokenize(text))
    is_mask = tf.equal(batch["input_ids"], self._encoder.special_ids.mask)
    columns = tf.range(tf.shape(is_mask)[1])
    columns = tf.broadcast_to(columns, tf.shape(is_mask))
    positions = tf.ragged.boolean_mask(columns, is_mask)
    is_there = tf.ones_like(positions, tf.bool).to_tensor()[:, :, tf.newaxis]
    batch["masked_lm_positions"] = positions.to_tensor()
    logits = self._predict(batch)["masked_lm_logits"]
    # Rows that only fill the table of embeddings up are no tokens.
    probabilities = tf.nn.softmax(logits)[:, :, : len(self._tokens)]
    best, ids = tf.math.top_k(probabilities, self._top_k)
    return {
      "tokens": tf.where(is_there, tf.gather(self._tokens, ids), ""),
      "probabilities": tf.where(is_there, best, 0.0),
    }

  def score_pair(self, text, text_pair):
    """Scores how likely one text follows the other.

    Args:
      text: string [batch].
      text_pair: string [batch].

    Returns:
      Dict of `is_next`, float32 [batch], the probability that `text_pair`
      follows `text`, and `logits` [batch, 2].
    """
    tokenizer = self._encoder.tokenizer
    batch = self._encoder.pack(
      tokenizer.tokenize(text), tokenizer.tokenize(text_pair)
    )
    none = tf.zeros([tf.shape(text)[0], 0], tf.int32)
    outputs = self._predict({**batch, "masked_lm_positions": none})
    logits = outputs["next_sentence_logits"]
    return {"is_next": tf.nn.softmax(logits)[:, 0], "logits": logits}
