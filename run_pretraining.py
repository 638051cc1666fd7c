"""Pretrains BERT on the records of create_pretraining_data.py.

    python run_pretraining.py --input_file='records/*.tfrecord' \
      --bert_config_file=bert_config.json --output_dir=out \
      --do_train --do_eval

Masked-language-model and next-sentence losses, as google-research/bert's script
of the same name; the same flags, records and checkpoints.
"""

import dataclasses
import os

from absl import flags

from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start
from bert_keras3.tasks import pretraining_records

# Flags of this script, beside the shared ones, that decide a run's result.
SETTINGS = (
  "input_file",
  "max_seq_length",
  "max_predictions_per_seq",
  "num_train_steps",
  "num_warmup_steps",
  "skip_bad_records",
)


def define_flags():
  """Defines this script's flags."""
  cli_flags.define_model_flags(required=["output_dir"])
  flags.DEFINE_string(
    "input_file", None, "Records to train on: comma-separated paths or globs."
  )
  flags.DEFINE_string(
    "eval_input_file",
    None,
    "Records to evaluate on; --input_file if not given.",
  )
  flags.DEFINE_integer(
    "max_seq_length", 128, "Tokens per record.", lower_bound=1
  )
  flags.DEFINE_integer(
    "max_predictions_per_seq", 20, "Masked tokens per record.", lower_bound=1
  )
  flags.DEFINE_bool("do_train", False, "Train.")
  flags.DEFINE_bool("do_eval", False, "Evaluate, after training if both.")
  flags.DEFINE_integer(
    "eval_batch_size", 8, "Examples per batch of evaluation.", lower_bound=1
  )
  flags.DEFINE_integer(
    "num_train_steps", 100000, "Updates to make.", lower_bound=1
  )
  flags.DEFINE_integer(
    "num_warmup_steps",
    10000,
    "Updates during which the learning rate rises.",
    lower_bound=0,
  )
  flags.DEFINE_integer(
    "max_eval_steps", 100, "Batches to evaluate at most.", lower_bound=1
  )
  flags.DEFINE_bool(
    "skip_bad_records",
    False,
    "Leave out records that are damaged, or do not fit flags and model, and "
    "say so; all records are read once before training.",
  )
  cli_flags.define_training_flags()
  cli_flags.define_vocab_flags()
  cli_flags.define_export_flags()
  cli_flags.define_device_flags()


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
  """What to pretrain, on what, and what to do; the flags of these names."""

  bert_config_file: str | None
  input_file: str | None
  output_dir: str
  init_checkpoint: str | None
  eval_input_file: str | None
  max_seq_length: int
  max_predictions_per_seq: int
  do_train: bool
  do_eval: bool
  eval_batch_size: int
  max_eval_steps: int
  overwrite_output_dir: bool
  dry_run: bool
  vocab_file: str | None = None
  do_lower_case: bool = True
  do_export: bool = False
  export_dir: str | None = None
  export_format: tuple[str, ...] = ("savedmodel",)
  skip_bad_records: bool = False

  @property
  def index_path(self):
    """Where the record index is kept between runs."""
    return os.path.join(self.output_dir, "record_index.npz")


def main():
  """Turns flags into configs and runs."""
  config = cli_flags.read(PretrainingConfig)
  check_flags(config)
  start.load_tensorflow()
  pretrain(
    config,
    cli_flags.device_config(),
    cli_flags.training_config(
      flags.FLAGS.num_train_steps, flags.FLAGS.num_warmup_steps
    ),
    settings=cli_flags.flag_values([*cli_flags.TRAINING_SETTINGS, *SETTINGS]),
  )


def check_flags(config):
  """Refuses flags that do not go together.

  Raises:
    ValueError: there are some.
  """
  if not (config.do_train or config.do_eval or config.do_export):
    raise ValueError(
      "nothing to do: pass --do_train, --do_eval, --do_export or several"
    )
  if config.do_train or config.do_eval:
    for name in ("bert_config_file", "input_file"):
      if not getattr(config, name):
        raise ValueError(f"--do_train and --do_eval need --{name}")
  cli_flags.check_export()


def pretrain(config, device_config, training_config, settings):
  """Checks everything, then trains and evaluates as asked.

  Args:
    config: PretrainingConfig.
    device_config: devices.DeviceConfig.
    training_config: loop.TrainingConfig.
    settings: dict of what makes this run the one it is, for its manifest.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  import modeling
  from bert_keras3.training import devices
  from bert_keras3.training import dry_run as run_forecast
  from bert_keras3.training import loop
  from bert_keras3.training import output_directory
  from bert_keras3.training import run as run_module

  strategy = devices.make_strategy(device_config)
  is_chief = devices.is_chief(strategy)
  findings = run_forecast.Findings(is_chief)
  if config.do_export:
    config = find_model_files(config)
  bert_config = modeling.BertConfig.from_json_file(config.bert_config_file)
  tokenizer = open_tokenizer(config, bert_config)
  sources = pretraining_records.open_sources(config, bert_config)
  pretraining_records.tell_records(config, findings, sources)
  run = output_directory.RunDirectory(
    config.output_dir,
    settings,
    [config.bert_config_file, *(sources[0].paths if sources else [])],
    is_writer=is_chief and not config.dry_run,
  )

  loop.set_seed(training_config.seed)
  with strategy.scope():
    model = modeling.BertPretrainer(bert_config, dtype=device_config.policy)
  global_step, has_heads = 0, True
  if config.do_train:
    trainer = loop.Trainer(
      strategy,
      model,
      training_config,
      jit_compile=devices.uses_xla(strategy, device_config),
    )
    global_step = train(config, trainer, sources, run, findings)
  elif config.do_eval:
    global_step = run_module.restore(run, model, config.init_checkpoint)
  else:
    has_heads = restore_for_export(config, model, run)
  if config.dry_run:
    conclude_dry_run(config, findings, sources)
    return
  if config.do_eval:
    evaluate(config, strategy, model, sources[-1], run, global_step)
  if config.do_export and run.is_writer:
    export(config, model, tokenizer, has_heads, sources)


def find_model_files(config):
  """The config with its architecture and vocabulary, which export needs.

  Raises:
    FileNotFoundError: there is none.
    ValueError: --export_dir holds something else.
  """
  from bert_keras3.serving import export as model_export
  from bert_keras3.weights import companions

  model_export.check_export_dir(config.export_dir)
  found = companions.find(
    config.output_dir,
    config.init_checkpoint,
    config.bert_config_file,
    config.vocab_file,
  )
  return dataclasses.replace(
    config,
    bert_config_file=found.bert_config_file,
    vocab_file=found.vocab_file,
  )


def open_tokenizer(config, bert_config):
  """The tokenizer, checked against the model; None without --vocab_file."""
  from bert_keras3.weights import companions

  if not config.vocab_file:
    return None
  companions.check_length(config.max_seq_length, bert_config)
  return companions.open_tokenizer(
    config.vocab_file, config.do_lower_case, bert_config, config.init_checkpoint
  )


def conclude_dry_run(config, findings, sources):
  """Gives the verdict."""
  from bert_keras3.training import dry_run as run_forecast

  num_records = len(sources[0]) if sources else 0
  summary = "records, flags, model and checkpoint fit together"
  run_forecast.check_output_dir(findings, config.output_dir)
  run_forecast.conclude(findings, f"{num_records} {summary}")


def train(config, trainer, sources, run, findings):
  """Trains to the last step, from where output_dir left off if it did.

  A dry run tells what that would take instead.

  Returns:
    The global step that the model's weights are of.
  """
  from bert_keras3.data import records as records_module
  from bert_keras3.training import dry_run as run_forecast
  from bert_keras3.training import run as run_module

  source, *_ = sources  # The records of training come first.
  is_unfinished = run_module.prepare(
    run, trainer, config.init_checkpoint, config.overwrite_output_dir
  )
  if not is_unfinished:
    if config.dry_run:
      run_forecast.tell_finished(findings, run)
    return run_module.restore(run, trainer.model)
  if config.dry_run:
    run_forecast.forecast(
      findings, trainer, source, run, config.init_checkpoint
    )
    return trainer.step
  if run.is_writer:
    run.make()
    records_module.save_index(config.index_path, *sources)
  if config.vocab_file:
    run.copy_vocab(config.vocab_file)
  return run_module.fit(run, trainer, source)


def evaluate(config, strategy, model, source, run, global_step):
  """Computes upstream's metrics and writes eval_results.txt."""
  from bert_keras3.tasks import metrics
  from bert_keras3.training import evaluation

  results = evaluation.evaluate(
    strategy, model, source, config.eval_batch_size, config.max_eval_steps
  )
  text = metrics.format_results({"global_step": global_step, **results})
  run.write("eval_results.txt", text)
  run.record(results)
  if run.is_writer:
    print(text, end="")


def restore_for_export(config, model, run):
  """Loads weights that may lack the heads of pretraining.

  Returns:
    Whether they have them.

  Raises:
    ValueError: a part of the encoder is missing.
  """
  from bert_keras3.training import run as run_module

  report, _ = run_module.load(run, model, config.init_checkpoint)
  missing = [x for x in report.initialised if not x.startswith("cls/")]
  if missing:
    raise ValueError(
      f"{report.prefix} cannot be exported: it has no {missing[0]}"
    )
  if report.initialised:
    print(
      f"{report.prefix} has no {report.initialised[0]}: only its encoder is "
      "exported"
    )
  return not report.initialised


def export(config, model, tokenizer, has_heads, sources):
  """Writes the SavedModel that fills masks, scores pairs and encodes.

  Without heads it only encodes. LiteRT's outputs are compared on records of
  the last of the sources, if there is any.
  """
  from bert_keras3.serving import export as model_export
  from bert_keras3.serving import litert

  check = None
  if "litert" in config.export_format:
    check = litert.Check(sources[-1] if sources else None)
  write = model_export.export_encoder
  if has_heads:
    write = model_export.export_pretrainer
  write(
    config.export_dir,
    model,
    tokenizer,
    {
      "task": "pretraining",
      "do_lower_case": config.do_lower_case,
      "max_seq_length": config.max_seq_length,
    },
    check,
  )
  print(f"exported to {config.export_dir}")


def cli():
  """Entry point of the console script."""
  start.run(main, define_flags)


if __name__ == "__main__":
  cli()
