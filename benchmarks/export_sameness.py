"""Compares what exports answer with what the models they were made of predict.

    python -m benchmarks.export_sameness --kind=classifier \
      --task_name=mrpc --data_dir=MRPC --output_dir=out \
      --export_dir=models/mrpc/1
    python -m benchmarks.export_sameness --kind=reader \
      --predict_file=dev-v1.1.json --output_dir=out --export_dir=models/squad/1

Every example of a development set goes through run_classifier's or run_squad's
own prediction and, as text, through the export. Counts the labels or answers
that differ, and prints the largest deviation of the numbers.
"""

import argparse
import json

import run_classifier
import run_squad
from benchmarks import our_models
from bert_keras3.serving import predictor
from bert_keras3.tasks import classifier_results
from bert_keras3.tasks import metrics
from bert_keras3.tasks import squad_results

# Answers that differ are shown up to this many.
SHOWN = 5


def main():
  """Prints the comparison as lines."""
  options = parse_options()
  compare = compare_reader if options.kind == "reader" else compare_classifier
  for line in compare(options):
    print(line)


def parse_options():
  """Returns the options of the command line."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--kind", choices=["classifier", "reader"], required=True)
  for name in ("output_dir", "export_dir"):
    parser.add_argument(f"--{name}", required=True)
  for name in ("task_name", "data_dir", "predict_file"):
    parser.add_argument(f"--{name}")
  parser.add_argument("--batch_size", type=int, default=32)
  return parser.parse_args()


def exported_flags(description, config_class):
  """Returns the flags that a model was exported with."""
  names = config_class.__dataclass_fields__
  values = description.to_dict()
  return {name: values[name] for name in names if name in values}


def compare_classifier(options):
  """Yields lines about the development set of a task."""
  export = predictor.Predictor(options.export_dir)
  config = run_classifier.ClassifierConfig(
    task_name=options.task_name,
    data_dir=options.data_dir,
    output_dir=options.output_dir,
    do_eval=True,
    **exported_flags(export.description, run_classifier.ClassifierConfig),
  )
  run, data = our_models.open_classifier(config)
  run.restore(data.task.settings(config))
  task, split = data.task, data.splits["dev"]
  logits = classifier_results.predict_logits(run, split, options.batch_size)
  texts = [(x.text_a, x.text_b)[: len(export.inputs)] for x in split.examples]
  found = export.predict(texts, options.batch_size)
  scores = metrics.probabilities(task.problem_type, logits)
  if task.problem_type == "regression":
    errors = [
      abs(x["score"] - y[0]) for x, y in zip(found, scores, strict=True)
    ]
    yield f"{len(found)} texts, largest deviation of a score {max(errors):.1e}"
    return
  labels = metrics.predict_labels(task.problem_type, logits)
  pairs = zip(found, labels, strict=True)
  different = sum(x["label"] != task.labels[y] for x, y in pairs)
  error = max(
    abs(share - probability)
    for result, row in zip(found, scores, strict=True)
    for share, probability in zip(
      result["probabilities"].values(), row.tolist(), strict=True
    )
  )
  yield f"{len(found)} texts, {different} labels differ"
  yield f"largest deviation of a probability {error:.1e}"


def compare_reader(options):
  """Yields lines about a file of questions."""
  export = predictor.Predictor(options.export_dir)
  config = run_squad.SquadConfig(
    predict_file=options.predict_file,
    output_dir=options.output_dir,
    do_predict=True,
    predict_batch_size=options.batch_size,
    **exported_flags(export.description, run_squad.SquadConfig),
  )
  run, data = our_models.open_squad(config)
  run.restore(config.shared_settings)
  questions = data.questions
  decoded = squad_results.decode(
    run,
    data.pretrained.tokenizer,
    questions,
    export.description.settings["null_score_diff_threshold"],
  )
  found = export.predict(
    [(x.question_text, x.context) for x in questions.examples],
    options.batch_size,
  )
  yield from compare_answers(questions.examples, decoded, found)


def compare_answers(examples, decoded, found):
  """Yields lines about answers: their texts, places and scores."""
  texts, places, errors = [], 0, [0.0]
  for example, result in zip(examples, found, strict=True):
    best = decoded.best[example.qas_id]
    if result["answer"] != best.text:
      texts.append((best.text, result["answer"]))
    if best.start is not None and result["answer"]:
      is_same = (result["start"], result["end"]) == (best.start, best.end)
      places += not is_same
      errors.append(abs(result["score"] - best.score))
  yield f"{len(found)} questions"
  yield f"largest deviation of a score {max(errors):.1e}"
  yield f"{places} answers stand elsewhere, {len(texts)} differ in their text:"
  for theirs, ours in texts[:SHOWN]:
    yield f"  {json.dumps(theirs, ensure_ascii=False)} predicted, exported "
    yield f"  {json.dumps(ours, ensure_ascii=False)}"


if __name__ == "__main__":
  main()
