"""Where test data lies, and logical devices for the strategies."""

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
