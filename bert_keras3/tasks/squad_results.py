"""SQuAD: from a model to logits, from answers to scores and a summary.

Nothing here needs TensorFlow but `predict_logits`.
"""

import dataclasses
import json
import math
import sys

import numpy as np
import tqdm

import tokenization
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_metrics

PREDICTIONS_FILE = "predictions.json"
NBEST_FILE = "nbest_predictions.json"
NULL_ODDS_FILE = "null_odds.json"
# Kinds of question in the summary: the first of these words that is in one.
QUESTION_WORDS = ("what", "who", "when", "where", "which", "why", "how")


def predict_logits(strategy, step, source, batch_size, keep_padding):
  """Runs a model on all windows.

  Args:
    strategy: tf.distribute strategy the model lives in.
    step: what evaluation.prediction_step returned.
    source: features.SequenceSource of the windows.
    batch_size: global batch size.
    keep_padding: whether positions of padding keep their logits, as upstream's
      do, and compete for the n best. If not they get -inf, and results do not
      depend on what a window was batched with.

  Returns:
    (start_logits, end_logits), float32 [windows, longest].
  """
  from bert_keras3.training import evaluation

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
      strategy, step, source, batch_size
    ):
      for side, name in enumerate(("start_logits", "end_logits")):
        values = outputs[name]
        logits[side, numbers, : values.shape[1]] = values
      bar.update(len(numbers))
  if not keep_padding:
    positions = np.arange(logits.shape[2])
    logits[:, positions >= source.lengths[:, np.newaxis]] = -np.inf
  return logits[0], logits[1]


# Scores -----------------------------------------------------------------------


def has_answers(examples):
  """Whether a file was annotated: a test file is not."""
  return any(example.answers for example in examples)


def find_threshold(examples, decoded):
  """The null threshold with the highest F1 on annotated examples."""
  return squad_metrics.find_null_threshold(
    _questions(examples), _best_texts(decoded), decoded.null_odds
  )


def with_threshold(decoded, threshold):
  """The Decoded (2.0) with `predictions` "" for null odds above a threshold."""
  predictions = squad_decoding.apply_null_threshold(
    decoded.nbest, decoded.null_odds, threshold
  )
  return dataclasses.replace(decoded, predictions=predictions)


def score_decoded(examples, decoded):
  """The official figures of a Decoded, its best thresholds among them (2.0).

  Args:
    examples: list of squad_data.SquadExample with answers.
    decoded: squad_decoding.Decoded.

  Returns:
    Dict, see `score`.
  """
  if not decoded.null_odds:
    return score(examples, decoded.predictions)
  results = score(examples, decoded.predictions, is_version_2=True)
  # What threshold is best is asked of answers that no threshold has emptied.
  best = score(examples, _best_texts(decoded), decoded.null_odds)
  found = {name: best[name] for name in best if name.startswith("best_")}
  return {**results, **found}


def score(examples, texts, null_odds=None, is_version_2=False):
  """The official figures of predictions, of SQuAD 2.0 if they must be.

  Args:
    examples: list of squad_data.SquadExample with answers.
    texts: dict from question id to text, "" for no answer.
    null_odds: dict from question id to float, None if unknown.
    is_version_2: whether to score by 2.0 even without need.

  Returns:
    Dict of what squad_metrics.squad_v1_scores returns; if there are null odds,
    or questions without an answer, of what squad_v2_scores returns.

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


# Summary ----------------------------------------------------------------------


def summarize(examples, texts, results):
  """One screen about predictions: the figures, and by kind of question.

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
  for word, some in _by_word(examples, texts).items():
    scores = _scorer(results)(_questions(some), texts)
    rows.append((f"  {word}", len(some), *_figures(scores)))
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
  """Exact match and F1 of what either official script computes."""
  exact = results.get("exact_match", results.get(f"{prefix}exact"))
  return exact, results[f"{prefix}f1"]


def _scorer(results):
  if "exact_match" in results:
    return squad_metrics.squad_v1_scores
  return squad_metrics.squad_v2_scores


def _by_word(examples, texts):
  """{question word or "other": its examples with a text}, in a fixed order."""
  groups = {word: [] for word in (*QUESTION_WORDS, "other")}
  for example in examples:
    words = squad_metrics.normalize_answer(example.question_text).split()
    word = next((x for x in words if x in QUESTION_WORDS), "other")
    if example.qas_id in texts:
      groups[word].append(example)
  return {word: some for word, some in groups.items() if some}


# Files ------------------------------------------------------------------------


def write_predictions(run, decoded):
  """Writes upstream's JSON files, each whole or not at all.

  Args:
    run: output_directory.RunDirectory.
    decoded: squad_decoding.Decoded; null_odds.json is written for 2.0 only.
  """
  run.write(PREDICTIONS_FILE, _to_json(decoded.predictions))
  run.write(NBEST_FILE, _to_json(decoded.nbest))
  if decoded.null_odds:
    run.write(NULL_ODDS_FILE, _to_json(decoded.null_odds))


def _to_json(results):
  return json.dumps(results, indent=4) + "\n"


def read_by_question(path, kind):
  """Reads a JSON file with a value for each question id.

  Args:
    path: predictions.json, or null_odds.json.
    kind: type of the values, str or float.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is not such a file.
  """
  with tokenization.open_bytes(path) as file:
    content = file.read()
  try:
    values = json.loads(content)
  except (ValueError, RecursionError) as error:
    problem = f"is not JSON ({error})"
  else:
    problem = _find_problem(values, kind)
  if problem:
    raise ValueError(
      f"{path} {problem}; it should hold one object, from question ids to "
      f"{'texts' if kind is str else 'numbers'}"
    )
  return values


def _find_problem(values, kind):
  if not isinstance(values, dict):
    return f"holds a {type(values).__name__}"
  kinds = (int, float) if kind is float else kind
  for qas_id, value in values.items():
    if not isinstance(value, kinds):
      return f"has {value!r} for question {qas_id!r}"
  return None
