"""The one thing that pyproject.toml cannot say: the tasks in `evals/` are installed as `lco/tasks`."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["lco*"]), "lco.tasks"], package_dir={"lco.tasks": "evals"})
