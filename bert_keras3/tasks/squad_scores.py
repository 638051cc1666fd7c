"""SQuAD: from answers to the official figures and a summary.

Nothing here needs TensorFlow.
"""

import dataclasses
import math
import os
import re

import tokenization
from bert_keras3.data import files
from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_metrics
from bert_keras3.training.results import format_results

# Kinds of question in the summary, by the first of these words in a question.
QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how")


def has_answers(examples):
  """Returns whether a file was annotated; a test file is not."""
  return any(example.answers for example in examples)


def find_threshold(examples, decoded):
  """Finds the null threshold with the highest F1 on annotated examples."""
  return squad_metrics.find_null_threshold(
    _questions(examples), _best_texts(decoded), decoded.null_odds
  )


def with_threshold(decoded, threshold):
  """Returns a Decoded (2.0) that predicts "" for odds above a threshold."""
  predictions = squad_decoding.apply_null_threshold(
    decoded.nbest, decoded.null_odds, threshold
  )
  return dataclasses.replace(decoded, predictions=predictions)


def score_decoded(examples, decoded):
  """Computes the official figures of a Decoded, with best thresholds in 2.0.

  Args:
    examples: list of squad_data.SquadExample with answers.
    decoded: squad_decoding.Decoded.

  Returns:
    Dict, see `score`.
  """
  if not decoded.null_odds:
    return score(examples, decoded.predictions)
  results = score(examples, decoded.predictions, is_version_2=True)
  # The best threshold is searched on the answers before any threshold.
  scores = score(examples, _best_texts(decoded), decoded.null_odds)
  best = {name: scores[name] for name in scores if name.startswith("best_")}
  return {**results, **best}


def score(examples, texts, null_odds=None, is_version_2=False):
  """Computes the official figures of predictions, those of 2.0 if necessary.

  Args:
    examples: list of squad_data.SquadExample with answers.
    texts: dict from question id to text, "" for no answer.
    null_odds: dict from question id to float, None if unknown.
    is_version_2: whether to score by 2.0 in any case.

  Returns:
    Dict of squad_metrics.squad_v1_scores; if there are null odds, or questions
    without an answer, that of squad_v2_scores.

  Raises:
    ValueError: the predictions are not of these questions.
  """
  questions = _questions(examples)
  is_version_1 = null_odds is None and all(answers for _, answers in questions)
  if is_version_1 and not is_version_2:
    return squad_metrics.squad_v1_scores(questions, texts)
  return squad_metrics.squad_v2_scores(questions, texts, null_odds, math.inf)


def _best_texts(decoded):
  return with_threshold(decoded, math.inf).predictions


def _questions(examples):
  return [(example.qas_id, example.answers) for example in examples]


def summarize(examples, texts, results):
  """Formats the figures of predictions, of all and by kind of question.

  Args:
    examples: list of squad_data.SquadExample with answers.
    texts: dict from question id to text, "" for no answer.
    results: dict of their official figures.

  Returns:
    str of some 12 lines.
  """
  rows = [("all", len(examples), *_figures(results))]
  for prefix, name in (("HasAns_", "answered"), ("NoAns_", "unanswerable")):
    if f"{prefix}total" in results:
      total = results[f"{prefix}total"]
      rows.append((f"  {name}", total, *_figures(results, prefix)))
  for word, group in _by_word(examples, texts).items():
    scores = _scorer(results)(_questions(group), texts)
    rows.append((f"  {word}", len(group), *_figures(scores)))
  lines = [f"{'questions':<16}{'number':>9}{'exact':>9}{'F1':>9}"]
  for name, number, exact, f1 in rows:
    lines.append(f"{name:<16}{number:>9}{exact:>9.2f}{f1:>9.2f}")
  if "best_f1" in results:
    lines.append(
      f"best F1 by a threshold of the null odds: {results['best_f1']:.2f} at "
      f"{results['best_f1_thresh']:.4f}"
    )
  return "".join(line + "\n" for line in lines)


def _figures(results, prefix=""):
  """Returns exact match and F1 from the figures of either official script."""
  exact = results.get("exact_match", results.get(f"{prefix}exact"))
  return exact, results[f"{prefix}f1"]


def _scorer(results):
  if "exact_match" in results:
    return squad_metrics.squad_v1_scores
  return squad_metrics.squad_v2_scores


def _by_word(examples, texts):
  """Groups examples with a text by question word, "other" last."""
  groups = {word: [] for word in (*QUESTION_WORDS, "other")}
  for example in examples:
    words = squad_metrics.normalize_answer(example.question_text).split()
    word = next((x for x in words if x in QUESTION_WORDS), "other")
    if example.qas_id in texts:
      groups[word].append(example)
  return {word: group for word, group in groups.items() if group}


def read_by_question(path, kind):
  """Reads a JSON file with a value for each question id.

  Args:
    path: predictions.json, or null_odds.json.
    kind: type of the values, str or float.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: the file holds something else.
  """
  remedy = (
    "it should hold one object, from question ids to "
    f"{'texts' if kind is str else 'numbers'}"
  )
  values = files.read_json(path, "{path} is not JSON ({problem}); " + remedy)
  problem = _find_problem(values, kind)
  if problem:
    raise ValueError(f"{path} {problem}; {remedy}")
  return values


def _find_problem(values, kind):
  if not isinstance(values, dict):
    return f"holds a {type(values).__name__}"
  kinds = (int, float) if kind is float else kind
  for qas_id, value in values.items():
    if not isinstance(value, kinds):
      return f"has {value!r} for question {qas_id!r}"
  return None


# File of the best threshold on a development set, for later predictions.
THRESHOLD_FILE = "null_threshold.txt"

_NUMBER = re.compile(r"[-+]?\d*\.?\d+(e[-+]?\d+)?", re.IGNORECASE)


def read_threshold(output_dir):
  """Reads the null threshold of a run, 0 if it has none.

  Raises:
    ValueError: the run's file holds something else than a number.
  """
  path = os.path.join(output_dir, THRESHOLD_FILE)
  try:
    with tokenization.open_bytes(path) as file:
      text = file.read().decode()
  except FileNotFoundError:
    return 0.0
  if not _NUMBER.fullmatch(text.strip()):
    raise ValueError(f"{path} should hold a number, not {text!r}; delete it")
  return float(text)


def evaluate_file(config):
  """Scores a file of predictions; writes eval_results.txt into output_dir.

  Args:
    config: SquadConfig.

  Returns:
    Dict of the official figures.

  Raises:
    ValueError, OSError: a file is missing or malformed.
  """
  path = config.predict_file
  examples = squad_data.read_squad_examples(path, is_training=False)
  texts = read_by_question(config.evaluate_only, str)
  null_odds = None
  if config.null_odds_file:
    null_odds = read_by_question(config.null_odds_file, float)
  results = score(examples, texts, null_odds, config.version_2_with_negative)
  print(summarize(examples, texts, results), end="")
  text = format_results(results)
  print(text, end="")
  if config.output_dir:
    files.write_into("output_dir", config.output_dir, "eval_results.txt", text)
  return results
