"""Puts the examples into the wheel, as `codesign/examples`: in the repository they lie beside the packages."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithExamples(build_py):
    """Copies the configurations of `examples/` beside the modules, except in an editable installation."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "codesign" / "examples"
        self.mkpath(str(target))
        for source in sorted(Path("examples").glob("*.toml")):
            self.copy_file(str(source), str(target / source.name))


setup(cmdclass={"build_py": BuildWithExamples})
