"""Package metadata. Tool settings stand in pyproject.toml, exact versions in requirements.lock."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
# The version is defined in the package.
VERSION = re.search(
  r'^__version__ = "(.+)"$', (HERE / "genbench_jax" / "__init__.py").read_text(), re.MULTILINE
)[1]

# transformers reads tokenizers; the networks are this package's own. Below 5.3 it has CVE-2026-4372.
RUNTIME = [
  "absl-py>=2.1",
  "array-record>=0.8; sys_platform == 'linux'",
  "diffusers[flax]",
  "etils[epath]>=1.12",
  "filelock>=3.16",
  "flax>=0.12.8",
  "grain>=0.2.15",
  "huggingface-hub>=0.34",
  "jax>=0.10.2",
  "jaxtyping>=0.3",
  "jinja2>=3.1",
  "matplotlib>=3.10",
  "ml_collections>=1.1",
  "ml_dtypes>=0.5",
  "numpy>=2.0",
  "optax>=0.2.6",
  "orbax-checkpoint>=0.12.8,<0.13",
  "pillow>=11.3",
  "pyarrow>=21",
  "pyyaml>=6.0",
  "safetensors>=0.6",
  "scikit-learn>=1.7",
  "scipy>=1.15",
  "tensorflow-datasets>=4.9.9",
  "tokenizers>=0.21",
  "tqdm>=4.67",
  "transformers>=5.3",
]
# Only the builders of TensorFlow Datasets need these, and only to prepare data.
PREPARE = ["tensorflow-cpu>=2.20", "opencv-python-headless>=4.11", "h5py>=3.12"]
TEST = [
  "beartype>=0.22",
  "chex>=0.1.90",
  "datasets>=4.0,<5",
  "hypothesis>=6.140",
  "ipykernel>=6.30",
  "jsonschema>=4.25",
  "nbclient>=0.10",
  "pandas>=2.3",
  "pytest>=8.4",
  "pytest-cov>=7.0",
  "pytest-xdist>=3.8",
  "selenium>=4.35",
  "tensorboardX>=2.6",
]
DOCS = ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0"]
# setuptools and wheel build the package; they are locked as well.
DEV = [
  *TEST,
  *DOCS,
  "import-linter>=2.5",
  "mypy>=1.18",
  "ruff>=0.14",
  "setuptools>=77",
  "types-tqdm>=4.67",
  "wheel>=0.45",
]


class BuildWithConfigs(build_py):
  """Puts configs/ into the wheel as data, where `genbench run demo` finds them without a checkout."""

  def run(self) -> None:
    super().run()
    if self.editable_mode:
      return
    target = Path(self.build_lib) / "genbench_jax" / "configs"
    target.mkdir(parents=True, exist_ok=True)
    for config in (HERE / "configs").glob("*.py"):
      shutil.copyfile(config, target / config.name)


setup(
  name="genbench_jax",
  version=VERSION,
  cmdclass={"build_py": BuildWithConfigs},
  description="How good are generated images as training data for recognition? GenBench on TPU and GPU.",
  long_description=(HERE / "README.md").read_text(encoding="utf-8"),
  long_description_content_type="text/markdown",
  license="Apache-2.0",
  license_files=["LICENSE"],
  python_requires=">=3.11",
  classifiers=[
    "Programming Language :: Python :: 3.11",
    "Programming Language :: Python :: 3.12",
    "Programming Language :: Python :: 3.13",
  ],
  packages=find_packages(include=["genbench_jax", "genbench_jax.*"]),
  entry_points={"console_scripts": ["genbench=genbench_jax.__main__:main"]},
  package_data={
    "genbench_jax": ["py.typed"],
    "genbench_jax.benchmark": ["data/**"],
    "genbench_jax.planning": ["*.yaml"],
    "genbench_jax.report": ["assets/*", "templates/*"],
    "genbench_jax.zoo": ["checkpoints/**", "*.md"],
  },
  install_requires=RUNTIME,
  extras_require={
    "prepare": PREPARE,
    "tpu": ["jax[tpu]"],
    "cuda": ["jax[cuda13]"],
    "tensorboard": ["tensorboardX>=2.6"],
    "wandb": ["wandb>=0.20"],
    "gcs": ["gcsfs>=2025.9"],
    "s3": ["s3fs>=2025.9"],
    "docs": DOCS,
    "test": TEST,
    "dev": DEV,
  },
)
