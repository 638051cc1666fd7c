"""The layers: rooms look down only, flags stay in scripts and the console.

Nothing here lists modules: rooms are folders, scripts are the root files that
have a `cli`.
"""

import ast
import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "bert_keras3"
# From the top down; a room may import those after it.
ROOMS = ("console", "serving", "tasks", "training", "weights", "data")


def parse(path):
  return ast.parse(path.read_text(encoding="utf-8"))


def is_script(path):
  names = [getattr(node, "name", "") for node in parse(path).body]
  return "cli" in names


def module_name(path):
  name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
  return name.removesuffix(".__init__")


ROOT_FILES = [path for path in ROOT.glob("*.py") if path.stem != "setup"]
SCRIPTS = sorted(path.stem for path in ROOT_FILES if is_script(path))
ROOT_MODULES = sorted({path.stem for path in ROOT_FILES} - set(SCRIPTS))
FILES = [*ROOT_FILES, *PACKAGE.rglob("*.py")]
NAMES = sorted(map(module_name, FILES))


def path_of(name):
  path = ROOT / name.replace(".", "/")
  return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imports_of(nodes):
  """Dotted names that statements import, modules and names in them."""
  names = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      names.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      names.add(node.module)
      names.update(f"{node.module}.{alias.name}" for alias in node.names)
  return names


def floor_of(name):
  """Height of a module: scripts above the rooms, root modules below them."""
  top, *rest = name.split(".")
  if top in SCRIPTS:
    return len(ROOMS) + 1
  if top in ROOT_MODULES:
    return 0
  return len(ROOMS) - ROOMS.index(rest[0]) if rest else 0


def is_ours(name):
  return name.split(".")[0] in (*SCRIPTS, *ROOT_MODULES, PACKAGE.name)


def test_the_root_holds_three_modules_and_scripts():
  assert ROOT_MODULES == ["modeling", "optimization", "tokenization"]


def test_the_package_holds_the_rooms():
  folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
  assert folders == set(ROOMS)
  assert [path.name for path in PACKAGE.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("name", NAMES)
def test_imports_point_down(name):
  imported = imports_of(ast.walk(parse(path_of(name))))
  ours = [x for x in imported if is_ours(x) and x != PACKAGE.name]
  assert [x for x in ours if floor_of(x) > floor_of(name)] == []
  # A script or a root module imports none of its kind.
  if name in (*SCRIPTS, *ROOT_MODULES):
    assert [x for x in ours if floor_of(x) == floor_of(name)] == []


@pytest.mark.parametrize("name", NAMES)
def test_only_scripts_and_the_console_know_flags(name):
  if floor_of(name) < floor_of(f"{PACKAGE.name}.console"):
    imported = imports_of(ast.walk(parse(path_of(name))))
    assert [x for x in imported if "absl.flags" in x] == []


def test_no_two_modules_import_each_other():
  graph = {}
  for name in NAMES:
    imported = imports_of(ast.walk(parse(path_of(name))))
    graph[name] = {x for x in imported if x in NAMES}
  while leaves := [name for name, needs in graph.items() if not needs]:
    for name in leaves:
      del graph[name]
    graph = {name: needs - set(leaves) for name, needs in graph.items()}
  assert graph == {}


def test_scripts_and_the_console_import_no_tensorflow():
  """`--help` and a wrong flag answer at once."""
  names = [x for x in NAMES if floor_of(x) >= len(ROOMS)]
  program = (
    f"import sys, {', '.join(names)}\n"
    "print([x for x in sys.modules if x in ('tensorflow', 'keras')])"
  )
  result = subprocess.run(
    [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
  )
  assert result.stdout == "[]\n", result.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_importing_a_script_defines_no_flag(name):
  at_import = [
    node for node in parse(path_of(name)).body if not hasattr(node, "body")
  ]
  calls = [x for node in at_import for x in ast.walk(node)]
  defined = [
    x.attr
    for x in calls
    if isinstance(x, ast.Attribute) and x.attr.startswith("DEFINE_")
  ]
  assert defined == []


def functions_of(name):
  nodes = ast.walk(parse(path_of(name)))
  return [node for node in nodes if isinstance(node, ast.FunctionDef)]


def imports_inside(function):
  """Our modules that a function itself imports."""
  return [x for x in imports_of(ast.walk(function)) if is_ours(x)]


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SCRIPTS)))
def test_no_function_imports_our_modules(name):
  importing = [x.name for x in functions_of(name) if imports_inside(x)]
  assert importing == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_has_one_block_of_imports_that_cost_tensorflow(name):
  importing = [x.name for x in functions_of(name) if imports_inside(x)]
  assert len(importing) <= 1


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_scripts_functions_fit_on_a_screen(name):
  """45 lines, the docstring not counted."""
  for function in functions_of(name):
    docstring = ast.get_docstring(function, clean=False) or ""
    lines = function.end_lineno - function.lineno - docstring.count("\n")
    assert lines <= 45, function.name


def test_the_package_is_this_checkout():
  assert importlib.util.find_spec(PACKAGE.name).origin.startswith(str(ROOT))
