"""PEP 517 backend that builds Theano 1.0.5 on Python 3.12 and later.

Theano's setup.py takes `configparser.SafeConfigParser` and its method `readfp` from the standard
library; Python 3.12 removed both, and nothing else stops the build. So pip builds the source
package of PyPI, or of the index that pip is configured for, in a process that has the two names
again (``restored/sitecustomize.py``). No file of Theano is kept or changed here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "Theano==1.0.5"
RESTORED = Path(__file__).resolve().parent / "restored"


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Build the wheel into a directory and return its file name."""
    target = Path(wheel_directory)
    # what pip has installed to build with, and the restored names before all
    path = os.pathsep.join([str(RESTORED), *filter(None, sys.path)])
    # these variables name this backend: pip would call it again, without end
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("_PYPROJECT_HOOKS_", "PEP517_"))
    }
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", REQUIREMENT),
            *("--no-deps", "--no-binary=Theano", "--use-pep517", "--no-build-isolation"),
            *("--wheel-dir", str(target)),
        ],
        env={**environment, "PYTHONPATH": path},
        check=True,
    )
    (wheel,) = (file.name for file in target.iterdir() if file.name.lower().startswith("theano-"))
    return wheel


def build_sdist(sdist_directory, config_settings=None):
    """Refuse: Theano's source package is on PyPI."""
    raise NotImplementedError(f"{REQUIREMENT} has a source package on PyPI")
