"""The whole network in one scroll, small to large.

`BertConfig`, activations and dropout, then the layers in the order a token
passes them, then `BertModel`, then one head per task family.

Every variable is created when its model is constructed, and a variable's Keras
path is its name in upstream's checkpoints (`bert/encoder/layer_0/...`), so that
`named_variables` is all that reading and writing checkpoints needs.

Shapes in docstrings: `batch` examples, `length` tokens, `width` hidden units,
`heads` attention heads of `head_width` units, `predictions` masked positions.
"""

import copy
import json

import keras
import numpy as np
import tensorflow as tf

if keras.backend.backend() != "tensorflow":
  raise ImportError(
    f"Keras runs on {keras.backend.backend()}; set KERAS_BACKEND=tensorflow"
  )

# Added to the attention scores of padding. Large enough to vanish in softmax,
# small enough for float16, and what published checkpoints were trained with.
MASK_ADDER = -10000.0
LAYER_NORM_EPSILON = 1e-12
# Keys of a config that must be positive whole numbers.
POSITIVE_SIZES = (
  "vocab_size",
  "hidden_size",
  "num_hidden_layers",
  "num_attention_heads",
  "intermediate_size",
  "max_position_embeddings",
  "type_vocab_size",
)
# Keys of Hugging Face's config.json, and the only values this network supports.
FIXED_BY_BERT = {
  "model_type": "bert",
  "position_embedding_type": "absolute",
  "layer_norm_eps": LAYER_NORM_EPSILON,
  "is_decoder": False,
  "tie_word_embeddings": True,
}
# Hugging Face's config.json has at least one of these keys, upstream's none.
HUGGING_FACE_MARKS = ("model_type", "architectures", "transformers_version")
# Hugging Face's names of activations to ours, where they differ.
HUGGING_FACE_ACTIVATIONS = {
  "gelu": "gelu_exact",
  "gelu_new": "gelu",
  "gelu_pytorch_tanh": "gelu",
}
# Upstream's run_classifier.py hard-codes this, whatever the config.
CLASSIFIER_DROPOUT_PROB = 0.1


class BertConfig:
  """Holds the architecture of a BERT: the keys of upstream's JSON.

  Keys that BERT does not know (multilingual and Chinese releases carry
  `directionality` and `pooler_*`) are kept as attributes and written back.
  """

  def __init__(  # noqa: PLR0913 - one argument per key of the file.
    self,
    vocab_size,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    hidden_act="gelu",
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
    max_position_embeddings=512,
    type_vocab_size=16,
    initializer_range=0.02,
  ):
    self.vocab_size = vocab_size
    self.hidden_size = hidden_size
    self.num_hidden_layers = num_hidden_layers
    self.num_attention_heads = num_attention_heads
    self.intermediate_size = intermediate_size
    self.hidden_act = hidden_act
    self.hidden_dropout_prob = hidden_dropout_prob
    self.attention_probs_dropout_prob = attention_probs_dropout_prob
    self.max_position_embeddings = max_position_embeddings
    self.type_vocab_size = type_vocab_size
    self.initializer_range = initializer_range

  @classmethod
  def from_dict(cls, json_object):
    """Builds a config from a dict; absent keys take the defaults above."""
    config = cls(vocab_size=None)
    vars(config).update(json_object)
    return config

  @classmethod
  def from_json_file(cls, json_file):
    """Reads a `bert_config.json`, or a `config.json` of Hugging Face.

    Hugging Face's is translated: its "gelu" becomes our "gelu_exact", and keys
    that only it has are dropped, so that `to_json_string` gives upstream's.

    Raises:
      FileNotFoundError: there is no such file.
      OSError: the file cannot be read.
      ValueError: the file is not a JSON object, has no `vocab_size`, or is of
        a network that is not BERT.
    """
    if not tf.io.gfile.exists(json_file):
      raise FileNotFoundError(f"no BERT config at {json_file}; check the path")
    try:
      with tf.io.gfile.GFile(json_file, "rb") as file:
        json_object = json.loads(file.read())
    # Not JSON, not UTF-8, an integer of over 4,300 digits, or nested too deep.
    except (ValueError, RecursionError) as error:
      raise ValueError(
        f"{json_file} is not valid JSON: {error}; mend it or get it again"
      ) from error
    except tf.errors.OpError as error:
      raise OSError(
        f"{json_file} cannot be read ({error.message}); name a file that can"
      ) from error
    if not isinstance(json_object, dict) or "vocab_size" not in json_object:
      raise ValueError(
        f"{json_file} is not a BERT config: it has no vocab_size"
      )
    for key, value in FIXED_BY_BERT.items():
      if json_object.get(key, value) != value:
        raise ValueError(
          f"{json_file} is of a network that is not BERT: its {key} is "
          f"{json_object[key]!r}; choose a model where it is {value!r}"
        )
    try:
      cls._check_values(json_object)
      config = cls.from_dict(cls._translate(json_object))
      config.validate()
    except ValueError as error:
      raise ValueError(f"{json_file}: {error}; mend the file") from None
    return config

  @classmethod
  def _check_values(cls, json_object):
    """Raises ValueError for values that no network can have."""
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
      value = json_object.get(name)  # Upstream takes null for 0.
      if value is not None and not (_is_number(value) and 0 <= value < 1):
        raise ValueError(f"{name} must be 0 or more and below 1, not {value!r}")
    value = json_object.get("initializer_range", 1)
    if not (_is_number(value) and 0 <= value < np.inf):
      raise ValueError(f"initializer_range must be a number, not {value!r}")
    value = json_object.get("hidden_act")
    if value is not None and not isinstance(value, str):
      raise ValueError(f"hidden_act must be a name, not {value!r}")
    methods = sorted(set(dir(cls)) & json_object.keys())
    if methods:
      raise ValueError(f"{methods[0]!r} cannot be a key of a BERT config")

  @staticmethod
  def _translate(json_object):
    """Translates Hugging Face's config to upstream's; keeps any other."""
    if not json_object.keys() & set(HUGGING_FACE_MARKS):
      return json_object
    # Defaults of transformers.BertConfig that differ from upstream's.
    config = {"type_vocab_size": 2, "hidden_act": "gelu", **json_object}
    activation = config["hidden_act"]
    config["hidden_act"] = HUGGING_FACE_ACTIVATIONS.get(activation, activation)
    return {key: config[key] for key in config if key not in HUGGING_FACE_MARKS}

  def to_dict(self):
    """Returns all keys, the unknown ones included."""
    return copy.deepcopy(vars(self))

  def to_json_string(self):
    """Returns the text of `bert_config.json`, keys sorted."""
    return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

  def validate(self):
    """Raises ValueError when no network can have this architecture."""
    for name in POSITIVE_SIZES:
      size = getattr(self, name)
      if not isinstance(size, int) or size < 1:
        raise ValueError(
          f"{name} must be a positive whole number in the BERT config, not "
          f"{size!r}"
        )
    if self.hidden_size % self.num_attention_heads:
      raise ValueError(
        f"hidden_size {self.hidden_size} is not a multiple of "
        f"num_attention_heads {self.num_attention_heads}"
      )
    get_activation(self.hidden_act)


def _is_number(value):
  return isinstance(value, (int, float)) and not isinstance(value, bool)


# Activations, initialisation, dropout ----------------------------------------


def gelu(x):
  """Computes the Gaussian Error Linear Unit (arXiv 1606.08415) by tanh.

  Published BERT weights were trained with this form; `keras.activations.gelu`
  and Hugging Face's "gelu" default to the exact one.
  """
  return tf.nn.gelu(x, approximate=True)


def gelu_exact(x):
  """Computes GELU by the error function, for Hugging Face's weights."""
  return tf.nn.gelu(x, approximate=False)


def get_activation(activation_string):
  """Maps a config's `hidden_act` to a function, None for the identity.

  Raises:
    ValueError: the name is none of linear, relu, gelu, gelu_exact, tanh.
  """
  if not isinstance(activation_string, str):
    return activation_string
  activations = {
    "": None,
    "linear": None,
    "relu": tf.nn.relu,
    "gelu": gelu,
    "gelu_exact": gelu_exact,
    "tanh": tf.tanh,
  }
  name = activation_string.lower()
  if name not in activations:
    raise ValueError(
      f"unsupported hidden_act {activation_string!r}; choose one of "
      + ", ".join(sorted(key for key in activations if key))
    )
  return activations[name]


def create_initializer(initializer_range=0.02):
  """Makes a normal initializer, truncated at two standard deviations."""
  return keras.initializers.TruncatedNormal(stddev=initializer_range)


def dropout(input_tensor, dropout_prob, dropout_seed, site):
  """Zeroes elements with `dropout_prob`, scales up the others.

  The mask is a pure function of its arguments: the same on every run, redrawn
  identically by a recomputed forward pass, different for every seed and site.

  Args:
    input_tensor: float tensor of any shape.
    dropout_prob: probability of a zero.
    dropout_seed: int64 [2], or None for no dropout.
    site: number of this dropout within the model, below 1024.

  Returns:
    Tensor of `input_tensor`'s shape and dtype.
  """
  if dropout_seed is None or not dropout_prob:
    return input_tensor
  seed = tf.cast(dropout_seed, tf.int64) * [1, 1024] + [0, site]
  # 32-bit words are compared with an integer: exact in every precision, whereas
  # uniform bfloat16 numbers have only 128 values.
  words = tf.random.stateless_uniform(
    tf.shape(input_tensor),
    seed,
    minval=None,
    maxval=None,
    dtype=tf.uint32,
    alg="philox",
  )
  keep = words >= np.uint32(round(dropout_prob * 2**32))
  scale = tf.cast(1.0 / (1.0 - dropout_prob), input_tensor.dtype)
  return tf.where(keep, input_tensor * scale, tf.zeros_like(input_tensor))


# Layers, in the order a token passes them -------------------------------------


class LayerNorm(keras.layers.Layer):
  """Layer normalisation (arXiv 1607.06450) over the last axis, in float32.

  The epsilon rounds to 0 in float16, so statistics are computed in float32; the
  result has the input's dtype.
  """

  def __init__(self, **kwargs):
    super().__init__(dtype="float32", autocast=False, **kwargs)

  def build(self, input_shape):
    """Creates `gamma` and `beta`, both [width]."""
    width = input_shape[-1]
    self.gamma = self.add_weight(
      name="gamma", shape=[width], initializer="ones"
    )
    self.beta = self.add_weight(name="beta", shape=[width], initializer="zeros")

  def call(self, inputs):
    """Maps [..., width] to the same shape."""
    x = tf.cast(inputs, tf.float32)
    mean, variance = tf.nn.moments(x, axes=[-1], keepdims=True)
    scale = tf.math.rsqrt(variance + LAYER_NORM_EPSILON) * self.gamma
    return tf.cast(x * scale + (self.beta - mean * scale), inputs.dtype)


class Embeddings(keras.layers.Layer):
  """Sum of word, segment and position embeddings, normalised."""

  def __init__(self, config, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.layer_norm = LayerNorm(name="LayerNorm")

  def build(self, input_shape=None):
    """Creates the three tables and the LayerNorm."""
    config = self.config
    self.word_embeddings = self._table("word_embeddings", config.vocab_size)
    self.token_type_embeddings = self._table(
      "token_type_embeddings", config.type_vocab_size
    )
    self.position_embeddings = self._table(
      "position_embeddings", config.max_position_embeddings
    )
    self.layer_norm.build([config.hidden_size])

  def _table(self, name, rows):
    return self.add_weight(
      name=name,
      shape=[rows, self.config.hidden_size],
      initializer=create_initializer(self.config.initializer_range),
    )

  def call(self, input_ids, token_type_ids, dropout_seed=None):
    """Maps two int [batch, length] to float [batch, length, width].

    Raises:
      ValueError: `length` exceeds the config's max_position_embeddings.
    """
    length = input_ids.shape[1]
    limit = self.config.max_position_embeddings
    if length is not None and length > limit:
      raise ValueError(
        f"the sequence length {length} exceeds max_position_embeddings "
        f"{limit} of the BERT config; use --max_seq_length={limit} or less"
      )
    positions = self.position_embeddings[: tf.shape(input_ids)[1]]
    x = tf.gather(self.word_embeddings, input_ids)
    x += tf.gather(self.token_type_embeddings, token_type_ids)
    x = self.layer_norm(x + positions)  # [batch, length, width]
    return dropout(x, self.config.hidden_dropout_prob, dropout_seed, site=0)


class SelfAttention(keras.layers.Layer):
  """Scaled dot-product attention of every token over every token."""

  def __init__(self, config, index, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.dropout_site = 3 * index + 1
    self.head_width = config.hidden_size // config.num_attention_heads
    self.query, self.key, self.value = (
      _dense(config.hidden_size, config, self.dtype_policy, name=name)
      for name in ("query", "key", "value")
    )

  def build(self, input_shape):
    """Creates query, key and value projections, [width, width] each."""
    for projection in (self.query, self.key, self.value):
      projection.build(input_shape)

  def call(self, inputs, input_mask, dropout_seed=None):
    """Mixes tokens.

    Args:
      inputs: [batch, length, width].
      input_mask: int [batch, length], 1 for tokens to attend to.
      dropout_seed: int64 [2] or None.

    Returns:
      [batch, length, width], heads side by side.
    """
    probs = self.attention_probs(inputs, input_mask)
    value = self._split_heads(self.value(inputs))
    probs = dropout(
      tf.cast(probs, value.dtype),
      self.config.attention_probs_dropout_prob,
      dropout_seed,
      self.dropout_site,
    )
    context = tf.matmul(probs, value)  # [batch, heads, length, head_width]
    context = tf.transpose(context, [0, 2, 1, 3])
    return tf.reshape(context, tf.shape(inputs))

  def attention_probs(self, inputs, input_mask):
    """Computes how much each token attends to each, before dropout.

    Args:
      inputs: [batch, length, width].
      input_mask: int [batch, length], 1 for tokens to attend to.

    Returns:
      float32 [batch, heads, from, to]; sums to 1 over `to`.
    """
    query = self._split_heads(self.query(inputs))
    key = self._split_heads(self.key(inputs))
    scores = tf.matmul(query, key, transpose_b=True)  # [batch, heads, from, to]
    scores = tf.cast(scores, tf.float32) * self.head_width**-0.5
    # The adder is made here, in float32, because Keras casts float arguments
    # of a layer to its compute dtype.
    mask = tf.cast(input_mask, tf.float32)
    # LiteRT has no operation for [:, tf.newaxis, tf.newaxis, :] of any shape.
    mask = tf.expand_dims(tf.expand_dims(mask, 1), 1)  # [batch, 1, 1, to]
    return tf.nn.softmax(scores + (1.0 - mask) * MASK_ADDER)

  def _split_heads(self, x):
    """Maps [batch, length, width] to [batch, heads, length, head_width]."""
    batch, length = tf.unstack(tf.shape(x))[:2]
    heads = self.config.num_attention_heads
    x = tf.reshape(x, [batch, length, heads, self.head_width])
    return tf.transpose(x, [0, 2, 1, 3])


class ResidualOutput(keras.layers.Layer):
  """Projection to the model's width, dropout, residual, LayerNorm."""

  def __init__(self, config, dropout_site, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.dropout_site = dropout_site
    self.dense = _dense(
      config.hidden_size, config, self.dtype_policy, name="dense"
    )
    self.layer_norm = LayerNorm(name="LayerNorm")

  def build(self, input_shape):
    """Creates `dense` [input width, width] and the LayerNorm."""
    self.dense.build(input_shape)
    self.layer_norm.build([self.config.hidden_size])

  def call(self, inputs, residual, dropout_seed=None):
    """Maps [batch, length, any] to `residual`'s [batch, length, width]."""
    x = dropout(
      self.dense(inputs),
      self.config.hidden_dropout_prob,
      dropout_seed,
      self.dropout_site,
    )
    return self.layer_norm(x + residual)


class TransformerLayer(keras.layers.Layer):
  """One block of the encoder: attention, then feed-forward, both post-LN."""

  def __init__(self, config, index, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    policy = self.dtype_policy
    self.self_attention = SelfAttention(
      config, index, name="self", dtype=policy
    )
    self.attention_output = ResidualOutput(
      config, 3 * index + 2, name="output", dtype=policy
    )
    self.intermediate = _dense(
      config.intermediate_size,
      config,
      policy,
      name="dense",
      activation=get_activation(config.hidden_act),
    )
    self.layer_output = ResidualOutput(
      config, 3 * index + 3, name="output", dtype=policy
    )

  def build(self, input_shape):
    """Builds the parts under upstream's scopes."""
    with keras.name_scope("attention"):
      self.self_attention.build(input_shape)
      self.attention_output.build(input_shape)
    with keras.name_scope("intermediate"):
      self.intermediate.build(input_shape)
    self.layer_output.build([None, None, self.config.intermediate_size])

  def call(self, inputs, input_mask, dropout_seed=None):
    """Maps [batch, length, width] to the same shape."""
    x = self.self_attention(inputs, input_mask, dropout_seed=dropout_seed)
    attended = self.attention_output(x, inputs, dropout_seed=dropout_seed)
    x = self.intermediate(attended)  # [batch, length, intermediate_size]
    return self.layer_output(x, attended, dropout_seed=dropout_seed)


class Encoder(keras.layers.Layer):
  """The stack of transformer layers."""

  def __init__(self, config, **kwargs):
    super().__init__(**kwargs)
    self.transformer_layers = [
      TransformerLayer(config, i, name=f"layer_{i}", dtype=self.dtype_policy)
      for i in range(config.num_hidden_layers)
    ]

  def build(self, input_shape):
    """Builds every layer."""
    for layer in self.transformer_layers:
      layer.build(input_shape)

  def call(self, inputs, input_mask, dropout_seed=None):
    """Returns the output of every layer, each [batch, length, width]."""
    outputs = []
    for layer in self.transformer_layers:
      inputs = layer(inputs, input_mask, dropout_seed=dropout_seed)
      outputs.append(inputs)
    return outputs


def _dense(units, config, dtype, name, activation=None):
  return keras.layers.Dense(
    units,
    activation=activation,
    kernel_initializer=create_initializer(config.initializer_range),
    name=name,
    dtype=dtype,
  )


# Models -----------------------------------------------------------------------


class _ConfiguredModel(keras.Model):
  """A Keras model made from a BertConfig, its variables created at once."""

  def __init__(self, config, **kwargs):
    super().__init__(**kwargs)
    config.validate()
    self.config = config
    # Only consulted when no dropout_seed is given, that is in a notebook's
    # `fit`. Models inside another model receive a seed and never draw.
    self.seed_generator = keras.random.SeedGenerator()

  def get_config(self):
    """Returns the dict that `from_config` takes."""
    return {
      "config": self.config.to_dict(),
      "name": self.name,
      "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
    }

  @classmethod
  def from_config(cls, config):
    """Rebuilds a model, with new weights."""
    config = dict(config)
    config["dtype"] = keras.saving.deserialize_keras_object(config["dtype"])
    return cls(BertConfig.from_dict(config.pop("config")), **config)

  def _seed(self, training, dropout_seed):
    """Returns the seed for this call's dropout, None outside training."""
    if not training:
      return None
    if dropout_seed is None:
      return tf.cast(self.seed_generator.next(), tf.int64)
    return dropout_seed


@keras.saving.register_keras_serializable("bert")
class BertModel(_ConfiguredModel):
  """BERT's encoder (arXiv 1810.04805).

      config = BertConfig.from_json_file("bert_config.json")
      model = BertModel(config)
      outputs = model({"input_ids": ids, "input_mask": mask,
                       "token_type_ids": segment_ids})
      outputs["pooled_output"]

  `call` describes inputs and outputs.
  """

  def __init__(self, config, name="bert", **kwargs):
    super().__init__(config, name=name, **kwargs)
    policy = self.dtype_policy
    self.embeddings = Embeddings(config, name="embeddings", dtype=policy)
    self.encoder = Encoder(config, name="encoder", dtype=policy)
    self.pooler = _dense(
      config.hidden_size, config, policy, name="dense", activation="tanh"
    )
    self.build()

  def build(self, input_shape=None):
    """Creates all variables; they depend on the config alone."""
    hidden_shape = [None, None, self.config.hidden_size]
    self.embeddings.build()
    self.encoder.build(hidden_shape)
    with keras.name_scope("pooler"):
      self.pooler.build(hidden_shape)

  def call(self, inputs, training=None, dropout_seed=None):
    """Encodes a batch.

    Args:
      inputs: dict of int [batch, length]: `input_ids`; optionally `input_mask`
        (1 for tokens, 0 for padding; all ones if absent) and `token_type_ids`
        (all zeros if absent).
      training: whether to apply dropout.
      dropout_seed: int64 [2] that fixes every mask of this call; drawn from a
        Keras SeedGenerator if None.

    Returns:
      Dict of `sequence_output` [batch, length, width], `pooled_output`
      [batch, width], `all_encoder_layers`, a list of [batch, length, width] for
      each layer, and `embedding_output` [batch, length, width].
    """
    seed = self._seed(training, dropout_seed)
    input_ids = tf.convert_to_tensor(inputs["input_ids"])
    token_type_ids = inputs.get("token_type_ids")
    if token_type_ids is None:
      token_type_ids = tf.zeros_like(input_ids)
    input_mask = inputs.get("input_mask")
    if input_mask is None:
      input_mask = tf.ones_like(input_ids)
    embedded = self.embeddings(input_ids, token_type_ids, dropout_seed=seed)
    layers = self.encoder(embedded, input_mask, dropout_seed=seed)
    sequence_output = layers[-1] if layers else embedded
    return {
      "sequence_output": sequence_output,
      "pooled_output": self.pooler(sequence_output[:, 0]),
      "all_encoder_layers": layers,
      "embedding_output": embedded,
    }

  def attention_probs(self, inputs):
    """Computes how much each token attends to each, in every layer and head.

    Args:
      inputs: dict as for `call`.

    Returns:
      float32 [batch, layers, heads, from, to]; sums to 1 over `to`.
    """
    outputs = self(inputs)
    input_mask = inputs.get("input_mask")
    if input_mask is None:
      input_mask = tf.ones_like(inputs["input_ids"])
    states = [outputs["embedding_output"], *outputs["all_encoder_layers"]]
    pairs = zip(self.encoder.transformer_layers, states[:-1], strict=True)
    probs = [
      layer.self_attention.attention_probs(x, input_mask) for layer, x in pairs
    ]
    return tf.stack(probs, axis=1)


class _HeadModel(_ConfiguredModel):
  """A BertModel with a task on top.

  A task is a set of terms, each a weighted mean over labels. A head declares
  for every term each label's weight, `label_weights(batch)`, and its value,
  `label_values(outputs, batch)`: a loss, or 1 for a right prediction. `terms`
  adds both up, so that micro-batches and replicas add up to the global batch.
  `loss_names` are the terms that `total_loss` combines, `metric_names` those
  that are reported.

  Weights have their own method because they depend on labels alone: the
  denominators of a global batch are known before its first backward pass.
  """

  loss_names = ("loss",)
  metric_names = ()

  def __init__(self, config, **kwargs):
    super().__init__(config, **kwargs)
    self.bert = BertModel(config, dtype=self.dtype_policy)

  def encode(self, inputs, training, dropout_seed):
    """Runs the encoder on a batch; passes `segment_ids` as token_type_ids."""
    bert_inputs = {
      "input_ids": inputs["input_ids"],
      "input_mask": inputs.get("input_mask"),
      "token_type_ids": inputs.get("segment_ids"),
    }
    return self.bert(bert_inputs, training=training, dropout_seed=dropout_seed)

  def terms(self, outputs, batch):
    """Adds up the terms of a batch.

    Args:
      outputs: dict that `call` returned for the batch.
      batch: dict of features and labels.

    Returns:
      Dict from term to a pair of float32 scalars, (weighted sum of the labels'
      values, sum of their weights).
    """
    weights = self.label_weights(batch)
    return {
      name: (
        tf.reduce_sum(weights[name] * values),
        tf.reduce_sum(weights[name]),
      )
      for name, values in self.label_values(outputs, batch).items()
    }

  def stack_metrics(self, terms):
    """Returns float32 [metric, 2], the `terms` of `metric_names`."""
    return tf.stack([tf.stack(terms[name]) for name in self.metric_names])

  def total_loss(self, terms):
    """Combines `terms` into the loss; linear in their sums."""
    total, weight = terms["loss"]
    return total / weight

  def compute_loss(
    self, x=None, y=None, y_pred=None, sample_weight=None, training=True
  ):
    """Returns the loss that `fit` minimises; labels are in `x`, with inputs."""
    del y, sample_weight, training
    return self.total_loss(self.terms(y_pred, x))


def example_weights(batch):
  """Returns float32 [batch]: 1 for examples, 0 for rows that fill a batch."""
  if "example_weights" in batch:
    return tf.reshape(tf.cast(batch["example_weights"], tf.float32), [-1])
  return tf.ones([tf.shape(batch["input_ids"])[0]])


def _cross_entropy(labels, logits):
  """Computes float32 losses of int labels, shaped as `labels`."""
  return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)


def _output_weights(layer, config, units):
  """Creates a head's output projection, stored [units, width] as upstream."""
  layer.output_weights = layer.add_weight(
    name="output_weights",
    shape=[units, config.hidden_size],
    initializer=create_initializer(config.initializer_range),
  )
  layer.output_bias = layer.add_weight(
    name="output_bias", shape=[units], initializer="zeros"
  )


def _project(x, weights, bias):
  """Computes float32 logits of `x` [..., width] by `weights` [units, width].

  Makes `x` one matrix: a batched product would compute a gradient of the
  weights, perhaps all word embeddings, for each example before adding them up.
  """
  rows = tf.reshape(x, [-1, x.shape[-1]])
  logits = tf.matmul(rows, tf.cast(weights, x.dtype), transpose_b=True)
  shape = tf.concat([tf.shape(x)[:-1], [weights.shape[0]]], axis=0)
  logits = tf.reshape(logits, shape)
  return tf.cast(logits, tf.float32) + tf.cast(bias, tf.float32)


class OutputProjection(keras.layers.Layer):
  """Maps vectors to the logits of a few classes."""

  def __init__(self, config, units, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.units = units

  def build(self, input_shape=None):
    """Creates weights [units, width] and bias [units]."""
    _output_weights(self, self.config, self.units)

  def call(self, inputs):
    """Maps [..., width] to float32 [..., units]."""
    return _project(inputs, self.output_weights, self.output_bias)


class MaskedLMHead(keras.layers.Layer):
  """Maps token vectors to logits of the vocabulary by its tied embeddings."""

  def __init__(self, config, **kwargs):
    super().__init__(**kwargs)
    self.config = config
    self.transform = _dense(
      config.hidden_size,
      config,
      self.dtype_policy,
      name="dense",
      activation=get_activation(config.hidden_act),
    )
    self.layer_norm = LayerNorm(name="LayerNorm")

  def build(self, input_shape=None):
    """Creates the transformation and the output bias."""
    with keras.name_scope("transform"):
      self.transform.build([None, self.config.hidden_size])
      self.layer_norm.build([self.config.hidden_size])
    self.output_bias = self.add_weight(
      name="output_bias", shape=[self.config.vocab_size], initializer="zeros"
    )

  def call(self, token_vectors, word_embeddings):
    """Maps [batch, predictions, width] to float32 [..., vocab_size]."""
    x = self.layer_norm(self.transform(token_vectors))
    return _project(x, word_embeddings, self.output_bias)


@keras.saving.register_keras_serializable("bert")
class BertPretrainer(_HeadModel):
  """BERT with the masked-LM and the next-sentence head."""

  loss_names = ("masked_lm_loss", "next_sentence_loss")
  metric_names = (  # keys of upstream's eval_results.txt
    "masked_lm_accuracy",
    "masked_lm_loss",
    "next_sentence_accuracy",
    "next_sentence_loss",
  )

  def __init__(self, config, name="bert_pretrainer", **kwargs):
    super().__init__(config, name=name, **kwargs)
    policy = self.dtype_policy
    self.masked_lm = MaskedLMHead(config, name="predictions", dtype=policy)
    # Logits for (B follows A, B is random), the order of upstream's labels.
    self.next_sentence = OutputProjection(
      config, units=2, name="seq_relationship", dtype=policy
    )
    # Not in `build`, which would put the model's own name before the scope.
    with keras.name_scope("cls"):
      self.masked_lm.build()
      self.next_sentence.build()
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    """Predicts the masked tokens and whether B follows A.

    Args:
      inputs: dict of int [batch, length] `input_ids`, `input_mask`,
        `segment_ids`, and int [batch, predictions] `masked_lm_positions`.
      training: whether to apply dropout.
      dropout_seed: see BertModel.

    Returns:
      Dict of float32 `masked_lm_logits` [batch, predictions, vocab_size] and
      `next_sentence_logits` [batch, 2].
    """
    seed = self._seed(training, dropout_seed)
    outputs = self.encode(inputs, training, seed)
    masked = tf.gather(
      outputs["sequence_output"], inputs["masked_lm_positions"], batch_dims=1
    )
    embeddings = self.bert.embeddings.word_embeddings
    return {
      "masked_lm_logits": self.masked_lm(masked, embeddings),
      "next_sentence_logits": self.next_sentence(outputs["pooled_output"]),
    }

  def label_weights(self, batch):
    """Returns weights: tokens' [batch, predictions], examples' [batch]."""
    tokens = tf.cast(batch["masked_lm_weights"], tf.float32)
    examples = example_weights(batch)
    return {
      "masked_lm_accuracy": tokens,
      "masked_lm_loss": tokens,
      "next_sentence_accuracy": examples,
      "next_sentence_loss": examples,
    }

  def label_values(self, outputs, batch):
    """Compares both heads' logits with their labels."""
    tokens, pairs = batch["masked_lm_ids"], batch["next_sentence_labels"]
    pairs = tf.reshape(pairs, [-1])
    token_logits = outputs["masked_lm_logits"]
    pair_logits = outputs["next_sentence_logits"]
    return {
      "masked_lm_accuracy": _correct(token_logits, tokens),
      "masked_lm_loss": _cross_entropy(tokens, token_logits),
      "next_sentence_accuracy": _correct(pair_logits, pairs),
      "next_sentence_loss": _cross_entropy(pairs, pair_logits),
    }

  def total_loss(self, terms):
    """Adds masked-LM loss and next-sentence loss.

    The 1e-5 is upstream's guard (get_masked_lm_output) against a batch without
    masked tokens.
    """
    masked_lm, num_tokens = terms["masked_lm_loss"]
    next_sentence, num_examples = terms["next_sentence_loss"]
    return masked_lm / (num_tokens + 1e-5) + next_sentence / num_examples


def _correct(logits, labels):
  """Returns float32 like `labels`: 1 if the largest logit is the label's."""
  predicted = tf.argmax(logits, axis=-1, output_type=labels.dtype)
  return tf.cast(tf.equal(predicted, labels), tf.float32)


@keras.saving.register_keras_serializable("bert")
class BertClassifier(_HeadModel):
  """BERT with one linear layer on the pooled output.

  Args:
    config: BertConfig.
    num_labels: number of logits, 1 for regression.
    problem_type: "single_label", labels int `label_ids` [batch]; "multi_label",
      float `label_ids` [batch, num_labels] of 0 and 1; "regression", float
      `label_ids` [batch].
    class_weights: weight of each label's loss, None for equal weights.
    label_smoothing: share of a single label's probability that is spread over
      all labels (arXiv 1512.00567, section 7).
  """

  def __init__(
    self,
    config,
    num_labels,
    problem_type="single_label",
    class_weights=None,
    label_smoothing=0.0,
    name="bert_classifier",
    **kwargs,
  ):
    super().__init__(config, name=name, **kwargs)
    self.num_labels = num_labels
    self.problem_type = problem_type
    self.class_weights = class_weights and [float(x) for x in class_weights]
    self.label_smoothing = label_smoothing
    _output_weights(self, config, num_labels)
    self.built = True

  @property
  def metric_names(self):
    """Names the metric's term: accuracy, or the error of scores."""
    is_score = self.problem_type == "regression"
    return ("mean_absolute_error",) if is_score else ("accuracy",)

  def get_config(self):
    """Returns the dict that `from_config` takes."""
    return {
      **super().get_config(),
      "num_labels": self.num_labels,
      "problem_type": self.problem_type,
      "class_weights": self.class_weights,
      "label_smoothing": self.label_smoothing,
    }

  def call(self, inputs, training=None, dropout_seed=None):
    """Maps a batch to a dict of float32 `logits` [batch, num_labels]."""
    seed = self._seed(training, dropout_seed)
    pooled = self.encode(inputs, training, seed)["pooled_output"]
    site = 3 * self.config.num_hidden_layers + 1
    pooled = dropout(pooled, CLASSIFIER_DROPOUT_PROB, seed, site)
    return {"logits": _project(pooled, self.output_weights, self.output_bias)}

  def label_weights(self, batch):
    """Returns weights of examples [batch]; class weights only in the loss."""
    weights = example_weights(batch)
    (metric,) = self.metric_names
    return {"loss": self._class_weights(batch) * weights, metric: weights}

  def label_values(self, outputs, batch):
    """Compares `logits` with `label_ids`."""
    logits, labels = outputs["logits"], batch["label_ids"]
    (metric,) = self.metric_names
    return {
      "loss": self._label_losses(logits, labels),
      metric: self._label_scores(logits, labels),
    }

  def _label_scores(self, logits, labels):
    """Returns float32 [batch]: the share of right labels, or the error."""
    if self.problem_type == "regression":
      return tf.abs(logits[:, 0] - tf.reshape(labels, [-1]))
    if self.problem_type == "multi_label":
      right = tf.equal(logits > 0, labels > 0.5)
      return tf.reduce_mean(tf.cast(right, tf.float32), axis=-1)
    return _correct(logits, tf.reshape(labels, [-1]))

  def _label_losses(self, logits, labels):
    """Returns float32 [batch]: cross entropy, or the square of the error."""
    if self.problem_type == "regression":
      return tf.square(logits[:, 0] - tf.reshape(labels, [-1]))
    if self.problem_type == "multi_label":
      losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
      if self.class_weights:
        losses *= np.array(self.class_weights) / np.mean(self.class_weights)
      return tf.reduce_mean(losses, axis=-1)
    one_hot = tf.one_hot(tf.reshape(labels, [-1]), self.num_labels)
    targets = (
      one_hot * (1.0 - self.label_smoothing)
      + self.label_smoothing / self.num_labels
    )
    return -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)

  def _class_weights(self, batch):
    """Returns float32: the weight of each single label, else 1 for all."""
    if not self.class_weights or self.problem_type != "single_label":
      return 1.0
    labels = tf.reshape(batch["label_ids"], [-1])
    return tf.gather(tf.constant(self.class_weights), labels)


@keras.saving.register_keras_serializable("bert")
class BertSpanLabeler(_HeadModel):
  """BERT with logits for where an answer starts and ends."""

  metric_names = ("span_accuracy",)

  def __init__(self, config, name="bert_span_labeler", **kwargs):
    super().__init__(config, name=name, **kwargs)
    # Unused, hence without gradient, slots and weight decay, as upstream.
    self.bert.pooler.trainable = False
    self.span = OutputProjection(
      config, units=2, name="squad", dtype=self.dtype_policy
    )
    with keras.name_scope("cls"):
      self.span.build()
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    """Returns float32 `start_logits` and `end_logits`, [batch, length]."""
    seed = self._seed(training, dropout_seed)
    outputs = self.encode(inputs, training, seed)
    logits = self.span(outputs["sequence_output"])  # [batch, length, 2]
    start_logits, end_logits = tf.unstack(logits, axis=-1)
    return {"start_logits": start_logits, "end_logits": end_logits}

  def label_weights(self, batch):
    """Returns weights of windows [batch]."""
    return dict.fromkeys(("loss", "span_accuracy"), example_weights(batch))

  def label_values(self, outputs, batch):
    """Compares both logits with `start_positions` and `end_positions`.

    The loss is the mean of both cross entropies; a window is right if its
    likeliest start and its likeliest end are.
    """
    losses, right = [], []
    for side in ("start", "end"):
      logits = outputs[f"{side}_logits"]
      positions = tf.reshape(batch[f"{side}_positions"], [-1])
      losses.append(self._position_loss(logits, positions))
      right.append(_correct(logits, positions))
    return {
      "loss": 0.5 * tf.add_n(losses),
      "span_accuracy": right[0] * right[1],
    }

  @staticmethod
  def _position_loss(logits, positions):
    """Returns float32 [batch]: cross entropies over all positions.

    Padding takes part in the softmax. A position beyond the sequence has an
    all-zero one-hot row, as upstream, hence no loss.
    """
    one_hot = tf.one_hot(positions, tf.shape(logits)[1])
    return -tf.reduce_sum(one_hot * tf.nn.log_softmax(logits), axis=-1)


@keras.saving.register_keras_serializable("bert")
class BertTokenClassifier(_HeadModel):
  """BERT with the logits of `num_labels` classes for every token."""

  metric_names = ("accuracy",)

  def __init__(
    self, config, num_labels, name="bert_token_classifier", **kwargs
  ):
    super().__init__(config, name=name, **kwargs)
    self.num_labels = num_labels
    # Unused, hence without gradient, slots and weight decay.
    self.bert.pooler.trainable = False
    self.token = OutputProjection(
      config, units=num_labels, name="token", dtype=self.dtype_policy
    )
    with keras.name_scope("cls"):
      self.token.build()
    self.built = True

  def get_config(self):
    """Returns the dict that `from_config` takes."""
    return {**super().get_config(), "num_labels": self.num_labels}

  def call(self, inputs, training=None, dropout_seed=None):
    """Maps a batch to a dict of float32 `logits` [batch, length, labels]."""
    seed = self._seed(training, dropout_seed)
    tokens = self.encode(inputs, training, seed)["sequence_output"]
    site = 3 * self.config.num_hidden_layers + 1
    return {
      "logits": self.token(dropout(tokens, CLASSIFIER_DROPOUT_PROB, seed, site))
    }

  def label_weights(self, batch):
    """Returns weights of tokens [batch, length], 0 if a label is negative."""
    is_labelled = tf.cast(batch["label_ids"] >= 0, tf.float32)
    weights = is_labelled * example_weights(batch)[:, tf.newaxis]
    return {"loss": weights, "accuracy": weights}

  def label_values(self, outputs, batch):
    """Compares `logits` with `label_ids` [batch, length]."""
    labels = tf.maximum(batch["label_ids"], 0)
    return {
      "loss": _cross_entropy(labels, outputs["logits"]),
      "accuracy": _correct(outputs["logits"], labels),
    }


@keras.saving.register_keras_serializable("bert")
class BertMultipleChoice(_HeadModel):
  """BERT that scores a question's choices, each packed with the question."""

  metric_names = ("accuracy",)

  def __init__(self, config, name="bert_multiple_choice", **kwargs):
    super().__init__(config, name=name, **kwargs)
    self.choice = OutputProjection(
      config, units=1, name="choice", dtype=self.dtype_policy
    )
    with keras.name_scope("cls"):
      self.choice.build()
    self.built = True

  def call(self, inputs, training=None, dropout_seed=None):
    """Maps ids [batch, choices, length] to `logits` [batch, choices]."""
    seed = self._seed(training, dropout_seed)
    batch, choices, length = tf.unstack(tf.shape(inputs["input_ids"]))
    flat = {
      name: tf.reshape(inputs[name], [batch * choices, length])
      for name in ("input_ids", "input_mask", "segment_ids")
      if inputs.get(name) is not None
    }
    pooled = self.encode(flat, training, seed)["pooled_output"]
    site = 3 * self.config.num_hidden_layers + 1
    logits = self.choice(dropout(pooled, CLASSIFIER_DROPOUT_PROB, seed, site))
    return {"logits": tf.reshape(logits, [batch, choices])}

  def label_weights(self, batch):
    """Returns weights of questions [batch]."""
    return dict.fromkeys(("loss", "accuracy"), example_weights(batch))

  def label_values(self, outputs, batch):
    """Compares `logits` with the right choices, `label_ids` [batch]."""
    labels = tf.reshape(batch["label_ids"], [-1])
    return {
      "loss": _cross_entropy(labels, outputs["logits"]),
      "accuracy": _correct(outputs["logits"], labels),
    }


MODELS = (
  BertModel,
  BertPretrainer,
  BertClassifier,
  BertSpanLabeler,
  BertTokenClassifier,
  BertMultipleChoice,
)


def freeze_layers(model, parts):
  """Makes parts of a model's encoder untrainable.

  Args:
    model: head model of this module.
    parts: comma-separated: "embeddings", layer numbers from 0, ranges of them
      such as "0-7", and "pooler"; "" for none.

  Raises:
    ValueError: the model has no part of that name.
  """
  for part in filter(None, parts.replace(" ", "").split(",")):
    for layer in _find_parts(model.bert, part):
      layer.trainable = False


def _find_parts(bert, part):
  named = {"embeddings": bert.embeddings, "pooler": bert.pooler}
  if part in named:
    return [named[part]]
  layers = bert.encoder.transformer_layers
  first, dash, last = part.partition("-")
  last = last if dash else first
  is_range = first.isdecimal() and last.isdecimal()
  if not (is_range and int(first) <= int(last) < len(layers)):
    raise ValueError(
      f"there is no {part!r} to freeze; name embeddings, pooler, or layers "
      f"from 0 to {len(layers) - 1}, such as 0-{len(layers) - 1}"
    )
  return layers[int(first) : int(last) + 1]


def named_variables(model):
  """Returns a model's weights by their names in upstream's checkpoints.

  Args:
    model: any model of this module.

  Returns:
    Dict from name (`bert/embeddings/word_embeddings`, `output_weights`, ...) to
    Keras variable, in the order of creation.
  """
  # An encoder may have any name in Keras; in a checkpoint it is "bert", and the
  # variables of heads are at the root.
  scope = "bert/" if isinstance(model, BertModel) else ""
  own_scope = f"{model.name}/"
  return {
    scope + variable.path.removeprefix(own_scope): variable
    for variable in model.weights
  }
