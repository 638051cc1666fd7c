"""What model.json of an export may say, and what becomes of outputs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from bert_keras3.serving import predictor

SEQUENCES = ["input_ids", "input_mask", "segment_ids"]
VERSIONS = {"tensorflow": "2.21.0", "tensorflow_text": "2.21.1", "keras": "3"}
# As version 0.1.0 wrote them.
CLASSIFIER = {
  "format": 1,
  "kind": "classifier",
  "task": "csv",
  "labels": ["disliked", "überragend"],
  "problem_type": "single_label",
  "do_lower_case": True,
  "special_tokens_in_text": "split",
  "max_seq_length": 16,
  "long_text": "truncate",
  "inputs": {"serving_default": ["text"], "tokens": SEQUENCES},
  "versions": VERSIONS,
  "litert": {"int8": {"file": "litert/model_int8.tflite", "bytes": 1}},
}
SQUAD = {
  "format": 1,
  "kind": "reader",
  "task": "squad",
  "do_lower_case": True,
  "max_seq_length": 20,
  "doc_stride": 6,
  "max_query_length": 4,
  "n_best_size": 3,
  "max_answer_length": 3,
  "version_2_with_negative": True,
  "null_score_diff_threshold": -0.07923471927642822,
  "inputs": {"serving_default": ["question", "context"], "tokens": SEQUENCES},
  "versions": VERSIONS,
}
ENCODER = {
  "format": 1,
  "kind": "encoder",
  "task": "pretraining",
  "do_lower_case": False,
  "max_seq_length": 12,
  "inputs": {"serving_default": ["text"], "tokens": SEQUENCES},
  "versions": VERSIONS,
}
PRETRAINER = {
  **ENCODER,
  "kind": "pretrainer",
  "inputs": {
    "serving_default": ["text"],
    "pair": ["text", "text_pair"],
    "encode": ["text"],
    "tokens": SEQUENCES,
    "predict": [*SEQUENCES, "masked_lm_positions"],
  },
}
SMALLEST = {
  "format": 1,
  "kind": "encoder",
  "inputs": {"serving_default": ["text"]},
}


def read(folder, content):
  path = folder / predictor.DESCRIPTION_FILE
  path.parent.mkdir(exist_ok=True)
  if not isinstance(content, str):
    content = json.dumps(content)
  path.write_text(content, encoding="utf-8")
  return predictor.read_description(str(folder))


@pytest.mark.parametrize("content", [CLASSIFIER, SQUAD, ENCODER, PRETRAINER])
def test_a_description_is_written_as_it_was_read(content, tmp_path):
  text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
  description = read(tmp_path, text)
  assert description.kind == content["kind"]
  assert description.max_seq_length == content["max_seq_length"]
  assert description.to_json() == text


def test_settings_that_nothing_reads_are_kept(tmp_path):
  description = read(tmp_path, {**SMALLEST, "colour": [1], "settings": None})
  assert description.settings == {"colour": [1], "settings": None}
  assert description.to_dict()["colour"] == [1]


def test_the_kinds_take_what_they_took():
  """Which a model of this version is exported with."""
  for content in (SQUAD, ENCODER, PRETRAINER):
    signatures = predictor.KINDS[content["kind"]].signatures
    found = {name: list(names) for name, names in signatures.items()}
    assert found == content["inputs"]
    assert list(found) == list(content["inputs"])


NO_INPUTS = "its inputs have no serving_default, a list of names"


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"format": "1"}, "its format is '1', not a number"),
    ({"format": None}, "its format is None, not a number"),
    (
      {"kind": "poem"},
      "its kind is 'poem', not one of encoder, classifier, reader, pretrainer",
    ),
    (
      {"kind": ["{value}"]},
      "its kind is ['{value}'], not one of encoder, classifier, reader, "
      "pretrainer",
    ),
    ({"inputs": None}, NO_INPUTS),
    ({"inputs": {"tokens": ["input_ids"]}}, NO_INPUTS),
    ({"inputs": {"serving_default": []}}, NO_INPUTS),
    ({"inputs": {"serving_default": ["text", 1]}}, NO_INPUTS),
    ({"labels": None}, "its labels are None, not a list"),
    ({"labels": "ab"}, "its labels are 'ab', not a list"),
    ({"problem_type": None}, "it has no problem_type"),
    ({"max_seq_length": "16"}, "its max_seq_length is '16'"),
  ],
)
def test_a_damaged_description_is_refused(changes, problem, tmp_path):
  with pytest.raises(ValueError) as error:
    read(tmp_path, {**CLASSIFIER, **changes})
  path = tmp_path / predictor.DESCRIPTION_FILE
  assert str(error.value) == (
    f"{path} is damaged ({problem}); export the model again"
  )


@pytest.mark.parametrize("name", ["format", "kind", "inputs", "labels"])
def test_a_description_without_a_key_is_refused(name, tmp_path):
  content = {x: y for x, y in CLASSIFIER.items() if x != name}
  with pytest.raises(ValueError, match=f"its {name}.* export the model again"):
    read(tmp_path, content)


def test_only_a_classifier_needs_labels(tmp_path):
  assert read(tmp_path, SMALLEST).labels is None


def test_a_newer_description_is_not_looked_into(tmp_path):
  newer = {"format": predictor.FORMAT_VERSION + 1, "kind": 7, "inputs": "none"}
  with pytest.raises(ValueError, match="exported by a newer version"):
    read(tmp_path, newer)


def test_the_file_alone_reads_descriptions_without_tensorflow(tmp_path):
  read(tmp_path, SMALLEST)
  shutil.copy(predictor.__file__, tmp_path / "predictor.py")
  program = (
    "import sys, predictor\n"
    "print(predictor.read_description('.').kind)\n"
    "print([x for x in ('tensorflow', 'bert_keras3') if x in sys.modules])"
  )
  result = subprocess.run(
    [sys.executable, "-c", program],
    cwd=tmp_path,
    capture_output=True,
    text=True,
  )
  assert result.stdout == "encoder\n[]\n", result.stderr


# Outputs ----------------------------------------------------------------------


def show(content, outputs):
  description = predictor.ExportDescription.from_dict(content)
  return predictor.KINDS[description.kind].show(description, outputs)


def test_several_labels_are_those_above_one_half():
  outputs = {
    "logits": np.array([0.5, 1.0], np.float32),
    "probabilities": np.array([0.625, 0.75], np.float32),
    "label": b"disliked,\xc3\xbcberragend",
  }
  found = show({**CLASSIFIER, "problem_type": "multi_label"}, outputs)
  assert found == {
    "label": ["disliked", "überragend"],
    "probabilities": {"disliked": 0.625, "überragend": 0.75},
  }


def test_a_score_is_a_number():
  outputs = {"logits": np.ones(1), "score": np.float32(0.5)}
  assert show(CLASSIFIER, outputs) == {"score": 0.5}


def test_answers_end_where_padding_begins():
  outputs = {
    "answer": b"a",
    "start": np.int32(1),
    "end": np.int32(2),
    "probability": np.float32(0.75),
    "score": np.float32(3),
    "answers": np.array([b"a", b""], object),
    "starts": np.array([1, -1]),
    "ends": np.array([2, -1]),
    "probabilities": np.array([0.75, 0]),
    "scores": np.array([3.0, 0]),
    "num_answers": np.int32(1),
  }
  best = {
    "answer": "a",
    "start": 1,
    "end": 2,
    "probability": 0.75,
    "score": 3.0,
  }
  assert show(SQUAD, outputs) == {**best, "answers": [best]}
  with_odds = show(SQUAD, {**outputs, "null_odds": np.float32(-1)})
  assert with_odds["null_odds"] == -1.0


def test_masks_that_only_fill_a_batch_are_left_out():
  outputs = {
    "tokens": np.array([[b"cat", b"mat"], [b"", b""]], object),
    "probabilities": np.array([[0.5, 0.25], [0, 0]]),
  }
  assert show(PRETRAINER, outputs) == {
    "masks": [
      [
        {"token": "cat", "probability": 0.5},
        {"token": "mat", "probability": 0.25},
      ]
    ]
  }
