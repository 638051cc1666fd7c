"""Vectors and attention of a pretrained model, for lines of text."""

import numpy as np
import tensorflow as tf

import modeling
from bert_keras3.data import features
from bert_keras3.data import files
from bert_keras3.data import sequences
from bert_keras3.tasks import attention_report
from bert_keras3.tasks import feature_lines
from bert_keras3.training import devices
from bert_keras3.training import evaluation
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions


class FeatureExtractor:
  """A model that turns lines into vectors.

  Args:
    config: FeatureConfig.

  Attributes:
    tokenizer: tokenization.FullTokenizer.
    layers: list of the layers' numbers, as they were given.
    width: numbers in a vector.
    report: LoadReport of the weights, see checkpoints.load_weights.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """

  def __init__(self, config):
    checkpoints.resolve(config.init_checkpoint)
    pretrained = companions.open_pretrained(config)
    bert_config = pretrained.bert_config
    self.layers = config.layer_indexes
    check_layers(self.layers, bert_config.num_hidden_layers)
    self.tokenizer = pretrained.tokenizer
    self.width = bert_config.hidden_size
    self._config = config
    self._strategy = make_strategy(config)
    with self._strategy.scope():
      self._model = modeling.BertModel(bert_config, dtype=config.policy)
    self.report = checkpoints.load_weights(
      modeling.named_variables(self._model), config.init_checkpoint
    )
    self._bucket_lengths = choose_lengths(config)
    self._step = make_step(self._model, config)
    self._attention_step = None

  def read(self):
    """Yields lists of Line, each to be in memory as a whole.

    Raises:
      ValueError, OSError: see tokenization.read_lines.
    """
    examples = feature_lines.iterate_examples(self._config.input_file)
    lines = (
      feature_lines.pack(example, self.tokenizer, self._config.max_seq_length)
      for example in examples
    )
    is_pooled = self._config.pooling != "none"
    bytes_per_token = 0 if is_pooled else 4 * len(self.layers) * self.width
    return feature_lines.make_chunks(
      lines, self._config.batch_size, bytes_per_token
    )

  def compute(self, lines, advance=lambda count: None):
    """Computes the vectors of lines.

    Args:
      lines: list of Line.
      advance: function that gets the number of lines of each finished batch.

    Returns:
      List of float32 [tokens, layers, width], or with pooling [layers, width].
    """
    packed = sequences.Sequences([(x.ids, x.num_first) for x in lines])
    source = sequences.SequenceSource(packed, {}, self._bucket_lengths)
    batch_size = min(self._config.batch_size, len(lines))
    results = [None] * len(lines)
    for numbers, outputs in evaluation.predict(
      self._strategy, self._step, source, batch_size
    ):
      for number, vectors in zip(numbers, outputs["vectors"], strict=True):
        if self._config.pooling == "none":
          vectors = vectors[: len(lines[number].ids)]
        # Not a view, which would keep its batch's padding.
        results[number] = vectors.copy()
      advance(len(numbers))
    return results

  def attention(self, line):
    """Computes how much each token of a Line attends to each other one.

    Returns:
      float32 [layers, heads, from, to], all layers of the model.
    """
    if not self._attention_step:
      self._attention_step = make_attention_step(self._model)
    ids = np.array([line.ids], np.int32)
    is_second = np.arange(len(line.ids)) >= line.num_first
    segment_ids = is_second[np.newaxis].astype(np.int32)
    return self._attention_step(ids, segment_ids).numpy()[0]


def check_layers(layers, num_layers):
  """Checks that the model has these layers.

  Raises:
    ValueError: it lacks one.
  """
  for layer in layers:
    if not -num_layers <= layer < num_layers:
      raise ValueError(
        f"--layers: there is no layer {layer}; this model's are 0 to "
        f"{num_layers - 1}, or {-num_layers} to -1 from the top"
      )


def make_strategy(config):
  """Makes the strategy to run on.

  Raises:
    ValueError: there are several workers, which would all write the file.
  """
  if config.strategy_name == "multi_worker":
    raise ValueError(
      "--distribution_strategy=multi_worker cannot extract features; split the "
      "input file and give each machine a part of it"
    )
  return devices.make_strategy(config)


def choose_lengths(config):
  """Returns the ascending lengths that batches are padded to.

  Plain TensorFlow takes any length, XLA compiles each, a TPU needs one alone.
  """
  max_seq_length = config.max_seq_length
  if config.strategy_name == "tpu":
    return (max_seq_length,)
  if config.xla == "true":
    all_lengths = np.arange(1, max_seq_length + 1)
    return sequences.bucket_lengths(all_lengths, max_seq_length)
  multiples = range(
    sequences.BUCKET_MULTIPLE,
    max_seq_length,
    sequences.BUCKET_MULTIPLE,
  )
  return (*multiples, max_seq_length)


def make_step(model, config):
  """Makes the step that evaluation.predict runs; the model is traced once.

  Args:
    model: modeling.BertModel.
    config: FeatureConfig.

  Returns:
    Function of a dict of int32 [batch, length] `input_ids`, `input_mask` and
    `segment_ids`, that gives a dict of float32 `vectors` [batch, length,
    layers, width], or with pooling [batch, layers, width].
  """
  compute = make_forward_pass(model, config)

  def step(batch):
    batch = {name: batch[name] for name in features.SEQUENCE_FEATURES}
    replica = tf.distribute.get_replica_context()
    return {"vectors": replica.all_gather(compute(batch), axis=0)}

  return tf.function(step, reduce_retracing=True)


def make_forward_pass(model, config):
  """Makes the function of `make_step` that a replica computes by itself.

  It takes the batch of that step and returns the tensor of the vectors.
  """
  ids = tf.TensorSpec([None, None], tf.int32)
  signature = [dict.fromkeys(features.SEQUENCE_FEATURES, ids)]
  if config.strategy_name == "tpu":
    signature = None  # A TPU compiles for the shape of the batch.

  @tf.function(input_signature=signature, jit_compile=config.xla == "true")
  def compute(batch):
    outputs = model(
      {
        "input_ids": batch["input_ids"],
        "input_mask": batch["input_mask"],
        "token_type_ids": batch["segment_ids"],
      },
      training=False,
    )
    layers = outputs["all_encoder_layers"]
    vectors = [
      pool(tf.cast(layers[i], tf.float32), batch["input_mask"], config.pooling)
      for i in config.layer_indexes
    ]
    vectors = tf.stack(vectors, axis=-2)
    if config.normalize:
      # The square of PyTorch's epsilon, for vectors of zeros.
      vectors = tf.math.l2_normalize(vectors, axis=-1, epsilon=1e-24)
    return vectors

  return compute


def pool(vectors, input_mask, pooling):
  """Reduces a sequence to one vector, if asked for.

  Mean and maximum are over all tokens that are not padding, [CLS] and [SEP]
  included, as sentence-transformers' are.

  Args:
    vectors: float32 [batch, length, width].
    input_mask: int32 [batch, length].
    pooling: "none", "cls", "mean" or "max".

  Returns:
    float32 [batch, width], or `vectors` for "none".
  """
  if pooling == "none":
    return vectors
  if pooling == "cls":
    return vectors[:, 0]
  is_token = input_mask[:, :, tf.newaxis] > 0
  if pooling == "max":
    return tf.reduce_max(tf.where(is_token, vectors, -np.inf), axis=1)
  weights = tf.cast(is_token, tf.float32)
  total = tf.reduce_sum(vectors * weights, axis=1)
  return total / tf.reduce_sum(weights, axis=1)


def make_attention_step(model):
  """Makes a function of int32 [1, tokens] ids and segment ids, traced once."""
  ids = tf.TensorSpec([1, None], tf.int32)

  @tf.function(input_signature=[ids, ids])
  def step(input_ids, segment_ids):
    return model.attention_probs(
      {"input_ids": input_ids, "token_type_ids": segment_ids}
    )

  return step


class AttentionPage:
  """The page of --attention_report: the first lines, as many as fit.

  Args:
    path: of the page.
    extractor: FeatureExtractor.
    title: of the page.
  """

  def __init__(self, path, extractor, title):
    self._path = path
    self._extractor = extractor
    self._report = attention_report.AttentionReport(title)
    self._num_sentences = 0

  def offer(self, line):
    """Adds a Line, unless one did not fit before."""
    if self._report.num_left_out:
      # Computing attention, only to see it refused, would take long.
      self._report.num_left_out += 1
      return
    sentence = attention_report.Sentence(
      self._extractor.tokenizer.convert_ids_to_tokens(line.ids),
      line.num_first,
      self._extractor.attention(line),
    )
    self._num_sentences += self._report.add(sentence)

  def write(self):
    """Writes the page and prints how many lines it has."""
    files.write_atomically(self._path, self._report.html())
    count = self._num_sentences + self._report.num_left_out
    print(f"attention in {self._num_sentences} of {count} lines: {self._path}")
