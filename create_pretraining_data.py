"""Text to pretraining records: pairs of stretches of text, some tokens masked.

    python create_pretraining_data.py --input_file=text.txt \
      --output_file=records.tfrecord --vocab_file=vocab.txt

The input has one sentence a line and a blank line between documents. A record
joins two stretches of text, A and B: B is what follows A or, as often, taken
from elsewhere. A model learns to tell which, and to restore the masked tokens.

Records equal google-research/bert's for the same input, flags and seed, one by
one: every random number is drawn in upstream's order from one `WordStream`. The
rest is arranged for speed and memory: all text is one array of ids, an instance
is two ranges of it and the places of its masked tokens, and features are
gathered for hundreds of instances at once, when they are written.
"""

import contextlib
import itertools
import time

from absl import flags

import tokenization
from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start as start_module
from bert_keras3.data import files
from bert_keras3.data import pretraining_instances

# What notebooks import from upstream's create_pretraining_data.
TrainingInstance = pretraining_instances.TrainingInstance
create_training_instances = pretraining_instances.create_training_instances

_INSTANCES_PER_WRITE = 1 << 9


def define_flags():
  """Declares upstream's flags and two more."""
  flags.DEFINE_string(
    "input_file",
    None,
    "UTF-8 text, one sentence a line, a blank line between documents:"
    " comma-separated files or patterns.",
  )
  flags.DEFINE_string(
    "output_file",
    None,
    "TFRecord files to write, comma-separated; they get records in turns.",
  )
  flags.DEFINE_string("vocab_file", None, "The model's vocabulary.")
  flags.DEFINE_bool(
    "do_lower_case",
    True,
    "Whether text is lower-cased: true for an uncased vocabulary.",
  )
  flags.DEFINE_bool(
    "do_whole_word_mask",
    False,
    "Whether all pieces of a word are masked, or none.",
  )
  flags.DEFINE_integer(
    "max_seq_length", 128, "Tokens of a record, [CLS] and [SEP] included."
  )
  flags.DEFINE_integer(
    "max_predictions_per_seq", 20, "The most tokens masked in a record."
  )
  flags.DEFINE_integer("random_seed", 12345, "Another seed, other records.")
  flags.DEFINE_integer(
    "dupe_factor", 10, "How often the text is gone through, masked differently."
  )
  flags.DEFINE_float("masked_lm_prob", 0.15, "Share of the tokens to mask.")
  flags.DEFINE_float(
    "short_seq_prob",
    0.1,
    "Share of the documents cut into shorter records than there is room for.",
  )
  flags.DEFINE_integer(
    "verbose_examples", 0, "How many records to print in readable form."
  )
  cli_flags.define_special_tokens_flag()
  flags.mark_flags_as_required(["input_file", "output_file", "vocab_file"])


def cli():
  """Runs the script."""
  start_module.run(main, define_flags)


def main():
  """Makes the records that the flags ask for and says what was made."""
  started = time.monotonic()
  values = flags.FLAGS
  config = cli_flags.read(pretraining_instances.DataConfig)
  input_files = files.find_files("input_file", values.input_file)
  output_files = values.output_file.split(",")
  files.check_output_files("output_file", output_files, input_files)
  tokenizer = tokenization.FullTokenizer(
    values.vocab_file, values.do_lower_case, values.special_tokens_in_text
  )

  documents = pretraining_instances.read_documents(input_files, tokenizer)
  instances = pretraining_instances.create_training_instances(
    documents, tokenizer, config
  )
  for number in range(min(values.verbose_examples, len(instances))):
    print(_example_text(number, instances[number], tokenizer))
  start_module.load_tensorflow()
  write_instance_to_example_files(instances, output_files)

  seconds = time.monotonic() - started
  megabytes = sum(map(pretraining_instances.file_size, input_files)) / 1e6
  print(
    f"{documents}: {len(instances)} instances written to"
    f" {', '.join(output_files)}. {megabytes:.3g} MB of text in {seconds:.1f} s"
    f" ({megabytes / seconds:.2g} MB/s)."
  )


# Settings and files -----------------------------------------------------------


# Text -------------------------------------------------------------------------


# Random numbers ---------------------------------------------------------------


# Instances --------------------------------------------------------------------


# Output -----------------------------------------------------------------------


def write_instance_to_example_files(instances, output_files):
  """Writes `TrainingInstances` to TFRecord files, in turns.

  A file appears under its name once all are complete, or not at all.
  """
  from bert_keras3.data import features as input_pipeline
  from bert_keras3.data import records as records_module

  specs = input_pipeline.pretraining_features(
    instances.config.max_seq_length, instances.config.max_predictions_per_seq
  )
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    progress = enter(
      pretraining_instances.Progress("Writing", len(instances), "instances")
    )
    writers = [enter(records_module.RecordWriter(x)) for x in output_files]
    next_writer = itertools.cycle(writers)
    for first in range(0, len(instances), _INSTANCES_PER_WRITE):
      features = instances.features(first, first + _INSTANCES_PER_WRITE)
      records = input_pipeline.serialize_examples(features, specs)
      for record in records:
        next(next_writer).write(record)
      progress.update(len(records))


def _example_text(number, instance, tokenizer):
  ids = tokenizer.convert_tokens_to_ids(instance.tokens)
  masked = [
    f"{position}: {label} -> {instance.tokens[position]}"
    for position, label in zip(
      instance.masked_lm_positions, instance.masked_lm_labels, strict=True
    )
  ]
  return (
    f"Example {number}\n"
    f"  tokens: {' '.join(instance.tokens)}\n"
    f"  masked: {', '.join(masked)}\n"
    f"  is_random_next: {instance.is_random_next}\n"
    f"  input_ids: {' '.join(map(str, ids))}\n"
    f"  segment_ids: {' '.join(map(str, instance.segment_ids))}\n"
  )


if __name__ == "__main__":
  cli()
