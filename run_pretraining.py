"""Pretrains BERT on the records of create_pretraining_data.py.

    python run_pretraining.py --input_file='records/*.tfrecord' \
      --bert_config_file=bert_config.json --output_dir=out \
      --do_train --do_eval

Masked-language-model and next-sentence losses, as google-research/bert's script
of the same name; the same flags, records and checkpoints.
"""

import dataclasses
import functools

from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.training import configs


@dataclasses.dataclass(frozen=True)
class PretrainingConfig(configs.RunConfig):
  """The flags of pretraining."""

  output_dir: str | None = fields.variant(
    configs.RunConfig, "output_dir", is_required=True
  )
  input_file: str | None = fields.flag(
    None,
    "Records to train on: comma-separated paths or globs.",
    decides_result=True,
  )
  eval_input_file: str | None = fields.flag(
    None, "Records to evaluate on; --input_file if not given."
  )
  max_seq_length: int = fields.flag(
    128, "Tokens per record.", lower_bound=1, decides_result=True
  )
  max_predictions_per_seq: int = fields.flag(
    20, "Masked tokens per record.", lower_bound=1, decides_result=True
  )
  do_train: bool = fields.flag(False, "Train.")
  do_eval: bool = fields.flag(False, "Evaluate, after training if both.")
  eval_batch_size: int = fields.flag(
    8, "Examples per batch of evaluation.", lower_bound=1
  )
  num_train_steps: int = fields.flag(
    100000, "Updates to make.", lower_bound=1, decides_result=True
  )
  num_warmup_steps: int = fields.flag(
    10000,
    "Updates during which the learning rate rises.",
    lower_bound=0,
    decides_result=True,
  )
  max_eval_steps: int = fields.flag(
    100, "Batches to evaluate at most.", lower_bound=1
  )
  skip_bad_records: bool = fields.flag(
    False,
    "Leave out records that are damaged, or do not fit flags and model, and "
    "say so; all records are read once before training.",
    decides_result=True,
  )

  def describe_export(self):
    """Returns the settings of an export's description, a dict."""
    names = ("do_lower_case", "max_seq_length")
    settings = {name: getattr(self, name) for name in names}
    return {"task": "pretraining", **settings}


def main(config):
  """Checks the flags and pretrains."""
  check_flags(config)
  start.load_tensorflow()
  pretrain(config)


def check_flags(config):
  """Refuses flags that do not go together.

  Raises:
    ValueError: some flags do not.
  """
  if not (config.do_train or config.do_eval or config.do_export):
    raise ValueError(
      "nothing to do: pass --do_train, --do_eval, --do_export or several"
    )
  if config.do_train or config.do_eval:
    for name in ("bert_config_file", "input_file"):
      if not getattr(config, name):
        raise ValueError(f"--do_train and --do_eval need --{name}")
  config.check_export()


def pretrain(config):
  """Checks everything, then trains, evaluates and exports as asked.

  Args:
    config: PretrainingConfig.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  import modeling
  from bert_keras3.serving import export
  from bert_keras3.serving import litert
  from bert_keras3.tasks import pretraining
  from bert_keras3.training import devices
  from bert_keras3.training.run import open_run

  strategy = devices.make_strategy(config)
  export.check_export(config)
  pretrained = pretraining.open_model(config)
  sources = pretraining.open_sources(config, pretrained.bert_config)
  data_files = sources[0].paths if sources else []
  run = open_run(
    config, strategy, [pretrained.files.bert_config_file, *data_files]
  )
  run.tell(*map(pretraining.describe_bad_records, sources))
  run.describe(pretraining.tell_records, sources)

  run.build(modeling.BertPretrainer, pretrained.bert_config)
  has_heads = True
  if config.do_train:
    save = functools.partial(pretraining.save_companions, config, sources)
    run.train(sources[0], save_companions=save)
  elif config.do_eval:
    run.restore()
  else:
    has_heads = pretraining.restore_for_export(run)
  if config.do_eval:
    run.evaluate(pretraining.evaluate, sources[-1])
  if config.do_export:
    run.export(
      export.export_pretrainer if has_heads else export.export_encoder,
      pretrained.tokenizer,
      config.describe_export(),
      litert.make_check(config, *sources[-1:]),
    )
  num_records = len(sources[0]) if sources else 0
  run.conclude(
    f"{num_records} records, flags, model and checkpoint fit together"
  )


def cli():
  """Runs the console script."""
  start.run(main, PretrainingConfig)


if __name__ == "__main__":
  cli()
