"""A run: an output_dir, a strategy and a config, with a verb for each deed.

    run = open_run(config, strategy, data_files)
    run.build(modeling.BertPretrainer, bert_config)
    if config.do_train:
      run.train(source)
    else:
      run.restore()
    results = run.evaluate(pretraining.evaluate, source)
    run.export(export.export_pretrainer, tokenizer, description)
    run.conclude("files, flags and model fit together")

With `--dry_run` the object is a Rehearsal, whose verbs tell what those of a Run
would do.
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


def open_run(config, strategy, data_files):
  """Opens the run of a config.

  Args:
    config: configs.RunConfig.
    strategy: tf.distribute strategy, see devices.make_strategy.
    data_files: paths of the files that decide what weights training ends with.

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
    data_files: paths of the files that decide what weights training ends with.

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
    directory: output_directory.OutputDirectory, which does nothing in a worker
      that may not write.
    findings: dry_run.Findings, of a Rehearsal.
    model: head model of `modeling`, once `build` has made it.
    prediction_step: what evaluation.predict runs on a batch of it.
    global_step: that the model's weights are of.
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
    """Settles the steps of fine-tuning on so many examples.

    Raises:
      ValueError: the examples do not make one step.
    """
    self.config = self.config.with_steps(num_examples)

  def build(self, head, bert_config, **options):
    """Makes the model, its initial weights drawn by the seed.

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
    """Lets a rehearsal tell about data: `tell(findings, config, *args)`."""

  def train(self, source, monitor=None, save_companions=None):
    """Trains to the end, from where output_dir left off if it did.

    The weights are those of the last step, or of the best that the monitor
    found.

    Args:
      source: sources.Source to train on.
      monitor: monitor.Monitor that evaluates during training, or None.
      save_companions: function of the directory that saves what belongs to the
        model, such as its vocabulary; None for nothing.

    Raises:
      ValueError, OSError: see `_begin`; or the numbers went wrong.
      signals.Interrupted: a signal came, and the run's place is saved.
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
    """Loads the final weights of the run, else its newest, else the initial.

    Args:
      shared_settings: flags that the run must have been trained with as well.

    Raises:
      ValueError: there are none, they lack a part of the model, or were
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
    """Loads weights as `restore` does, which may lack a part of the model.

    Returns:
      What checkpoints.load_weights reports.

    Raises:
      ValueError: there are none.
    """
    path, init_checkpoint = self.directory.path, self.config.init_checkpoint
    final = os.path.join(path, output_directory.FINAL_CHECKPOINT)
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
    """Returns `compute(run, *args)`, a dict of results that it has written."""
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
    """Writes, keeps and prints the results of an evaluation.

    Args:
      results: dict of numbers.
      suffix: of `eval_results.txt` and of the manifest's keys.
      summary: text to print instead of the file's lines, None for these.
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
    """Gives the verdict of a rehearsal."""

  def _begin(self, trainer):
    """Gives a trainer the weights to go on from.

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
    """Notes that there is nothing to train."""

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
      output_directory.FINAL_CHECKPOINT,
      lambda path: checkpoints.save(path, trainer.weights, step),
    )
    directory.record({}, finished=True)
    return step


class Rehearsal(Run):
  """A Run that writes nothing and tells what the run would do and need.

  It takes a few real steps to measure their time, so its model is spoilt.
  """

  def describe(self, tell, *args):
    """Tells about data: `tell(findings, config, *args)`."""
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
    """Gives the verdict.

    Args:
      summary: what is true if there are no problems.
      output_dir: directory of all seeds' runs, None for the run's own.

    Raises:
      ValueError: there are problems; has all of them.
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
  """Refuses to write where the initial weights lie: a run would replace them.

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
  """Writes bert_config.json, unless it is there and says the same.

  --bert_config_file may be this very file, whose owner knows it as it is.
  """
  path = os.path.join(directory.path, output_directory.CONFIG)
  if tf.io.gfile.exists(path):
    if vars(modeling.BertConfig.from_json_file(path)) == vars(config):
      return
  directory.write(output_directory.CONFIG, config.to_json_string())
