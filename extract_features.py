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
import os
import sys

import tqdm
from absl import flags

from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start
from bert_keras3.data import files as files_module
from bert_keras3.tasks import feature_extraction
from bert_keras3.tasks import feature_files

# What notebooks import from upstream's extract_features.
InputExample = feature_extraction.InputExample
InputFeatures = feature_extraction.InputFeatures
read_examples = feature_extraction.read_examples
convert_examples_to_features = feature_extraction.convert_examples_to_features


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
  start.load_tensorflow()
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
  files_module.check_output_files("output_file", [config.output_file], inputs)
  if config.attention_report:
    inputs.append(config.output_file)
    files_module.check_output_files(
      "attention_report", [config.attention_report], inputs
    )


# Texts ------------------------------------------------------------------------


# Vectors ----------------------------------------------------------------------


# Files ------------------------------------------------------------------------


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
  extractor = feature_extraction.FeatureExtractor(config, device_config)
  print(extractor.report)
  if config.pooling == "cls":
    print(
      "note: [CLS] of a model that was not fine-tuned to use it makes a poor "
      "sentence vector; --pooling=mean is the better guess"
    )
  page = None
  if config.attention_report:
    page = feature_extraction.AttentionPage(
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
  from bert_keras3.data import files as files_module

  num_lines, num_cut = 0, 0
  bar = tqdm.tqdm(unit="line", leave=False, disable=not sys.stderr.isatty())
  with files_module.open_atomically(config.output_file) as file, bar:
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
    return feature_files.JsonWriter(file, extractor, is_pooled)
  # Beside the result, where there should be room for it: /tmp may be memory.
  is_local = "://" not in config.output_file
  folder = os.path.dirname(config.output_file) or "." if is_local else None
  return feature_files.NpzWriter(file, extractor, is_pooled, folder)


def cli():
  """Entry point of the console script."""
  start.run(main, define_flags)


if __name__ == "__main__":
  cli()
