"""The import graph: layers point down, flags stay in scripts."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent

LAYERS = {
  "tokenization": 0,
  "hugging_face": 0,
  "modeling": 0,
  "optimization": 0,
  "predictor": 0,
  "stop_signals": 0,
  "task_metrics": 0,
  "worker_watchdog": 0,
  "checkpoint_io": 1,
  "example_files": 1,
  "input_pipeline": 1,
  "attention_report": 3,
  "model_growth": 1,
  "graph_tokenization": 3,
  "training_log": 2,
  "training_loop": 3,
  "device_strategy": 1,
  "model_evaluation": 2,
  "classifier_data": 4,
  "cli_flags": 4,
  "graph_classifier": 4,
  "graph_encoder": 4,
  "model_files": 4,
  "run_directory": 4,
  "squad_data": 4,
  "classifier_results": 5,
  "mask_filling": 5,
  "run_forecast": 5,
  "squad_decoding": 5,
  "weight_conversion": 5,
  "fine_tuning": 6,
  "graph_squad": 6,
  "litert_export": 6,
  "squad_results": 6,
  "model_export": 7,
  "build_vocab": 8,
  "convert_checkpoint": 8,
  "create_pretraining_data": 8,
  "extract_features": 8,
  "run_classifier": 8,
  "run_fill_mask": 8,
  "run_predict": 8,
  "run_pretraining": 8,
  "run_squad": 8,
}
SCRIPTS = [name for name, layer in LAYERS.items() if layer == 8]
MODULES = sorted(path.stem for path in ROOT.glob("*.py"))
WITHOUT_TENSORFLOW = [
  "attention_report",
  "classifier_data",
  "example_files",
  "fine_tuning",
  "mask_filling",
  "hugging_face",
  "model_growth",
  "predictor",
  "squad_data",
  "squad_decoding",
  "squad_results",
  "stop_signals",
  "task_metrics",
  "tokenization",
  "worker_watchdog",
  "cli_flags",
  *SCRIPTS,
]


def _imports(name, top_level_only=False):
  tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
  nodes = tree.body if top_level_only else ast.walk(tree)
  found = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      found.update(alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      found.add(node.module)
      found.update(f"{node.module}.{alias.name}" for alias in node.names)
  return found


def test_every_root_module_has_a_layer():
  assert set(MODULES) - {"setup"} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_point_to_lower_layers(name):
  ours = _imports(name) & set(LAYERS)
  assert [other for other in ours if LAYERS[other] >= LAYERS[name]] == []


@pytest.mark.parametrize("name", LAYERS)
def test_only_scripts_and_cli_flags_know_flags(name):
  if name not in [*SCRIPTS, "cli_flags"]:
    assert not [found for found in _imports(name) if "absl.flags" in found]


@pytest.mark.parametrize("name", WITHOUT_TENSORFLOW)
def test_importing_costs_no_tensorflow(name):
  heavy = re.compile(
    r"tensorflow|keras|modeling|optimization|checkpoint_io|input_pipeline|"
    r"classifier_results|graph_|litert_export|model_export|model_files|"
    r"run_directory|run_forecast|training_log|training_loop|weight_conversion"
  )
  assert [x for x in _imports(name, True) if heavy.match(x)] == []


def test_setup_lists_every_module_and_script():
  tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
  constants = {
    node.targets[0].id: ast.literal_eval(node.value)
    for node in tree.body
    if isinstance(node, ast.Assign)
  }
  assert set(constants["LIBRARIES"]) | set(constants["SCRIPTS"]) == set(LAYERS)
  assert sorted(constants["SCRIPTS"]) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_importing_a_script_defines_no_flag(name):
  tree = ast.parse((ROOT / f"{name}.py").read_text(encoding="utf-8"))
  at_import = [node for node in tree.body if not hasattr(node, "body")]
  calls = [x for node in at_import for x in ast.walk(node)]
  defined = [
    x.attr
    for x in calls
    if isinstance(x, ast.Attribute) and x.attr.startswith("DEFINE_")
  ]
  assert defined == []
