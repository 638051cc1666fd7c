"""A run: how it starts, resumes and ends."""

import os

import tensorflow as tf

import modeling
from bert_keras3.training import output_directory
from bert_keras3.weights import checkpoints


def prepare(run, trainer, init_checkpoint=None, overwrite=False):
  """Gives a trainer the weights to go on from.

  Args:
    run: RunDirectory.
    trainer: loop.Trainer.
    init_checkpoint: weights of a new run, None for random ones.
    overwrite: delete a run that is there.

  Returns:
    Whether there is anything left to train.

  Raises:
    ValueError: the directory holds another run, or the checkpoint does not fit.
    FileNotFoundError: there is no such checkpoint.
  """
  if init_checkpoint:
    _check_apart(run, init_checkpoint)
  state = run.open(overwrite)
  if state == "finished":
    print(
      f"training is skipped: {run.path} holds this run, finished "
      "(--overwrite_output_dir starts it anew)"
    )
    return False
  if state == "unfinished" and trainer.resume():
    print(f"resuming at step {trainer.step}, from {run.path}")
  elif init_checkpoint:
    print(checkpoints.load_weights(trainer.weights, init_checkpoint))
  return True


def _check_apart(run, init_checkpoint):
  """Refuses to write where the initial weights lie: a run would replace them.

  Raises:
    ValueError: the checkpoint lies in the run's directory.
    FileNotFoundError: there is no such checkpoint.
  """
  prefix = checkpoints.resolve(init_checkpoint)
  if os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(run.path):
    raise ValueError(
      f"--init_checkpoint={init_checkpoint} lies in --output_dir, where "
      "training would replace it; choose another --output_dir"
    )


def fit(run, trainer, source):
  """Trains to the end and writes the final weights.

  Returns:
    The step these are of: the last, or the best one that a Monitor found.
  """
  run.claim()
  _write_config(run, trainer.model.config)
  trainer.fit(source, log_to=run.path if run.is_writer else None)
  step = trainer.load_best()
  if run.is_writer:
    final = os.path.join(run.path, output_directory.FINAL_CHECKPOINT)
    checkpoints.save(final, trainer.weights, step)
  run.record({}, finished=True)
  return step


def _write_config(run, config):
  # --bert_config_file may be this very file, whose owner knows it as it is.
  path = os.path.join(run.path, output_directory.CONFIG)
  if tf.io.gfile.exists(path):
    if vars(modeling.BertConfig.from_json_file(path)) == vars(config):
      return
  run.write(output_directory.CONFIG, config.to_json_string())


def restore(run, model, init_checkpoint=None):
  """Loads the final weights of a run, else its newest, else init_checkpoint.

  Returns:
    The step of the run that they are of, 0 for init_checkpoint.

  Raises:
    ValueError: there are none, or they lack a part of the model.
  """
  report, step = load(run, model, init_checkpoint)
  if report.initialised:
    raise ValueError(
      f"{report.prefix} cannot be evaluated: it has no {report.initialised[0]};"
      " train the missing part first"
    )
  return step


def load(run, model, init_checkpoint=None):
  """The same for weights that may lack a part of the model.

  Returns:
    (checkpoint_io's report, step).

  Raises:
    ValueError: there are none.
  """
  final = os.path.join(run.path, output_directory.FINAL_CHECKPOINT)
  newest = final if run.is_finished else checkpoints.newest_readable(run.path)
  if not newest and not init_checkpoint:
    raise ValueError(
      f"there is no model to use: {run.path} holds no checkpoint; train with "
      "--do_train or name one with --init_checkpoint"
    )
  weights = modeling.named_variables(model)
  report = checkpoints.load_weights(weights, newest or init_checkpoint)
  return report, checkpoints.read_global_step(newest) if newest else 0
