"""Vectors and attention of a pretrained model, for lines of text."""

import dataclasses

import numpy as np

import tokenization
from bert_keras3.data import files as files_module
from bert_keras3.data import tables

# Lines are sorted by length among so many batches, unless what they are to give
# takes more than so many bytes.
BATCHES_PER_CHUNK = 64


CHUNK_BYTES = 1 << 28


@dataclasses.dataclass(frozen=True)
class InputExample:
  """A line of the input: its number from 0, a text, and maybe a second one."""

  unique_id: int
  text_a: str
  text_b: str | None = None

  @property
  def text(self):
    """The line as it was read."""
    if self.text_b is None:
      return self.text_a
    return f"{self.text_a} ||| {self.text_b}"


@dataclasses.dataclass(frozen=True)
class InputFeatures:
  """Tokens of an example, and lists of ids that are padded."""

  unique_id: int
  tokens: list
  input_ids: list
  input_mask: list
  input_type_ids: list


def iterate_examples(input_file):
  """Yields an InputExample for each line, blank ones included.

  Raises:
    ValueError, OSError: see tokenization.read_lines.
  """
  for number, line in enumerate(tokenization.read_lines(input_file)):
    yield InputExample(number, *tables.split_pair(line))


def read_examples(input_file):
  """All of `iterate_examples`, as a list."""
  return list(iterate_examples(input_file))


def convert_examples_to_features(examples, seq_length, tokenizer):
  """Tokenizes examples and pads them, for programs that use upstream's.

  Args:
    examples: list of InputExample.
    seq_length: tokens of each, padding included.
    tokenizer: tokenization.FullTokenizer.

  Returns:
    List of InputFeatures.
  """
  features = []
  for example in examples:
    line = pack(example, tokenizer, seq_length)
    padding = [0] * (seq_length - len(line.ids))
    num_second = len(line.ids) - line.num_first
    features.append(
      InputFeatures(
        example.unique_id,
        tokenizer.convert_ids_to_tokens(line.ids),
        [*line.ids, *padding],
        [1] * len(line.ids) + padding,
        [0] * line.num_first + [1] * num_second + padding,
      )
    )
  return features


@dataclasses.dataclass(frozen=True)
class Line:
  """An example as the model takes it.

  Attributes:
    number: of the line, from 0.
    text: as it was read.
    ids: list of int, `[CLS]` and `[SEP]` among them.
    num_first: how many of them are of segment 0.
    is_cut: whether there were more.
  """

  number: int
  text: str
  ids: list
  num_first: int
  is_cut: bool = False


def pack(example, tokenizer, max_seq_length):
  """The Line of an InputExample."""
  from bert_keras3.data import sequences as sequences_module

  texts = (example.text_a, example.text_b or "")
  ids_a, ids_b = map(tokenizer.encode, texts)
  keep_a, keep_b = sequences_module.truncate_pair(
    len(ids_a), len(ids_b), max_seq_length
  )
  cls_id, sep_id = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
  packed = sequences_module.pack_pair(
    ids_a[:keep_a], ids_b[:keep_b], cls_id, sep_id
  )
  is_cut = keep_a + keep_b < len(ids_a) + len(ids_b)
  return Line(example.unique_id, example.text, *packed, is_cut)


def make_chunks(lines, batch_size, bytes_per_token):
  """Groups lines that are in memory together.

  Args:
    lines: iterable of Line.
    batch_size: all groups but the last are multiples of it.
    bytes_per_token: of what is kept of each until it is written.

  Yields:
    Lists of Line.
  """
  chunk, num_bytes = [], 0
  for line in lines:
    chunk.append(line)
    num_bytes += len(line.ids) * bytes_per_token
    is_large = num_bytes >= CHUNK_BYTES or (
      len(chunk) == batch_size * BATCHES_PER_CHUNK
    )
    if is_large and len(chunk) % batch_size == 0:
      yield chunk
      chunk, num_bytes = [], 0
  if chunk:
    yield chunk


class FeatureExtractor:
  """A model that turns lines into vectors.

  Args:
    config: FeatureConfig.
    device_config: devices.DeviceConfig.

  Attributes:
    tokenizer: tokenization.FullTokenizer.
    layers: list of the layers' numbers, as they were given.
    width: numbers in a vector.
    report: what checkpoint_io tells of the weights.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """

  def __init__(self, config, device_config):
    import modeling
    from bert_keras3.weights import checkpoints
    from bert_keras3.weights import companions

    checkpoints.resolve(config.init_checkpoint)
    files = companions.find(
      None, config.init_checkpoint, config.bert_config_file, config.vocab_file
    )
    bert_config = modeling.BertConfig.from_json_file(files.bert_config_file)
    self.layers = config.layer_indexes
    check_layers(self.layers, bert_config.num_hidden_layers)
    companions.check_length(config.max_seq_length, bert_config)
    self.tokenizer = companions.open_tokenizer(
      files.vocab_file,
      config.do_lower_case,
      bert_config,
      config.init_checkpoint,
      config.special_tokens_in_text,
    )
    self.width = bert_config.hidden_size
    self._config = config
    self._strategy = make_strategy(device_config)
    with self._strategy.scope():
      self._model = modeling.BertModel(bert_config, dtype=device_config.policy)
    self.report = checkpoints.load_weights(
      modeling.named_variables(self._model), config.init_checkpoint
    )
    self._bucket_lengths = choose_lengths(config.max_seq_length, device_config)
    self._step = make_step(self._model, config, device_config)
    self._attention_step = None

  def read(self):
    """Yields lists of Line, as many as are to be in memory together.

    Raises:
      ValueError, OSError: see tokenization.read_lines.
    """
    examples = iterate_examples(self._config.input_file)
    lines = (
      pack(example, self.tokenizer, self._config.max_seq_length)
      for example in examples
    )
    is_pooled = self._config.pooling != "none"
    bytes_per_token = 0 if is_pooled else 4 * len(self.layers) * self.width
    return make_chunks(lines, self._config.batch_size, bytes_per_token)

  def compute(self, lines, advance=lambda count: None):
    """The vectors of some lines.

    Args:
      lines: list of Line.
      advance: function that is told how many more are done, batch by batch.

    Returns:
      List of float32 [tokens, layers, width], or with pooling [layers, width].
    """
    from bert_keras3.data import sequences as sequences_module
    from bert_keras3.training import evaluation

    sequences = sequences_module.Sequences(
      [(x.ids, x.num_first) for x in lines]
    )
    source = sequences_module.SequenceSource(
      sequences, {}, self._bucket_lengths
    )
    batch_size = min(self._config.batch_size, len(lines))
    found = [None] * len(lines)
    for numbers, outputs in evaluation.predict(
      self._strategy, self._step, source, batch_size
    ):
      for number, vectors in zip(numbers, outputs["vectors"], strict=True):
        if self._config.pooling == "none":
          vectors = vectors[: len(lines[number].ids)]
        # Not a view, which would keep its batch's padding.
        found[number] = vectors.copy()
      advance(len(numbers))
    return found

  def attention(self, line):
    """How much each token of a Line attends to each.

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
  """Makes sure that the model has these layers.

  Raises:
    ValueError: it has not.
  """
  for layer in layers:
    if not -num_layers <= layer < num_layers:
      raise ValueError(
        f"--layers: there is no layer {layer}; this model's are 0 to "
        f"{num_layers - 1}, or {-num_layers} to -1 from the top"
      )


def make_strategy(device_config):
  """The strategy to run on.

  Raises:
    ValueError: it is one of several processes, which would all write the file.
  """
  from bert_keras3.training import devices

  if device_config.distribution_strategy == "multi_worker":
    raise ValueError(
      "--distribution_strategy=multi_worker cannot extract features; split the "
      "input file and give each machine a part of it"
    )
  return devices.make_strategy(device_config)


def choose_lengths(max_seq_length, device_config):
  """Ascending lengths that batches are padded to.

  Plain TensorFlow takes any. XLA compiles each, and a TPU wants one.
  """
  from bert_keras3.data import sequences as sequences_module

  if device_config.distribution_strategy == "tpu":
    return (max_seq_length,)
  if device_config.xla == "true":
    all_lengths = np.arange(1, max_seq_length + 1)
    return sequences_module.bucket_lengths(all_lengths, max_seq_length)
  multiples = range(
    sequences_module.BUCKET_MULTIPLE,
    max_seq_length,
    sequences_module.BUCKET_MULTIPLE,
  )
  return (*multiples, max_seq_length)


def make_step(model, config, device_config):
  """What evaluation.predict runs on a batch; the model is traced once.

  Args:
    model: modeling.BertModel.
    config: FeatureConfig.
    device_config: devices.DeviceConfig.

  Returns:
    Function of a dict of int32 [batch, length] `input_ids`, `input_mask` and
    `segment_ids`, that gives a dict of float32 `vectors` [batch, length,
    layers, width], or with pooling [batch, layers, width].
  """
  import tensorflow as tf

  from bert_keras3.data import features as input_pipeline

  compute = make_forward_pass(model, config, device_config)

  def step(batch):
    batch = {name: batch[name] for name in input_pipeline.SEQUENCE_FEATURES}
    replica = tf.distribute.get_replica_context()
    return {"vectors": replica.all_gather(compute(batch), axis=0)}

  return tf.function(step, reduce_retracing=True)


def make_forward_pass(model, config, device_config):
  """The part of `make_step` that a replica does by itself.

  Takes what it takes, returns the tensor of the vectors.
  """
  import tensorflow as tf

  from bert_keras3.data import features as input_pipeline

  ids = tf.TensorSpec([None, None], tf.int32)
  signature = [dict.fromkeys(input_pipeline.SEQUENCE_FEATURES, ids)]
  if device_config.distribution_strategy == "tpu":
    signature = None  # It compiles for the shape that it is given.

  @tf.function(
    input_signature=signature, jit_compile=device_config.xla == "true"
  )
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
      # The square of PyTorch's smallest length, for vectors of zeros.
      vectors = tf.math.l2_normalize(vectors, axis=-1, epsilon=1e-24)
    return vectors

  return compute


def pool(vectors, input_mask, pooling):
  """One vector per sequence, if asked for.

  Mean and maximum are over all tokens that are not padding, [CLS] and [SEP]
  included, as sentence-transformers' are.

  Args:
    vectors: float32 [batch, length, width].
    input_mask: int32 [batch, length].
    pooling: "none", "cls", "mean" or "max".

  Returns:
    float32 [batch, width], or `vectors` for "none".
  """
  import tensorflow as tf

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
  """Function of int32 [1, tokens] ids and segment ids, traced once."""
  import tensorflow as tf

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
    path: where to.
    extractor: FeatureExtractor.
    title: of the page.
  """

  def __init__(self, path, extractor, title):
    from bert_keras3.tasks import attention_report

    self._path = path
    self._extractor = extractor
    self._make_sentence = attention_report.Sentence
    self._report = attention_report.AttentionReport(title)
    self._num_sentences = 0

  def offer(self, line):
    """Adds a Line, unless one did not fit before."""
    if self._report.num_left_out:
      # To compute attention, only to see it refused, would take long.
      self._report.num_left_out += 1
      return
    sentence = self._make_sentence(
      self._extractor.tokenizer.convert_ids_to_tokens(line.ids),
      line.num_first,
      self._extractor.attention(line),
    )
    self._num_sentences += self._report.add(sentence)

  def write(self):
    """Writes the page and tells what is on it."""

    files_module.write_atomically(self._path, self._report.html())
    count = self._num_sentences + self._report.num_left_out
    print(f"attention in {self._num_sentences} of {count} lines: {self._path}")
