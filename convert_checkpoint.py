"""Converts pretrained and fine-tuned weights between formats.

    python convert_checkpoint.py --output_format=hugging_face \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=for_transformers

    python convert_checkpoint.py --output_format=tf1 \
      --init_checkpoint=for_transformers --output_dir=back_again

    python convert_checkpoint.py --output_format=tf1 \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=for_chemistry \
      --extend_vocab=substances.txt --max_position_embeddings=1024

Reads checkpoints of the original, Hugging Face's safetensors, output_dirs of
this project and Keras files of its models; writes the first two. Weights arrive
bit by bit. A table tells what became of each tensor.
"""

import dataclasses

from absl import flags

import tokenization
from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start
from bert_keras3.weights import hugging_face


def define_flags():
  """Defines this script's flags."""
  _define_input_flags()
  _define_output_flags()
  flags.DEFINE_bool(
    "dry_run",
    False,
    "Read and check everything, show the table, write nothing.",
  )


def _define_input_flags():
  flags.DEFINE_string(
    "init_checkpoint",
    None,
    "Weights to convert: a checkpoint prefix, a directory with one or with "
    "safetensors, or a .safetensors, .keras or .weights.h5 file.",
    required=True,
  )
  flags.DEFINE_string(
    "bert_config_file",
    None,
    "JSON file with the architecture. Found beside the weights if not given.",
  )
  flags.DEFINE_string(
    "vocab_file",
    None,
    "Vocabulary of the model. Found beside the weights if not given.",
  )
  flags.DEFINE_bool(
    "do_lower_case",
    None,
    "Whether the model is for lower-cased text. If not given, taken from the "
    "files beside the weights, or from whether the vocabulary has capitals.",
  )


def _define_output_flags():
  flags.DEFINE_string(
    "output_dir", None, "New directory for weights, config and vocabulary."
  )
  flags.DEFINE_enum(
    "output_format",
    None,
    ["tf1", "hugging_face"],
    "tf1: a checkpoint with the original's names, which the scripts here read "
    "as well. hugging_face: safetensors for transformers.",
    required=True,
  )
  flags.DEFINE_enum(
    "architecture",
    None,
    list(hugging_face.ARCHITECTURES),
    "Class of transformers to convert to, if the weights have several heads; "
    "other heads are left out.",
  )
  flags.DEFINE_string(
    "extend_vocab",
    None,
    "File of new tokens, one a line. They take the place of [unusedN] tokens, "
    "then go to the end, and begin as the mean of the pieces they were.",
  )
  flags.DEFINE_integer(
    "max_position_embeddings",
    None,
    "Longest sequence of the converted model; trained positions are repeated.",
    lower_bound=1,
  )


@dataclasses.dataclass(frozen=True)
class ConversionConfig:
  """What to convert; the flags of these names."""

  init_checkpoint: str
  output_dir: str | None
  output_format: str
  architecture: str | None
  bert_config_file: str | None
  vocab_file: str | None
  do_lower_case: bool | None
  extend_vocab: str | None
  max_position_embeddings: int | None
  dry_run: bool


def main():
  """Turns flags into a config and runs."""
  config = cli_flags.read(ConversionConfig)
  if not config.output_dir and not config.dry_run:
    raise ValueError("pass --output_dir, or --dry_run to see the table only")
  new_tokens = read_new_tokens(config.extend_vocab)
  start.load_tensorflow()
  convert(config, new_tokens)


def read_new_tokens(path):
  """The tokens of a file, stripped, without blank lines.

  Args:
    path: of the file, or None.

  Raises:
    ValueError: there are none.
  """
  if not path:
    return []
  tokens = list(filter(None, tokenization.read_vocab(path)))
  if not tokens:
    raise ValueError(f"--extend_vocab={path} holds no token; write one a line")
  return tokens


def convert(config, new_tokens):
  """Reads, grows, writes and shows the table.

  Args:
    config: ConversionConfig.
    new_tokens: list of str.

  Raises:
    ValueError, OSError: something is missing, or does not fit.
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
  model, notes = grow(config, model, new_tokens)
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


def grow(config, model, new_tokens):
  """Adds tokens and positions.

  Returns:
    (conversion.Model, sentences about what was added).

  Raises:
    ValueError: there is no vocabulary to extend, or an addition makes no sense.
  """
  from bert_keras3.weights import conversion

  notes = []
  if new_tokens:
    model, growth = conversion.extend_vocab(model, new_tokens)
    at_end = len(growth.ids) - growth.num_filled
    notes.append(
      f"{len(growth.ids)} tokens added: {growth.num_filled} in place of "
      f"[unusedN], {at_end} at the end; {len(growth.known)} were known already"
    )
  if config.max_position_embeddings:
    before = model.config.max_position_embeddings
    is_more = config.max_position_embeddings > before
    model = conversion.extend_positions(model, config.max_position_embeddings)
    repeated = "the trained ones repeated; train on before use"
    notes.append(
      f"positions: {before}, now {config.max_position_embeddings}"
      + (f", {repeated}" if is_more else "")
    )
  return model, notes


def cli():
  """Entry point of the console script."""
  start.run(main, define_flags)


if __name__ == "__main__":
  cli()
