"""Writes BERT's vectors of texts: one for each token, or for each line.

    python extract_features.py --input_file=lines.txt \
      --output_file=features.jsonl --init_checkpoint=uncased_L-12_H-768_A-12

    python extract_features.py --input_file=lines.txt --output_file=lines.npz \
      --init_checkpoint=all-MiniLM-L6-v2 --layers=-1 --pooling=mean \
      --normalize --output_format=npz

A line is a text, or two with " ||| " between them. Has the flags and JSON lines
of google-research/bert's script of the same name, and adds sentence vectors,
NumPy files, and a page that shows attention. Reads and writes in chunks, so a
file of any size needs little memory.
"""

import dataclasses
import os

import tqdm

from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.data import files
from bert_keras3.tasks import feature_files
from bert_keras3.tasks import feature_lines
from bert_keras3.training import configs

# Names that notebooks import from upstream's extract_features.
InputExample = feature_lines.InputExample
InputFeatures = feature_lines.InputFeatures
read_examples = feature_lines.read_examples
convert_examples_to_features = feature_lines.convert_examples_to_features


@dataclasses.dataclass(frozen=True)
class FeatureConfig(configs.SpecialTokensConfig, configs.DeviceConfig):
  """Holds the flags: lines, model, vectors to write."""

  init_checkpoint: str | None = fields.variant(
    configs.WeightsConfig, "init_checkpoint", is_required=True
  )
  input_file: str | None = fields.flag(
    None,
    'Text file: a line is a text, or two with " ||| " between them.',
    is_required=True,
  )
  output_file: str | None = fields.flag(
    None, "File to write the vectors to.", is_required=True
  )
  layers: str = fields.flag(
    "-1,-2,-3,-4",
    "Layers to write, with commas: 0 is the first after the embeddings, -1 the "
    "last.",
  )
  max_seq_length: int = fields.flag(
    128, "Tokens of a line at most; longer ones are cut.", lower_bound=3
  )
  batch_size: int = fields.flag(32, "Lines per batch.", lower_bound=1)
  use_one_hot_embeddings: bool = fields.flag(
    False,
    "Kept for old scripts: embeddings are gathered either way, which gives the "
    "same numbers.",
  )
  output_format: str = fields.flag(
    "jsonl",
    "JSON lines with six decimals, or NumPy arrays in full precision.",
    choices=("jsonl", "npz"),
  )
  pooling: str = fields.flag(
    "none",
    "One vector per line instead of one per token: that of [CLS], or the mean "
    "or maximum over the line's tokens, [CLS] and [SEP] among them.",
    choices=("none", "cls", "mean", "max"),
  )
  normalize: bool = fields.flag(
    False, "Scale the vectors of --pooling to length 1."
  )
  attention_report: str | None = fields.flag(
    None,
    "HTML file to write that shows who attends to whom, for the first lines.",
  )

  @property
  def layer_indexes(self):
    """Lists the numbers in `layers`, in their order.

    Raises:
      ValueError: a part of it is not a number.
    """
    try:
      return [int(number) for number in self.layers.split(",")]
    except ValueError:
      raise ValueError(
        f"--layers={self.layers!r} should be numbers with commas, such as "
        "-1,-2,-3,-4"
      ) from None


def main(config):
  """Checks the flags and extracts."""
  check_flags(config)
  start.load_tensorflow()
  extract(config)


def check_flags(config):
  """Checks the flags as far as possible without the model.

  Raises:
    ValueError, OSError: a flag is wrong.
  """
  _ = config.layer_indexes
  if config.normalize and config.pooling == "none":
    raise ValueError("--normalize needs --pooling=cls, mean or max")
  path = config.input_file
  # Not isfile: it may be a pipe.
  if not files.is_remote(path) and not os.path.exists(path):
    raise FileNotFoundError(f"--input_file={path}: there is no such file")
  if os.path.isdir(path):
    raise IsADirectoryError(
      f"--input_file={path} is a directory; name a file in it"
    )
  check_outputs(config)


def check_outputs(config, own_files=()):
  """Checks that no output file is also an input file.

  Args:
    config: FeatureConfig.
    own_files: paths of the model's own files, () while unknown.

  Raises:
    ValueError, OSError: see files.check_output_files.
  """
  inputs = [config.input_file, *own_files]
  files.check_output_files("output_file", [config.output_file], inputs)
  if config.attention_report:
    inputs.append(config.output_file)
    files.check_output_files(
      "attention_report", [config.attention_report], inputs
    )


def extract(config):
  """Writes the vectors of a file's lines.

  Args:
    config: FeatureConfig.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  from bert_keras3.tasks import feature_extraction
  from bert_keras3.weights import companions

  own_files = companions.list_files(
    config.init_checkpoint, config.bert_config_file, config.vocab_file
  )
  check_outputs(config, own_files)
  extractor = feature_extraction.FeatureExtractor(config)
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
  """Writes the vectors, one chunk of lines after another.

  Args:
    config: FeatureConfig.
    extractor: FeatureExtractor.
    page: AttentionPage that gets the lines as well, or None.

  Returns:
    (number of lines, number of truncated lines).
  """
  num_lines, num_cut = 0, 0
  bar = tqdm.tqdm(unit="line", leave=False, disable=None)
  with files.open_atomically(config.output_file) as file, bar:
    writer = open_writer(config, extractor, file)
    for lines in extractor.read():
      results = extractor.compute(lines, advance=bar.update)
      for line, vectors in zip(lines, results, strict=True):
        writer.write(line, vectors)
        if page:
          page.offer(line)
      num_lines += len(lines)
      num_cut += sum(line.is_cut for line in lines)
    writer.close()
  return num_lines, num_cut


def open_writer(config, extractor, file):
  """Opens a JsonWriter or NpzWriter on a binary file."""
  is_pooled = config.pooling != "none"
  if config.output_format == "jsonl":
    return feature_files.JsonWriter(file, extractor, is_pooled)
  # Temporary files go beside the result: /tmp may be in memory.
  is_local = not files.is_remote(config.output_file)
  folder = os.path.dirname(config.output_file) or "." if is_local else None
  return feature_files.NpzWriter(file, extractor, is_pooled, folder)


def cli():
  """Runs the console script."""
  start.run(main, FeatureConfig)


if __name__ == "__main__":
  cli()
