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

import tokenization
from bert_keras3.console import conversation
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.serving import predictor
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_scores
from bert_keras3.tasks import squad_upstream_api
from bert_keras3.training import configs

# Names that notebooks import from upstream's run_squad.
SquadExample = squad_data.SquadExample
InputFeatures = squad_upstream_api.InputFeatures
FeatureWriter = squad_upstream_api.FeatureWriter
read_squad_examples = squad_data.read_squad_examples
convert_examples_to_features = squad_upstream_api.convert_examples_to_features
get_final_text = squad_decoding.get_final_text


@dataclasses.dataclass(frozen=True)
class SquadConfig(configs.FineTuningConfig):
  """The flags of question answering."""

  train_file: str | None = fields.flag(
    None, "JSON file in SQuAD's layout to train on."
  )
  predict_file: str | None = fields.flag(
    None, "JSON file in SQuAD's layout to predict on."
  )
  do_predict: bool = fields.flag(
    False, "Predict answers, and score them if they are known."
  )
  predict_batch_size: int = fields.flag(
    8, "Windows per batch to predict.", lower_bound=1
  )

  # Windows over long texts.
  max_seq_length: int = fields.flag(
    384,
    "Tokens of question and text at most.",
    lower_bound=4,
    decides_result=True,
  )
  doc_stride: int = fields.flag(
    128,
    "Tokens from the start of one window over a long text to the next.",
    lower_bound=1,
    decides_result=True,
  )
  max_query_length: int = fields.flag(
    64, "Tokens of a question at most.", lower_bound=1, decides_result=True
  )
  version_2_with_negative: bool = fields.flag(
    False,
    "Some questions have no answer, as in SQuAD 2.0.",
    decides_result=True,
  )

  # Answers.
  n_best_size: int = fields.flag(
    20, "Answers per question to write.", lower_bound=1
  )
  max_answer_length: int = fields.flag(
    30, "Tokens of an answer at most.", lower_bound=1
  )
  null_score_diff_threshold: float | None = fields.flag(
    None,
    "No answer is predicted where its score exceeds the best answer's by more. "
    "If not given: what gives --predict_file the highest F1 if its answers are "
    f"known, else what did so before ({squad_scores.THRESHOLD_FILE}), else 0.",
  )

  # Other uses.
  evaluate_only: str | None = fields.flag(
    None, "Only score these predictions, a JSON file, against --predict_file."
  )
  null_odds_file: str | None = fields.flag(
    None, "For --evaluate_only: null_odds.json that goes with the predictions."
  )
  interactive: bool = fields.flag(False, "Answer questions that are typed in.")
  verbose_logging: bool = fields.flag(
    False, "Kept for old scripts; it changes nothing."
  )

  @property
  def asks_export(self):
    """Returns whether an export answers questions, not the model of a run."""
    uses_run = self.do_train or self.do_predict or self.do_export
    return bool(self.interactive and self.export_dir and not uses_run)

  @property
  def deciding_files(self):
    """Returns a list of the data files that decide the trained weights."""
    if not self.do_train:
      return []
    if self.is_monitored and self.do_predict:
      return [self.train_file, self.predict_file]
    return [self.train_file]

  @property
  def window_settings(self):
    """Returns a dict of the flags that windows depend on, beside files."""
    names = ("max_seq_length", "doc_stride", "max_query_length")
    return {name: getattr(self, name) for name in names}

  @property
  def shared_settings(self):
    """Lists the flags that must be equal in training and in use of a model."""
    if not self.do_export:
      return ["do_lower_case"]
    # With other values an export would answer differently than the model.
    return ["do_lower_case", *self.window_settings, "version_2_with_negative"]

  def decoding(self, threshold=0.0):
    """Returns the squad_decoding.DecodingConfig of these flags."""
    return squad_decoding.DecodingConfig(
      n_best_size=self.n_best_size,
      max_answer_length=self.max_answer_length,
      do_lower_case=self.do_lower_case,
      version_2_with_negative=self.version_2_with_negative,
      null_score_diff_threshold=threshold,
    )

  def describe_export(self, threshold):
    """Returns the settings of an export's description, a dict."""
    return {
      "task": "squad",
      "do_lower_case": self.do_lower_case,
      **self.window_settings,
      **dataclasses.asdict(self.decoding(threshold)),
    }


def main(config):
  """Checks the flags; then scores a file, asks an export, or uses a run."""
  check_flags(config)
  if config.evaluate_only:
    squad_scores.evaluate_file(config)
    return
  start.load_tensorflow()
  if config.asks_export:
    model = predictor.Predictor(config.export_dir, kind="reader")
    conversation.talk(functools.partial(ask_export, model))
    return
  answer_questions(config)


def check_flags(config):
  """Refuses flags that do not go together.

  Raises:
    ValueError: some flags do not.
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
  if not (config.output_dir or config.evaluate_only or config.asks_export):
    raise ValueError("pass --output_dir: where the model is, or is to be put")
  # [CLS], two [SEP] and one token of the text.
  if config.max_seq_length <= config.max_query_length + 3:
    raise ValueError(
      f"--max_seq_length={config.max_seq_length} leaves no room for a text "
      f"beside --max_query_length={config.max_query_length}; it must be "
      f"{config.max_query_length + 4} or more"
    )
  config.check_export()


def answer_questions(config):
  """Reads and checks everything, then trains, predicts and talks as asked.

  Args:
    config: SquadConfig.

  Returns:
    Dict of the official figures, empty without --do_predict or answers.

  Raises:
    ValueError, OSError: files and flags do not fit each other.
  """
  import modeling
  from bert_keras3.serving import export
  from bert_keras3.serving import litert
  from bert_keras3.tasks import data_summary
  from bert_keras3.tasks import squad_results
  from bert_keras3.training import devices
  from bert_keras3.training.run import open_run
  from bert_keras3.weights import companions

  export.check_export(config)
  strategy = devices.make_strategy(config)
  pretrained = companions.open_pretrained(config, config.output_dir)
  run = open_run(config, strategy, [*pretrained.paths, *config.deciding_files])
  data = squad_results.open_data(run, pretrained)
  run.describe(data_summary.tell_questions, data)

  if config.do_train:
    # By questions, as upstream counts, although there are more windows.
    run.count_steps(data.train_windows.num_examples)
  run.build(modeling.BertSpanLabeler, pretrained.bert_config)
  if config.do_train:
    monitor = squad_results.make_monitor(run, data)
    run.train(data.train_source, monitor, data.save_companions)
  else:
    run.restore(config.shared_settings)
  results = {}
  if config.do_predict:
    results = run.evaluate(squad_results.predict, data)
  tokenizer, questions = pretrained.tokenizer, data.questions
  if config.do_export:
    threshold = squad_results.known_threshold(run)
    run.export(
      export.export_squad,
      tokenizer,
      config.describe_export(threshold),
      config.decoding(threshold),
      litert.make_check(config, questions and questions.source),
    )
  if config.interactive:
    find = functools.partial(squad_results.find_answers, run, tokenizer)
    run.perform(conversation.talk, find)
  run.conclude("files, flags and model fit together")
  return results


def ask_export(model, context, question):
  """Finds the answers to a question with a predictor.Predictor.

  Returns:
    List of tuples, see squad_results.find_answers.
  """
  (result,) = model.predict([(question, context)])
  best, *others = [
    (entry["answer"], entry["probability"], entry["start"], entry["end"])
    for entry in (result, *result["answers"])
  ]
  return [best, *(answer for answer in others if answer[0] != best[0])]


def cli():
  """Runs the console script."""
  start.run(main, SquadConfig)


if __name__ == "__main__":
  cli()
