"""What the scripts that fine-tune share: from flags to a trained model.

    setup = fine_tuning.open_model(config, device_config)
    model = fine_tuning.make_model(
      setup, config, seed, modeling.BertSpanLabeler
    )
    step = fine_tuning.train(
      setup, config, training_config, run, model, source
    )

Importing this costs no TensorFlow; its functions load it.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class FineTuningConfig:
  """What all tasks can be told; the flags of these names."""

  output_dir: str | None = None
  bert_config_file: str | None = None
  vocab_file: str | None = None
  init_checkpoint: str | None = None
  do_lower_case: bool = True
  max_seq_length: int = 128
  pad_to_max_length: bool = False
  do_train: bool = False
  num_train_epochs: float = 3.0
  warmup_proportion: float = 0.1
  freeze_layers: str = ""
  early_stopping_patience: int = 0
  overwrite_output_dir: bool = False
  dry_run: bool = False
  do_export: bool = False
  export_dir: str | None = None
  export_format: tuple[str, ...] = ("savedmodel",)


@dataclasses.dataclass(frozen=True)
class Setup:
  """Where a model lives and what it comes with.

  Attributes:
    strategy: tf.distribute strategy.
    device_config: devices.DeviceConfig.
    bert_config: modeling.BertConfig.
    tokenizer: tokenization.FullTokenizer.
    files: companions.ModelFiles.
    is_padded: whether all sequences are padded to max_seq_length.
    findings: run_forecast.Findings of a dry run, None of another.
  """

  strategy: object
  device_config: object
  bert_config: object
  tokenizer: object
  files: object
  is_padded: bool
  findings: object = None


def open_model(
  config, device_config, output_dir=None, special_tokens_in_text="split"
):
  """Finds, reads and checks the files of a model.

  Args:
    config: FineTuningConfig.
    device_config: devices.DeviceConfig.
    output_dir: where a trained model may lie, if not in the config's.
    special_tokens_in_text: see tokenization.FullTokenizer.

  Returns:
    Setup.

  Raises:
    ValueError, OSError: a file is missing, or they do not fit each other.
  """
  import modeling
  from bert_keras3.training import devices
  from bert_keras3.training import dry_run as run_forecast
  from bert_keras3.weights import companions

  output_dir = output_dir or config.output_dir
  strategy = devices.make_strategy(device_config)
  if not config.do_train:
    companions.require_weights(output_dir, config.init_checkpoint)
  found = companions.find(
    output_dir,
    config.init_checkpoint,
    config.bert_config_file,
    config.vocab_file,
  )
  bert_config = modeling.BertConfig.from_json_file(found.bert_config_file)
  tokenizer = companions.open_tokenizer(
    found.vocab_file,
    config.do_lower_case,
    bert_config,
    config.init_checkpoint,
    special_tokens_in_text,
  )
  companions.check_length(config.max_seq_length, bert_config)
  # A TPU wants one shape.
  is_tpu = device_config.distribution_strategy == "tpu"
  findings = None
  if config.dry_run:
    findings = run_forecast.Findings(devices.is_chief(strategy))
  return Setup(
    strategy=strategy,
    device_config=device_config,
    bert_config=bert_config,
    tokenizer=tokenizer,
    files=found,
    is_padded=config.pad_to_max_length or is_tpu,
    findings=findings,
  )


def open_run(setup, config, settings, data_files, output_dir=None):
  """The output_directory.RunDirectory of a run.

  Args:
    setup: Setup.
    config: FineTuningConfig.
    settings: dict of what makes this run the one it is.
    data_files: paths of the data that decides what weights training ends with.
    output_dir: where the run is, if not in the config's.
  """
  from bert_keras3.training import devices
  from bert_keras3.training import output_directory

  return output_directory.RunDirectory(
    output_dir or config.output_dir,
    settings,
    data_files=[
      setup.files.bert_config_file,
      setup.files.vocab_file,
      *data_files,
    ],
    is_writer=devices.is_chief(setup.strategy) and not config.dry_run,
  )


def is_monitored(config, training_config):
  """Whether there are evaluations during training."""
  return bool(training_config.eval_steps or config.early_stopping_patience)


def count_steps(config, training_config, num_examples):
  """The TrainingConfig with its numbers of steps.

  Patience counts epochs unless evaluations are asked for more often.

  Raises:
    ValueError: the examples do not make one step.
  """
  if config.early_stopping_patience and not training_config.eval_steps:
    epoch = max(1, num_examples // training_config.train_batch_size)
    training_config = dataclasses.replace(training_config, eval_steps=epoch)
  return training_config.with_epochs(
    num_examples, config.num_train_epochs, config.warmup_proportion
  )


def make_model(setup, config, seed, head, **options):
  """A head model, its initial weights drawn by a seed.

  Args:
    setup: Setup.
    config: FineTuningConfig.
    seed: int.
    head: class of `modeling`.
    **options: its arguments after the BertConfig.
  """
  import modeling
  from bert_keras3.training import loop

  loop.set_seed(seed)
  with setup.strategy.scope():
    model = head(setup.bert_config, dtype=setup.device_config.policy, **options)
  modeling.freeze_layers(model, config.freeze_layers)
  return model


def conclude_dry_run(setup, config):
  """Prints a dry run's verdict.

  Raises:
    ValueError: there are problems; has all of them.
  """
  from bert_keras3.training import dry_run as run_forecast

  run_forecast.check_output_dir(setup.findings, config.output_dir)
  run_forecast.conclude(setup.findings, "files, flags and model fit together")


def train(
  setup, config, training_config, run, model, source, monitor=None, files=None
):
  """Trains to the end, or as long as a Monitor's evaluations get better.

  A dry run tells what that would take instead.

  Args:
    setup: Setup.
    config: FineTuningConfig.
    training_config: loop.TrainingConfig.
    run: output_directory.RunDirectory.
    model: what `make_model` returned.
    source: features.SequenceSource.
    monitor: loop.Monitor, or None.
    files: dict from name to text that the run gets as well.

  Returns:
    The step the model's weights are of.
  """
  from bert_keras3.training import devices
  from bert_keras3.training import dry_run as run_forecast
  from bert_keras3.training import loop
  from bert_keras3.training import run as run_module

  trainer = loop.Trainer(
    setup.strategy,
    model,
    training_config,
    jit_compile=devices.uses_xla(setup.strategy, setup.device_config),
    monitor=monitor,
  )
  is_unfinished = run_module.prepare(
    run, trainer, config.init_checkpoint, config.overwrite_output_dir
  )
  if not is_unfinished:
    if config.dry_run:
      run_forecast.tell_finished(setup.findings, run)
    return run_module.restore(run, model)
  if config.dry_run:
    run_forecast.forecast(
      setup.findings, trainer, source, run, config.init_checkpoint
    )
    return trainer.step
  run.copy_vocab(setup.files.vocab_file)
  for name, text in (files or {}).items():
    run.write(name, text)
  return run_module.fit(run, trainer, source)
