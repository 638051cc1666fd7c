"""Examples in docstrings: their code compiles, their calls fit our functions.

An example is a block after a blank line, indented by four spaces more than the
text. Shell commands are examples as well: their flags must be the script's.
"""

import ast
import importlib
import inspect
import pathlib
import re
import textwrap

import pytest

from bert_keras3.console import flag_docs
from bert_keras3.data import fields

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROOT_FILES = [path for path in ROOT.glob("*.py") if path.stem != "setup"]
FILES = sorted([*ROOT_FILES, *(ROOT / "bert_keras3").rglob("*.py")])
WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef)
COMMAND = re.compile(r"(?:.* \| )?python (\w+)\.py\b")


def module_name(path):
  name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
  return name.removesuffix(".__init__")


# Examples call modules by the last part of their names.
MODULES = {path.stem: module_name(path) for path in FILES}


def docstrings_of(path):
  tree = ast.parse(path.read_text(encoding="utf-8"))
  nodes = [x for x in ast.walk(tree) if isinstance(x, WITH_DOCSTRINGS)]
  return list(filter(None, map(ast.get_docstring, nodes)))


def blocks_of(docstring):
  """Blocks indented by four spaces or more that follow a blank line."""
  blocks = re.findall(r"(?<=\n\n) {4}.*(?:\n+ {4}.*)*", docstring)
  return list(map(textwrap.dedent, blocks))


EXAMPLES = [
  (module_name(path), block)
  for path in FILES
  for docstring in docstrings_of(path)
  for block in blocks_of(docstring)
]
COMMANDS = [x for x in EXAMPLES if COMMAND.match(x[1])]
CODE = [x for x in EXAMPLES if not COMMAND.match(x[1])]


def ids_of(examples):
  return [f"{name}-{i}" for i, (name, _) in enumerate(examples)]


def find_function(node, module, assigned):
  """Our function or class that a call names, None for any other."""
  if isinstance(node, ast.Name) and node.id not in assigned:
    function = getattr(module, node.id, None)
    is_ours = getattr(function, "__module__", None) in MODULES.values()
    return function if is_ours else None
  if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
    owner = node.value.id
    if owner in MODULES and owner not in assigned:
      return getattr(importlib.import_module(MODULES[owner]), node.attr)
  return None


def signature_of(function):
  # Keras models have a `__new__`, whose signature hides that of `__init__`.
  if inspect.isclass(function) and inspect.isfunction(function.__init__):
    parameters = inspect.signature(function.__init__).parameters.values()
    return inspect.Signature(list(parameters)[1:])
  return inspect.signature(function)


def check_call(call, function):
  """Raises TypeError if a call's arguments do not fit; `...` is for others."""
  args = [x for x in call.args if ast.unparse(x) != "..."]
  kwargs = {x.arg: x.value for x in call.keywords}
  signature = signature_of(function)
  is_whole = len(args) == len(call.args)
  bind = signature.bind if is_whole else signature.bind_partial
  bind(*args, **kwargs)


def check_example(text, module):
  """Raises an error if a call does not fit our function of that name."""
  nodes = list(ast.walk(ast.parse(text)))
  assigned = {
    x.id
    for x in nodes
    if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Store)
  }
  for call in [x for x in nodes if isinstance(x, ast.Call)]:
    function = find_function(call.func, module, assigned)
    if function is not None:
      check_call(call, function)


@pytest.mark.parametrize(["name", "text"], CODE, ids=ids_of(CODE))
def test_code_fits_our_functions(name, text):
  check_example(text, importlib.import_module(name))


@pytest.mark.parametrize(["name", "text"], COMMANDS, ids=ids_of(COMMANDS))
def test_commands_have_flags_of_the_script(name, text):
  script = importlib.import_module(COMMAND.match(text)[1])
  assert script.__name__ == name
  config_class = flag_docs.find_config(script)
  known = {field.name for field, _ in fields.flags_of(config_class)}
  assert set(re.findall(r"--(\w+)", text)) <= known


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_code_stands_in_an_indented_block(path):
  """Without text around it, ruff format moves a block to the margin."""
  code = re.compile(r"^[\w.]+ = [\w.]+\(", re.MULTILINE)
  assert [x for x in docstrings_of(path) if code.search(x)] == []


@pytest.mark.parametrize(
  "text",
  [
    "files.write_atomically(path, contents=b'')",
    "files.write_atomically(path)",
    "with RecordWriter(path, name) as writer:\n  pass",
    "BertModel(configuration=config)",
  ],
)
def test_wrong_arguments_are_found(text):
  name = "modeling" if "Bert" in text else "bert_keras3.data.record_writer"
  with pytest.raises(TypeError):
    check_example(text, importlib.import_module(name))


def test_a_wrong_name_is_found():
  with pytest.raises(AttributeError):
    check_example("files.write_once(path)", importlib.import_module("modeling"))
