"""SQuAD's official figures: exact match, F1 and the best null threshold."""

import collections
import re
import string
import sys

import numpy as np

# Questions without a prediction are named up to this many.
SHOWN_QUESTIONS = 5
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalize_answer(text):
  """Brings an answer into the form in which SQuAD compares it.

  Lower case, without ASCII punctuation (other marks stay), without the articles
  a, an and the, one blank between words.
  """
  text = text.lower().translate(_NO_PUNCTUATION)
  return " ".join(_ARTICLES.sub(" ", text).split())


def squad_v1_scores(questions, predictions):
  """Computes exact match and F1 as evaluate-v1.1.py.

  A question counts with the annotated answer that is nearest to its prediction.
  A question without a prediction counts 0; the number of these is printed.

  Args:
    questions: iterable of (id, list of answers).
    predictions: dict from id to text.

  Returns:
    {"exact_match": ..., "f1": ...}, percentages.

  Raises:
    ValueError: there is no question, one has no answer, or a prediction is no
      text.
  """
  questions = list(questions)
  _check_questions(questions)
  exact_match = f1 = 0
  for qas_id, answers in questions:
    if not answers:
      raise ValueError(
        f"question {qas_id!r} has no answer to compare with; score the file as "
        "SQuAD 2.0, pass --version_2_with_negative"
      )
    if qas_id in predictions:
      prediction = _prediction(predictions, qas_id)
      exact_match += max(_exact_match(x, prediction) for x in answers)
      # In 1.1 no word in common is 0, even if both texts are empty.
      f1 += max(_token_f1(x, prediction, if_empty=0) for x in answers)
  _report_missing(questions, predictions, "count as wrong")
  return {
    "exact_match": 100.0 * exact_match / len(questions),
    "f1": 100.0 * f1 / len(questions),
  }


def squad_v2_scores(questions, predictions, null_odds=None, null_threshold=1.0):
  """Computes the figures of evaluate-v2.0.py.

  For a question without an answer, "" is right. Questions without a prediction
  are left out; their number is printed.

  Args:
    questions: iterable of (id, list of answers), empty if there is none.
    predictions: dict from id to text, "" for no answer. For meaningful
      `best_...` these should be the best texts that are not empty.
    null_odds: dict from id to the odds that there is no answer, on any scale;
      None if unknown.
    null_threshold: odds above it make the answer "". The script's default is 1,
      meant for probabilities.

  Returns:
    Dict of `exact`, `f1` (percentages) and `total`; the same three with the
    prefixes `HasAns_` and `NoAns_`, where there are such questions; and if
    there are null odds `best_exact` and `best_f1`, the highest that a threshold
    gives, with `best_exact_thresh` and `best_f1_thresh`, those thresholds.

  Raises:
    ValueError: no question has a prediction, a prediction is no text, or a
      question has one but no null odds.
  """
  answers = dict(questions)
  _check_questions(answers)
  has_answer = {qas_id: bool(texts) for qas_id, texts in answers.items()}
  exact, f1 = _squad_v2_raw_scores(answers, predictions)
  _report_missing(answers.items(), predictions, "are left out")
  if not exact:
    raise ValueError(
      "no question of the file has a prediction; pass the predictions of the "
      "same file"
    )
  odds = dict.fromkeys(exact, 0.0) if null_odds is None else null_odds
  _check_null_odds(exact, odds)
  pairs = [
    _apply_null_threshold(scores, odds, has_answer, null_threshold)
    for scores in (exact, f1)
  ]
  result = _mean_scores("", *pairs, list(exact))
  for prefix, kind in (("HasAns_", True), ("NoAns_", False)):
    result |= _mean_scores(
      prefix, *pairs, [x for x in exact if has_answer[x] == kind]
    )
  if null_odds is not None:
    for name, scores in (("exact", exact), ("f1", f1)):
      best, threshold = _best_null_threshold(
        predictions, scores, null_odds, has_answer
      )
      result[f"best_{name}"] = best
      result[f"best_{name}_thresh"] = threshold
  return result


def find_null_threshold(questions, predictions, null_odds):
  """Finds the threshold of the odds with the highest F1.

  Unlike `best_f1_thresh` of evaluate-v2.0.py, it does give that F1: questions
  with equal odds are answered together or not at all, and where it is best to
  answer none the threshold is below all odds, not 0.

  Args:
    questions: iterable of (id, list of answers).
    predictions: dict from id to the best text that is not empty.
    null_odds: dict from id to float.

  Returns:
    float; odds above it mean that there is no answer.

  Raises:
    ValueError: see `squad_v2_scores`.
  """
  answers = dict(questions)
  _, f1 = _squad_v2_raw_scores(answers, predictions)
  _check_null_odds(f1, null_odds)
  if not f1:
    return 0.0
  odds = np.array([null_odds[x] for x in f1])
  gains = np.array([f1[x] - (not answers[x]) for x in f1])
  # None answered, then those of the lowest odds, then of the second lowest, ...
  thresholds, group = np.unique(odds, return_inverse=True)
  totals = np.cumsum([0.0, *np.bincount(group, gains)])
  thresholds = [thresholds[0] - 1.0, *thresholds]
  return float(thresholds[np.argmax(totals)])


def _check_questions(questions):
  if not questions:
    raise ValueError("There is no question to score; check the file.")


def _check_null_odds(scores, null_odds):
  missing = [x for x in scores if x not in null_odds]
  if missing:
    raise ValueError(
      f"question {missing[0]!r} has a prediction but no null odds; pass the "
      "null_odds.json that was written with the predictions"
    )


def _prediction(predictions, qas_id):
  text = predictions[qas_id]
  if not isinstance(text, str):
    raise ValueError(
      f"the prediction for question {qas_id!r} should be a text, not {text!r}"
    )
  return text


def _report_missing(questions, predictions, what):
  missing = [x for x, _ in questions if x not in predictions]
  if missing:
    shown = ", ".join(missing[:SHOWN_QUESTIONS])
    more = ", ..." if len(missing) > SHOWN_QUESTIONS else ""
    print(
      f"{len(missing)} questions have no prediction and {what}: {shown}{more}",
      file=sys.stderr,
    )


def _exact_match(answer, prediction):
  return int(normalize_answer(answer) == normalize_answer(prediction))


def _token_f1(answer, prediction, if_empty):
  """Computes F1 of the words, each counted as often as it occurs.

  `if_empty` is the result if neither has a word.
  """
  wanted = normalize_answer(answer).split()
  predicted = normalize_answer(prediction).split()
  if not wanted and not predicted:
    return if_empty
  common = collections.Counter(wanted) & collections.Counter(predicted)
  num_common = sum(common.values())
  if not num_common:
    return 0
  precision, recall = num_common / len(predicted), num_common / len(wanted)
  return 2 * precision * recall / (precision + recall)


def _squad_v2_raw_scores(answers, predictions):
  """Returns ({id: exact match}, {id: F1}) of questions with a prediction."""
  exact, f1 = {}, {}
  for qas_id, texts in answers.items():
    if qas_id in predictions:
      prediction = _prediction(predictions, qas_id)
      # An answer such as "the" counts as none.
      texts = [x for x in texts if normalize_answer(x)] or [""]
      exact[qas_id] = max(_exact_match(x, prediction) for x in texts)
      f1[qas_id] = max(_token_f1(x, prediction, if_empty=1) for x in texts)
  return exact, f1


def _apply_null_threshold(scores, null_odds, has_answer, threshold):
  """Returns the scores if "" is predicted for odds above the threshold."""
  return {
    qas_id: float(not has_answer[qas_id])
    if null_odds[qas_id] > threshold
    else score
    for qas_id, score in scores.items()
  }


def _mean_scores(prefix, exact, f1, qas_ids):
  if not qas_ids:
    return {}
  return {
    f"{prefix}exact": 100.0 * sum(exact[x] for x in qas_ids) / len(qas_ids),
    f"{prefix}f1": 100.0 * sum(f1[x] for x in qas_ids) / len(qas_ids),
    f"{prefix}total": len(qas_ids),
  }


def _best_null_threshold(predictions, scores, null_odds, has_answer):
  """Finds the highest mean score by a threshold, and its lowest threshold.

  As find_best_thresh of evaluate-v2.0.py, question by question: of questions
  with equal odds, in the order of `null_odds`, some may count as answered and
  others not, which no threshold can do.
  """
  # At first everything is answered with "".
  score = best = sum(not x for x in has_answer.values())
  threshold = 0.0
  for qas_id in sorted(null_odds, key=null_odds.get):
    if qas_id not in scores:
      continue
    if has_answer[qas_id]:
      score += scores[qas_id]
    elif predictions[qas_id]:
      score -= 1
    if score > best:
      best, threshold = score, null_odds[qas_id]
  return 100.0 * best / len(scores), threshold
