"""Answers texts with an exported model.

    python run_predict.py --export_dir=models/stars/1 --text="A great film"

    python run_predict.py --export_dir=models/squad/1 --input_file=new.csv \
      --columns=question,paragraph --output_file=answers.jsonl

    cat lines.txt | python run_predict.py --export_dir=models/stars/1 \
      --input_file=-

A line of JSON for each example. A model of one text reads .txt files and
standard input line by line; .csv, .tsv and .jsonl files have columns.
"""

import dataclasses
import json
import os
import sys

import tokenization
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.data import files
from bert_keras3.data import tables
from bert_keras3.serving import predictor
from bert_keras3.training import configs


@dataclasses.dataclass(frozen=True)
class PredictConfig(configs.AnsweringConfig):
  """The flags of prediction with an export."""

  export_dir: str | None = fields.flag(
    None, "Directory of the exported model.", is_required=True
  )
  text: tuple[str, ...] = fields.flag(
    (),
    "Text to answer. A model of two takes it twice: question, then context.",
    is_repeated=True,
  )
  input_file: str | None = fields.flag(
    None, "File of texts: .txt, .csv, .tsv, .jsonl, - for stdin."
  )
  columns: tuple[str, ...] = fields.flag(
    (), "Columns of the model's texts in a table, if not named like these."
  )
  header: bool = fields.flag(
    True, "Whether the first row of a table names the columns."
  )
  skip_bad_rows: bool = fields.flag(
    False, "Leave out rows that cannot be used, and say so."
  )
  output_file: str | None = fields.flag(None, "JSON lines; if none, to stdout.")
  predict_batch_size: int = fields.flag(
    32, "Examples per batch.", lower_bound=1
  )


def main(config):
  """Reads the texts and answers them."""
  inputs = predictor.read_description(config.export_dir).inputs
  examples = read_texts(config, inputs["serving_default"])
  if config.output_file:
    files.check_output_files(
      "output_file", [config.output_file], [config.input_file or ""]
    )
  start.load_tensorflow()
  predict(config, examples)


def read_texts(config, names):
  """Reads the examples to answer.

  Args:
    config: PredictConfig.
    names: of the model's texts.

  Returns:
    List of tuples of str, as long as `names`.

  Raises:
    ValueError, OSError: there are no examples, or they do not fit the model.
  """
  if bool(config.text) == bool(config.input_file):
    raise ValueError("pass either --text or --input_file")
  if config.text:
    if len(config.text) != len(names):
      raise ValueError(
        f"the model takes {' and '.join(names)}; pass --text {len(names)} "
        f"times, not {len(config.text)}"
      )
    return [tuple(config.text)]
  extension = os.path.splitext(config.input_file)[1]
  file_format = extension.lower().removeprefix(".")
  if file_format in ("csv", "tsv", "jsonl"):
    return read_table(config, names, file_format)
  if len(names) > 1:
    raise ValueError(
      f"the model takes {' and '.join(names)}; --input_file should be a .csv, "
      ".tsv or .jsonl with such columns"
    )
  if config.input_file == "-":
    return [(line.rstrip("\r\n"),) for line in sys.stdin]
  return [(line,) for line in tokenization.read_lines(config.input_file)]


def read_table(config, names, file_format):
  """Reads the examples of a file with columns."""
  columns = config.columns or names
  if len(columns) != len(names):
    raise ValueError(
      f"--columns should name {len(names)} columns, for {', '.join(names)}"
    )
  layout = tables.Layout(
    *columns, file_format=file_format, has_header=config.header
  )
  examples = tables.read_examples(
    config.input_file, layout, "test", skip_bad_rows=config.skip_bad_rows
  )
  pairs = ((x.text_a, x.text_b) for x in examples)
  return [tuple(map(_clean, pair[: len(names)])) for pair in pairs]


def _clean(text):
  """Replaces halves of surrogate pairs, which UTF-8 cannot encode."""
  return text.encode("utf-8", "replace").decode()


def predict(config, examples):
  """Writes a JSON line for each example: its texts and its answer.

  A dry run estimates time and disk space instead.
  """
  from bert_keras3.training import dry_run

  model = predictor.Predictor(config.export_dir)
  if config.dry_run:
    dry_run.forecast_answers(
      dry_run.Findings(),
      lambda sample: answer(config, model, sample, show_progress=False),
      examples,
      config.output_file,
    )
    return
  text = answer(config, model, examples)
  if not config.output_file:
    print(text, end="")
    return
  files.write_atomically(config.output_file, text)
  print(f"{len(examples)} answers: {config.output_file}")


def answer(config, model, examples, show_progress=True):
  """Returns the JSON lines of examples, as one text."""
  results = model.predict(examples, config.predict_batch_size, show_progress)
  return "".join(
    json.dumps(
      {**dict(zip(model.inputs, texts, strict=True)), **result},
      ensure_ascii=False,
    )
    + "\n"
    for texts, result in zip(examples, results, strict=True)
  )


def cli():
  """Runs the console script."""
  start.run(main, PredictConfig)


if __name__ == "__main__":
  cli()
