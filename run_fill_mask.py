"""Asks a pretrained model: words for masks, scores of texts, next sentences.

    python run_fill_mask.py --init_checkpoint=uncased_L-12_H-768_A-12 \
      --text="Paris is the [MASK] of France."

    python run_fill_mask.py --init_checkpoint=uncased_L-12_H-768_A-12 \
      --task=score --input_file=sentences.txt --output_format=jsonl

    python run_fill_mask.py --export_dir=models/pretrained/1 \
      --task=next_sentence --text="It rained. ||| The streets were wet."

A text may be two with " ||| " between them. The model is a checkpoint, with its
config and vocabulary beside it, or an export of run_pretraining.py.
"""

import dataclasses
import json
import sys
import textwrap

import tqdm

import tokenization
from bert_keras3.console import conversation
from bert_keras3.console import start
from bert_keras3.data import fields
from bert_keras3.data import files
from bert_keras3.data import tables
from bert_keras3.serving import mask_filling
from bert_keras3.training import configs

# Flags about files that an export contains.
CHECKPOINT_FLAGS = ("bert_config_file", "vocab_file", "do_lower_case")
# Texts that are sorted by length together; scoring runs the model per token.
TEXTS_PER_CHUNK = {"fill_mask": 1024, "score": 128, "next_sentence": 1024}
SHOWN_CHARS = 60


@dataclasses.dataclass(frozen=True)
class FillMaskConfig(configs.AnsweringConfig, configs.SpecialTokensConfig):
  """The flags of asking a pretrained model."""

  task: str = fields.flag(
    "fill_mask",
    "Words for each [MASK]; how likely each text is, by its pseudo-log-"
    "likelihood; or how likely the second text of a pair follows the first.",
    choices=("fill_mask", "score", "next_sentence"),
  )
  export_dir: str | None = fields.flag(
    None, "Directory of an exported model, instead of weights."
  )
  max_seq_length: int | None = fields.flag(
    None,
    "Tokens of a text or a pair at most; as many as the model takes if not "
    "given.",
    lower_bound=5,  # [CLS] A [SEP] B [SEP]
  )
  special_tokens_in_text: str = fields.variant(
    configs.SpecialTokensConfig, "special_tokens_in_text", default="keep"
  )
  text: tuple[str, ...] = fields.flag(
    (),
    'Text, or two with " ||| " between them; may be repeated.',
    is_repeated=True,
  )
  input_file: str | None = fields.flag(
    None, "File with a text on each line, - for stdin."
  )
  interactive: bool = fields.flag(False, "Answer texts that are typed in.")
  top_k: int = fields.flag(5, "Tokens to show for each [MASK].", lower_bound=1)
  batch_size: int = fields.flag(32, "Sequences per batch.", lower_bound=1)
  output_format: str = fields.flag(
    "table",
    "Tables to read, or a line of JSON for each text.",
    choices=("table", "jsonl"),
  )
  output_file: str | None = fields.flag(None, "Results; if none, to stdout.")


def main(config):
  """Checks the flags, reads the texts and asks the model."""
  check_flags(config)
  texts = [] if config.interactive else read_texts(config)
  start.load_tensorflow()
  fill_masks(config, texts)


def fill_masks(config, texts):
  """Opens the model and answers texts, typed ones or a file's.

  Args:
    config: FillMaskConfig.
    texts: list that `read_texts` returned.
  """
  from bert_keras3.serving import mask_models
  from bert_keras3.training import dry_run
  from bert_keras3.weights import companions

  own_files = ()
  if config.init_checkpoint:
    own_files = companions.list_files(
      config.init_checkpoint, config.bert_config_file, config.vocab_file
    )
  check_output(config, own_files)
  model = mask_models.open_model(config)
  if config.interactive:
    conversation.answer_lines(
      lambda line: answer_line(config, model, line), input
    )
  elif config.dry_run:
    dry_run.forecast_answers(
      dry_run.Findings(),
      lambda sample: join_lines(config, answer(config, model, sample)),
      texts,
      config.output_file,
    )
  else:
    write_results(config, answer(config, model, texts))


def check_flags(config):
  """Refuses flags that do not go together, and an export that cannot be used.

  Raises:
    ValueError, OSError: there are such flags, or it is such an export.
  """
  if bool(config.init_checkpoint) == bool(config.export_dir):
    raise ValueError("pass either --init_checkpoint or --export_dir")
  sources = (config.text, config.input_file, config.interactive)
  if sum(map(bool, sources)) != 1:
    raise ValueError("pass one of --text, --input_file and --interactive")
  if config.task == "fill_mask" and config.special_tokens_in_text == "split":
    raise ValueError(
      "--special_tokens_in_text=split makes words and brackets of [MASK], so "
      "that there is nothing to fill; leave it out"
    )
  for name in ("output_file", "dry_run"):
    if config.interactive and getattr(config, name):
      raise ValueError(f"--{name} is not for --interactive; leave it out")
  given = [name for name in CHECKPOINT_FLAGS if name in config.given]
  if config.export_dir and given:
    raise ValueError(f"--{given[0]} is part of an export; leave it out")
  own_files = []
  if config.export_dir:
    mask_filling.read_export(config.export_dir, config.max_seq_length)
    own_files = mask_filling.list_export_files(config.export_dir)
  check_output(config, own_files)


def check_output(config, own_files):
  """Makes sure that the results overwrite nothing that is read.

  Args:
    config: FillMaskConfig.
    own_files: paths of the model's own files, as far as they are known.

  Raises:
    ValueError, OSError: see files.check_output_files.
  """
  if config.output_file:
    inputs = [config.input_file or "", *own_files]
    files.check_output_files("output_file", [config.output_file], inputs)


# Texts ------------------------------------------------------------------------


def read_texts(config):
  """Reads the texts to ask about.

  Returns:
    List of (origin, str or tuple of two), such as ("a.txt, line 1", "A text.").

  Raises:
    ValueError, OSError: there are no texts, or one does not fit the task.
  """
  texts = [(origin, _parse(line)) for origin, line in _read_lines(config)]
  if not texts:
    raise ValueError(f"--input_file={config.input_file} has no text")
  for origin, text in texts:
    problem = find_problem(config, text)
    if problem:
      raise ValueError(f"{origin}: {problem}")
  return texts


def _read_lines(config):
  """Yields pairs of a line's origin and the line."""
  if config.text:
    for number, text in enumerate(config.text, start=1):
      yield f"--text {number}", text
    return
  name, lines = config.input_file, None
  if name == "-":
    name, lines = "stdin", (line.rstrip("\r\n") for line in sys.stdin)
  for number, line in enumerate(lines or tokenization.read_lines(name), 1):
    yield f"{name}, line {number}", line


def _parse(line):
  """Returns a str, or a tuple of two if there are bars between them."""
  # Halves of surrogate pairs have no UTF-8.
  line = line.encode("utf-8", "replace").decode()
  first, second = tables.split_pair(line)
  return first if second is None else (first, second)


def find_problem(config, text):
  """Says why a task cannot take a text, "" if it can.

  Args:
    config: FillMaskConfig.
    text: str or tuple of two.
  """
  parts = (text,) if isinstance(text, str) else text
  if not "".join(parts).strip():
    return "blank line; remove it"
  shown = textwrap.shorten(_format_text(parts), SHOWN_CHARS, placeholder="...")
  has_mask = any(mask_filling.MASK in part for part in parts)
  if config.task == "fill_mask" and not has_mask:
    return f"there is no [MASK] to fill in {shown!r}"
  is_pair = len(parts) == 2 and all(map(str.strip, parts))
  if config.task == "next_sentence" and not is_pair:
    return f'there should be two texts with " ||| " between them, not {shown!r}'
  is_kept = config.special_tokens_in_text == "keep"
  if config.task == "score" and has_mask and is_kept:
    return f"[MASK] has no likelihood, so {shown!r} cannot be scored"
  return ""


# Answers ----------------------------------------------------------------------


def answer(config, model, texts):
  """Asks the model about texts, some at a time.

  Args:
    config: FillMaskConfig.
    model: mask_filling.MaskFiller.
    texts: list that `read_texts` returned.

  Yields:
    The dict of each text, in their order.

  Raises:
    ValueError: the model cannot take a text, which is named, or has no head for
      the task.
  """
  hides_bar = not config.output_file and sys.stdout.isatty()
  with tqdm.tqdm(
    total=len(texts),
    unit="text",
    leave=False,
    disable=hides_bar or not sys.stderr.isatty(),
  ) as bar:
    size = TEXTS_PER_CHUNK[config.task]
    for first in range(0, len(texts), size):
      chunk = texts[first : first + size]
      try:
        results = ask(config, model, [text for _, text in chunk])
      except mask_filling.BadText as error:
        origin, _ = chunk[error.index]
        raise ValueError(f"{origin}: {error}") from None
      for (origin, _), result in zip(chunk, results, strict=True):
        warn_if_cut(config, model, origin, result)
        yield result
      bar.update(len(chunk))


def ask(config, model, texts):
  """Returns a list of the task's result for each text."""
  if config.task == "fill_mask":
    return model.fill_mask(texts, config.top_k)
  if config.task == "score":
    return model.pseudo_log_likelihood(texts)
  return model.next_sentence(texts)


def warn_if_cut(config, model, origin, result):
  """Tells the user of a text that is longer than the model's sequences."""
  if not result["tokens_left_out"]:
    return
  lost = result.get("masks", []).count([])
  masks = f", {lost} [MASK] among them" if lost else ""
  print(
    f"warning: {origin}: {result['tokens_left_out']} tokens beyond "
    f"--max_seq_length={model.max_seq_length} were left out{masks}",
    file=sys.stderr,
  )


def answer_line(config, model, line):
  """Returns the answer to a typed line, or an error message about it."""
  text = _parse(line)
  problem = find_problem(config, text)
  if problem:
    return f"error: {problem}"
  try:
    (result,) = ask(config, model, [text])
  except ValueError as error:
    if not start.is_users_mistake(error):
      raise
    return f"error: {error}"
  warn_if_cut(config, model, "the text", result)
  return "\n".join(format_results(config, [result]))


# Output -----------------------------------------------------------------------


def write_results(config, results):
  """Prints results as they come, or writes them once all are there."""
  if not config.output_file:
    for line in format_results(config, results):
      print(line, flush=True)
    return
  content = join_lines(config, results)
  files.write_atomically(config.output_file, content)
  print(f"results: {config.output_file}")


def join_lines(config, results):
  """Returns the lines of an iterable of results, as one text."""
  return "".join(f"{line}\n" for line in format_results(config, results))


def format_results(config, results):
  """Yields the lines of an iterable of results."""
  if config.output_format == "jsonl":
    for result in results:
      yield json.dumps(result, ensure_ascii=False)
    return
  head, show = _TABLES[config.task]
  for number, result in enumerate(results):
    if number == 0:  # Only now, as the head should not be above an error.
      yield from head
    yield show(result)


def _format_text(parts):
  return " ||| ".join(parts)


def _format_named(result, name):
  names = (name, f"{name}_pair")
  return _format_text([result[x] for x in names if x in result])


def _show_masks(result):
  """Formats a text, its masks' tokens in columns, and the filled text."""
  lines = [_format_named(result, "text")]
  for number, tokens in enumerate(result["masks"], start=1):
    lines.append(f"  [MASK] {number}" + ("" if tokens else "  (left out)"))
    lines += [f"    {x['probability']:8.4f}  {x['token']}" for x in tokens]
  return "\n".join([*lines, f"  = {_format_named(result, 'filled')}"])


def _show_score(result):
  return (
    f"{result['log_likelihood']:10.3f}  {result['mean_log_likelihood']:9.4f}  "
    f"{result['pseudo_perplexity']:11.4g}  {len(result['tokens']):6}  "
    f"{_format_named(result, 'text')}"
  )


def _show_next_sentence(result):
  return f"{result['is_next']:11.4f}  {_format_named(result, 'text')}"


# By task: the lines above a table, and the function that formats a result.
_TABLES = {
  "fill_mask": ([], _show_masks),
  "score": (
    ["       sum       mean   perplexity  tokens  text"],
    _show_score,
  ),
  "next_sentence": (["probability  texts"], _show_next_sentence),
}


def cli():
  """Runs the console script."""
  start.run(main, FillMaskConfig)


if __name__ == "__main__":
  cli()
