"""Fine-tunes BERT to answer questions about texts: SQuAD 1.1 and 2.0.

    python run_squad.py --train_file=train-v1.1.json --do_train \
      --predict_file=dev-v1.1.json --do_predict \
      --init_checkpoint=uncased_L-12_H-768_A-12 --output_dir=out

    python run_squad.py --output_dir=out --interactive

    python run_squad.py --predict_file=dev-v1.1.json \
      --evaluate_only=out/predictions.json

The flags, windows and predictions of google-research/bert's script of the same
name; and the scores, for which it needed a second script.
"""

import dataclasses
import functools
import os
import re

from absl import flags

import tokenization
from bert_keras3.console import conversation
from bert_keras3.console import flags as cli_flags
from bert_keras3.console import start as start_module
from bert_keras3.serving import predictor
from bert_keras3.tasks import fine_tuning
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding

# What notebooks import from upstream's run_squad.
SquadExample = squad_data.SquadExample
InputFeatures = squad_data.InputFeatures
FeatureWriter = squad_data.FeatureWriter
read_squad_examples = squad_data.read_squad_examples
convert_examples_to_features = squad_data.convert_examples_to_features
get_final_text = squad_decoding.get_final_text

# Flags of this script, beside the shared ones, that decide a run's result.
SETTINGS = (
  "max_seq_length",
  "doc_stride",
  "max_query_length",
  "version_2_with_negative",
)
# Of all settings, those that a trained model must be used with as well; and
# those that an export must have, or it would answer otherwise than the model.
MODEL_SETTINGS = ("do_lower_case",)
EXPORT_SETTINGS = (*MODEL_SETTINGS, *SETTINGS)
# The threshold that was best on a development set, for later predictions.
THRESHOLD_FILE = "null_threshold.txt"
_NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)


def define_flags():
  """Defines this script's flags."""
  cli_flags.define_model_flags(required=())
  for name in ("train", "predict"):
    flags.DEFINE_string(
      f"{name}_file", None, f"JSON file in SQuAD's layout to {name} on."
    )
  flags.DEFINE_bool("do_train", False, "Train.")
  flags.DEFINE_bool(
    "do_predict", False, "Predict answers, and score them if they are known."
  )
  flags.DEFINE_integer(
    "predict_batch_size", 8, "Windows per batch to predict.", lower_bound=1
  )
  _define_window_flags()
  _define_answer_flags()
  _define_other_uses()
  cli_flags.define_training_flags()
  cli_flags.define_fine_tuning_flags()
  cli_flags.define_export_flags()
  cli_flags.define_device_flags()


def _define_window_flags():
  flags.DEFINE_integer(
    "max_seq_length", 384, "Tokens of question and text at most.", lower_bound=4
  )
  flags.DEFINE_integer(
    "doc_stride",
    128,
    "Tokens from the start of one window over a long text to the next.",
    lower_bound=1,
  )
  flags.DEFINE_integer(
    "max_query_length", 64, "Tokens of a question at most.", lower_bound=1
  )
  flags.DEFINE_bool(
    "version_2_with_negative",
    False,
    "Some questions have no answer, as in SQuAD 2.0.",
  )


def _define_answer_flags():
  flags.DEFINE_integer(
    "n_best_size", 20, "Answers per question to write.", lower_bound=1
  )
  flags.DEFINE_integer(
    "max_answer_length", 30, "Tokens of an answer at most.", lower_bound=1
  )
  flags.DEFINE_float(
    "null_score_diff_threshold",
    None,
    "No answer is predicted where its score exceeds the best answer's by more. "
    "If not given: what gives --predict_file the highest F1 if its answers are "
    f"known, else what did so before ({THRESHOLD_FILE}), else 0.",
  )


def _define_other_uses():
  flags.DEFINE_string(
    "evaluate_only",
    None,
    "Only score these predictions, a JSON file, against --predict_file.",
  )
  flags.DEFINE_string(
    "null_odds_file",
    None,
    "For --evaluate_only: null_odds.json that goes with the predictions.",
  )
  flags.DEFINE_bool("interactive", False, "Answer questions that are typed in.")
  flags.DEFINE_bool(
    "verbose_logging", False, "Kept for old scripts; it changes nothing."
  )


@dataclasses.dataclass(frozen=True)
class SquadConfig(fine_tuning.FineTuningConfig):
  """What to learn and to answer; the flags of these names."""

  train_file: str | None = None
  predict_file: str | None = None
  do_predict: bool = False
  interactive: bool = False
  evaluate_only: str | None = None
  null_odds_file: str | None = None
  predict_batch_size: int = 8
  max_seq_length: int = 384
  doc_stride: int = 128
  max_query_length: int = 64
  version_2_with_negative: bool = False
  n_best_size: int = 20
  max_answer_length: int = 30
  null_score_diff_threshold: float | None = None

  def decoding(self, threshold=0.0):
    """The squad_decoding.DecodingConfig of these flags."""
    return squad_decoding.DecodingConfig(
      n_best_size=self.n_best_size,
      max_answer_length=self.max_answer_length,
      do_lower_case=self.do_lower_case,
      version_2_with_negative=self.version_2_with_negative,
      null_score_diff_threshold=threshold,
    )

  def window_settings(self, is_training):
    """What windows depend on, beside files: arguments of make_windows."""
    return {
      "max_seq_length": self.max_seq_length,
      "doc_stride": self.doc_stride,
      "max_query_length": self.max_query_length,
      "is_training": is_training,
    }


def main():
  """Turns flags into configs and runs."""
  config = cli_flags.read(SquadConfig)
  check_flags(config)
  cli_flags.check_export()
  if config.evaluate_only:
    evaluate_file(config)
    return
  start_module.load_tensorflow()
  if asks_export(config):
    model = predictor.Predictor(config.export_dir, kind="reader")
    conversation.converse(functools.partial(read_exported_answer, model), input)
    return
  answer_questions(
    config,
    cli_flags.device_config(),
    cli_flags.fine_tuning_config(),
    cli_flags.fine_tuning_settings(SETTINGS),
  )


def check_flags(config):
  """Refuses flags that do not go together.

  Raises:
    ValueError: there are some.
  """
  wanted = {
    "do_train": "train_file",
    "do_predict": "predict_file",
    "evaluate_only": "predict_file",
  }
  actions = [*wanted, "do_export", "interactive"]
  if not any(getattr(config, action) for action in actions):
    raise ValueError(f"nothing to do: pass --{', --'.join(actions)} or several")
  for action, file in wanted.items():
    if getattr(config, action):
      if not getattr(config, file):
        raise ValueError(f"--{action} needs --{file}")
      tokenization.open_bytes(getattr(config, file)).close()
  done = [action for action in actions if getattr(config, action)]
  if config.evaluate_only and len(done) > 1:
    raise ValueError(
      "--evaluate_only scores a file and does nothing else; leave out "
      f"--{', --'.join(x for x in done if x != 'evaluate_only')}"
    )
  if config.null_odds_file and not config.evaluate_only:
    raise ValueError("--null_odds_file is for --evaluate_only")
  if not (config.output_dir or config.evaluate_only or asks_export(config)):
    raise ValueError("pass --output_dir: where the model is, or is to be put")
  # [CLS], two [SEP] and one token of the text.
  if config.max_seq_length <= config.max_query_length + 3:
    raise ValueError(
      f"--max_seq_length={config.max_seq_length} leaves no room for a text "
      f"beside --max_query_length={config.max_query_length}; it must be "
      f"{config.max_query_length + 4} or more"
    )


def asks_export(config):
  """Whether questions go to an export, not to the model of a run."""
  uses_run = config.do_train or config.do_predict or config.do_export
  return bool(config.interactive and config.export_dir and not uses_run)


def evaluate_file(config):
  """Scores a file of predictions; writes eval_results.txt if it has a place.

  Returns:
    Dict of the official figures.

  Raises:
    ValueError, OSError: a file is not what it should be.
  """
  from bert_keras3.tasks import metrics
  from bert_keras3.tasks import squad_results

  examples = read_squad_examples(config.predict_file, is_training=False)
  texts = squad_results.read_by_question(config.evaluate_only, str)
  null_odds = None
  if config.null_odds_file:
    null_odds = squad_results.read_by_question(config.null_odds_file, float)
  results = squad_results.score(
    examples, texts, null_odds, config.version_2_with_negative
  )
  print(squad_results.summarize(examples, texts, results), end="")
  text = metrics.format_results(results)
  print(text, end="")
  if config.output_dir:
    from bert_keras3.training import output_directory

    run = output_directory.RunDirectory(config.output_dir, {}, data_files=[])
    run.write("eval_results.txt", text)
  return results


# Running ----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Job:
  """What the steps of a run share."""

  config: SquadConfig
  setup: fine_tuning.Setup
  run: object  # output_directory.RunDirectory


@dataclasses.dataclass(frozen=True)
class Questions:
  """A file to predict: its questions, and their windows."""

  examples: list
  windows: object  # squad_data.Windows
  source: object  # features.SequenceSource


def answer_questions(config, device_config, training_config, settings):
  """Reads and checks everything, then trains, predicts and talks as asked.

  Args:
    config: SquadConfig.
    device_config: devices.DeviceConfig.
    training_config: loop.TrainingConfig, its step numbers unset.
    settings: dict of what makes this run the one it is, for its manifest.

  Returns:
    Dict of the official figures, empty without --do_predict or answers.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  import modeling
  from bert_keras3.serving import export as export_module
  from bert_keras3.training import evaluation
  from bert_keras3.training import run as run_module

  if config.do_export:
    export_module.check_export_dir(config.export_dir)
  setup = fine_tuning.open_model(config, device_config)
  data_files = deciding_files(config, training_config)
  run = fine_tuning.open_run(setup, config, settings, data_files)
  job = Job(config, setup, run)
  train_windows = open_windows(job, "train") if config.do_train else None
  questions = open_questions(job) if config.do_predict else None
  if config.dry_run:
    describe_data(job, train_windows, questions)
  model = fine_tuning.make_model(
    setup, config, training_config.seed, modeling.BertSpanLabeler
  )
  step = evaluation.prediction_step(model)
  if config.do_train:
    global_step = train(
      job, training_config, model, step, train_windows, questions
    )
  else:
    job.run.check_settings(
      EXPORT_SETTINGS if config.do_export else MODEL_SETTINGS
    )
    global_step = run_module.restore(job.run, model, config.init_checkpoint)
  if config.dry_run:
    fine_tuning.conclude_dry_run(setup, config)
    return {}
  results = {}
  if config.do_predict:
    results = predict(job, step, questions, global_step)
  if config.do_export and job.run.is_writer:
    export(job, model, questions)
  if config.interactive:
    answer = functools.partial(read_answer, job, step, known_threshold(job))
    conversation.converse(answer, input)
  return results


def deciding_files(config, training_config):
  """Paths of the data that decides what weights training ends with."""
  if not config.do_train:
    return []
  if fine_tuning.is_monitored(config, training_config) and config.do_predict:
    return [config.train_file, config.predict_file]
  return [config.train_file]


def open_windows(job, split):
  """The windows of train_file or predict_file, from the cache if it has them.

  Args:
    job: Job.
    split: "train" or "predict".

  Returns:
    squad_data.Windows.
  """
  config, is_training = job.config, split == "train"
  path = config.train_file if is_training else config.predict_file
  settings = config.window_settings(is_training)

  def build():
    examples = read_squad_examples(
      path, is_training, config.version_2_with_negative
    )
    return squad_data.make_windows(examples, job.setup.tokenizer, **settings)

  key = squad_data.cache_key(
    path,
    job.setup.files.vocab_file,
    {
      **settings,
      "do_lower_case": config.do_lower_case,
      "version_2_with_negative": config.version_2_with_negative,
    },
  )
  job.run.make()
  return squad_data.cached_windows(
    os.path.join(config.output_dir, f"{split}_windows.npz"),
    key,
    build,
    is_writer=job.run.is_writer,
  )


def open_questions(job):
  """The Questions of predict_file."""
  examples = read_squad_examples(job.config.predict_file, is_training=False)
  windows = open_windows(job, "predict")
  return Questions(examples, windows, make_source(job, windows, columns={}))


def describe_data(job, train_windows, questions):
  """Tells of a dry run's files how long texts are, and what windows lose."""
  from bert_keras3.tasks import data_summary

  config, findings = job.config, job.setup.findings
  windows = {
    "train_file": train_windows,
    "predict_file": questions and questions.windows,
  }
  for name in [name for name in windows if windows[name]]:
    data_summary.tell_windows(
      findings,
      name,
      windows[name],
      config.max_seq_length,
      config.doc_stride,
      config.max_query_length,
    )
  if train_windows:
    data_summary.tell_answers(findings, "train_file", train_windows)


def make_source(job, windows, columns):
  """Windows as what training and prediction take batches from."""
  from bert_keras3.data import sequences

  config = job.config
  lengths = (config.max_seq_length,)
  if not job.setup.is_padded:
    lengths = sequences.bucket_lengths(
      windows.sequences.lengths, config.max_seq_length
    )
  return sequences.SequenceSource(windows.sequences, columns, lengths)


def train(job, training_config, model, step, windows, questions):
  """Trains; returns the step the model's weights are of."""
  # By questions, as upstream counts, although there are more windows.
  training_config = fine_tuning.count_steps(
    job.config, training_config, windows.num_examples
  )
  positions = {
    "start_positions": windows.start_positions,
    "end_positions": windows.end_positions,
  }
  return fine_tuning.train(
    job.setup,
    job.config,
    training_config,
    job.run,
    model,
    make_source(job, windows, positions),
    monitor=make_monitor(job, training_config, step, questions),
  )


def make_monitor(job, training_config, step, questions):
  """The loop.Monitor that scores predict_file, or None.

  Raises:
    ValueError: it is asked for, but there is nothing to score.
  """
  from bert_keras3.tasks import squad_results
  from bert_keras3.training import monitor

  if not training_config.eval_steps:
    return None
  if questions is None or not squad_results.has_answers(questions.examples):
    raise ValueError(
      "--eval_steps and --early_stopping_patience need --do_predict and a "
      "--predict_file with answers"
    )

  def evaluate_now():
    examples = questions.examples
    decoded = decode(job, step, questions)
    if job.config.version_2_with_negative:
      threshold = squad_results.find_threshold(examples, decoded)
      decoded = squad_results.with_threshold(decoded, threshold)
    return squad_results.score_decoded(examples, decoded)

  return monitor.Monitor(evaluate_now, "f1", job.config.early_stopping_patience)


# Prediction -------------------------------------------------------------------


def decode(job, step, questions, threshold=0.0):
  """The squad_decoding.Decoded of a model's logits."""
  from bert_keras3.tasks import squad_results

  config = job.config
  logits = squad_results.predict_logits(
    job.setup.strategy,
    step,
    questions.source,
    config.predict_batch_size,
    keep_padding=config.pad_to_max_length,
  )
  return squad_decoding.decode(
    questions.examples,
    questions.windows,
    *logits,
    job.setup.tokenizer,
    config.decoding(threshold),
  )


def predict(job, step, questions, global_step):
  """Writes the predictions and, if the answers are known, their scores.

  Returns:
    Dict of the official figures, empty if there are none.
  """
  from bert_keras3.tasks import squad_results

  examples = questions.examples
  is_scored = squad_results.has_answers(examples)
  decoded = decode(job, step, questions)
  if job.config.version_2_with_negative:
    threshold = choose_threshold(job, examples if is_scored else None, decoded)
    decoded = squad_results.with_threshold(decoded, threshold)
  squad_results.write_predictions(job.run, decoded)
  results = {}
  if is_scored:
    results = squad_results.score_decoded(examples, decoded)
    report(job, examples, decoded.predictions, results, global_step)
  if job.run.is_writer:
    print(f"{len(examples)} predictions: {job.run.path}/predictions.json")
  return results


def choose_threshold(job, examples, decoded):
  """What is asked for, or best for annotated examples and saved, or was so."""
  from bert_keras3.tasks import squad_results

  if examples is None or job.config.null_score_diff_threshold is not None:
    return known_threshold(job)
  threshold = squad_results.find_threshold(examples, decoded)
  job.run.write(THRESHOLD_FILE, f"{threshold!r}\n")
  print(f"null_score_diff_threshold = {threshold!r}, best for these answers")
  return threshold


def known_threshold(job):
  """The null threshold of the flag, else of the run, else 0.

  Raises:
    ValueError: the run's file holds something else.
  """
  config = job.config
  if config.null_score_diff_threshold is not None:
    return config.null_score_diff_threshold
  path = os.path.join(config.output_dir, THRESHOLD_FILE)
  try:
    with tokenization.open_bytes(path) as file:
      text = file.read().decode()
  except FileNotFoundError:
    return 0.0
  if not _NUMBER.fullmatch(text.strip()):
    raise ValueError(f"{path} should hold a number, not {text!r}; delete it")
  return float(text)


def report(job, examples, texts, results, global_step):
  """Prints a summary; writes eval_results.txt."""
  from bert_keras3.tasks import metrics
  from bert_keras3.tasks import squad_results

  text = metrics.format_results({"global_step": global_step, **results})
  job.run.write("eval_results.txt", text)
  job.run.record(results)
  if job.run.is_writer:
    print(squad_results.summarize(examples, texts, results), end="")


def export(job, model, questions):
  """Writes the SavedModel that answers as the model does.

  LiteRT's outputs are compared on the questions, if there are any.
  """
  from bert_keras3.serving import export as model_export
  from bert_keras3.serving import litert

  config = job.config
  check = None
  if "litert" in config.export_format:
    check = litert.Check(questions and questions.source)
  threshold = known_threshold(job)
  model_export.export_reader(
    config.export_dir,
    model,
    job.setup.tokenizer,
    {
      "task": "squad",
      "do_lower_case": config.do_lower_case,
      "max_seq_length": config.max_seq_length,
      "doc_stride": config.doc_stride,
      "max_query_length": config.max_query_length,
      **dataclasses.asdict(config.decoding(threshold)),
    },
    config.decoding(threshold),
    check,
  )
  print(f"exported to {config.export_dir}")


# Conversation -----------------------------------------------------------------


def read_answer(job, step, threshold, context, question):
  """What a model finds in a text, as lines to print.

  Args:
    job: Job.
    step: what evaluation.prediction_step returned.
    threshold: null odds above it mean no answer (2.0).
    context: the text.
    question: what to answer from it.

  Returns:
    str: the best answer with its probability and place, and the next ones.
  """
  words, offsets = squad_data.split_words(context)
  example = SquadExample(
    "typed", question, words, context=context, word_offsets=offsets
  )
  settings = job.config.window_settings(is_training=False)
  windows = squad_data.make_windows([example], job.setup.tokenizer, **settings)
  questions = Questions([example], windows, make_source(job, windows, {}))
  decoded = decode(job, step, questions, threshold)
  (best,), (entries,) = decoded.best.values(), decoded.nbest.values()
  others = [
    (entry["text"], entry["probability"], None, None)
    for entry in entries
    if entry["text"] != best.text
  ]
  # Without a place it is upstream's "empty".
  text = "" if best.start is None else best.text
  answers = [(text, best.probability, best.start, best.end), *others]
  return conversation.format_answers(context, answers)


def read_exported_answer(model, context, question):
  """The same from a predictor.Predictor."""
  (result,) = model.predict([(question, context)])
  best, *others = [
    (entry["answer"], entry["probability"], entry["start"], entry["end"])
    for entry in (result, *result["answers"])
  ]
  others = [answer for answer in others if answer[0] != best[0]]
  return conversation.format_answers(context, [best, *others])


def cli():
  """Entry point of the console script."""
  start_module.run(main, define_flags)


if __name__ == "__main__":
  cli()
