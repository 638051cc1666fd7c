"""Makes pretraining records: pairs of stretches of text, some tokens masked.

    python create_pretraining_data.py --input_file=text.txt \
      --output_file=records.tfrecord --vocab_file=vocab.txt

The input has one sentence a line and a blank line between documents. A record
joins two stretches of text, A and B: B follows A or, as often, comes from
elsewhere. A model learns to tell which, and to restore the masked tokens.

Each record equals google-research/bert's for the same input, flags and seed:
every random number is drawn in upstream's order from one `WordStream`. The rest
is arranged for speed and memory: all text is one array of ids, an instance is
two ranges of it and the positions of its masked tokens, and features are
gathered for hundreds of instances at once, when they are written.
"""

import contextlib
import dataclasses
import itertools
import time

import tokenization
from bert_keras3.console import start
from bert_keras3.data import features
from bert_keras3.data import fields
from bert_keras3.data import files
from bert_keras3.data import pretraining_instances
from bert_keras3.data import record_writer
from bert_keras3.training import configs

# Names that notebooks import from upstream's create_pretraining_data.
DataConfig = pretraining_instances.DataConfig
TrainingInstance = pretraining_instances.TrainingInstance
read_documents = pretraining_instances.read_documents
create_training_instances = pretraining_instances.create_training_instances

_INSTANCES_PER_WRITE = 1 << 9


@dataclasses.dataclass(frozen=True)
class CreationConfig(pretraining_instances.DataConfig):
  """Holds the flags: text, vocabulary, and the settings of records."""

  input_file: str | None = fields.flag(
    None,
    "UTF-8 text, one sentence a line, a blank line between documents:"
    " comma-separated files or patterns.",
    is_required=True,
  )
  output_file: str | None = fields.flag(
    None,
    "TFRecord files to write, comma-separated; they get records in turns.",
    is_required=True,
  )
  vocab_file: str | None = fields.flag(
    None, "The model's vocabulary.", is_required=True
  )
  do_lower_case: bool = fields.flag(
    True, "Whether text is lower-cased: true for an uncased vocabulary."
  )
  special_tokens_in_text: str = fields.variant(
    configs.SpecialTokensConfig, "special_tokens_in_text"
  )
  verbose_examples: int = fields.flag(
    0, "How many records to print in readable form."
  )


def main(config):
  """Makes the records that the flags ask for and prints their numbers."""
  started = time.monotonic()
  input_files = files.find_files("input_file", config.input_file)
  output_files = config.output_file.split(",")
  files.check_output_files("output_file", output_files, input_files)
  tokenizer = tokenization.FullTokenizer(
    config.vocab_file, config.do_lower_case, config.special_tokens_in_text
  )

  documents = pretraining_instances.read_documents(input_files, tokenizer)
  instances = create_training_instances(documents, tokenizer, config)
  for number in range(min(config.verbose_examples, len(instances))):
    print(_example_text(number, instances[number], tokenizer))
  if any(map(files.is_remote, output_files)):
    start.load_tensorflow()
  write_instance_to_example_files(instances, output_files)

  seconds = time.monotonic() - started
  megabytes = sum(map(files.file_size, input_files)) / 1e6
  print(
    f"{documents}: {len(instances)} instances written to"
    f" {', '.join(output_files)}. {megabytes:.3g} MB of text in {seconds:.1f} s"
    f" ({megabytes / seconds:.2g} MB/s)."
  )


def write_instance_to_example_files(instances, output_files):
  """Writes `TrainingInstances` to TFRecord files, in turns.

  The files appear under their names once all are complete, or not at all.
  """
  specs = features.pretraining_features(
    instances.config.max_seq_length, instances.config.max_predictions_per_seq
  )
  with contextlib.ExitStack() as stack:
    enter = stack.enter_context
    progress = enter(
      pretraining_instances.Progress("Writing", len(instances), "instances")
    )
    writers = [enter(record_writer.RecordWriter(x)) for x in output_files]
    next_writer = itertools.cycle(writers)
    for first in range(0, len(instances), _INSTANCES_PER_WRITE):
      columns = instances.features(first, first + _INSTANCES_PER_WRITE)
      serialized = features.serialize_examples(columns, specs)
      for record in serialized:
        next(next_writer).write(record)
      progress.update(len(serialized))


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


def cli():
  """Runs the console script."""
  start.run(main, CreationConfig)


if __name__ == "__main__":
  cli()
