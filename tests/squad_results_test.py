"""Scores, summaries and files of answers, by hand."""

import pytest

from bert_keras3.tasks import squad_data
from bert_keras3.tasks import squad_decoding
from bert_keras3.tasks import squad_scores


def make_example(qas_id, answers, question="Who is it?"):
  return squad_data.SquadExample(
    qas_id, question, ["it", "is", "red"], answers=answers
  )


def make_decoded(texts, null_odds):
  """A Decoded whose best texts are given, by question."""
  nbest = {
    qas_id: [{"text": "", "probability": 0.5}, {"text": text}]
    for qas_id, text in texts.items()
  }
  return squad_decoding.Decoded(dict(texts), nbest, null_odds, {})


# Scores -----------------------------------------------------------------------


def test_answers_of_1_1_get_its_figures():
  examples = [make_example("a", ["red", "a red"]), make_example("b", ["blue"])]
  decoded = make_decoded({"a": "The red.", "b": "blue green"}, {})
  # b: precision 1/2, recall 1.
  assert squad_scores.score_decoded(examples, decoded) == {
    "exact_match": 50.0,
    "f1": pytest.approx(100 * (1 + 2 / 3) / 2),
  }


def test_an_unanswerable_question_makes_it_2_0():
  examples = [make_example("a", ["red"]), make_example("b", [])]
  found = squad_scores.score(examples, {"a": "red", "b": "blue"})
  assert (found["exact"], found["HasAns_exact"], found["NoAns_exact"]) == (
    50,
    100,
    0,
  )


def test_2_0_can_be_asked_for():
  examples = [make_example("a", ["red"])]
  found = squad_scores.score(examples, {"a": "red"}, is_version_2=True)
  assert found == {
    "exact": 100,
    "f1": 100,
    "total": 1,
    "HasAns_exact": 100,
    "HasAns_f1": 100,
    "HasAns_total": 1,
  }


def test_best_thresholds_are_of_answers_not_yet_emptied():
  examples = [make_example("a", ["red"]), make_example("b", [])]
  decoded = make_decoded({"a": "red", "b": "blue"}, {"a": 1.0, "b": 2.0})
  emptied = squad_scores.with_threshold(decoded, 0.0)
  assert emptied.predictions == {"a": "", "b": ""}
  found = squad_scores.score_decoded(examples, emptied)
  assert (found["exact"], found["best_exact"]) == (50, 100)
  threshold = squad_scores.find_threshold(examples, emptied)
  assert threshold == found["best_f1_thresh"] == 1.0
  best = squad_scores.with_threshold(emptied, threshold)
  assert best.predictions == {"a": "red", "b": ""}
  assert squad_scores.score_decoded(examples, best)["exact"] == 100


# Summary ----------------------------------------------------------------------


def test_summary_counts_by_kind_of_question():
  examples = [
    make_example("a", ["red"], "Who is it?"),
    make_example("b", ["red"], "By whom, and when?"),
    make_example("c", ["red"], "Name it, who?"),
    make_example("d", ["red"], "Name it."),
  ]
  texts = {"a": "red", "b": "blue", "c": "red red", "d": "red"}
  results = squad_scores.score(examples, texts)
  # c: precision 1/2, recall 1.
  assert squad_scores.summarize(examples, texts, results) == (
    "questions          number    exact       F1\n"
    "all                     4    50.00    66.67\n"
    "  who                   2    50.00    83.33\n"
    "  when                  1     0.00     0.00\n"
    "  other                 1   100.00   100.00\n"
  )


def test_summary_of_2_0():
  examples = [
    make_example("a", ["red"]),
    make_example("b", [], "Why?"),
    make_example("c", [], "Why?"),
  ]
  decoded = make_decoded(
    {"a": "red", "b": "blue", "c": "blue"}, {"a": -1.5, "b": -2.0, "c": 3.0}
  )
  decoded = squad_scores.with_threshold(decoded, -1.5)
  results = squad_scores.score_decoded(examples, decoded)
  assert squad_scores.summarize(examples, decoded.predictions, results) == (
    "questions          number    exact       F1\n"
    "all                     3    66.67    66.67\n"
    "  answered              1   100.00   100.00\n"
    "  unanswerable          2    50.00    50.00\n"
    "  who                   1   100.00   100.00\n"
    "  why                   2    50.00    50.00\n"
    "best F1 by a threshold of the null odds: 66.67 at 0.0000\n"
  )


def test_summary_leaves_out_questions_without_prediction():
  examples = [make_example("a", ["red"]), make_example("b", ["red"], "Why?")]
  results = squad_scores.score(examples, {"a": "red"})
  text = squad_scores.summarize(examples, {"a": "red"}, results)
  assert "why" not in text
  assert "all                     2    50.00    50.00\n" in text


# Files ------------------------------------------------------------------------


@pytest.mark.parametrize(
  ("content", "kind", "words"),
  [
    ("{", str, "is not JSON"),
    ("[]", str, "holds a list; it should hold one object"),
    ('{"a": 1}', str, "has 1 for question 'a'"),
    ('{"a": "x"}', float, "has 'x' for question 'a'.* to numbers"),
    (b"\xff{", str, "is not JSON"),
  ],
)
def test_files_that_are_none(tmp_path, content, kind, words):
  path = tmp_path / "x.json"
  is_bytes = isinstance(content, bytes)
  path.write_bytes(content if is_bytes else content.encode())
  with pytest.raises(ValueError, match=f"x.json {words}"):
    squad_scores.read_by_question(str(path), kind)


def test_files_that_are(tmp_path):
  path = tmp_path / "x.json"
  path.write_text('{"a": "\\u00e9", "b": ""}')
  assert squad_scores.read_by_question(str(path), str) == {"a": "é", "b": ""}
  path.write_text('{"a": 1, "b": -0.5}')
  assert squad_scores.read_by_question(str(path), float) == {"a": 1, "b": -0.5}
