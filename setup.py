from setuptools import setup

LIBRARIES = [
  "attention_report",
  "checkpoint_io",
  "classifier_data",
  "classifier_results",
  "cli_flags",
  "device_strategy",
  "example_files",
  "fine_tuning",
  "graph_classifier",
  "graph_encoder",
  "graph_squad",
  "graph_tokenization",
  "hugging_face",
  "input_pipeline",
  "litert_export",
  "mask_filling",
  "model_evaluation",
  "model_export",
  "model_files",
  "model_growth",
  "modeling",
  "optimization",
  "predictor",
  "run_directory",
  "run_forecast",
  "squad_data",
  "squad_decoding",
  "squad_results",
  "stop_signals",
  "task_metrics",
  "tokenization",
  "training_log",
  "training_loop",
  "weight_conversion",
  "worker_watchdog",
]
SCRIPTS = [
  "build_vocab",
  "convert_checkpoint",
  "create_pretraining_data",
  "extract_features",
  "run_classifier",
  "run_fill_mask",
  "run_predict",
  "run_pretraining",
  "run_squad",
]

with open("README.md", encoding="utf-8") as readme:
  long_description = readme.read()

setup(
  name="bert-keras3",
  version="0.1.0",
  description="google-research/bert for TensorFlow 2.21 and Keras 3",
  long_description=long_description,
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  python_requires=">=3.11",
  py_modules=LIBRARIES + SCRIPTS,
  entry_points={
    "console_scripts": [
      f"bert-{name.removeprefix('run_').replace('_', '-')} = {name}:cli"
      for name in SCRIPTS
    ]
  },
  install_requires=[
    "absl-py>=2.1",
    "google-crc32c>=1.5",
    "h5py>=3.11",
    # The behaviour listed in the README was verified on these minor versions.
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
