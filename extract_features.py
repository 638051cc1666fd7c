"""Writes what BERT makes of texts: a vector for each token, or for each line.

    python extract_features.py --input_file=lines.txt \
      --output_file=features.jsonl --init_checkpoint=uncased_L-12_H-768_A-12

    python extract_features.py --input_file=lines.txt --output_file=lines.npz \
      --init_checkpoint=all-MiniLM-L6-v2 --layers=-1 --pooling=mean \
      --normalize --output_format=npz

A line is a text, or two with " ||| " between them. The flags and the JSON lines
of google-research/bert's script of the same name; and sentence vectors, NumPy
files, and a page that shows attention. Reads and writes as it goes: a file of
any size takes the memory of a small part of it.
"""

import dataclasses
import functools
import itertools
import json
import os
import sys
import tempfile
import zipfile

import numpy as np
import tqdm
from absl import flags

import tokenization
from bert_keras3.console import flags as cli_flags
from bert_keras3.data import tables

# Lines are sorted by length among so many batches, unless what they are to give
# takes more than so many bytes.
BATCHES_PER_CHUNK = 64
CHUNK_BYTES = 1 << 28
# Bytes of a column that are copied at once.
COPY_BYTES = 1 << 20


def define_flags():
  """Defines this script's flags."""
  flags.DEFINE_string(
    "input_file",
    None,
    'Text file: a line is a text, or two with " ||| " between them.',
    required=True,
  )
  flags.DEFINE_string(
    "output_file", None, "File to write the vectors to.", required=True
  )
  flags.DEFINE_string(
    "layers",
    "-1,-2,-3,-4",
    "Layers to write, with commas: 0 is the first after the embeddings, -1 the "
    "last.",
  )
  _define_model_flags()
  flags.DEFINE_integer(
    "max_seq_length",
    128,
    "Tokens of a line at most; longer ones are cut.",
    lower_bound=3,
  )
  flags.DEFINE_integer("batch_size", 32, "Lines per batch.", lower_bound=1)
  flags.DEFINE_bool(
    "use_one_hot_embeddings",
    False,
    "Kept for old scripts: embeddings are gathered either way, which gives the "
    "same numbers.",
  )
  _define_output_flags()
  cli_flags.define_vocab_flags()
  cli_flags.define_special_tokens_flag()
  cli_flags.define_device_flags()


def _define_model_flags():
  flags.DEFINE_string(
    "bert_config_file",
    None,
    "JSON file with the architecture of the model. Found beside the weights if "
    "not given.",
  )
  flags.DEFINE_string(
    "init_checkpoint",
    None,
    "The model's weights: a checkpoint prefix, or a directory with one or with "
    "a Hugging Face model.safetensors.",
    required=True,
  )


def _define_output_flags():
  flags.DEFINE_enum(
    "output_format",
    "jsonl",
    ["jsonl", "npz"],
    "JSON lines with six decimals, or NumPy arrays in full precision.",
  )
  flags.DEFINE_enum(
    "pooling",
    "none",
    ["none", "cls", "mean", "max"],
    "One vector per line instead of one per token: that of [CLS], or the mean "
    "or maximum over the line's tokens, [CLS] and [SEP] among them.",
  )
  flags.DEFINE_bool(
    "normalize", False, "Scale the vectors of --pooling to length 1."
  )
  flags.DEFINE_string(
    "attention_report",
    None,
    "HTML file to write that shows who attends to whom, for the first lines.",
  )


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
  """What to write, and with which model; the flags of these names."""

  input_file: str
  output_file: str
  init_checkpoint: str
  layers: str = "-1,-2,-3,-4"
  bert_config_file: str | None = None
  max_seq_length: int = 128
  vocab_file: str | None = None
  do_lower_case: bool = True
  special_tokens_in_text: str = "split"
  batch_size: int = 32
  output_format: str = "jsonl"
  pooling: str = "none"
  normalize: bool = False
  attention_report: str | None = None

  @property
  def layer_indexes(self):
    """List of the numbers in `layers`, in their order.

    Raises:
      ValueError: there is something else than numbers.
    """
    try:
      return [int(number) for number in self.layers.split(",")]
    except ValueError:
      raise ValueError(
        f"--layers={self.layers!r} should be numbers with commas, such as "
        "-1,-2,-3,-4"
      ) from None


def main():
  """Turns flags into a config and runs."""
  config = cli_flags.read(FeatureConfig)
  check_flags(config)
  cli_flags.load_tensorflow()
  extract(config, cli_flags.device_config())


def check_flags(config):
  """Finds mistakes that need no model to be found.

  Raises:
    ValueError, OSError: there is one.
  """
  _ = config.layer_indexes
  if config.normalize and config.pooling == "none":
    raise ValueError("--normalize needs --pooling=cls, mean or max")
  path = config.input_file
  # Not isfile: it may be a pipe.
  if "://" not in path and not os.path.exists(path):
    raise FileNotFoundError(f"--input_file={path}: there is no such file")
  if os.path.isdir(path):
    raise IsADirectoryError(
      f"--input_file={path} is a directory; name a file in it"
    )
  check_outputs(config)


def check_outputs(config, own_files=()):
  """Makes sure that what is written overwrites nothing that is read.

  Args:
    config: FeatureConfig.
    own_files: paths of the model's own files, once they are known.

  Raises:
    ValueError, OSError: see cli_flags.check_output_files.
  """
  inputs = [config.input_file, *own_files]
  cli_flags.check_output_files("output_file", [config.output_file], inputs)
  if config.attention_report:
    inputs.append(config.output_file)
    cli_flags.check_output_files(
      "attention_report", [config.attention_report], inputs
    )


# Texts ------------------------------------------------------------------------


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
  from bert_keras3.data import features as input_pipeline

  texts = (example.text_a, example.text_b or "")
  ids_a, ids_b = map(tokenizer.encode, texts)
  keep_a, keep_b = input_pipeline.truncate_pair(
    len(ids_a), len(ids_b), max_seq_length
  )
  cls_id, sep_id = tokenizer.convert_tokens_to_ids(["[CLS]", "[SEP]"])
  packed = input_pipeline.pack_pair(
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


# Vectors ----------------------------------------------------------------------


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
    from bert_keras3.data import features as input_pipeline
    from bert_keras3.training import evaluation

    sequences = input_pipeline.Sequences([(x.ids, x.num_first) for x in lines])
    source = input_pipeline.SequenceSource(sequences, {}, self._bucket_lengths)
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
  from bert_keras3.data import features as input_pipeline

  if device_config.distribution_strategy == "tpu":
    return (max_seq_length,)
  if device_config.xla == "true":
    all_lengths = np.arange(1, max_seq_length + 1)
    return input_pipeline.bucket_lengths(all_lengths, max_seq_length)
  multiples = range(
    input_pipeline.BUCKET_MULTIPLE,
    max_seq_length,
    input_pipeline.BUCKET_MULTIPLE,
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


# Files ------------------------------------------------------------------------


# A number as text: sign, digits and point, then decimals and a comma.
_CELL = np.dtype([("whole", "S4"), ("decimals", "S8")])


@functools.cache
def _cell_parts():
  """Texts by number, for -99 to 99 and for the millionths, that _CELL holds."""
  wholes = [f"{sign}{number}." for sign in ("", "-") for number in range(100)]
  decimals = (f"{number:06}".rstrip("0") or "0" for number in range(10**6))
  decimals = (f"{text}, " for text in decimals)
  return np.array(wholes, "S4"), np.fromiter(decimals, "S8", count=10**6)


def format_rows(values):
  """Rows of numbers as JSON has them, rounded to six decimals.

  What json.dumps makes of round(float(x), 6), many times faster; in upstream's
  way, numbers take longer to write than to compute.

  Args:
    values: float32 [rows, width].

  Returns:
    List of str: "0.25, -1.0" for a row of two.
  """
  # A float32 times a million is exact as a double: no rounding before rint's.
  millionths = np.rint(values.astype(np.float64).ravel() * 1e6)
  sizes = np.abs(millionths)
  if not sizes.max(initial=0) < 1e8:  # a network gone astray; NaN gets here too
    rows = (millionths / 1e6).reshape(values.shape).tolist()
    return [json.dumps(row)[1:-1] for row in rows]
  # Below 0.0001 JSON has exponents, and 0 may have a sign.
  odd = np.flatnonzero(sizes < 100)
  sizes = sizes.astype(np.uint32)
  whole, decimals = np.divmod(sizes, np.uint32(10**6))
  wholes_as_text, decimals_as_text = _cell_parts()
  cells = np.empty(len(sizes), _CELL)
  cells["whole"] = wholes_as_text[whole + np.where(millionths < 0, 100, 0)]
  cells["decimals"] = decimals_as_text[decimals]
  odd_numbers = (millionths[odd] / 1e6).tolist()
  cells.view("S12")[odd] = [f"{x!r}, ".encode() for x in odd_numbers]
  # Characters without the zero bytes that fill their cells.
  characters = cells.view(np.uint8)
  lengths = np.count_nonzero(characters.reshape([len(values), -1]), axis=1)
  text = np.compress(characters, characters).tobytes().decode()
  ends = [0, *np.cumsum(lengths).tolist()]
  return [text[i : j - len(", ")] for i, j in itertools.pairwise(ends)]


class JsonWriter:
  """Writes JSON lines, in upstream's layout unless lines are pooled.

  Args:
    writer: binary file.
    extractor: FeatureExtractor.
    is_pooled: whether a line has one vector per layer.
  """

  def __init__(self, writer, extractor, is_pooled):
    self._writer = writer
    self._tokenizer = extractor.tokenizer
    self._layers = extractor.layers
    self._is_pooled = is_pooled

  def write(self, line, vectors):
    """Adds what FeatureExtractor.compute gave for a Line."""
    rows = format_rows(vectors.reshape([-1, vectors.shape[-1]]))
    if self._is_pooled:
      fields = (
        f'"text": {json.dumps(line.text)}, "layers": [{self._join(rows)}]'
      )
    else:
      fields = f'"features": [{self._join_tokens(line.ids, rows)}]'
    record = f'{{"linex_index": {line.number}, {fields}}}\n'
    self._writer.write(record.encode())

  def _join_tokens(self, ids, rows):
    tokens = self._tokenizer.convert_ids_to_tokens(ids)
    rows = iter(rows)
    return ", ".join(
      f'{{"token": {json.dumps(token)}, "layers": [{self._join(rows)}]}}'
      for token in tokens
    )

  def _join(self, rows):
    """The layers of a token, with the next rows."""
    pairs = zip(self._layers, rows, strict=False)
    return ", ".join(
      f'{{"index": {index}, "values": [{numbers}]}}' for index, numbers in pairs
    )

  def close(self):
    """Writes what is left: nothing."""


class Column:
  """An array that grows on disk, as a member of an .npz file to be.

  Args:
    name: of the array.
    dtype: of its numbers.
    row_shape: its shape but for the first axis.
    folder: where it may take room until then, None for the system's.
  """

  def __init__(self, name, dtype, row_shape, folder):
    self.name = name
    self._dtype = np.dtype(dtype)
    self._row_shape = tuple(row_shape)
    self._num_rows = 0
    # Without a name: it goes away by itself, however this process ends.
    self._rows = tempfile.TemporaryFile(dir=folder)

  def add(self, rows):
    """Appends an array [rows, *row_shape], or a list for it."""
    rows = np.asarray(rows, self._dtype).reshape([-1, *self._row_shape])
    self._rows.write(np.ascontiguousarray(rows).data)
    self._num_rows += len(rows)

  def copy_to(self, archive):
    """Writes the array into a zipfile.ZipFile, a piece at a time."""
    header = {
      "descr": np.lib.format.dtype_to_descr(self._dtype),
      "fortran_order": False,
      "shape": (self._num_rows, *self._row_shape),
    }
    self._rows.seek(0)
    # Its size is not known to the archive before, and may be beyond 4 GB.
    with archive.open(f"{self.name}.npy", "w", force_zip64=True) as member:
      np.lib.format.write_array_header_2_0(member, header)
      while piece := self._rows.read(COPY_BYTES):
        member.write(piece)
    self._rows.close()


class _Stream:
  """A file that only grows. TensorFlow's say that they seek, and cannot."""

  def __init__(self, writer):
    self._writer = writer
    self.flush = writer.flush

  def write(self, content):
    self._writer.write(content)
    return len(content)


class NpzWriter:
  """Writes arrays for numpy.load.

  `layers` are the layers' numbers. With pooling there is `embeddings` float32
  [lines, layers, width]. Without, line i has rows offsets[i] to offsets[i + 1]
  of `values` float32 [tokens of all lines, layers, width] and of `tokens`.

  Args:
    writer: binary file.
    extractor: FeatureExtractor.
    is_pooled: whether a line has one vector per layer.
    folder: where to keep the arrays while they grow, None for the system's.
  """

  def __init__(self, writer, extractor, is_pooled, folder):
    self._writer = writer
    self._tokenizer = extractor.tokenizer
    self._is_pooled = is_pooled
    self._num_tokens = 0
    name = "embeddings" if is_pooled else "values"
    shape = (len(extractor.layers), extractor.width)
    longest = max(map(len, extractor.tokenizer.vocab))
    self._vectors = Column(name, np.float32, shape, folder)
    self._layers = Column("layers", np.int32, (), folder)
    self._offsets = Column("offsets", np.int64, (), folder)
    self._tokens = Column("tokens", f"<U{longest}", (), folder)
    self._layers.add(extractor.layers)
    self._offsets.add([0])

  def write(self, line, vectors):
    """Adds what FeatureExtractor.compute gave for a Line."""
    self._vectors.add(vectors)
    if not self._is_pooled:
      self._num_tokens += len(line.ids)
      self._offsets.add([self._num_tokens])
      self._tokens.add(self._tokenizer.convert_ids_to_tokens(line.ids))

  def close(self):
    """Puts the file together."""
    columns = [self._vectors, self._layers]
    if not self._is_pooled:
      columns += [self._offsets, self._tokens]
    with zipfile.ZipFile(_Stream(self._writer), "w") as archive:
      for column in columns:
        column.copy_to(archive)


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
    from bert_keras3.data import features as input_pipeline

    input_pipeline.write_atomically(self._path, self._report.html())
    count = self._num_sentences + self._report.num_left_out
    print(f"attention in {self._num_sentences} of {count} lines: {self._path}")


# Running ----------------------------------------------------------------------


def extract(config, device_config):
  """Writes the vectors of a file's lines.

  Args:
    config: FeatureConfig.
    device_config: devices.DeviceConfig.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  from bert_keras3.weights import companions

  own_files = companions.list_files(
    config.init_checkpoint, config.bert_config_file, config.vocab_file
  )
  check_outputs(config, own_files)
  extractor = FeatureExtractor(config, device_config)
  print(extractor.report)
  if config.pooling == "cls":
    print(
      "note: [CLS] of a model that was not fine-tuned to use it makes a poor "
      "sentence vector; --pooling=mean is the better guess"
    )
  page = None
  if config.attention_report:
    page = AttentionPage(
      config.attention_report, extractor, config.init_checkpoint
    )
  num_lines, num_cut = write_features(config, extractor, page)
  print(f"{num_lines} lines: {config.output_file}")
  if num_cut:
    print(
      f"{num_cut} of {num_lines} lines were cut at --max_seq_length="
      f"{config.max_seq_length}"
    )
  if page:
    page.write()


def write_features(config, extractor, page=None):
  """Writes the vectors, a part of the lines after the other.

  Args:
    config: FeatureConfig.
    extractor: FeatureExtractor.
    page: AttentionPage that gets the lines as well, or None.

  Returns:
    (how many lines there were, how many of them were cut).
  """
  from bert_keras3.data import features as input_pipeline

  num_lines, num_cut = 0, 0
  bar = tqdm.tqdm(unit="line", leave=False, disable=not sys.stderr.isatty())
  with input_pipeline.open_atomically(config.output_file) as file, bar:
    writer = open_writer(config, extractor, file)
    for lines in extractor.read():
      found = extractor.compute(lines, advance=bar.update)
      for line, vectors in zip(lines, found, strict=True):
        writer.write(line, vectors)
        if page:
          page.offer(line)
      num_lines += len(lines)
      num_cut += sum(line.is_cut for line in lines)
    writer.close()
  return num_lines, num_cut


def open_writer(config, extractor, file):
  """The JsonWriter or NpzWriter for a binary file."""
  is_pooled = config.pooling != "none"
  if config.output_format == "jsonl":
    return JsonWriter(file, extractor, is_pooled)
  # Beside the result, where there should be room for it: /tmp may be memory.
  is_local = "://" not in config.output_file
  folder = os.path.dirname(config.output_file) or "." if is_local else None
  return NpzWriter(file, extractor, is_pooled, folder)


def cli():
  """Entry point of the console script."""
  cli_flags.run(main, define_flags)


if __name__ == "__main__":
  cli()
