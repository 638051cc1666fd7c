"""Opens models and their data as the scripts do, to measure parts of a run."""

import itertools

import modeling
from bert_keras3.data import order
from bert_keras3.tasks import classifier_data
from bert_keras3.tasks import classifier_results
from bert_keras3.tasks import squad_results
from bert_keras3.training import devices
from bert_keras3.training import loop
from bert_keras3.training.run import open_run
from bert_keras3.weights import checkpoints
from bert_keras3.weights import companions


def open_classifier(config):
  """Opens the data and makes the model of a run_classifier.ClassifierConfig.

  Returns:
    (run.Run whose model has initial weights, classifier_data.Data).
  """
  strategy = devices.make_strategy(config)
  pretrained = companions.open_pretrained(config, config.output_dir)
  data = classifier_data.open_data(config, pretrained)
  run = open_run(config, strategy, [*pretrained.paths, *data.deciding_files])
  options = classifier_results.head_options(config, data)
  run.build(modeling.BertClassifier, pretrained.bert_config, **options)
  return run, data


def open_squad(config):
  """Opens the data and makes the model of a run_squad.SquadConfig.

  Returns:
    (run.Run whose model has initial weights, squad_results.Data).
  """
  strategy = devices.make_strategy(config)
  pretrained = companions.open_pretrained(config, config.output_dir)
  run = open_run(config, strategy, [*pretrained.paths, *config.deciding_files])
  data = squad_results.open_data(run, pretrained)
  run.build(modeling.BertSpanLabeler, pretrained.bert_config)
  return run, data


class Training:
  """Takes steps of training without end: no logs, checkpoints, evaluations.

  Args:
    run: run.Run with a model.
    source: sources.Source to train on.
  """

  def __init__(self, run, source):
    run.count_steps(len(source))
    config, strategy = run.config, run.strategy
    self._trainer = loop.Trainer(
      strategy,
      run.model,
      config,
      jit_compile=devices.uses_xla(strategy, config),
    )
    checkpoints.load_weights(self._trainer.weights, config.init_checkpoint)
    places = order.training_order(source, config.train_batch_size, config.seed)
    batches = devices.distribute_batches(
      strategy,
      lambda: (source.take(places.batch(x), x) for x in itertools.count()),
      source.specs,
      config.train_batch_size,
      config.gradient_accumulation_steps,
    )
    self._iterator = iter(batches)

  def take_steps(self, count):
    """Makes `count` updates."""
    self._trainer.train_steps(self._iterator, count)
