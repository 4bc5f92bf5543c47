"""Package metadata: two libraries, the range of TensorFlow that they run on, and what each use of them needs."""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "tf_pixpro" / "version.py").read_text()).group(1)

# The core runs on every TensorFlow since 2.15 and chooses none. Model Garden has a version for each TensorFlow: 2.15
# (the last with Addons) below Python 3.12, 2.20 (with `tf_keras` for its Keras 2) from there on.
OLD, NEW = "python_version < '3.12'", "python_version >= '3.12'"

CORE = ["tensorflow>=2.15", "numpy", "pillow"]  # Pillow finds the images that cannot be read
GARDEN = [
    f"tensorflow~=2.15.1; {OLD}",
    f"tensorflow~=2.20.0; {NEW}",
    f"tf_keras~=2.20.0; {NEW}",
    f"tf-models-official~=2.15.0; {OLD}",
    f"tf-models-official~=2.20.0; {NEW}",
    f"tensorflow-metadata<1.16; {OLD}",  # newer ones need protobuf 5
    f"pyarrow<26; {OLD}",  # newer ones need numpy 2
    "setuptools<82",  # tensorflow_hub imports pkg_resources
]
DATA = ["tensorflow-datasets"]
TRANSFER = [*GARDEN, *DATA, "tqdm"]
SEARCH = ["optuna>=4.5,<6", "distributed>=2023.7"]
POSTGRESQL = ["psycopg[binary]"]  # a study that many machines share
EXTRAS = {
    "addons": [f"tensorflow~=2.15.1; {OLD}", f"tensorflow-addons~=0.23.0; {OLD}"],
    "data": DATA,
    "transfer": TRANSFER,
    "search": SEARCH,
    "postgresql": POSTGRESQL,
    "tpu": [f"jax>=0.10; {NEW}", f"libtpu; {NEW}"],  # the TPU's compiler, on Linux without a TPU
    "safetensors": ["safetensors"],  # backbone files of that kind
    # Exports of that kind; onnx 1.19 needs an ml_dtypes that TensorFlow 2.15 does not allow.
    "onnx": ["tf2onnx>=1.16", f"onnx<1.19; {OLD}", f"onnx; {NEW}", "onnxruntime"],
    "pytorch": ["torch"],  # for three tests of files that PyTorch itself has written; they are skipped without it
    "experiments": [
        *TRANSFER,
        *SEARCH,
        "absl-py",
        "ml_collections",
        "matplotlib",
        "safetensors",
        "scikit-learn",
        "scipy",
    ],
    "test": [
        *POSTGRESQL,
        "build",
        "hypothesis",
        "ipykernel",
        "nbclient",
        "pytest",
        "pytest-cov",
        "pytest-timeout",
        "pytest-xdist",
        "ruff",
        "mypy",
        "scipy",
        "pdoc",
    ],
}

LIBRARIES = find_packages(include=["tf_pixpro", "tf_pixpro.*", "tf_evonorm*"])
PROGRAMS = find_packages(include=["experiments*"])  # in a wheel below `tf_pixpro_programs`: the name is a common one

setup(
    name="tf-pixpro",
    version=VERSION,
    description="PixPro pre-training and EvoNorm layers for TensorFlow and Keras",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.9",
    packages=[*LIBRARIES, "tf_pixpro_programs", *(f"tf_pixpro_programs.{name}" for name in PROGRAMS)],
    package_dir={"tf_pixpro_programs.experiments": "experiments"},
    package_data={"tf_pixpro": ["py.typed"], "tf_evonorm": ["py.typed", "found/*.json"]},
    entry_points={
        "console_scripts": [
            "tf-pixpro = tf_pixpro_programs:pixpro",
            "tf-evonorm = tf_pixpro_programs:evonorm",
        ]
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
