"""A run: a model in an output_dir, to train, restore, evaluate and export.

    run = open_run(config, strategy, data_files)
    run.build(modeling.BertPretrainer, bert_config)
    if config.do_train:
      run.train(source)
    else:
      run.restore()
    results = run.evaluate(pretraining.evaluate, source)
    run.export(export.export_pretrainer, tokenizer, description)
    run.conclude("files, flags and model fit together")

With `--dry_run` the object is a Rehearsal, whose methods report what those of a
Run would do.
"""

import os

import keras
import tensorflow as tf

import modeling
from bert_keras3.data import fields
from bert_keras3.training import devices
from bert_keras3.training import dry_run
from bert_keras3.training import evaluation
from bert_keras3.training import loop
from bert_keras3.training import output_directory
from bert_keras3.training.results import format_results
from bert_keras3.weights import checkpoints
from bert_keras3.weights import file_names


def open_run(config, strategy, data_files):
  """Opens the run of a config.

  Args:
    config: configs.RunConfig.
    strategy: tf.distribute strategy, see devices.make_strategy.
    data_files: paths of the files that decide the trained weights.

  Returns:
    Run or Rehearsal.

  Raises:
    NotADirectoryError, ValueError: see output_directory.open_directory.
  """
  (run,) = open_runs([config], strategy, data_files)
  return run


def open_runs(run_configs, strategy, data_files):
  """Opens several runs that differ in their seed and output_dir.

  Args:
    run_configs: list of configs.RunConfig.
    strategy: tf.distribute strategy.
    data_files: paths of the files that decide the trained weights.

  Returns:
    List of Run or Rehearsal.
  """
  is_chief = devices.is_chief(strategy)
  is_rehearsal = run_configs[0].dry_run
  findings = dry_run.Findings(is_shown=is_rehearsal and is_chief)
  run_class = Rehearsal if is_rehearsal else Run
  runs = []
  for config in run_configs:
    directory = output_directory.open_directory(
      config.output_dir,
      fields.settings(config),
      data_files,
      may_write=is_chief and not is_rehearsal,
    )
    runs.append(run_class(config, strategy, directory, findings))
  return runs


class Run:
  """Trains, restores, evaluates and exports one model.

  Attributes:
    config: configs.RunConfig.
    strategy: tf.distribute strategy.
    directory: output_directory.OutputDirectory, read-only in a worker that is
      not the chief.
    findings: dry_run.Findings, of a Rehearsal.
    model: head model of `modeling`, once `build` has made it.
    prediction_step: function of the model for evaluation.predict.
    global_step: step of the model's weights.
  """

  def __init__(self, config, strategy, directory, findings):
    self.config = config
    self.strategy = strategy
    self.directory = directory
    self.findings = findings
    self.model = None
    self.prediction_step = None
    self.global_step = 0

  def count_steps(self, num_examples):
    """Sets the numbers of steps of fine-tuning on `num_examples` examples.

    Raises:
      ValueError: the examples do not fill one batch.
    """
    self.config = self.config.with_steps(num_examples)

  def build(self, head, bert_config, **options):
    """Makes the model, with initial weights drawn from the seed.

    Args:
      head: class of `modeling`.
      bert_config: modeling.BertConfig.
      **options: further arguments of the class.
    """
    config = self.config
    keras.utils.set_random_seed(config.seed)
    with self.strategy.scope():
      self.model = head(bert_config, dtype=config.policy, **options)
    modeling.freeze_layers(self.model, config.freeze_layers)
    self.prediction_step = evaluation.prediction_step(self.model)

  def describe(self, tell, *args):
    """Does nothing; a Rehearsal calls `tell(findings, config, *args)`."""

  def train(self, source, monitor=None, save_companions=None):
    """Trains to the end, from the newest checkpoint of output_dir if any.

    The weights are those of the last step, or of the monitor's best step.

    Args:
      source: sources.Source to train on.
      monitor: monitor.Monitor that evaluates during training, or None.
      save_companions: function of the directory that saves what belongs to the
        model, such as its vocabulary; None for nothing.

    Raises:
      ValueError, OSError: see `_begin`; or the loss is not finite.
      signals.Interrupted: a signal came, and a checkpoint is written.
    """
    trainer = loop.Trainer(
      self.strategy,
      self.model,
      self.config,
      jit_compile=devices.uses_xla(self.strategy, self.config),
      monitor=monitor,
    )
    if self._begin(trainer):
      self.global_step = self._fit(trainer, source, save_companions)
    else:
      self._skip()
      self.restore()

  def restore(self, shared_settings=()):
    """Loads the final weights of the run, else its newest checkpoint's.

    Without either it loads the initial weights.

    Args:
      shared_settings: flags that the run must have been trained with as well.

    Raises:
      ValueError: there are no weights, they lack a part of the model, or were
        trained with other flags.
    """
    self.directory.check_settings(shared_settings)
    report = self.load()
    if report.initialised:
      raise ValueError(
        f"{report.prefix} cannot be evaluated: it has no "
        f"{report.initialised[0]}; train the missing part first"
      )

  def load(self):
    """Loads weights as `restore` does, but they may lack a part of the model.

    Returns:
      The report of checkpoints.load_weights.

    Raises:
      ValueError: there are no weights.
    """
    path, init_checkpoint = self.directory.path, self.config.init_checkpoint
    final = os.path.join(path, file_names.WEIGHTS)
    is_finished = self.directory.is_finished
    newest = final if is_finished else checkpoints.newest_readable(path)
    if not newest and not init_checkpoint:
      raise ValueError(
        f"there is no model to use: {path} holds no checkpoint; train with "
        "--do_train or name one with --init_checkpoint"
      )
    self.global_step = checkpoints.read_global_step(newest) if newest else 0
    return checkpoints.load_weights(
      modeling.named_variables(self.model), newest or init_checkpoint
    )

  def evaluate(self, compute, *args):
    """Calls `compute(run, *args)`, which writes and returns a dict."""
    return compute(self, *args)

  def perform(self, action, *args):
    """Calls `action(*args)`, such as a prediction."""
    action(*args)

  def export(self, write, *args):
    """Calls `write(export_dir, model, *args)` where this process may write."""
    export_dir = self.config.export_dir
    self.directory.perform(write, export_dir, self.model, *args)
    self.directory.tell(f"exported to {export_dir}")

  def report(self, results, suffix="", summary=None):
    """Writes results to eval_results.txt and the manifest, and prints them.

    Args:
      results: dict of numbers.
      suffix: of `eval_results.txt` and of the manifest's keys.
      summary: text to print instead of the file's lines, or None.
    """
    text = format_results({"global_step": self.global_step, **results})
    self.directory.write(f"eval_results{suffix}.txt", text)
    self.directory.record({f"{key}{suffix}": results[key] for key in results})
    self.tell((summary or text).rstrip("\n"))

  def close(self):
    """Forgets the model, whose memory the next run of several needs."""
    self.model = self.prediction_step = None

  def tell(self, *texts):
    """Prints texts that are not empty."""
    for text in filter(None, texts):
      self.directory.tell(text)

  def conclude(self, summary, output_dir=None):
    """Does nothing; a Rehearsal prints its verdict."""

  def _begin(self, trainer):
    """Loads the weights that a trainer starts from.

    Returns:
      Whether there is anything left to train.

    Raises:
      ValueError: the directory holds another run, or the checkpoint does not
        fit.
      FileNotFoundError: there is no such checkpoint.
    """
    init_checkpoint = self.config.init_checkpoint
    if init_checkpoint:
      _check_apart(init_checkpoint, self.directory.path)
    state = self.directory.open(self.config.overwrite_output_dir)
    if state == "finished":
      print(
        f"training is skipped: {self.directory.path} holds this run, finished "
        "(--overwrite_output_dir starts it anew)"
      )
      return False
    if state == "unfinished" and trainer.resume():
      print(f"resuming at step {trainer.step}, from {self.directory.path}")
    elif init_checkpoint:
      print(checkpoints.load_weights(trainer.weights, init_checkpoint))
    return True

  def _skip(self):
    """Does nothing; a Rehearsal reports that training is finished."""

  def _fit(self, trainer, source, save_companions):
    """Trains to the end and writes the final weights; returns their step."""
    directory = self.directory
    if save_companions:
      save_companions(directory)
    directory.claim()
    _save_config(directory, trainer.model.config)
    trainer.fit(source, log_to=directory.log_dir)
    step = trainer.load_best()
    directory.save(
      file_names.WEIGHTS,
      lambda path: checkpoints.save(path, trainer.weights, step),
    )
    directory.record({}, finished=True)
    return step


class Rehearsal(Run):
  """A Run that writes nothing and reports what the run would do and need.

  It takes a few real steps to measure their time, which changes its model.
  """

  def describe(self, tell, *args):
    """Reports about data: calls `tell(findings, config, *args)`."""
    tell(self.findings, self.config, *args)

  def evaluate(self, compute, *args):
    """Returns no results."""
    return {}

  def perform(self, action, *args):
    """Does nothing."""

  def export(self, write, *args):
    """Exports nothing."""

  def tell(self, *texts):
    """Prints texts that are not empty, on one of several workers."""
    for text in filter(None, texts):
      if self.findings.is_shown:
        print(text)

  def conclude(self, summary, output_dir=None):
    """Prints the verdict.

    Args:
      summary: sentence to print if there are no problems.
      output_dir: directory of all seeds' runs, None for the run's own.

    Raises:
      ValueError: there are problems; its text lists them.
    """
    output_dir = output_dir or self.config.output_dir
    dry_run.check_output_dir(self.findings, output_dir)
    dry_run.conclude(self.findings, summary)

  def _skip(self):
    dry_run.tell_finished(self.findings, self.directory)

  def _fit(self, trainer, source, save_companions):
    dry_run.forecast(
      self.findings,
      trainer,
      source,
      self.directory,
      self.config.init_checkpoint,
    )
    return trainer.step


def _check_apart(init_checkpoint, output_dir):
  """Refuses an output_dir that holds the initial weights.

  Raises:
    ValueError: the checkpoint lies in the run's directory.
    FileNotFoundError: there is no such checkpoint.
  """
  prefix = checkpoints.resolve(init_checkpoint)
  folder = os.path.dirname(prefix)
  if os.path.realpath(folder) == os.path.realpath(output_dir):
    raise ValueError(
      f"--init_checkpoint={init_checkpoint} lies in --output_dir, where "
      "training would replace it; choose another --output_dir"
    )


def _save_config(directory, config):
  """Writes bert_config.json, unless the file there has equal values.

  --bert_config_file may be this very file, which stays as the user wrote it.
  """
  path = os.path.join(directory.path, file_names.CONFIG)
  if tf.io.gfile.exists(path):
    if vars(modeling.BertConfig.from_json_file(path)) == vars(config):
      return
  directory.write(file_names.CONFIG, config.to_json_string())
