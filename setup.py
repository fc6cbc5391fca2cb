"""All metadata of the package."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+?)"', (HERE / "beam_cifar/version.py").read_text(encoding="utf-8"))[1]

setup(
    name="beam_cifar",
    version=VERSION,
    description="Convert CIFAR-10, CIFAR-100 and other image-classification datasets with Apache Beam; no unpickling",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords="apache-beam, cifar, cifar-10, cifar-100, dataset conversion, datumaro, image-classification, imagenet, "
    "mnist, parquet, pickle, tfrecord, webdataset",
    # No classifier of the licence: setuptools refuses one beside an expression (PEP 639).
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["beam_cifar", "beam_cifar.*"]),
    package_data={
        "beam_cifar": ["py.typed", "manifest.schema.json", "providers.yaml"],
        "beam_cifar.report": ["templates/*"],
    },
    python_requires=">=3.10",
    # Lower bounds are tested by `make test-oldest`, the versions of requirements.in by all else; docs/architecture.md
    # says why none is lower.
    install_requires=[
        "apache-beam>=2.72,<2.78",
        "google-crc32c>=1.5,<2",
        "isal>=1.6.1,<2",
        "jinja2>=3.1.2,<4",
        "lxml>=4.9.4,<7",
        "numpy>=2.0.2,<2.5",
        "pillow>=12.1.1,<13",
        "pyarrow>=21,<26",
        "rapidgzip>=0.16.1,<0.17",
        "shtab>=1.9.3,<2",
    ],
    extras_require={
        # The versions that are tested are in requirements.in.
        "aws": ["boto3>=1.36,<2"],
        "gcp": ["google-cloud-storage>=3,<4"],
        # For pipelines of Beam YAML.
        "yaml": ["apache-beam[yaml]>=2.77,<2.78"],
        # Many libraries, and 0.5 s more at each start: for jobs on Dataflow alone.
        "dataflow": ["apache-beam[gcp]>=2.77,<2.78"],
        # flask and flask-cors: what moto's server needs of moto[server]; the parser of docstrings, quickjs-ng and
        # virtualenv-clone: what Beam YAML needs.
        "test": [
            "boto3>=1.36,<2",
            "datasets",
            "docstring-parser",
            "flask",
            "flask-cors",
            "google-cloud-storage>=3,<4",
            "hypothesis",
            "ipython",
            "jsonschema",
            "moto[s3]",
            "pandas<2.4",  # what data frames of Beam need
            "pytest",
            "pytest-xdist",
            "pyyaml",
            "quickjs-ng>=0.14",
            "virtualenv-clone",
        ],
        "lint": ["mypy", "pyright[nodejs]", "ruff"],
        # Signatures are formatted by ruff.
        "docs": [
            "mkdocs>=1.6.1,<2",
            "mkdocs-material>=9.8.2,<10",
            "mkdocstrings>=1.0.8,<2",
            "mkdocstrings-python>=2.0.11,<3",
            "pymdown-extensions>=13.1.2,<14",
            "ruff",
        ],
    },
    entry_points={"console_scripts": ["beam-cifar = beam_cifar.__main__:run"]},
)
