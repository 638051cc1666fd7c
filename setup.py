import pathlib

from setuptools import find_packages
from setuptools import setup

ROOT = pathlib.Path(__file__).resolve().parent
MODULES = sorted(
  path.stem for path in ROOT.glob("*.py") if path.stem != "setup"
)


def is_script(name):
  source = (ROOT / f"{name}.py").read_text(encoding="utf-8")
  return "\ndef cli():" in source


def command(script):
  return f"bert-{script.removeprefix('run_').replace('_', '-')}"


setup(
  name="bert-keras3",
  version="0.1.0",
  description="google-research/bert for TensorFlow 2.21 and Keras 3",
  long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  py_modules=MODULES,
  packages=find_packages(include=["bert_keras3*"]),
  package_data={"bert_keras3": ["**/*.html", "**/*.css", "**/*.js"]},
  entry_points={
    "console_scripts": [
      f"{command(name)} = {name}:cli" for name in MODULES if is_script(name)
    ]
  },
  install_requires=[
    "absl-py>=2.1",
    "google-crc32c>=1.5",
    "h5py>=3.11",
    # The behaviour listed in the docs was verified on these minor versions.
    "keras>=3.15,<3.16",
    "numpy>=2.0",
    "safetensors>=0.4.1",
    "scikit-learn>=1.6",
    "scipy>=1.11",
    "tensorflow>=2.21,<2.22",
    # No wheels for Windows.
    "tensorflow-text>=2.21,<2.22; platform_system != 'Windows'",
    "tokenizers>=0.20",
    "tqdm>=4.66",
  ],
  extras_require={
    "test": [
      "hypothesis>=6.100",
      "pytest>=8.0",
      "pytest-xdist>=3.5",
      "ruff>=0.17,<0.18",
    ],
    # Runs LiteRT models; TensorFlow 2.21's own interpreter does as well.
    "litert": ["ai-edge-litert>=2.1"],
    "plots": ["matplotlib>=3.8"],
    "bench": ["torch>=2.4", "transformers>=4.45"],
    "parity": [
      "sentence-transformers>=3.0",
      "torch>=2.4",
      "transformers>=4.45",
    ],
  },
)
