"""Dependencies of the package; everything else about it is in pyproject.toml.

From Python 3.12 on, Theano's source package cannot be built without help, and one dependency is the
directory here that builds it. Its address is known only where this runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup

THEANO = "Theano==1.0.5"
if sys.version_info >= (3, 12):
    THEANO = f"Theano @ {(Path(__file__).resolve().parent / 'theano_wheel').as_uri()}"

# ranges are wide, since users install beside their own packages; requirements.txt is what is tested
setup(
    install_requires=[
        THEANO,
        "numpy>=1.20,<3",
        "scipy",
        "scipy-openblas32",
        "pandas>=2,<4",
        "tqdm",
    ]
)
