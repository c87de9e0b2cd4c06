"""Installs data files beside the modules; everything else is in pyproject.toml.

The modules are top-level ones, and setuptools ships data files only with packages. So the build
step that collects the modules collects these files too.
"""

from __future__ import annotations

import glob
import os

from setuptools import setup
from setuptools.command.build_py import build_py

# found at run time by their place beside the modules
DATA_FILES = [".theanorc_gru4rec", *sorted(glob.glob("kernels/**/*.*", recursive=True))]


class BuildWithData(build_py):
    """`build_py` that copies `DATA_FILES` into the root of what gets installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install reads the files where they are
            for name in DATA_FILES:
                target = os.path.join(self.build_lib, name)
                self.mkpath(os.path.dirname(target))
                self.copy_file(name, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        copied = [os.path.join(self.build_lib, name) for name in DATA_FILES]
        return super().get_outputs(include_bytecode) + ([] if self.editable_mode else copied)

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *DATA_FILES]


setup(cmdclass={"build_py": BuildWithData})
