"""Converts pretrained and fine-tuned weights between formats.

    python convert_checkpoint.py --output_format=hugging_face \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=for_transformers

    python convert_checkpoint.py --output_format=tf1 \
      --init_checkpoint=for_transformers --output_dir=back_again

    python convert_checkpoint.py --output_format=tf1 \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=for_chemistry \
      --extend_vocab=substances.txt --max_position_embeddings=1024

Reads checkpoints of the original, Hugging Face's safetensors, output_dirs of
this project and Keras files of its models; writes the first two. Weights stay
bitwise equal. A table says what was done with each tensor.
"""

import dataclasses

import tokenization
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.training import configs
from bert_keras3.weights import hugging_face


@dataclasses.dataclass(frozen=True)
class ConversionConfig(fields.Config):
  """Holds the flags: weights to convert, format to write."""

  init_checkpoint: str | None = fields.flag(
    None,
    "Weights to convert: a checkpoint prefix, a directory with one or with "
    "safetensors, or a .safetensors, .keras or .weights.h5 file.",
    is_required=True,
  )
  bert_config_file: str | None = fields.variant(
    configs.WeightsConfig,
    "bert_config_file",
    help="JSON file with the architecture. Found beside the weights if not "
    "given.",
  )
  vocab_file: str | None = fields.variant(configs.WeightsConfig, "vocab_file")
  do_lower_case: bool | None = fields.flag(
    None,
    "Whether the model is for lower-cased text. If not given, taken from the "
    "files beside the weights, or from whether the vocabulary has capitals.",
  )
  output_dir: str | None = fields.flag(
    None, "New directory for weights, config and vocabulary."
  )
  output_format: str | None = fields.flag(
    None,
    "tf1: a checkpoint with the original's names, which the scripts here read "
    "as well. hugging_face: safetensors for transformers.",
    choices=("tf1", "hugging_face"),
    is_required=True,
  )
  architecture: str | None = fields.flag(
    None,
    "Class of transformers to convert to, if the weights have several heads; "
    "other heads are left out.",
    choices=tuple(hugging_face.ARCHITECTURES),
  )
  extend_vocab: str | None = fields.flag(
    None,
    "File of new tokens, one a line. They take the place of [unusedN] tokens, "
    "then go to the end, and begin as the mean of the pieces they were.",
  )
  max_position_embeddings: int | None = fields.flag(
    None,
    "Longest sequence of the converted model; trained positions are repeated.",
    lower_bound=1,
  )
  dry_run: bool = fields.flag(
    False, "Read and check everything, show the table, write nothing."
  )


def main(config):
  """Checks the flags and converts."""
  if not config.output_dir and not config.dry_run:
    raise ValueError("pass --output_dir, or --dry_run to see the table only")
  new_tokens = read_new_tokens(config.extend_vocab)
  start.load_tensorflow()
  convert(config, new_tokens)


def read_new_tokens(path):
  """Reads the tokens of a file, stripped, without blank lines.

  Args:
    path: of the file, or None.

  Raises:
    ValueError: the file has no token.
  """
  if not path:
    return []
  tokens = list(filter(None, tokenization.read_vocab(path)))
  if not tokens:
    raise ValueError(f"--extend_vocab={path} holds no token; write one a line")
  return tokens


def convert(config, new_tokens):
  """Reads a model, adds tokens, prints the table of tensors, and writes it.

  Args:
    config: ConversionConfig.
    new_tokens: list of str.

  Raises:
    ValueError, OSError: a file is missing, or files or flags do not fit.
  """
  from bert_keras3.weights import conversion

  if not config.dry_run:
    conversion.check_new(config.output_dir)
  model, rows = conversion.read(
    config.init_checkpoint,
    config.bert_config_file,
    config.vocab_file,
    config.architecture,
  )
  if config.do_lower_case is not None:
    model = dataclasses.replace(model, do_lower_case=config.do_lower_case)
  architecture = config.architecture
  if config.output_format == "hugging_face" and not architecture:
    architecture = hugging_face.find_architecture(model.tensors)
  if architecture:
    model, left_out = conversion.select(model, architecture)
    rows += left_out
  model, notes = conversion.grow(
    model, new_tokens, config.max_position_embeddings
  )
  to_torch = config.output_format == "hugging_face"
  if to_torch:
    conversion.check_local(config.output_dir or "")
  print(
    conversion.format_table(
      rows + conversion.describe(model, architecture if to_torch else None)
    )
  )
  print("\n".join([*notes, *conversion.notes(model, to_torch)]))
  if config.dry_run:
    return
  if to_torch:
    conversion.write_hugging_face(config.output_dir, model, architecture)
  else:
    conversion.write_tf1(config.output_dir, model)
  print(f"written: {config.output_dir}")


def cli():
  """Runs the console script."""
  start.run(main, ConversionConfig)


if __name__ == "__main__":
  cli()
