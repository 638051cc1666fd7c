"""SQuAD: from files to windows, from a model to answers and their files."""

import dataclasses
import json
import sys

import numpy as np
import tqdm

from bert_keras3.data import sequences
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_scores
from bert_keras3.training import evaluation
from bert_keras3.training.monitor import Monitor
from bert_keras3.weights import companions

PREDICTIONS_FILE = "predictions.json"
NBEST_FILE = "nbest_predictions.json"
NULL_ODDS_FILE = "null_odds.json"


def predict_logits(run, source, batch_size, keep_padding):
  """Runs the model of a run on all windows.

  Args:
    run: run.Run of a modeling.BertSpanLabeler.
    source: sequences.SequenceSource of the windows.
    batch_size: global batch size.
    keep_padding: whether positions of padding keep their logits, as upstream's
      do, and compete for the n best. If not they get -inf, and results do not
      depend on the batch that a window was in.

  Returns:
    (start_logits, end_logits), float32 [windows, longest].
  """
  logits = np.full(
    [2, len(source), source.bucket_lengths[-1]], -np.inf, np.float32
  )
  if not len(source):  # Texts without a token have no window.
    return logits[0], logits[1]
  with tqdm.tqdm(
    total=len(source),
    desc="predicting",
    unit="window",
    leave=False,
    disable=not sys.stderr.isatty(),
  ) as bar:
    for numbers, outputs in evaluation.predict(
      run.strategy, run.prediction_step, source, batch_size
    ):
      for side, name in enumerate(("start_logits", "end_logits")):
        values = outputs[name]
        logits[side, numbers, : values.shape[1]] = values
      bar.update(len(numbers))
  if not keep_padding:
    positions = np.arange(logits.shape[2])
    logits[:, positions >= source.lengths[:, np.newaxis]] = -np.inf
  return logits[0], logits[1]


# Files ------------------------------------------------------------------------


def write_predictions(directory, decoded):
  """Writes upstream's JSON files, each whole or not at all.

  Args:
    directory: output_directory.OutputDirectory.
    decoded: squad_decoding.Decoded; null_odds.json is written for 2.0 only.
  """
  directory.write(PREDICTIONS_FILE, _to_json(decoded.predictions))
  directory.write(NBEST_FILE, _to_json(decoded.nbest))
  if decoded.null_odds:
    directory.write(NULL_ODDS_FILE, _to_json(decoded.null_odds))


def _to_json(results):
  return json.dumps(results, indent=4) + "\n"


# The parts of a run -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Questions:
  """A file to predict: its questions, and their windows."""

  examples: list[squad_data.SquadExample]
  windows: squad_data.Windows
  source: sequences.SequenceSource


@dataclasses.dataclass(frozen=True)
class Data:
  """The data of a run.

  Attributes:
    pretrained: companions.Pretrained.
    train_windows: squad_data.Windows to train on, None without training.
    train_source: sequences.SequenceSource of them, with answers' positions.
    questions: Questions to predict, None without prediction.
  """

  pretrained: companions.Pretrained
  train_windows: squad_data.Windows | None
  train_source: sequences.SequenceSource | None
  questions: Questions | None

  def save_companions(self, directory):
    """Saves the vocabulary beside a model."""
    directory.copy_vocab(self.pretrained.files.vocab_file)


def open_data(run, pretrained):
  """Reads the files of a run and lays windows over their texts.

  Args:
    run: run.Run.
    pretrained: companions.Pretrained.

  Returns:
    Data.

  Raises:
    ValueError, OSError: a file is missing or malformed.
  """
  config = run.config
  windows = source = questions = None
  if config.do_train:
    windows = open_windows(run, pretrained, "train")
    positions = {
      "start_positions": windows.start_positions,
      "end_positions": windows.end_positions,
    }
    source = make_source(config, windows, positions)
  if config.do_predict:
    examples = squad_data.read_squad_examples(
      config.predict_file, is_training=False
    )
    predicted = open_windows(run, pretrained, "predict")
    questions = Questions(examples, predicted, make_source(config, predicted))
  return Data(pretrained, windows, source, questions)


def open_windows(run, pretrained, split):
  """Lays windows over train_file or predict_file, or loads them from the cache.

  Args:
    run: run.Run.
    pretrained: companions.Pretrained.
    split: "train" or "predict".

  Returns:
    squad_data.Windows.
  """
  config, is_training = run.config, split == "train"
  path = config.train_file if is_training else config.predict_file
  settings = {**config.window_settings, "is_training": is_training}

  def build():
    examples = squad_data.read_squad_examples(
      path, is_training, config.version_2_with_negative
    )
    return squad_data.make_windows(examples, pretrained.tokenizer, **settings)

  key = squad_data.cache_key(
    path,
    pretrained.files.vocab_file,
    {
      **settings,
      "do_lower_case": config.do_lower_case,
      "version_2_with_negative": config.version_2_with_negative,
    },
  )
  return squad_data.cached_windows(
    run.directory, f"{split}_windows.npz", key, build
  )


def make_source(config, windows, columns=None):
  """Makes a sequences.SequenceSource of windows.

  Args:
    config: SquadConfig.
    windows: squad_data.Windows.
    columns: dict of more arrays [windows] for the batches, or None.
  """
  lengths = (config.max_seq_length,)
  if not config.is_padded:
    lengths = sequences.bucket_lengths(
      windows.sequences.lengths, config.max_seq_length
    )
  return sequences.SequenceSource(windows.sequences, columns or {}, lengths)


def make_monitor(run, data):
  """Makes the Monitor that scores predict_file, or None.

  Args:
    run: run.Run of a modeling.BertSpanLabeler.
    data: Data.

  Raises:
    ValueError: evaluation is asked for, but there is nothing to score.
  """
  config, questions = run.config, data.questions
  if not config.eval_steps:
    return None
  if questions is None or not squad_scores.has_answers(questions.examples):
    raise ValueError(
      "--eval_steps and --early_stopping_patience need --do_predict and a "
      "--predict_file with answers"
    )

  def evaluate_now():
    examples = questions.examples
    decoded = decode(run, data.pretrained.tokenizer, questions)
    if config.version_2_with_negative:
      threshold = squad_scores.find_threshold(examples, decoded)
      decoded = squad_scores.with_threshold(decoded, threshold)
    return squad_scores.score_decoded(examples, decoded)

  return Monitor(evaluate_now, "f1", config.early_stopping_patience)


def decode(run, tokenizer, questions, threshold=0.0):
  """Decodes the logits of a run's model.

  Args:
    run: run.Run of a modeling.BertSpanLabeler.
    tokenizer: tokenization.FullTokenizer.
    questions: Questions.
    threshold: null odds above it mean no answer (2.0).

  Returns:
    squad_decoding.Decoded.
  """
  config = run.config
  start_logits, end_logits = predict_logits(
    run,
    questions.source,
    config.predict_batch_size,
    keep_padding=config.pad_to_max_length,
  )
  return squad_decoding.decode(
    questions.examples,
    questions.windows,
    start_logits,
    end_logits,
    tokenizer,
    config.decoding(threshold),
  )


def predict(run, data):
  """Writes the predictions and, if the answers are known, their scores.

  Args:
    run: run.Run of a modeling.BertSpanLabeler.
    data: Data.

  Returns:
    Dict of the official figures, empty if there are none.
  """
  questions, results = data.questions, {}
  examples = questions.examples
  is_scored = squad_scores.has_answers(examples)
  decoded = decode(run, data.pretrained.tokenizer, questions)
  if run.config.version_2_with_negative:
    threshold = choose_threshold(run, examples if is_scored else None, decoded)
    decoded = squad_scores.with_threshold(decoded, threshold)
  write_predictions(run.directory, decoded)
  if is_scored:
    results = squad_scores.score_decoded(examples, decoded)
    summary = squad_scores.summarize(examples, decoded.predictions, results)
    run.report(results, summary=summary)
  path = run.directory.path
  run.tell(f"{len(examples)} predictions: {path}/{PREDICTIONS_FILE}")
  return results


def choose_threshold(run, examples, decoded):
  """Chooses the null threshold, and saves it if it is new.

  Args:
    run: run.Run.
    examples: annotated list of squad_data.SquadExample, or None.
    decoded: squad_decoding.Decoded.

  Returns:
    The flag's if given; else the best on annotated examples, which is saved;
    else the saved threshold.
  """
  if examples is None or run.config.null_score_diff_threshold is not None:
    return known_threshold(run)
  threshold = squad_scores.find_threshold(examples, decoded)
  run.directory.write(squad_scores.THRESHOLD_FILE, f"{threshold!r}\n")
  print(f"null_score_diff_threshold = {threshold!r}, best for these answers")
  return threshold


def known_threshold(run):
  """Returns the null threshold of the flag, else of the run, else 0.

  Raises:
    ValueError: the run's file holds no number.
  """
  if run.config.null_score_diff_threshold is not None:
    return run.config.null_score_diff_threshold
  return squad_scores.read_threshold(run.directory.path)


def find_answers(run, tokenizer, context, question):
  """Finds the answers to one question in a text.

  Args:
    run: run.Run of a modeling.BertSpanLabeler.
    tokenizer: tokenization.FullTokenizer.
    context: the text.
    question: about the text.

  Returns:
    List of (text, probability, first character, the character after the last),
    the best first; "" is no answer; characters are None but for the best.
  """
  words, offsets = squad_data.split_words(context)
  example = squad_data.SquadExample(
    "typed", question, words, context=context, word_offsets=offsets
  )
  windows = squad_data.make_windows(
    [example], tokenizer, **run.config.window_settings, is_training=False
  )
  questions = Questions([example], windows, make_source(run.config, windows))
  threshold = known_threshold(run)
  decoded = decode(run, tokenizer, questions, threshold)
  (best,), (entries,) = decoded.best.values(), decoded.nbest.values()
  others = [
    (entry["text"], entry["probability"], None, None)
    for entry in entries
    if entry["text"] != best.text
  ]
  # An answer without characters is upstream's "empty".
  text = "" if best.start is None else best.text
  return [(text, best.probability, best.start, best.end), *others]
